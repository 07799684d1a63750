// What the simulation needs of the loop: to be built on a kernel that is not Linux, turned by hand,
// and asked whether everything is home.

package engine

import (
	"errors"
	"slices"
	"strconv"

	"ringnbd/engine/uring"
	"ringnbd/proto"
)

// SimLoop is a loop whose kernel is given to it.
type SimLoop struct {
	l       *loop
	asked   bool     // the loop said that there is something to look up
	pending []uint32 // requests that have been taken from it and not been looked up
	clients int      // adopted

	// planted mistakes: the loop does not see these facts of its exports
	Writable, Long, Baseless bool
	Careless                 bool // it does not see that they were written to
}

// simQuota is how many workers a device may have in the simulation, on whatever machine it runs.
const simQuota = 3

// SimEngine is an engine whose loops are turned by hand. Its control plane is the real one.
type SimEngine struct {
	*Engine
	Loops []*SimLoop
}

// NewSimEngine builds an engine. kernel is called once per loop, with its two arenas (the pool is
// what is registered, part by part) and the descriptors to register, and says which descriptor its
// wake-ups come from and how to cause one.
func NewSimEngine(c Config, exports []Export,
	kernel func(id int, control, pool *uring.Arena, files []int32) (k Kernel, wakeFD int32,
		wake func())) *SimEngine {
	s := newShared(exports, c.Loops, fewSpare)
	s.discard = true
	s.firstSlice = 64 << 10 // so that the small ranges of a simulation have many slices
	y, ok := layoutOf(c.Memory/uint64(c.Loops), connsPerLoop(c))
	if !ok {
		panic("the simulated engine has too little memory")
	}
	var loops []*SimLoop
	for id := range c.Loops {
		l, err := newLoop(s, uint32(id), y)
		if err != nil {
			panic(err)
		}
		s.loops[id] = l
		l.kernel, l.wakeFD, l.wake = kernel(id, l.control, l.pool,
			s.table.files(s.register.files.room))
		if p, ok := l.kernel.(interface {
			Pwrite(fd int, addr uint64, n uint32, off uint64) int32
		}); ok {
			l.pwrite = p.Pwrite
		}
		l.quota = simQuota
		l.limitWorkers()
		if c.Register != RegisterOff {
			l.allowRegistering()
		}
		l.now = l.kernel.Now()
		l.listenForMail()
		sim := &SimLoop{l: l}
		l.ask = func() { sim.asked = true }
		loops = append(loops, sim)
	}
	return &SimEngine{&Engine{config: c, shared: s, ended: make(chan struct{})}, loops}
}

// AdoptSome adopts a client as the server does, in the loop of the engine's choice.
func (e *SimEngine) AdoptSome(fd int32, id ID, session proto.Session) (*Client, error) {
	c := &Client{}
	if err := e.AdoptClient(int(fd), id, session, c); err != nil {
		return nil, err
	}
	e.Loops[c.loop.id].clients++
	return c, nil
}

// Close ends the engine's goroutines and gives the arenas back.
func (e *SimEngine) Close() {
	close(e.ended)
	for _, s := range e.Loops {
		_ = s.l.pool.Close()
		_ = s.l.control.Close()
	}
}

// Turn is one turn.
func (s *SimLoop) Turn() {
	s.l.turn()
	for i := range s.l.exports {
		x := &s.l.exports[i]
		switch {
		case x.device == nil:
		case s.Careless:
			x.device.written.Store(false)
		case s.Writable && !x.device.ReadOnly:
			x.Flags &^= proto.FlagReadOnly
		case s.Long:
			x.Size = x.device.Size - x.base
		case s.Baseless:
			x.base = 0
		}
	}
}

// EachKernel puts something before the kernel of each loop.
func (e *SimEngine) EachKernel(before func(Kernel) Kernel) {
	for _, s := range e.Loops {
		s.l.kernel = before(s.l.kernel)
	}
}

// ForgetGenerations lets the next exports have the IDs of earlier ones: a planted mistake.
func (e *SimEngine) ForgetGenerations() {
	for place := range e.shared.register.exports.generations {
		e.shared.register.exports.generations[place] = 1
	}
}

// Adopt posts a socket, as Engine.Adopt does once it has chosen the loop.
func (s *SimLoop) Adopt(fd int32, id ID, session proto.Session) *Client {
	s.l.live.Add(1)
	s.clients++
	c := &Client{Export: id, loop: s.l}
	s.l.post(&mail{kind: mailAdopt, fd: fd, export: id.place(), session: session, client: c})
	return c
}

// Asked takes the requests that are to be looked up, if the loop has said that there are any: a
// loop that forgets to say it waits for ever.
func (s *SimLoop) Asked() (tags []uint32) {
	if !s.asked {
		return nil
	}
	s.asked = false
	for t := s.l.takeAsked(); t != none; t = s.l.tags[t].next {
		tags = append(tags, t)
	}
	s.pending = append(s.pending, tags...)
	return tags
}

