// Standard input as a source: bytes in order, of a length that is not known.
//
// Invariant: data is handed to the slots in order, each piece with its bytes. The goroutine that
// reads may be left behind in a read that never ends; it then touches nothing that is used again.

package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"ringnbd/engine/backing"
	"ringnbd/engine/client"
)

// inflow is standard input.
type inflow struct {
	f      *os.File
	total  uint64 // bytes that were handed out; belongs to the goroutine of feed
	raw    bool   // taken as a raw disk whatever it looks like
	locked bool
}

// openInflow checks what standard input is, and locks a redirected file or device.
func openInflow(o *Options, f *os.File) (*inflow, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", bareError(err))
	}
	in := &inflow{f: f, raw: o.Raw}
	switch mode := info.Mode(); {
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice != 0 && isTerminal(f):
		return nil,
			errors.New("standard input is a terminal; give it a file, or the output of a command")
	case closedStream(f, info):
		return nil,
			errors.New("standard input is closed; give it a file, or the output of a command")
	case mode.IsDir():
		return nil, errors.New("standard input is a directory")
	case !hasNoBlocks(mode):
		in.locked = true
		if err := o.claimFile(f,
			backing.Claim{Path: "standard input", Still: true}); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func (in *inflow) name() string    { return "standard input" }
func (in *inflow) size() uint64    { return 0 } // the size is not known
func (in *inflow) block() uint64   { return 1 }
func (in *inflow) payload() uint64 { return 1 << 30 }
func (in *inflow) stretch() uint64 { return 1 << 30 }
func (in *inflow) grain() uint64   { return 4 << 10 }
func (in *inflow) lanes() int      { return 1 }
func (in *inflow) mapped() bool    { return false }
func (in *inflow) dropCache()      {}

// close releases the lock, as close of outflow does. The file stays open, because a read may be
// running.
func (in *inflow) close() error {
	if in.locked {
		backing.Release(int(in.f.Fd()))
	}
	return nil
}

// errInOrder is the error of the methods that need a source that can be read anywhere.
var errInOrder = errors.New("standard input can only be read in order")

func (in *inflow) extents(context.Context, uint64, func(extent) error) error { return errInOrder }
func (in *inflow) read(context.Context, int, *client.Request, []byte, uint64) error {
	return errInOrder
}
func (in *inflow) write(context.Context, int, *client.Request, []byte, uint64) error {
	return errInOrder
}
func (in *inflow) zero(context.Context, int, *client.Request, uint64, uint64, bool) (bool, error) {
	return false, errInOrder
}
func (in *inflow) flush(context.Context) error { return nil }
func (in *inflow) identity() identity          { return identity{Place: streamText} }

// streamPart is the result of reading a piece from a stream.
type streamPart struct {
	buffer *[]byte
	n      int   // bytes in it
	err    error // io.EOF with the last part
}

// feed reads to the end, and hands out pieces, whose buffers the slots return to the pool.
func (in *inflow) feed(ctx context.Context, j *job, give func(piece) error) error {
	parts := make(chan streamPart)
	gone := make(chan struct{})
	defer close(gone)
	go in.readParts(j, parts, gone)
	room, block := j.destination.size(), j.destination.block()
	for first := true; ; first = false {
		var part streamPart
		select {
		case part = <-parts:
		case <-ctx.Done():
			return ErrInterrupted
		case <-j.failed.stop:
			return errStopped
		}
		ended := part.err == io.EOF
		if part.err != nil && !ended {
			return fmt.Errorf("standard input: %w after %d bytes", bareError(part.err), in.total)
		}
		if first && !in.raw {
			if err := lookAhead((*part.buffer)[:part.n], ended); err != nil {
				return err
			}
		}
		n := uint64(part.n)
		switch {
		case n > room-in.total:
			return fmt.Errorf("%s: has %d bytes, and standard input has more",
				j.destination.name(), room)
		case n%block != 0:
			return fmt.Errorf("%s: accepts only multiples of %d bytes, and standard input ended "+
				"after %d", j.destination.name(), block, in.total+n)
		case n > 0:
			if err := give(piece{offset: in.total, length: n, data: part.buffer}); err != nil {
				return err
			}
			in.total += n
		}
		if ended {
			return nil
		}
	}
}

// readParts reads parts of a request's size until the end, or until feed has returned.
func (in *inflow) readParts(j *job, parts chan<- streamPart, gone <-chan struct{}) {
	for {
		b := j.buffers.Get().(*[]byte)
		n, err := io.ReadFull(in.f, *b)
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		select {
		case parts <- streamPart{b, n, err}:
		case <-gone:
			return
		}
		if err != nil {
			return
		}
	}
}

// lookAhead checks by the first bytes of a stream that it is a raw disk.
func lookAhead(data []byte, all bool) error {
	at := func(b []byte, offset int64) (int, error) {
		if offset > 0 && !all {
			return 0, io.EOF // the last bytes of the data are not the end of the stream
		}
		return copy(b, data[offset:]), nil
	}
	_, err := backing.Look(streamText, uint64(len(data)), at)
	return err
}
