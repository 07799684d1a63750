// Standard input as a source: bytes in order, and nobody knows how many.
//
// Invariant: what is read is given to the slots in order, each piece with its bytes; the goroutine
// that reads may be left behind in a read that never ends, and touches nothing then that is used
// again.

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
	total  uint64 // bytes that were given to be written; belongs to who feeds
	raw    bool   // whatever it looks like
	locked bool
}

// openInflow looks at what standard input is: a redirected file or device is somebody's, too.
func openInflow(o *Options, f *os.File) (*inflow, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", bare(err))
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
	case !blockless(mode):
		in.locked = true
		if err := o.claim(f,
			backing.Claim{Path: "standard input", Still: true}); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func (in *inflow) name() string    { return "standard input" }
func (in *inflow) size() uint64    { return 0 } // not known
func (in *inflow) block() uint64   { return 1 }
func (in *inflow) payload() uint64 { return 1 << 30 }
func (in *inflow) stretch() uint64 { return 1 << 30 }
func (in *inflow) grain() uint64   { return 4 << 10 }
func (in *inflow) lanes() int      { return 1 }
func (in *inflow) mapped() bool    { return false }
func (in *inflow) forget()         {}

// close lets go of the lock, as outflow's does. The file stays open: a read may be under way.
func (in *inflow) close() error {
	if in.locked {
		backing.Release(int(in.f.Fd()))
	}
	return nil
}

// The rest of an end belongs to sources that can be read anywhere.
var errInOrder = errors.New("standard input is read in order alone")

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
func (in *inflow) identity() Identity          { return Identity{Place: streamText} }

// gulp is what one piece's worth of reading gave.
type gulp struct {
	buffer *[]byte
	n      int   // bytes in it
	err    error // io.EOF behind the last
}

// feed reads to the end, and gives pieces that must be done and then returned to the buffers.
func (in *inflow) feed(ctx context.Context, j *job, give func(piece) error) error {
	gulps := make(chan gulp)
	gone := make(chan struct{})
	defer close(gone)
	go in.gulp(j, gulps, gone)
	room, block := j.destination.size(), j.destination.block()
	for first := true; ; first = false {
		var g gulp
		select {
		case g = <-gulps:
		case <-ctx.Done():
			return ErrInterrupted
		case <-j.failed.stop:
			return errStopped
		}
		ended := g.err == io.EOF
		if g.err != nil && !ended {
			return fmt.Errorf("standard input: %w after %d bytes", bare(g.err), in.total)
		}
		if first && !in.raw {
			if err := lookAhead((*g.buffer)[:g.n], ended); err != nil {
				return err
			}
		}
		n := uint64(g.n)
		switch {
		case n > room-in.total:
			return fmt.Errorf("%s: has %d bytes, too few for standard input, which has more",
				j.destination.name(), room)
		case n%block != 0:
			return fmt.Errorf("%s: takes multiples of %d bytes only, and standard input ended "+
				"after %d",
				j.destination.name(), block, in.total+n)
		case n > 0:
			if err := give(piece{offset: in.total, length: n, data: g.buffer}); err != nil {
				return err
			}
			in.total += n
		}
		if ended {
			return nil
		}
	}
}

// gulp reads pieces of a request's size until the end, or until nobody wants more.
func (in *inflow) gulp(j *job, gulps chan<- gulp, gone <-chan struct{}) {
	for {
		b := j.buffers.Get().(*[]byte)
		n, err := io.ReadFull(in.f, *b)
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		select {
		case gulps <- gulp{b, n, err}:
		case <-gone:
			return
		}
		if err != nil {
			return
		}
	}
}

// lookAhead sees by the first bytes of a stream whether it is a raw disk.
func lookAhead(data []byte, all bool) error {
	at := func(b []byte, offset int64) (int, error) {
		if offset > 0 && !all {
			return 0, io.EOF // what is last here is not the end
		}
		return copy(b, data[offset:]), nil
	}
	_, err := backing.Look(streamText, uint64(len(data)), at)
	return err
}
