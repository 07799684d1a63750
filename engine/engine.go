// Engine: the loops, what they share, and the few calls that the control plane has for them.
//
// Invariant: what shared holds is set while Start opens the loops, one after the other, and is
// fixed when it returns. Only the guard changes afterwards, by its own rules, and the table with
// its register, which are read and written under the engine's lock (change.go).

package engine

import (
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// Config bounds an engine.
type Config struct {
	Loops          int    // threads with a ring each
	Memory         uint64 // bytes that all loops together may use for connections and payloads
	MaxConnections int    // at a time, all loops together
	// Poll is how long a loop with nothing to do looks for work before it sleeps; 0: it sleeps at
	// once. See also PollAuto.
	Poll     time.Duration
	Register Registration // whether Memory is registered with io_uring
	// Reports hears of incidents, and of connections that have ended; nil: they are not reported.
	Reports Reports
	// Lookups is how many of block status run at a time in each loop, a thread for each; 0: the
	// engine's own bound.
	Lookups int
	// Homed: planned devices are served, or may be added. All connections of their exports are in
	// one loop, so that every loop has room for MaxConnections.
	Homed bool
	rows  int // of plans in each loop; 0: rowsPerLoop

	ring uring.Config // see Settle
}

// yieldNanos is how often a busy loop passes through Go's scheduler, for no reason but sysmon. A
// goroutine that is not rescheduled within 10 ms counts as hogging its processor; sysmon then takes
// the processor away in every system call it finds it in, and wakes every 20 µs to do so. Measured
// at 4 KiB random reads, 4 connections of depth 32: 5,000 wake-ups of sysmon a second without this,
// 130 with it, and 8 % less CPU per request.
const yieldNanos = int64(8e6)

// shared is what all loops see.
type shared struct {
	table      *table   // the newest
	register   register // places.go
	guard      *guard
	loops      []*loop
	rows       int           // of plans, in each loop that is home to one
	firstSlice uint64        // bytes
	discard    bool          // BLOCK_URING_CMD_DISCARD is there (Linux 6.12)
	poll       time.Duration // Config.Poll
}

// Engine serves exports to adopted sockets.
type Engine struct {
	config   Config
	shared   *shared
	features string
	// unregistered is why the memory of some loop is not registered although it should be.
	unregistered error
	stopped      sync.WaitGroup

	mu      sync.Mutex
	closing bool
	down    bool          // the loops are about to end: no letters any more
	ended   chan struct{} // closed when down is set
	wakes   []int         // eventfds of the loops: other loops may use them until all have ended
	lookups []*lookupWorkers
	reports *reports
}

var errFull = errors.New("the server has as many connections as it may have")
var errClosing = errors.New("the server is shutting down")

// errMemory says that Config.Memory is below MinMemory.
var errMemory = errors.New("too little memory for the engine")

// Start opens a ring and an arena for every loop and sets the loops turning.
func Start(c Config, exports []Export) (*Engine, error) {
	c.Homed = c.Homed || homed(exports)
	y, ok := layoutOf(c.Memory/uint64(c.Loops), connsPerLoop(c))
	if !ok {
		return nil, errMemory
	}
	unregistered, err := c.Settle()
	if err != nil {
		return nil, err
	}
	e := &Engine{config: c, unregistered: unregistered, ended: make(chan struct{}),
		shared: newShared(exports, c.Loops, spareFiles(exports))}
	e.shared.poll = c.Poll
	if c.rows > 0 {
		e.shared.rows = c.rows
	}
	if c.Reports != nil {
		var err error
		if e.reports, err = startReports(e.shared.loops, c.Reports); err != nil {
			return nil, err
		}
	}
	for id := range c.Loops {
		l, err := newLoop(e.shared, uint32(id), y)
		if err != nil {
			e.stop()
			return nil, err
		}
		l.ring = e.reports.rouse()
		o, err := startLookups(l, c.Lookups)
		if err != nil {
			l.unmap()
			e.stop()
			return nil, err
		}
		e.shared.loops[id] = l
		e.lookups = append(e.lookups, o)
		started := make(chan error)
		e.stopped.Add(1)
		go e.runLoop(l, started)
		if err := <-started; err != nil {
			e.stop()
			return nil, err
		}
	}
	return e, nil
}

// newShared makes what the loops share, with room for so many more exports.
func newShared(exports []Export, loops, spare int) *shared {
	devices, filed := devicesOf(exports)
	room := max(len(exports), devices) + spare
	s := &shared{firstSlice: firstSlice, register: newRegister(room, filed+spare, loops),
		rows: rowsPerLoop, guard: roomyGuard(loops*tagsPerLoop, room), loops: make([]*loop, loops)}
	s.table = s.register.newTable(s.guard, exports)
	return s
}

// newLoop makes a loop's tables and arenas; its kernel is given to it afterwards.
func newLoop(s *shared, id uint32, y layout) (*loop, error) {
	exports := len(s.table.exports)
	l := &loop{shared: s, id: id, layout: y, tagTable: newTagTable(s.rows),
		workers: workers{parked: make([]parkedParts, tagsPerLoop+s.rows), quota: deviceQuota()},
		ledger: newLedger(tagsPerLoop, [regions]uint64{small: y.smallLen, large: y.largeLen},
			exports),
		queue: newQueue(y.conns, exports, y.largeLen), stages: newStages(y.stages),
		budget: newBudget(tagsPerLoop + s.rows), mailbox: mailbox{grants: none},
		reporter: reporter{clients: make([]*Client, y.conns)},
		lookups:  lookups{gone: make([]atomic.Bool, y.conns)},
		check:    newChecker(y)}
	l.makeRows(y.conns)
	l.showAll(s.table)
	var err error
	if l.control, err = uring.NewArena(int(y.controlLen()), false); err != nil {
		return nil, err
	}
	if l.pool, err = uring.NewArena(int(y.poolLen()), true); err != nil {
		_ = l.control.Close()
		return nil, err
	}
	l.leases = newLeasePool(zeroRegion, y.smallLen, y.largeLen)
	l.leases.arena = l.pool
	l.buffers = newBuffers(l.pool.Size())
	if err := l.plantAll(); err != nil {
		l.unmap()
		return nil, err
	}
	return l, nil
}

// runLoop is a loop's thread, which belongs to its ring for good: a ring with a single issuer works
// on the thread that made it, and its requests end with that thread.
func (e *Engine) runLoop(l *loop, started chan<- error) {
	defer e.stopped.Done()
	runtime.LockOSThread()
	ring, wakeFD, err := e.openRing(l)
	if err != nil {
		l.unmap()
		started <- err
		return
	}
	e.features = ring.Features().String()
	e.shared.discard = ring.Features().Discard
	e.wakes = append(e.wakes, wakeFD)
	started <- nil
	defer func() {
		if p := recover(); p != nil {
			text, _ := p.(string)
			panic(text + "; the last completions of loop " + strconv.Itoa(int(l.id)) + ":" +
				l.trace.String())
		}
	}()
	l.now = l.kernel.Now()
	l.listenForMail()
	for yielded := l.now; !l.quit || !l.rowsHome() && l.now < l.quitBy; {
		l.turn()
		if l.now-yielded > yieldNanos {
			yielded = l.now
			runtime.Gosched()
		}
	}
	var held *uring.InFlightError
	if err := ring.Close(); !errors.As(err, &held) { // else the kernel may still write to them
		l.unmap()
	}
}

// unmap gives back the arenas of a loop whose ring is closed.
func (l *loop) unmap() {
	_ = l.pool.Close()
	_ = l.control.Close()
}

// openRing makes the loop's ring on the calling thread and registers everything that will be used
// through it.
func (e *Engine) openRing(l *loop) (*uring.Ring, int, error) {
	c := e.config
	ring, err := uring.Open(c.ring)
	if err != nil {
		return nil, -1, err
	}
	if c.Register != RegisterOff {
		if err := l.registerPool(ring, c.lockedMemory()); err != nil && c.Register == RegisterOn {
			_ = ring.Close()
			return nil, -1, err
		} else if err != nil {
			e.unregistered = err
		}
	}
	t := l.table.Load()
	l.limited = workersOf(t.filed, l.quota)
	err = ring.RegisterFiles(t.files(l.shared.register.files.room))
	if err == nil {
		err = ring.LimitWorkers(l.limited, 0)
	}
	if err == nil {
		err = ring.KeepWorkers()
	}
	if err != nil {
		_ = ring.Close()
		return nil, -1, err
	}
	wakeFD, err := uring.Eventfd()
	if err != nil {
		_ = ring.Close()
		return nil, -1, err
	}
	l.kernel, l.wakeFD = &systemKernel{ring, newPoll(l.shared.poll)}, int32(wakeFD)
	l.pwrite = uring.Pwrite
	l.wake = func() { uring.Notify(wakeFD) }
	return ring, wakeFD, nil
}

// Unregistered says why memory that should be registered is not; nil if it is, or if it should not
// be.
func (e *Engine) Unregistered() error { return e.unregistered }

// Features is the report of what the kernel offers and what of it is used, for people.
func (e *Engine) Features() string { return e.features }

// Connections is how many sockets are being served.
func (e *Engine) Connections() int {
	n := 0
	for _, l := range e.shared.loops {
		n += int(l.live.Load())
	}
	return n
}

// IDs returns the exports that are served, in order of place: when the engine has started, in the
// order in which they were given to Start.
func (e *Engine) IDs() (ids []ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.shared.table.exports {
		if x != nil && !x.leaving {
			ids = append(ids, x.id)
		}
	}
	return ids
}

// Adopt takes over a stream socket (in blocking mode, for io_uring would answer EAGAIN to a
// non-blocking one) whose next byte is a request for the export, in the form that the session says.
// The loop with the fewest connections gets it, or the home of the export's device. On an error the
// socket is still the caller's; IsGone(err) says that the export is not served any more.
func (e *Engine) Adopt(fd int, id ID, s proto.Session) error {
	return e.AdoptClient(fd, id, s, nil)
}

// AdoptClient is Adopt of a client that Reports.Ended gives back when it has left.
func (e *Engine) AdoptClient(fd int, id ID, s proto.Session, client *Client) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return errClosing
	}
	x := e.shared.table.find(id)
	if x == nil || x.leaving {
		return ErrGone
	}
	to := e.loopFor(x.dev)
	if int(to.live.Load()) >= to.layout.conns {
		return errFull
	}
	to.live.Add(1)
	if client != nil {
		client.Export, client.loop = id, to
	}
	to.post(&mail{kind: mailAdopt, fd: int32(fd), export: id.place(), session: s, client: client})
	return nil
}

