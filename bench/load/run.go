// One run from beginning to end: connect, plan, start the loops, watch, merge.
//
// Invariant: when Run returns, every descriptor that it opened is closed and every thread that it
// started has ended.

package load

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/backing"
	"ringnbd/engine/units"
	"ringnbd/engine/uring"
)

// Progress is how far a run has come.
type Progress struct {
	Phase   string // connecting, filling, warming up, measuring, finishing
	Elapsed time.Duration
	Total   time.Duration // of warm-up and measuring; 0: until Count
	// Share is how far a phase is that neither time nor requests measure, from 0 to 1.
	Share    float64
	Requests uint64 // measured so far
	Count    uint64 // Options.Count
	Bytes    uint64
}

// watchInterval is how often the watcher is called.
const watchInterval = 100 * time.Millisecond

// Run does what the options say. It ends early when ctx does, which is not an error: the report
// says so. The report is nil if nothing was started. The error is one line: what could not be done,
// or what was wrong with the target's answers.
func Run(ctx context.Context, o Options, watch func(Progress)) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if watch == nil {
		watch = func(Progress) {}
	}
	watch(Progress{Phase: "connecting"})
	if err := fitDescriptors(&o); err != nil {
		return nil, err
	}
	r := run{options: &o, watch: watch, shared: &shared{}}
	defer r.close()
	if err := o.reachTraces(ctx); err != nil {
		return nil, err
	}
	if o.Replay.Path != "" {
		if same(o.Replay.Path, o.Record) {
			return nil, o.errorf("{record} %s: is the trace that is to be replayed: choose "+
				"another name", o.Record)
		}
		var err error
		if r.trace, err = readTrace(ctx, &o, watch); err != nil {
			return nil, err
		}
		if err := o.adopt(r.trace); err != nil {
			return nil, err
		}
	}
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails on Linux
	var err error
	if r.plan, err = newPlan(&o, &r.subject, r.trace,
		binary.LittleEndian.Uint64(seed[:])); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Target.Text, err)
	}
	if err := checkMemory(r.plan); err != nil {
		return nil, err
	}
	r.noteHoles()
	if o.Record != "" {
		var err error
		if r.record, err = newRecorder(o.Record, &o.Target, r.shared, o.Threads,
			tapeOf(o.Threads)); err != nil {
			return nil, o.errorf("{record} %w", err)
		}
	}
	if err := r.start(); err != nil {
		return nil, errors.Join(err, r.closeRecord())
	}
	r.wait(ctx)
	return r.finish(ctx.Err() != nil)
}

// reachTraces waits until the storage of the traces answers, or the context ends.
func (o *Options) reachTraces(ctx context.Context) error {
	for _, path := range []string{o.Replay.Path, o.Record} {
		err := backing.Await(ctx, func() error { backing.Reach(path); return nil })
		if err != nil {
			return fmt.Errorf("opening %s: %w", path, err)
		}
	}
	return nil
}