// LookUp looks up a request that Asked returned. late says that its connection was cut meanwhile.
func (s *SimLoop) LookUp(t uint32) (late bool) {
	i := slices.Index(s.pending, t)
	s.pending = append(s.pending[:i], s.pending[i+1:]...)
	late = s.l.gone[s.l.tags[t].conn].Load()
	s.l.lookUp(t)
	return late
}

// Unbounded lets every device have any number of workers: a planted mistake.
func (s *SimLoop) Unbounded() { s.l.quota = maxWorkers }

// Live is how many connections the loop has.
func (s *SimLoop) Live() int { return int(s.l.live.Load()) }

// Drain starts a shutdown; done is closed when no connection is left.
func (s *SimLoop) Drain() (done <-chan struct{}) {
	m := &mail{kind: mailDrain, done: make(chan struct{})}
	s.l.post(m)
	return m.done
}

// Cut closes every connection.
func (s *SimLoop) Cut() { s.l.post(&mail{kind: mailCut, done: make(chan struct{})}) }

// Counters are the loop's own.
func (s *SimLoop) Counters() Counters { return s.l.counters }

// Home reports what a loop without connections still has out: every tag, lease, stage and claim
// must have been given back, and every list be empty.
func (s *SimLoop) Home() error {
	l := s.l
	var errs []error
	check := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("loop "+strconv.Itoa(int(l.id))+": "+what))
		}
	}
	free := 0
	for t := l.freeTag; t != none; t = l.tags[t].next {
		free++
	}
	rows := 0
	for c := l.freeConn; c != none; c = l.conns[c].next {
		rows++
	}
	check(free == tagsPerLoop, strconv.Itoa(tagsPerLoop-free)+" tags are out")
	check(l.rowsHome(), "rows are out")
	check(rows == len(l.conns), strconv.Itoa(len(l.conns)-rows)+" connections are out")
	q := &l.queue
	check(q.ahead == 0, strconv.FormatUint(q.ahead, 10)+" bytes went ahead and were not given back")
	check(l.leases.used == [regions]uint64{small: l.ownBytes},
		strconv.FormatUint(l.leases.used[small]+l.leases.used[large], 10)+" bytes are on lease")
	check(len(l.freeStages) == l.layout.stages, "stages are out")
	for i := range l.devices {
		check(l.devices[i].slices == 0 && l.devices[i].slicing == empty && !l.devices[i].caching,
			"slices are out")
	}
	check(len(l.blocked) == 0, "a device waits for another loop's flush")
	left := l.later != [2]list{empty, empty} || l.backlog.n > 0
	check(!left, "something is left for a turn that does not come")
	check(l.dirty == empty && l.stageLRU == empty, "a list of connections is not empty")
	for i := range q.lines {
		check(q.lines[i].waiting == [regions]list{empty, empty} && l.ledger.spared[i] == 0,
			"a line of starved connections is not empty")
	}
	check(q.waiting == 0, "a connection waits")
	check(q.squeezed == 0, "a connection is squeezed")
	check(l.ledger.free == l.ledger.total && l.ledger.newcomers == (holdings{}) &&
		l.ledger.reserved == 0, "the ledger says that something is out")
	check(l.working == 0, "workers are out")
	check(l.asked.Load() == 0 && l.answered.Load() == 0 && len(s.pending) == 0, "a lookup is out")
	check(l.grants == none && l.granted.Load() == 0, "granted claims were not taken")
	ended, traffic := 0, Traffic{}
	for c := l.ended.Load(); c != nil; c = c.next {
		ended++
		traffic.add(&c.Traffic)
	}
	sum := newCounters(l.table.Load()) // with what was done to exports that have gone
	l.countOut(sum)
	check(ended == s.clients,
		strconv.Itoa(s.clients-ended)+" clients have left and it was not reported")
	check(traffic.BytesRead == sum.BytesRead && traffic.BytesWrite == sum.BytesWrite &&
		traffic.Errors == sum.Errors, "what clients did is not what was done to exports")
	for t := range tagsPerLoop {
		check(!l.shared.guard.claims[l.claimIndex(uint32(t))].held,
			"claim "+strconv.Itoa(t)+" is in the guard")
	}
	s.homeTables(check)
	return errors.Join(errs...)
}

// homeTables checks what the loop keeps about exports and devices, and about changes of them.
func (s *SimLoop) homeTables(check func(ok bool, what string)) {
	l := s.l
	for i := range l.ledger.exports {
		check(l.ledger.exports[i] == holdings{}, "an export holds something")
	}
	for i := range l.devices {
		d := &l.devices[i]
		check(d.flying == 0 && d.working == 0 && d.parked == empty, "segments are out")
		check(!d.fsyncing && d.flushing == empty && d.waiting == empty, "a flush is out")
		check(d.home(), "something of a device is out")
	}
	x := &l.changeover
	check(len(x.leavers)+len(x.parting)+len(x.releasing)+len(x.settling)+x.retiring == 0,
		"a change has not ended")
	check(len(l.shared.register.leaving) == 0, "an export leaves, and has not gone")
	for i := range l.exports {
		check(l.exports[i].conns == 0, "an export has connections")
	}
}
