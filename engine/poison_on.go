//go:build invariants

// With the build tag invariants, memory that comes home is filled with a pattern, so that whoever
// still uses it is found out.

package engine

import "bytes"

const poisonByte = 0xdb

func poison(p *leasePool, page uint32, order int) {
	if p.arena != nil { // a pool in a test of its own may have none
		fill(p.arena.Bytes(p.offset(page), pageSize<<order))
	}
}

func poisonStage(l *loop, stage uint32) {
	fill(l.control.Bytes(l.layout.stageAt(stage), stageSize))
}

// pattern is copied, not written byte by byte: under the race detector that is a thousand times as
// fast.
var pattern = bytes.Repeat([]byte{poisonByte}, 64<<10)

func fill(b []byte) {
	for len(b) > 0 {
		b = b[copy(b, pattern):]
	}
}