// same reports whether two paths lead to one file.
func same(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

type run struct {
	options *Options
	watch   func(Progress)
	subject subject
	sockets []int // that no loop has yet
	idle    idle
	trace   *trace // to be replayed
	record  *recorder
	plan    *plan
	shared  *shared
	loops   []*loop
	running sync.WaitGroup
	ended   chan struct{}
	cpu     time.Duration // of this process while it measured
}

// open opens the file, or connects and negotiates.
func (r *run) open(ctx context.Context) error {
	o := r.options
	if o.Target.File() {
		err := backing.Await(ctx, r.openFile)
		if errors.Is(err, backing.ErrHangs) {
			err = fmt.Errorf("opening %s: %w", o.Target.Address, err)
		}
		return err
	}
	for n := range o.Connections {
		fd, e, congestion, err := connect(ctx, &o.Target, o.Timeout)
		if err != nil {
			if n > 0 {
				err = fmt.Errorf("connection %d of %d: %w", n+1, o.Connections, err)
			}
			return err
		}
		r.sockets = append(r.sockets, fd)
		if n == 0 {
			r.subject.Export, r.subject.congestion = e, congestion
		} else if e.Facts != r.subject.Facts {
			return fmt.Errorf("%s: connection %d sees another export than the first: %d bytes, "+
				"not %d, or other flags", o.Target.Text, n+1, e.Size, r.subject.Size)
		}
	}
	return r.idle.open(ctx, r)
}

// openFile opens, locks and measures the file, as the server would.
func (r *run) openFile() error {
	path := r.options.Target.Address
	if backing.Synthetic(path) {
		path = "./" + path // taken literally
	}
	b, err := backing.Open(backing.Spec{Path: path, ReadOnly: !r.options.Writes(),
		Force: r.options.Force, Raw: r.options.Raw})
	if err != nil {
		return err
	}
	r.subject.file = b
	r.subject.Export = b.Export
	// the server aligns requests for its clients; this program has to align its own
	r.subject.MinBlock, r.subject.MaxPayload = b.Device.Block, maxBlock
	r.subject.notes = b.Notes
	return nil
}

// start brings up all loops, or none.
func (r *run) start() error {
	o := r.options
	r.ended = make(chan struct{})
	r.shared.filling.Store(int32(o.Threads))
	gate := make(chan bool) // no loop turns before all have started
	var trouble error
	for id := range o.Threads {
		from, to := loopSpan(id, o.Connections, o.Threads)
		l, err := newLoop(r.plan, r.shared, id, r.sockets, from, to)
		if err != nil {
			trouble = err
			break
		}
		if r.record != nil {
			l.tape = r.record.tapes[id]
		}
		started := make(chan error)
		r.running.Add(1)
		go func() {
			defer r.running.Done()
			l.thread(started, gate)
		}()
		if trouble = <-started; trouble != nil {
			break
		}
		r.loops = append(r.loops, l)
	}
	if trouble == nil {
		r.sockets = nil
	}
	for range r.loops {
		gate <- trouble == nil
	}
	go func() {
		r.running.Wait()
		close(r.ended)
	}()
	if trouble != nil {
		<-r.ended
	}
	return trouble
}

// wait watches until all loops have ended.
func (r *run) wait(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	done := ctx.Done()
	measuring := make(chan time.Duration, 1)
	go func() { measuring <- r.awaitMeasuring() }()
	for {
		select {
		case <-r.ended:
			r.cpu = cpuTime() - <-measuring
			return
		case <-done:
			r.shared.stop.Store(true)
			done = nil
		case <-tick.C:
			r.watch(r.progress())
		}
	}
}

// awaitMeasuring sleeps until the warm-up is over and returns the processor time that was used
// until then.
func (r *run) awaitMeasuring() time.Duration {
	for {
		pause := time.Millisecond
		if at := r.shared.startAt.Load(); at != 0 {
			pause = time.Duration(at + int64(r.options.Warmup) - uring.Now())
		}
		if pause <= 0 {
			return cpuTime()
		}
		select {
		case <-r.ended:
			return cpuTime()
		case <-time.After(pause):
		}
	}
}

// cpuTime is user and system time of this process, kernel workers of its rings included.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (r *run) progress() Progress {
	o := r.options
	p := Progress{Phase: "filling", Count: o.Count}
	switch at := o.Replay.lasts(r.trace); {
	case o.Duration > 0:
		p.Total = o.Warmup + o.Duration
	case at > 0:
		p.Total = at
	case r.trace != nil && p.Count == 0:
		p.Count = uint64(r.trace.n)
	}
	for _, l := range r.loops {
		p.Requests += l.seen.done.Load()
		p.Bytes += l.seen.bytes.Load()
	}
	at := r.shared.startAt.Load()
	if at == 0 {
		return p
	}
	p.Elapsed = time.Duration(max(uring.Now()-at, 0))
	switch {
	case r.shared.stop.Load() || p.Total > 0 && p.Elapsed >= p.Total:
		p.Phase = "finishing"
	case p.Elapsed < o.Warmup:
		p.Phase = "warming up"
	default:
		p.Phase = "measuring"
	}
	return p
}

// finish merges the loops' tallies and returns the report, and an error about what went wrong.
func (r *run) finish(interrupted bool) (*Report, error) {
	var trouble []error
	r.idle.check()
	sum := &r.loops[0].tally
	for i, l := range r.loops {
		if l.trouble != nil {
			trouble = append(trouble, l.trouble)
		}
		if i > 0 {
			sum.add(&l.tally)
		}
	}
	report := newReport(r, sum, interrupted)
	for _, l := range r.loops {
		if l.unregistered != nil {
			report.Notes = append(report.Notes,
				"the buffers are not registered with io_uring, which costs CPU time: "+
					l.unregistered.Error())
			break
		}
	}
	if sum.found > 0 {
		trouble = append(trouble, fmt.Errorf("%s not as written; the first: %v",
			units.Plural(sum.found, "block"), sum.findings[0]))
	}
	if sum.failures > 0 {
		trouble = append(trouble, fmt.Errorf("%s failed; the first: %s", units.Plural(sum.failures,
			"request"), report.FirstFailure))
	}
	for _, err := range []error{r.idle.trouble(), r.closeRecord()} {
		if err != nil {
			trouble = append(trouble, err)
		}
	}
	for _, err := range trouble {
		report.Trouble = append(report.Trouble, err.Error())
	}
	return report, errors.Join(trouble...)
}

