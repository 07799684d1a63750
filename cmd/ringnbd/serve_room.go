// Room for a server: descriptors for its connections (ulimit -n), threads and address space for its
// loops.
//
// Invariant: a client above the limit on open files is told during the handshake that the server is
// full, and how many clients it serves; a client is never let in and then dropped.

package main

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine/gate"
)

// descriptorMargin is for files that are open for a moment while the server runs.
const descriptorMargin = 8

// spareShare is the part of the descriptors that is kept for exports that may be added, where there
// are fewer than all connections need.
const spareShare = 8

// changes reports whether exports can be added while the server runs.
func (s *server) changes() bool { return s.control != nil || s.options.config != "" }

// limitConnections lowers the number of connections to what the limit leaves room for. It runs when
// everything else is open. Go has raised the soft limit to the hard limit.
func (s *server) limitConnections() error {
	var limit unix.Rlimit
	open, err := os.ReadDir("/proc/self/fd")
	full := errors.Is(err, unix.EMFILE)
	if err != nil && !full || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil ||
		limit.Cur > maxConnections*2 {
		s.live.room.Store(math.MaxInt32)
		return nil // the limit is not known; accept waits for descriptors
	}
	used := len(open)
	if full {
		used = int(limit.Cur)
	}
	listeners := 0
	for _, d := range s.doors {
		listeners += len(d.Listeners)
	}
	each := 1 // descriptors of a connection
	for _, x := range s.opened {
		if x.backing.Discards() {
			each = 2 // and of the overlay that it throws away
			s.live.doubled = true
		}
	}
	room := int(limit.Cur) - used - gate.Descriptors(listeners, 0) - descriptorMargin
	if s.debug != nil {
		room -= debugConnections
	}
	if s.control != nil {
		room -= control.Descriptors
	}
	if room < each {
		return fmt.Errorf("the limit on open files (%d) leaves no room for connections; raise it "+
			"(ulimit -n, LimitNOFILE= of a unit) to at least %d",
			limit.Cur, int(limit.Cur)-room+each)
	}
	spare := room - each*s.options.connections
	if spare < 0 && s.changes() {
		spare = room / spareShare
		room -= spare
	}
	s.live.room.Store(int64(max(spare, 0)))
	room /= each
	if room < s.options.connections {
		s.log.Warn("the limit on open files leaves room for fewer connections than "+
			"--max-connections; raise it (ulimit -n, LimitNOFILE= of a unit)",
			"limit", limit.Cur, "connections", room)
		s.options.connections = room
	}
	return nil
}

// Threads of a server for each loop, in addition to the loop's own: threads that look up block
// status, and threads of the kernel that flush and do other work that blocks.
const (
	minLookups    = 3
	maxLookups    = 64
	kernelThreads = 4
)

// reserveRoom reserves the address space and the threads of a server, before it begins.
func (o *options) reserveRoom() error {
	if err := checkAddressSpace(o.memory); err != nil {
		return err
	}
	granted, err := reserveThreads(o.loops*(1+minLookups), o.loops*(1+maxLookups),
		o.loops*kernelThreads)
	if err == nil && granted < o.loops*(1+maxLookups) {
		o.lookups = granted/o.loops - 1
	}
	return err
}
