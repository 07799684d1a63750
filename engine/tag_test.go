// Rows of requests and of their claims: rows that begin in a cache line end in it, or in the next.

package engine

import (
	"testing"
	"unsafe"
)

func TestRowsAreWholeCacheLines(t *testing.T) {
	if n := unsafe.Sizeof(tag{}); n != 128 {
		t.Errorf("a tag has %d bytes", n)
	}
	if n := unsafe.Sizeof(claim{}); n != 64 {
		t.Errorf("a claim has %d bytes", n)
	}
}

// breaks reports whether f breaks an invariant.
func breaks(f func()) (broken bool) {
	defer func() { broken = recover() != nil }()
	f()
	return false
}

// TestOnlyListedTransitionsAreTaken checks that a connection and a request change only to what
// their tables list, and that a row which is given back ends in the state that it began in.
func TestOnlyListedTransitionsAreTaken(t *testing.T) {
	c := conn{}
	for _, s := range []connState{connOpen, connLeaving, connClosing, connFree, connOpen,
		connClosing} {
		if breaks(func() { c.become(s) }) {
			t.Fatalf("a connection did not become %d", s)
		}
	}
	if !breaks(func() { c.become(connOpen) }) || !breaks(func() { c.become(connLeaving) }) {
		t.Error("a connection that closes was opened again")
	}
	row := tag{}
	for _, s := range []step{stepClaimed, stepEdges, stepWrite, stepFlush, stepReply} {
		if breaks(func() { row.become(s) }) {
			t.Fatalf("a request did not take step %d", s)
		}
	}
	for s := range stepReply + 1 {
		if !breaks(func() { row.become(s) }) {
			t.Errorf("an answered request took step %d", s)
		}
	}
}
