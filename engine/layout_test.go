// The layout, from the least memory upwards: the parts fit into the whole, and every region can
// hold its longest request.

package engine

import "testing"

func TestLayoutFitsItsMemory(t *testing.T) {
	for _, conns := range []int{1, 7, 8, 100, 512, 10000} {
		least := minLoopMemory(conns)
		if _, ok := layoutOf(least-1, conns); ok {
			t.Errorf("%d connections: a layout in less than the least memory", conns)
		}
		for memory := least; memory < least+4<<30; memory += memory / 7 {
			checkLayout(t, memory, conns)
		}
		ample := ampleLoopMemory(conns)
		checkLayout(t, ample-1, conns)
		checkLayout(t, ample, conns)
		if y, _ := layoutOf(ample, conns); y.maxWhole != MaxRequest {
			t.Errorf("%d connections: requests are divided although there is ample memory",
				conns)
		}
	}
}

func checkLayout(t *testing.T, memory uint64, conns int) {
	t.Helper()
	y, ok := layoutOf(memory, conns)
	if !ok || y.controlLen()+wholeHuge(y.poolLen()) > memory {
		t.Errorf("%d connections: the parts of %d bytes are %d long (%v)", conns, memory,
			y.controlLen()+wholeHuge(y.poolLen()), ok)
	}
	if y.stages < min(minStages, conns) || y.smallLen > memory || y.largeLen > memory {
		t.Errorf("%d connections, %d bytes: %+v", conns, memory, y)
	}
	p := newLeasePool(zeroRegion, y.smallLen, y.largeLen)
	if _, ok := p.take(small, maxSmallCost); !ok || y.share[small] < maxSmallCost {
		t.Errorf("%d connections, %d bytes: no room for the longest short request", conns, memory)
	}
	if y.maxWhole < MaxRequest {
		if y.maxWhole != pieceSize || y.largeLen != 0 || memory >= ampleLoopMemory(conns) {
			t.Errorf("%d connections, %d bytes: long requests in parts of %d, and %d for them",
				conns, memory, y.maxWhole, y.largeLen)
		}
		return
	}
	if y.smallLen < minSmall {
		t.Errorf("%d connections, %d bytes: %+v", conns, memory, y)
	}
	if _, ok := p.take(large, MaxRequest+2*4096); !ok || y.share[large] < MaxRequest+4*4096 {
		t.Errorf("%d connections, %d bytes: no room for the longest request", conns, memory)
	}
}

// TestLeastMemory is what the documentation promises: a server for one client in 8 MiB, for 1,024
// in 17 MiB.
func TestLeastMemory(t *testing.T) {
	for conns, most := range map[int]uint64{1: 8 << 20, 16: 9 << 20, 1024: 17 << 20} {
		if n := MinMemory(Config{Loops: 1, MaxConnections: conns}); n > most {
			t.Errorf("%d connections need %d bytes", conns, n)
		}
	}
}
