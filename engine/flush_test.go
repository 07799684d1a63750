// A flush that waits for another loop's flush is looked at in every turn: that must cost the same
// with one export and with ten thousand.

package engine

import (
	"fmt"
	"testing"
	"time"
)

// blockedLoop makes a loop with that many exports, of which one waits for a flush of another loop.
func blockedLoop(t testing.TB, exports int) *loop {
	t.Helper()
	all := make([]Export, exports)
	for i := range all {
		d := &Device{Kind: File, FD: -1, Size: 1 << 20, Block: 512}
		all[i] = Export{Facts: factsOf(d), Device: d}
	}
	c := Config{Loops: 1, MaxConnections: 1}
	y, _ := layoutOf(AmpleMemory(c), 1)
	l, err := newLoop(newShared(all, 1, fewSpare), 0, y)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = l.pool.Close(), l.control.Close() })
	last := uint32(exports - 1)
	all[last].Device.syncing.Store(true)
	l.appendTag(&l.devices[last].waiting, 0)
	if l.issueFlush(last); len(l.blocked) != 1 {
		t.Fatal("the flush does not wait")
	}
	return l
}

func TestAWaitingFlushCostsTheSameWithManyExports(t *testing.T) {
	took := map[int]time.Duration{}
	for _, exports := range []int{1, 10000} {
		l := blockedLoop(t, exports)
		took[exports] = time.Hour
		for range 20 { // the best of many: the machine may be busy
			start := time.Now()
			for range 100 {
				l.retryFlushes()
			}
			took[exports] = min(took[exports], time.Since(start))
		}
	}
	if took[10000] > 20*took[1] {
		t.Errorf("100 turns with a flush that waits take %v with one export, %v with 10,000",
			took[1], took[10000])
	}
}

func BenchmarkAWaitingFlush(b *testing.B) {
	for _, exports := range []int{1, 1000, 10000} {
		b.Run(fmt.Sprintf("exports=%d", exports), func(b *testing.B) {
			l := blockedLoop(b, exports)
			for b.Loop() {
				l.retryFlushes()
			}
		})
	}
}
