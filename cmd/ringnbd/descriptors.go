// The limit on open files (ulimit -n), which every connection counts against.
//
// Invariant: a client that is over the limit is told at the gate that the server is full, and how
// many it serves; it is never let in and then dropped.

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
