// Standard output as a destination: bytes in order. As many pieces as there are slots are read
// ahead, and written one after the other.
//
// Invariant: a piece is written after all pieces before it. Bytes that were reported as copied were
// accepted by the kernel and, of a file or device, are on the disk.

package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"ringnbd/engine/backing"
	"ringnbd/engine/client"
)

// outflow is standard output.
type outflow struct {
	f       *os.File
	from    int64 // offset in a file where the copy begins
	sparse  bool  // zeroes at the end of a file are skipped, and flush makes it long enough
	durable bool  // a file or block device
	written atomic.Uint64
}

// openOutflow checks what standard output is, and locks a redirected file or device.
func openOutflow(o *Options, f *os.File, source end) (*outflow, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("standard output: %w", bareError(err))
	}
	out := &outflow{f: f}
	switch mode := info.Mode(); {
	case mode&os.ModeCharDevice != 0 && isTerminal(f):
		return nil, errors.New("standard output is a terminal, and a disk is not text; " +
			"redirect it to a file, or into a command")
	case closedStream(f, info):
		return nil, errors.New("standard output is closed; use null: to discard the copy")
	case !hasNoBlocks(mode):
		if err := checkDistinct(source, f, "standard output"); err != nil {
			return nil, err
		}
		c := backing.Claim{Path: "standard output", Write: true, Resize: true}
		if err := o.claimFile(f, c); err != nil {
			return nil, err
		}
		out.durable = true
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
		at, errSeek := f.Seek(0, io.SeekCurrent)
		if err == nil && errSeek == nil {
			out.from = at
			out.sparse = mode.IsRegular() && flags&unix.O_APPEND == 0 && at == info.Size()
		}
	}
	return out, nil
}

func (out *outflow) name() string    { return "standard output" }
func (out *outflow) size() uint64    { return math.MaxInt64 }
func (out *outflow) block() uint64   { return 1 }
func (out *outflow) payload() uint64 { return 1 << 30 }
func (out *outflow) stretch() uint64 { return 1 << 30 }
func (out *outflow) grain() uint64   { return 4 << 10 }
func (out *outflow) lanes() int      { return 1 }
func (out *outflow) mapped() bool    { return false }
func (out *outflow) dropCache()      {}

// close releases the lock: the parent process has the same open file, and may keep it open.
func (out *outflow) close() error {
	if out.durable {
		backing.Release(int(out.f.Fd()))
	}
	return nil
}

// errOutOfOrder is the error of the methods that need a destination that can be written anywhere.
var errOutOfOrder = errors.New("standard output can only be written in order")

func (out *outflow) extents(context.Context, uint64, func(extent) error) error {
	return errOutOfOrder
}
func (out *outflow) read(context.Context, int, *client.Request, []byte, uint64) error {
	return errOutOfOrder
}
func (out *outflow) write(context.Context, int, *client.Request, []byte, uint64) error {
	return errOutOfOrder
}
func (out *outflow) zero(context.Context, int, *client.Request, uint64, uint64,
	bool) (bool, error) {
	return false, errOutOfOrder
}
func (out *outflow) identity() identity { return identity{Place: streamText} }

// flush gives a file its length, and brings its data to the disk.
func (out *outflow) flush(context.Context) error {
	if !out.durable {
		return nil
	}
	end := out.from + int64(out.written.Load())
	if out.sparse {
		if info, err := out.f.Stat(); err == nil && info.Size() < end {
			if err := out.f.Truncate(end); err != nil {
				return fmt.Errorf("standard output: %w", bareError(err))
			}
		}
	}
	if err := out.f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) &&
		!errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("standard output: %w while flushing: not all of the copy is on the disk",
			bareError(err))
	}
	return nil
}

// readAhead is a piece that is read before its turn to be written.
type readAhead struct {
	piece
	lane   int
	buffer []byte
	from   client.Request
	err    error
	ready  chan struct{} // receives a value when the piece was read
}

// writePatience is how long the end of a copy waits for a write whose reader does not read.
const writePatience = time.Second

