// Pgo takes the CPU profile of ringnbd under a bounded set of loads and writes it where go build
// looks for it: cmd/ringnbd/default.pgo. The compiler then inlines and lays out what is hot.
//
// Usage, from the top of the repository (make pgo does it):
//
//	go run ./bench/pgo --ringnbd bin/ringnbd --out cmd/ringnbd/default.pgo
//
// Invariant: the old profile stays until the new one is whole, and no process or file is left.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"ringnbd/bench/flags"
	"ringnbd/bench/measure"
	"ringnbd/bench/profile"
)

// maxSize bounds what is put into the repository, in bytes.
const maxSize = 100_000

func main() {
	f := flags.New("go run ./bench/pgo", os.Stderr)
	ringnbd := f.String("ringnbd", "bin/ringnbd", "the `PROGRAM` to profile")
	out := f.String("out", "cmd/ringnbd/default.pgo", "write the profile to this `FILE`")
	dir := f.String("dir", os.TempDir(), "`DIRECTORY` for the test file")
	seconds := f.Float64("seconds", 10, "`SECONDS` of each load's profile")
	if err := flags.Parse(f, os.Args[1:]); errors.Is(err, flags.ErrHelp) {
		return
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "pgo:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *ringnbd, *dir, *out, *seconds, loads()); err != nil {
		fmt.Fprintln(os.Stderr, "pgo:", err)
		os.Exit(1)
	}
}

// loads are the usual work of a server, for a profile: small and large requests, reads and writes,
// with a disk and without.
func loads() []measure.Load {
	load := func(backend, transport, pattern string, size, depth, connections int) measure.Load {
		l := measure.Load{Pattern: pattern, BlockSize: size, Depth: depth, Connections: connections,
			Transport: transport, Backend: backend}
		if pattern == "randrw" {
			l.ReadPercent = 70
		}
		return l
	}
	return []measure.Load{
		load(measure.Null, measure.Unix, "randread", 4<<10, 32, 4),
		load(measure.Null, measure.TCP, "randread", 4<<10, 32, 1),
		load(measure.Null, measure.TCP, "randwrite", 4<<10, 32, 4),
		load(measure.Null, measure.Unix, "randrw", 16<<10, 8, 16),
		load(measure.File, measure.Unix, "randread", 4<<10, 32, 4),
		load(measure.File, measure.TCP, "randread", 4<<10, 32, 1),
		load(measure.File, measure.Unix, "randwrite", 4<<10, 32, 4),
		load(measure.File, measure.TCP, "randrw", 64<<10, 16, 4),
		load(measure.File, measure.Unix, "randwrite", 512, 32, 1),
		load(measure.File, measure.Unix, "read", 1<<20, 16, 1),
		load(measure.File, measure.TCP, "write", 1<<20, 16, 1),
		load(measure.File, measure.Unix, "randread", 4<<10, 1, 1),
	}
}

func run(ctx context.Context, ringnbd, dir, out string, seconds float64,
	loads []measure.Load) error {
	path, err := filepath.Abs(ringnbd)
	if err != nil {
		return err
	}
	s := &measure.Suite{Generator: path, Dir: dir, Size: 256 << 20, Seconds: seconds / 5,
		Warmup: 0.2,
		Loads:  loads, Progress: os.Stderr}
	p, err := profile.Merge(ctx, s, measure.Ringnbd(path))
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(out), "pgo-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // gone by then, if all went well
	if err := p.Write(file); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if info.Size() > maxSize {
		return fmt.Errorf("the profile has %d bytes, more than %d: give a shorter -seconds",
			info.Size(), maxSize)
	}
	if err := os.Chmod(file.Name(), 0o644); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), out); err != nil {
		return err
	}
	fmt.Printf("%s: %d stacks, %d functions, %d bytes\n", out, len(p.Sample), len(p.Function),
		info.Size())
	return nil
}
