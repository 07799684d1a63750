// A copy from beginning to end: open both, plan, copy, flush, verify.
//
// Invariant: however a copy ends, every slot has returned before the ends are closed, and the
// destination was flushed if that was possible.

package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"ringnbd/engine/backing"
	"ringnbd/engine/client"
	"ringnbd/engine/units"
)

// Options of a copy.
type Options struct {
	Source, Destination Place
	Connections         int // to each server, if it allows several
	// requests in flight on each connection; 0: DefaultSlots, shared by the connections
	Requests int
	// concurrent system calls on files, each of which has a thread; 0: the number of requests
	Blocked           int
	RequestSize       uint64 // bytes, power of two; less if a server accepts less
	DestinationIsZero bool   // zeroes need not be written
	Allocated         bool   // write all zeroes, and make no holes
	Verify            bool
	Resume            string // path of the state; "": none
	// maximum silence of a server that owes answers, except to FLUSH and the like; after the end of
	// the context, the maximum for all answers; 0: client.DefaultTimeout
	Timeout time.Duration
	Raw     bool // a source file is a raw disk, whatever it looks like
	Force   bool // continue although other programs use a file or device
	// called when both ends are open, and no further connection to a server will be made
	Opened func()
	Show   func(Progress)
	Note   func(string) // receives notes for the user; nil: they are dropped
}

// Progress is how far a copy is.
type Progress struct {
	Phase string // copying, verifying
	Done  uint64 // bytes of the source, zeroes included
	Total uint64 // bytes; 0 of a stream

	Data   uint64 // bytes of data that were moved, or compared; rates count these
	Stream bool   // the total is not known
}

// Report is what a copy did, in bytes.
type Report struct {
	Copied  uint64        // data
	Zeroed  uint64        // zeroes that were written, or left out
	Skipped uint64        // done by an earlier run
	Time    time.Duration // without verifying

	Verified bool // both ends were compared afterwards, and are the same
}

// ErrInterrupted is the error of a copy whose context ended.
var ErrInterrupted = errors.New("interrupted")

// ErrUnanswered is ErrInterrupted if requests in flight were not answered within Options.Timeout.
var ErrUnanswered = fmt.Errorf("%w, and the answers that were owed did not come in time",
	ErrInterrupted)

// ErrUncompared is ErrInterrupted after everything was copied and flushed, but not all compared.
var ErrUncompared = fmt.Errorf("%w while comparing", ErrInterrupted)

// maxMemory bounds the buffers of requests in flight, in bytes; --verify needs as much again.
const maxMemory = 1 << 30

// The phases of a copy, as the progress line names them.
const (
	copying   = "copying"
	verifying = "verifying"
)

const (
	showEvery = 200 * time.Millisecond
	saveTime  = 5 * time.Second
)

// job is a running copy.
type job struct {
	options     *Options
	source      end
	destination end
	grain       uint64 // bytes: shorter zeroes are treated as data
	request     uint64
	blank       bool // the destination reads as zeroes wherever this copy has not written
	done        ledger
	before      []byteRange           // done by an earlier run
	from, to    identity              // of the ends when they were opened
	unflushed   atomic.Pointer[error] // the first flush that failed

	copied, zeroed atomic.Uint64
	compared       atomic.Uint64 // data; not the zeroes of both maps
	progress       atomic.Uint64
	writeZeroes    atomic.Bool // the destination can make zeroes only by writing them
	failed         failure
	saveEvery      time.Duration
	buffers        sync.Pool // of *[]byte, of the request's size, for data of a stream
}

// failure is the first error of any slot.
type failure struct {
	mu   sync.Mutex
	err  error
	stop chan struct{}
}

func (f *failure) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && err != nil {
		f.err = err
		close(f.stop)
	}
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func newJob(o *Options) *job {
	if o.Timeout <= 0 {
		o.Timeout = client.DefaultTimeout
	}
	return &job{options: o, failed: failure{stop: make(chan struct{})}, saveEvery: saveTime}
}

// Run copies. When the context ends, requests in flight are finished if their answers arrive within
// Options.Timeout, and the error is ErrInterrupted.
func Run(ctx context.Context, o Options) (Report, error) {
	j := newJob(&o)
	err := backing.Await(ctx, func() error { return j.open(ctx) })
	if errors.Is(err, backing.ErrHangs) {
		err = fmt.Errorf("opening %s and %s: %w", o.Source.Text, o.Destination.Text, err)
	}
	if err != nil {
		return Report{}, err
	}
	if o.Opened != nil {
		o.Opened()
	}
	return j.run(ctx)
}

