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