// loopFor returns the loop that a connection to an export of a device goes to. The caller holds the
// lock.
func (e *Engine) loopFor(dev uint32) *loop {
	if home := e.shared.table.devices[dev].home; home != none {
		return e.shared.loops[home]
	}
	to := e.shared.loops[0]
	for _, l := range e.shared.loops {
		if l.live.Load() < to.live.Load() {
			to = l
		}
	}
	return to
}

// Retire ends the connection of a client that was adopted: what it was taken in of is answered, and
// what it does not take in a few seconds is not waited for. The channel is closed when the
// connection has ended.
func (e *Engine) Retire(client *Client) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := &mail{kind: mailRetire, client: client, done: make(chan struct{})}
	if e.down || client.loop == nil {
		close(m.done)
	} else {
		client.loop.post(m)
	}
	return m.done
}

// send posts a copy of a letter to every loop, and returns the table that the loops have when they
// open it. Once the loops are about to end it posts none: their eventfds are closed then, and the
// numbers may be used for other descriptors.
func (e *Engine) send(letter mail) (sent []*mail, t *table) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.down {
		return nil, e.shared.table
	}
	for _, l := range e.shared.loops {
		m := letter
		m.done = make(chan struct{})
		switch letter.kind {
		case mailCount:
			m.counters = newCounters(e.shared.table)
		case mailClients:
			m.clients = l.roomForClients()
		}
		sent = append(sent, &m)
		l.post(&m)
	}
	return sent, e.shared.table
}

