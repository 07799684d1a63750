// The layout, from the least memory upwards: the parts fit into the whole, and every region can hold its longest request.

package engine

import "testing"

func TestLayoutFitsItsMemory(t *testing.T) {
	for _, conns := range []int{1, 7, 8, 100, 512, 10000} {
		least := minLoopMemory(conns)
		if _, ok := layoutOf(least-1, conns); ok {
			t.Errorf("%d connections: a layout in less than the least memory", conns)
		}
		for memory := least; memory < least+4<<30; memory += memory / 7 {
			y, ok := layoutOf(memory, conns)
			if !ok || y.controlLen()+y.poolLen() > memory {
				t.Errorf("%d connections: the parts of %d bytes are %d long (%v)", conns, memory, y.controlLen()+y.poolLen(), ok)
			}
			if y.stages < minStages || y.shortLen < minShort || y.longLen < minLong || y.shortLen > memory || y.longLen > memory {
				t.Errorf("%d connections, %d bytes: %+v", conns, memory, y)
			}
			if p := newLeasePool(zeroRegion, y.shortLen, y.longLen); memory == least {
				if _, ok := p.take(short, longCost); !ok {
					t.Errorf("%d connections: the longest short request does not fit", conns)
				}
				if _, ok := p.take(long, MaxRequest+2*4096); !ok {
					t.Errorf("%d connections: the longest request does not fit", conns)
				}
			}
			if y.share[short] < longCost || y.share[long] < MaxRequest+4*4096 {
				t.Errorf("%d connections: one request is more than a connection's share", conns)
			}
		}
	}
}