// graceContext makes a context for requests in flight: it outlives ctx by d, because requests are
// answered before a copy ends, but not if a server has stopped answering. stop must be called when
// no request is in flight any more.
func graceContext(ctx context.Context, d time.Duration) (hard context.Context, stop func()) {
	hard, end := context.WithCancelCause(context.WithoutCancel(ctx))
	cancel := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(d, func() { end(ErrUnanswered) })
		context.AfterFunc(hard, func() { late.Stop() })
	})
	return hard, func() { cancel(); end(nil) }
}

// run does everything after both ends are open.
func (j *job) run(ctx context.Context) (Report, error) {
	o := j.options
	began := time.Now()
	hard, stop := graceContext(ctx, o.Timeout)
	defer stop()
	stopShowing := j.show(copying)
	err := j.copy(ctx, hard)
	report := Report{Copied: j.copied.Load(), Zeroed: j.zeroed.Load(), Time: time.Since(began)}
	for _, r := range j.before {
		report.Skipped += r.End - r.Start
	}
	stopShowing()
	if err == nil && o.Verify {
		if err = j.verify(ctx, hard); errors.Is(err, ErrInterrupted) {
			err = ErrUncompared
		}
		report.Verified = err == nil
	}
	if err == nil && o.Resume != "" {
		err = discard(o.Resume)
	}
	return report, errors.Join(err, j.close(err))
}

// open opens both ends and checks that they fit.
func (j *job) open(ctx context.Context) (err error) {
	o := j.options
	for _, p := range []*Place{&o.Source, &o.Destination} {
		if p.Target.File() {
			path, _ := backing.ParsePath(p.Target.Address)
			backing.Reach(path)
		}
	}
	backing.Reach(o.Resume)
	if err := o.checkApart(); err != nil {
		return err
	}
	var state *resumeState
	if o.Resume != "" {
		if err := backing.MayMakeNew(o.Resume); err != nil {
			return fmt.Errorf("--resume %w", err)
		}
		if state, err = loadState(o.Resume); err == nil && state != nil {
			err = state.checkPlaces(o.Resume, &o.Source, &o.Destination)
		}
		if err != nil {
			return err
		}
	}
	if j.source, err = openEnd(ctx, o, &o.Source, nil, false); err != nil {
		return err
	}
	j.from = j.source.identity()
	if j.destination, err = openEnd(ctx, o, &o.Destination, j.source, state != nil); err != nil {
		if errors.Is(err, errDestinationGone) {
			err = fmt.Errorf("%s: %w; to copy from the beginning, remove %s", o.Destination.Text,
				err, o.Resume)
		}
		return errors.Join(err, j.source.close())
	}
	j.to = j.destination.identity()
	if err = j.match(); err == nil && state != nil {
		err = state.check(o.Resume, j.from, j.to)
	}
	if err == nil && o.Resume != "" && state == nil {
		// so that a file that cannot be written fails now, and not after an hour
		err = j.save(nil)
	}
	if err != nil {
		if l, ok := j.destination.(*local); ok {
			err = errors.Join(err, l.discard())
		}
		return errors.Join(err, j.source.close(), j.destination.close())
	}
	if state != nil {
		// the earlier run has written more than it could record
		j.before, j.blank = state.Done, false
		for _, r := range state.Done {
			j.done.add(r.Start, r.End)
			j.progress.Add(r.End - r.Start)
		}
	}
	return nil
}

// openEnd opens the source or, if source is given, the destination; begun says that an earlier run
// has written to it.
func openEnd(ctx context.Context, o *Options, p *Place, source end, begun bool) (end, error) {
	var e end
	var err error
	switch {
	case p.Null():
		return null{}, nil
	case p.Stream() && source == nil:
		e, err = openInflow(o, os.Stdin)
	case p.Stream():
		e, err = openOutflow(o, os.Stdout, source)
	case !p.Target.File():
		e, err = dialEnd(ctx, o, p, source)
	case source == nil:
		e, err = openSource(o, p.Target.Address)
	default:
		e, err = openDestination(o, p.Target.Address, source, begun)
	}
	if err != nil {
		return nil, err // e may hold a nil pointer, which is not a nil interface
	}
	return e, nil
}