// ask posts one letter to every loop and waits, up to the timeout, until all have dealt with it.
func (e *Engine) ask(letter mail, timeout time.Duration) bool {
	sent, _ := e.send(letter)
	return allDone(sent, timeout, func(*mail) {})
}

// allDone waits, up to the timeout, until all loops have dealt with their letters.
func allDone(sent []*mail, timeout time.Duration, each func(*mail)) bool {
	late, stop := Patience(timeout)
	defer stop()
	for _, m := range sent {
		select {
		case <-m.done:
			each(m)
		case <-late:
			return false
		}
	}
	return sent != nil
}

// Counters sums up what all loops have counted. False means that a loop did not answer within a
// second, and is not in the sum, or that the engine is closed.
func (e *Engine) Counters() (Counters, bool) {
	sent, t := e.send(mail{kind: mailCount})
	sum := newCounters(t)
	ok := allDone(sent, time.Second, func(m *mail) { sum.add(m.counters) })
	served := sum.Exports[:0]
	for place, x := range t.exports {
		if x != nil {
			c := sum.Exports[place]
			c.ID, c.Name, c.FlushFailed = x.id, x.Name, x.Device.Failed()
			served = append(served, c)
		}
	}
	sum.Exports = served
	return *sum, ok
}

// stop ends the loops that run. They have no connections left.
func (e *Engine) stop() {
	for _, l := range e.shared.loops {
		if l != nil && l.wake != nil {
			l.post(&mail{kind: mailQuit, done: make(chan struct{})})
		}
	}
	for _, o := range e.lookups {
		o.stop()
	}
	e.stopped.Wait()
	e.reports.end()
	for _, fd := range e.wakes {
		_ = unix.Close(fd)
	}
}