// copyToStream copies the source to standard output.
func (j *job) copyToStream(ctx, hard context.Context) error {
	n := j.slots()
	queue := make(chan *readAhead, n)
	// two more than slots: a piece is being written, and a piece waits to be queued
	places := make([]readAhead, n+2)
	written := make(chan error, 1)
	go func() {
		err := j.writeInOrder(queue)
		j.failed.set(err)
		written <- err
	}()
	next := 0
	err := j.pieces(hard, func(p piece) error {
		a := &places[next%len(places)]
		if a.ready == nil {
			*a = readAhead{lane: next, buffer: make([]byte, j.request),
				ready: make(chan struct{}, 1)}
		}
		a.piece, a.err = p, nil
		next++
		select {
		case queue <- a:
		case <-j.failed.stop:
			return errStopped
		case <-ctx.Done():
			return ErrInterrupted
		}
		if p.zero {
			a.ready <- struct{}{}
			return nil
		}
		go func() {
			a.err = j.source.read(hard, a.lane, &a.from, a.buffer[:a.length], a.offset)
			a.ready <- struct{}{}
		}()
		return nil
	})
	close(queue)
	var patience <-chan time.Time
	interrupted := ctx.Done()
	for {
		select {
		case failed := <-written:
			if failed != nil {
				return failed
			}
			return err
		case <-interrupted:
			interrupted, patience = nil, time.After(writePatience)
		case <-patience: // the reader of the pipe does not read
			return ErrInterrupted
		}
	}
}

// writeInOrder writes the pieces in order; after an error it drops the rest.
func (j *job) writeInOrder(queue <-chan *readAhead) error {
	out := j.destination.(*outflow)
	var failed error
	for a := range queue {
		<-a.ready
		if failed == nil {
			failed = a.err
		}
		if failed == nil {
			failed = out.put(j, a)
		}
		if failed != nil {
			j.failed.set(failed)
			continue
		}
		j.progress.Add(a.length)
	}
	return failed
}

// put writes a piece, without its zeroes if standard output can have holes.
func (out *outflow) put(j *job, a *readAhead) error {
	if a.zero {
		j.zeroed.Add(a.length)
		return out.zeroes(j, a.length)
	}
	b := a.buffer[:a.length]
	if !out.sparse || j.options.Allocated {
		j.copied.Add(a.length)
		return out.bytes(b)
	}
	for offset := a.offset; len(b) > 0; {
		n, zero := leadingRun(b, int(out.grain()), int(offset%out.grain()))
		var err error
		if zero {
			j.zeroed.Add(uint64(n))
			err = out.zeroes(j, uint64(n))
		} else {
			j.copied.Add(uint64(n))
			err = out.bytes(b[:n])
		}
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+uint64(n)
	}
	return nil
}

// zeroes writes n zeroes, or moves on past them in a file that can have holes.
func (out *outflow) zeroes(j *job, n uint64) error {
	if out.sparse && !j.options.Allocated {
		if _, err := out.f.Seek(int64(n), io.SeekCurrent); err != nil {
			return fmt.Errorf("standard output: %w", bareError(err))
		}
		out.written.Add(n)
		return nil
	}
	for n > 0 {
		part := min(n, uint64(len(zeroes)))
		if err := out.bytes(zeroes[:part]); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

func (out *outflow) bytes(b []byte) error {
	n, err := out.f.Write(b)
	total := out.written.Add(uint64(n))
	if errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("standard output: the reader of the pipe has gone after at most %d "+
			"bytes; "+
			"the copy is incomplete", total)
	}
	if err != nil {
		return fmt.Errorf("standard output: %w after %d bytes", bareError(err), total)
	}
	return nil
}

// closedStream reports whether a standard stream was closed when the program began: Go then opens
// /dev/null in its place for both directions, which a redirection of the shell does not.
func closedStream(f *os.File, info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	return ok && err == nil && info.Mode()&os.ModeCharDevice != 0 && st.Rdev == unix.Mkdev(1, 3) &&
		flags&unix.O_ACCMODE == unix.O_RDWR
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
