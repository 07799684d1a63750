// Rows of requests.

package engine

import (
	"testing"
	"unsafe"
)

func TestATagIsTwoCacheLines(t *testing.T) {
	if n := unsafe.Sizeof(tag{}); n != 128 {
		t.Errorf("a tag has %d bytes", n)
	}
}
