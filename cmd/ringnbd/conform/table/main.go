// Command table runs the conformance suite on ringnbd, qemu-nbd, nbdkit and nbd-server and writes
// the table of all four: make conform.
//
// Invariant: the exit status is 1 if ringnbd fails a check, or if a failure or deviation of any
// server is not explained.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ringnbd/bench/flags"
	"ringnbd/cmd/ringnbd/conform"
)

// program is a server and how it is started, writable and read-only.
type program struct {
	name, path, debian string
	version            []string
	command, readOnly  string
	export             string
}

// nbdServer is a command for nbd-server, which goes into the background: it runs in a process
// namespace that ends with its first process.
const nbdServer = `printf '[generic]\nallowlist = true\nlistenaddr = 127.0.0.1\n` +
	`port = {port}\n[default]\nexportname = %%s\nflush = true\nfua = true\n` +
	`trim = true\n%s' {img} > {dir}/conf; ` +
	`exec unshare --pid --fork --kill-child sh -c "nbd-server -C {dir}/conf; exec sleep infinity"`

func programs(ringnbd string) []program {
	return []program{
		{name: "ringnbd", path: ringnbd, version: []string{"--version"},
			command:  ringnbd + " serve {port} {img}",
			readOnly: ringnbd + " serve --read-only {port} {img}"},
		{name: "qemu-nbd", path: "qemu-nbd", debian: "qemu-utils", version: []string{"--version"},
			command:  "qemu-nbd -f raw -b localhost -p {port} -t -e 0 -x '' {img}",
			readOnly: "qemu-nbd -r -f raw -b localhost -p {port} -t -e 0 -x '' {img}"},
		{name: "nbdkit", path: "nbdkit", debian: "nbdkit", version: []string{"--version"},
			command: "nbdkit -f -i localhost -p {port} --filter=exportname file {img} " +
				"exportname= exportname-strict=true",
			readOnly: "nbdkit -f -r -i localhost -p {port} --filter=exportname file {img} " +
				"exportname= exportname-strict=true"},
		{name: "nbd-server", path: "nbd-server", debian: "nbd-server", version: []string{"-V"},
			export:   "default",
			command:  fmt.Sprintf(nbdServer, ""),
			readOnly: fmt.Sprintf(nbdServer, `readonly = true\n`)},
	}
}

func main() {
	f := flags.New("go run ./cmd/ringnbd/conform/table", os.Stderr)
	ringnbd := f.String("ringnbd", "bin/ringnbd", "the `PROGRAM` to check")
	out := f.String("out", "", "write the table to `FILE` (default: standard output)")
	only := f.String("only", "", "only the checks that these `PATTERNS` pick, with commas")
	servers := f.String("servers", "ringnbd,qemu-nbd,nbdkit,nbd-server",
		"these `SERVERS`, with commas")
	timeout := f.Duration("timeout", conform.DefaultTimeout, "give a check at most this `TIME`")
	if err := flags.Parse(f, os.Args[1:]); errors.Is(err, flags.ErrHelp) {
		return
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "conform:", err)
		os.Exit(2)
	}
	if err := run(*ringnbd, *out, *only, *servers, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "conform:", err)
		os.Exit(1)
	}
}

func run(ringnbd, out, only, servers string, timeout time.Duration) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ringnbd, err := filepath.Abs(ringnbd)
	if err != nil {
		return err
	}
	checks, idle := conform.Only(conform.Checks(), strings.FieldsFunc(only, func(r rune) bool {
		return r == ','
	}))
	if idle != "" {
		return fmt.Errorf("--only %s selects no check", idle)
	}
	var peers []conform.Peer
	for _, p := range programs(ringnbd) {
		if !strings.Contains(","+servers+",", ","+p.name+",") {
			continue
		}
		peer, err := p.run(ctx, checks, timeout)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if peer.Report != nil {
			peers = append(peers, peer)
		}
	}
	if len(peers) == 0 {
		return fmt.Errorf("none of %s is installed", servers)
	}
	if err := write(out, peers); err != nil {
		return err
	}
	return judge(peers)
}

// run runs the suite. For a server that is not installed it prints so and returns no report.
func (p *program) run(ctx context.Context, checks []conform.Check,
	timeout time.Duration) (conform.Peer, error) {
	peer := conform.Peer{Name: p.name,
		Command: strings.ReplaceAll(p.command, p.path, filepath.Base(p.path))}
	if _, err := exec.LookPath(p.path); err != nil {
		if p.debian == "" {
			return peer, err
		}
		fmt.Fprintf(os.Stderr, "%s is not installed (Debian package %s): left out\n",
			p.name, p.debian)
		return peer, nil
	}
	// without a version if the server does not say it
	version, _ := exec.CommandContext(ctx, p.path, p.version...).CombinedOutput()
	first, _, _ := strings.Cut(strings.TrimSpace(string(version)), "\n")
	peer.Version = strings.TrimSpace(first)
	fmt.Fprintf(os.Stderr, "%s ...\n", p.name)
	report, err := conform.Run(ctx,
		conform.Config{Spawn: p.command, SpawnReadOnly: p.readOnly, Export: p.export,
			Size: conform.DefaultSize, Checks: checks, Timeout: timeout})
	if err != nil {
		return peer, err
	}
	peer.Report = report
	fmt.Fprintf(os.Stderr, "%s: %s\n", p.name, report.Summary())
	return peer, nil
}

func write(out string, peers []conform.Peer) error {
	var b bytes.Buffer
	if err := conform.Markdown(&b, peers); err != nil {
		return err
	}
	if out == "" {
		_, err := os.Stdout.Write(b.Bytes())
		return err
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}

// judge returns an error for failures of ringnbd and for what is not explained.
func judge(peers []conform.Peer) error {
	var wrong []string
	for _, p := range peers {
		if n := p.Report.Counts[conform.Fail]; p.Name == "ringnbd" && n > 0 {
			wrong = append(wrong, fmt.Sprintf("ringnbd fails %d checks", n))
		}
		if profile := p.Report.Profile; profile != nil && p.Name == "ringnbd" &&
			len(profile.Problems) > 0 {
			wrong = append(wrong, "before the first check ringnbd does not answer: "+
				strings.Join(profile.Problems, "; "))
		}
	}
	if list := conform.Unexplained(peers); len(list) > 0 {
		wrong = append(wrong, "unexplained: "+strings.Join(list, ", "))
	}
	if list := conform.Idle(peers); len(list) > 0 {
		fmt.Fprintf(os.Stderr, "explained, and not seen this time: %s\n", strings.Join(list, ", "))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	return nil
}
