// Room for a server: descriptors for its connections (ulimit -n), threads and address space for its
// loops.
//
// Invariant: a client above the limit on open files is told during the handshake that the server is
// full, and how many clients it serves; a client is never let in and then dropped.

package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"ringnbd/engine/gate"
)

// descriptorMargin is for files that are opened for a moment while the server runs.
const descriptorMargin = 8

// affordConnections lowers the number of connections to what the limit leaves room for. It comes
// when all else is open. Go has raised the soft limit to the hard one.
func (s *server) affordConnections() error {
	var limit unix.Rlimit
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil ||
		limit.Cur > connectionsMost*2 {
		return nil // not known; accept waits for descriptors
	}
	listeners := 0
	for _, d := range s.doors {
		listeners += len(d.Listeners)
	}
	room := int(limit.Cur) - len(open) - gate.Descriptors(listeners, 0) - descriptorMargin
	if s.debug != nil {
		room -= debugConnections
	}
	if room < 1 {
		return fmt.Errorf("the limit on open files (%d) leaves room for no connection; raise it "+
			"(ulimit -n, LimitNOFILE= of a unit) to %d at least",
			limit.Cur, int(limit.Cur)-room+1)
	}
	if room < s.options.connections {
		s.log.Warn("the limit on open files leaves room for fewer connections than "+
			"--max-connections; raise it (ulimit -n, LimitNOFILE= of a unit)",
			"limit", limit.Cur, "connections", room)
		s.options.connections = room
	}
	return nil
}

// Threads of a server for each loop beside the loop's own: those that look up block status, and
// those of the kernel that flush and do what cannot wait.
const (
	fewLookups    = 3
	manyLookups   = 64
	kernelThreads = 4
)

// enter is what serve asks for before it begins.
func (o *options) enter() error {
	if err := affordSpace(o.memory); err != nil {
		return err
	}
	granted, err := reserveThreads(o.loops*(1+fewLookups), o.loops*(1+manyLookups),
		o.loops*kernelThreads)
	if err == nil && granted < o.loops*(1+manyLookups) {
		o.lookups = granted/o.loops - 1
	}
	return err
}
