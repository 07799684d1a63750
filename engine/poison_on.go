//go:build invariants

// With the build tag invariants, memory that comes home is filled with a pattern, so that whoever still uses it is found out.

package engine

const poisonByte = 0xdb

func poison(p *leasePool, page uint32, order int) {
	if p.arena != nil { // a pool in a test of its own may have none
		fill(p.arena.Bytes(p.offset(page), pageSize<<order))
	}
}

func poisonStage(l *loop, stage uint32) { fill(l.control.Bytes(l.layout.stageAt(stage), stageSize)) }

func fill(b []byte) {
	for i := range b {
		b[i] = poisonByte
	}
}