func dialEnd(ctx context.Context, o *Options, p *Place, source end) (end, error) {
	lanes := o.Connections
	if source != nil && source.lanes() > 1 {
		lanes = min(lanes, source.lanes()) // more would have nothing to do
	}
	slots := max(o.Requests*o.Connections, DefaultSlots, o.Connections)
	r, err := dialAll(ctx, &p.Target, lanes, slots+1, o.Timeout) // one more, for BLOCK_STATUS
	if err == nil {
		r.command = p.Command
	}
	return r, err
}

// match checks that the source can be copied to the destination, and chooses sizes for both.
func (j *job) match() error {
	o, s, d := j.options, j.source, j.destination
	block := max(s.block(), d.block())
	switch {
	case d.size() < s.size():
		return fmt.Errorf("%s: has %d bytes, fewer than the source's %d", d.name(), d.size(),
			s.size())
	case s.size()%s.block() != 0:
		return fmt.Errorf("%s: has %d bytes, which is not a multiple of its minimum block of "+
			"%d bytes: the last %d bytes cannot be read", s.name(), s.size(),
			s.block(), s.size()%s.block())
	case s.size()%d.block() != 0:
		return fmt.Errorf("%s: accepts only multiples of %d bytes, and the source has %d bytes",
			d.name(), d.block(), s.size())
	}
	if r, ok := d.(*remote); ok {
		if err := r.writable(); err != nil {
			return err
		}
	}
	to, isLocal := d.(*local)
	largest := min(o.RequestSize, s.payload(), d.payload())
	for j.request = block; j.request*2 <= largest; {
		j.request *= 2
	}
	j.buffers.New = func() any { b := make([]byte, j.request); return &b }
	if memory := uint64(j.slots()) * j.request; memory > maxMemory {
		return fmt.Errorf("%s of %s in flight need %s of memory, more than the maximum of %s; "+
			"use fewer --requests or --connections, or a smaller --request-size",
			units.Plural(j.slots(), "request"), units.Exact(j.request), units.Size(memory),
			units.Exact(maxMemory))
	}
	j.blank = o.DestinationIsZero || isLocal && to.fresh
	if j.grain = max(4<<10, block); !j.blank {
		j.grain = max(j.grain, d.grain())
	}
	return nil
}

// copy copies the missing ranges, and flushes. With --resume it saves the ledger from time to time
// and at the end.
func (j *job) copy(ctx, hard context.Context) error {
	stopSaving := j.keepState(hard)
	var err error
	switch in, stream := j.source.(*inflow); {
	case stream:
		err = j.work(ctx, func(give func(piece) error) error {
			return in.feed(ctx, j, give)
		}, func(s *slot, p piece) error {
			return s.copy(hard, p)
		})
		if l, grew := j.destination.(*local); grew && l.grows {
			err = errors.Join(err, l.finish(in.total))
			if err != nil && in.total == 0 {
				// nothing was written of a stream that is not a raw disk
				err = errors.Join(err, l.discard())
			}
		}
	case j.isOutflow():
		err = j.copyToStream(ctx, hard)
	default:
		err = j.work(ctx, func(give func(piece) error) error {
			return j.pieces(hard, give)
		}, func(s *slot, p piece) error {
			if err := s.copy(hard, p); err != nil {
				return err
			}
			j.done.add(p.offset, p.offset+p.length)
			return nil
		})
	}
	stopSaving()
	if err == nil {
		err = j.failed.get() // the last save may have failed after the last piece
	}
	done := j.done.copy()
	if flushed := j.flush(hard); flushed != nil {
		// the error of the flush says more
		if err == nil || errors.Is(err, ErrInterrupted) && errors.Is(flushed, ErrUnanswered) {
			err = flushed
		}
		return err // the saved state has only what was flushed before
	}
	if err == nil {
		err = j.checkUnchanged()
	}
	if j.options.Resume != "" {
		return errors.Join(err, j.save(done))
	}
	return err
}

// pieces hands out the missing pieces, by the source's map.
func (j *job) pieces(ctx context.Context, give func(piece) error) error {
	p := &plan{size: j.source.size(), block: max(j.source.block(), j.destination.block()),
		request: j.request, done: j.before, give: give,
		stretch: max(j.request, j.destination.stretch())}
	if j.options.Allocated && !j.source.mapped() {
		return errors.Join(p.addExtent(extent{0, p.size, false}), p.finish())
	}
	if err := j.source.extents(ctx, p.size, p.addExtent); err != nil {
		return err
	}
	return p.finish()
}