// closeRecord ends the recording, if there is one.
func (r *run) closeRecord() error {
	if r.record == nil {
		return nil
	}
	if err := r.record.close(); err != nil {
		return r.options.errorf("{record}: %w", err)
	}
	return nil
}

// close closes what no loop has taken over.
func (r *run) close() {
	for _, fd := range r.sockets {
		_ = unix.Close(fd)
	}
	r.idle.close()
	if r.subject.file != nil {
		_ = r.subject.file.Close()
	}
}

// newLoop makes a loop's tables and its arena, for connections from to to-1.
func newLoop(p *plan, s *shared, id int, sockets []int, from, to int) (*loop, error) {
	o := p.options
	n := to - from
	l := &loop{plan: p, shared: s, id: id, layout: layoutOf(p, n), left: n, quota: unlimited,
		tally: newTally(o)}
	var err error
	if l.arena, err = uring.NewArena(int(l.layout.size), p.subject.file != nil); err != nil {
		return nil, err
	}
	if o.Count > 0 {
		share := func(c int) uint64 { return o.Count / uint64(o.Connections) * uint64(c) }
		l.quota = share(to) - share(from)
		if id == o.Threads-1 {
			l.quota += o.Count % uint64(o.Connections)
		}
	}
	l.conns, l.slots = make([]conn, n), make([]slot, n*o.Depth)
	l.dirty = make([]uint32, 0, n)
	for i := range l.conns {
		c := from + i
		l.conns[i] = conn{fd: -1, number: c + 1, body: none, free: none, part: p.parts[c],
			random: random(scramble(o.Seed) + scramble(uint64(c)+1))}
		l.conns[i].judge = judge{table: p.table, connection: c + 1}
		if o.Fill {
			l.conns[i].fill = p.fills[c]
		}
		if sockets != nil {
			l.conns[i].fd = int32(sockets[c])
		}
		for d := range o.Depth {
			row := uint32(i*o.Depth + o.Depth - 1 - d)
			l.slots[row].next = l.conns[i].free
			l.conns[i].free = row
		}
	}
	if o.Writes() && p.table == nil {
		l.scatter(o.Seed)
	}
	return l, nil
}

// scatter fills the data of unstamped writes with noise, so that nothing on the way can compress it
// or take it for zeroes.
func (l *loop) scatter(seed uint64) {
	b := l.arena.Bytes(l.layout.shared, int(roundUp(l.plan.largest, 8)))
	noise := random(seed)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], noise.next())
	}
}

// thread runs the loop on a thread of its own: the ring works only on the thread that made it, and
// the thread ends with the loop.
func (l *loop) thread(started chan<- error, gate <-chan bool) {
	runtime.LockOSThread()
	// The kernel may end a sleep 50 µs late by default, which an open loop would see in every
	// latency.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	if err := l.openRing(); err != nil {
		_ = l.arena.Close()
		started <- err
		return
	}
	started <- nil
	if <-gate {
		l.now = uring.Now()
		l.issued, l.heardAt, l.more = l.now, l.now, true
		l.touchAll()
		for l.phase != phaseDone {
			l.turn()
		}
		if l.tape != nil {
			l.tape.publish(math.MaxInt64)
		}
	} else {
		for i := range l.conns {
			l.conns[i].state = connGone // its socket is still the run's
		}
	}
	l.closeRing()
}

func (l *loop) openRing() error {
	ring, err := uring.Open(l.plan.ring)
	if err != nil {
		return err
	}
	if b := l.plan.subject.file; b != nil {
		if l.unregistered = l.plan.unregistered; l.unregistered == nil {
			err = ring.RegisterBuffers(l.arena)
		}
		var locked *uring.MemlockError
		if errors.As(err, &locked) { // other programs of the same user have taken the rest
			l.unregistered, err = err, nil
		}
		if err == nil {
			err = ring.RegisterFiles([]int32{int32(b.Device.FD)})
		}
	}
	if err != nil {
		return errors.Join(err, ring.Close())
	}
	l.ring = ring
	return nil
}

// closeRing ends the requests in flight and closes the sockets and the arena.
func (l *loop) closeRing() {
	err := l.ring.Close()
	for i := range l.conns {
		if c := &l.conns[i]; c.fd >= 0 && c.state != connGone {
			_ = unix.Close(int(c.fd))
		}
	}
	var held *uring.InFlightError
	if errors.As(err, &held) {
		// the arena stays mapped: the kernel may still write to it
		l.trouble = errors.Join(l.trouble, err)
		return
	}
	_ = l.arena.Close()
}
