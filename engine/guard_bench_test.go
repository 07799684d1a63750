// What a claim costs beside others that are in flight.

package engine

import (
	"fmt"
	"testing"
)

// crowdedGuard makes a guard in which that many claims of one width are in flight on device 0, one
// after the other, apart bytes from each other.
func crowdedGuard(claims int, width, apart uint64) *guard {
	g := newGuard(claims+1, 1)
	for i := range uint64(claims) {
		g.enter(uint32(i)+1, 0, i*apart, i*apart+width)
	}
	return g
}

func BenchmarkClaim(b *testing.B) {
	const far = 1 << 40 // where no claim is
	for _, c := range []struct {
		name         string
		own          uint64
		others       int
		width, apart uint64
	}{
		{"4KiB/alone", 4 << 10, 0, 0, 0},
		{"4KiB/beside=128x4KiB", 4 << 10, 128, 4 << 10, 4 << 10},
		{"4KiB/beside=512x128KiB", 4 << 10, 512, 128 << 10, 128 << 10},
		{"4KiB/beside=512x1MiB", 4 << 10, 512, 1 << 20, 1 << 20},
		{"4KiB/beside=512x32MiB", 4 << 10, 512, 32 << 20, 32 << 20},
		{"4KiB/beside=512x64KiB,64MiB_apart", 4 << 10, 512, 64 << 10, 64 << 20},
		{"128KiB/alone", 128 << 10, 0, 0, 0},
		{"128KiB/beside=127x128KiB", 128 << 10, 127, 128 << 10, 128 << 10},
		{"128KiB/beside=511x128KiB", 128 << 10, 511, 128 << 10, 128 << 10},
		{"1MiB/beside=511x1MiB", 1 << 20, 511, 1 << 20, 1 << 20},
		{"4MiB/beside=511x4MiB", 4 << 20, 511, 4 << 20, 4 << 20},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := crowdedGuard(c.others, c.width, c.apart)
			grants := uint32(none)
			for b.Loop() {
				g.enter(0, 0, far, far+c.own)
				g.leave(0, &grants)
			}
		})
	}
	for _, devices := range []int{1, 64, 1000} {
		b.Run(fmt.Sprintf("4KiB/devices=%d,4x4MiB_each", devices), func(b *testing.B) {
			g := newGuard(devices*4+1, devices)
			for i := range devices * 4 {
				at := uint64(i/devices) * (4 << 20)
				g.enter(uint32(i)+1, uint32(i%devices), at, at+4<<20)
			}
			grants := uint32(none)
			for b.Loop() {
				g.enter(0, 0, far, far+4096)
				g.leave(0, &grants)
			}
		})
	}
}