func (j *job) isOutflow() bool {
	_, ok := j.destination.(*outflow)
	return ok
}

// flush flushes the destination. Once it has failed, it fails for good: a later flush would not
// cover the lost data.
func (j *job) flush(ctx context.Context) error {
	if before := j.unflushed.Load(); before != nil {
		return *before
	}
	err := j.destination.flush(ctx)
	if err != nil {
		j.unflushed.CompareAndSwap(nil, &err)
	}
	return err
}

// work hands the pieces of a plan to slots. It returns when all pieces are done, or when the slots
// have stopped after the first error or the end of the context.
func (j *job) work(ctx context.Context, plan func(give func(piece) error) error,
	do func(*slot, piece) error) error {
	pieces := make(chan piece)
	var running sync.WaitGroup
	for i := range j.slots() {
		s := &slot{job: j, lane: i, buffer: make([]byte, j.request)}
		running.Go(func() {
			for p := range pieces {
				err := do(s, p)
				j.failed.set(err)
				if err != nil {
					return
				}
				j.progress.Add(p.length)
			}
		})
	}
	err := plan(func(p piece) error {
		if ctx.Err() != nil {
			return ErrInterrupted
		}
		select {
		case pieces <- p:
			return nil
		case <-j.failed.stop:
			return errStopped
		case <-ctx.Done():
			return ErrInterrupted
		}
	})
	close(pieces)
	running.Wait()
	if first := j.failed.get(); first != nil {
		return first
	}
	return err
}

// DefaultSlots is how many pieces are in work at a time. Of 256 KiB each, measured with four
// connections on a quiet machine against 16, which a busy machine had preferred: export to file 1.9
// and 2.6 s, file to export 0.8 and 1.2 s, server to server 2.1 and 2.4 s, for 2 GiB; more slots
// gained nothing.
const DefaultSlots = 128

// With long pieces there are fewer slots, but at least minSlots.
const (
	defaultMemory = 64 << 20 // bytes
	minSlots      = 16
)

func (j *job) slots() int {
	lanes := max(j.source.lanes(), j.destination.lanes())
	if j.options.Requests > 0 {
		return j.options.Requests * lanes
	}
	return max(min(DefaultSlots, int(defaultMemory/j.request)), minSlots, lanes)
}

// errStopped ends a plan when a slot has failed; the slot's error is the one that is returned.
var errStopped = errors.New("stopped")

// keepState saves the state from time to time, until stop is called.
func (j *job) keepState(ctx context.Context) (stop func()) {
	if j.options.Resume == "" {
		return func() {}
	}
	return every(j.saveEvery, func() {
		done := j.done.copy() // taken before the flush, which covers only earlier writes
		err := j.flush(ctx)
		if err == nil {
			err = j.checkUnchanged()
		}
		if err == nil {
			err = j.save(done)
		}
		j.failed.set(err)
	})
}

func (j *job) save(done []byteRange) error {
	s := resumeState{Format: stateFormat, Source: j.from, Destination: j.to, Done: done}
	return s.save(j.options.Resume)
}

// show reports the progress of a phase until stop is called.
func (j *job) show(phase string) (stop func()) {
	if j.options.Show == nil {
		return func() {}
	}
	data := &j.copied
	if phase == verifying {
		data = &j.compared
	}
	_, stream := j.source.(*inflow)
	report := func() {
		j.options.Show(Progress{Phase: phase, Done: j.progress.Load(), Total: j.source.size(),
			Data: data.Load(), Stream: stream})
	}
	report()
	stopReports := every(showEvery, report)
	return func() { stopReports(); report() }
}

// every calls do every d in a goroutine of its own, until stop is called.
func every(d time.Duration, do func()) (stop func()) {
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTicker(d)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				do()
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-gone }
}

// close closes both ends. After another error its own errors are dropped: they say the same.
func (j *job) close(already error) error {
	err := errors.Join(j.source.close(), j.destination.close())
	if already != nil {
		return nil
	}
	return err
}

// absolute is the address of a target, with the absolute path of a Unix socket.
func absolute(t *client.Target) string {
	if t.Network == "unix" && t.Address[0] != '@' {
		if path, err := filepath.Abs(t.Address); err == nil {
			return path
		}
	}
	return t.Address
}
