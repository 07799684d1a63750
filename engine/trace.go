// The trace keeps the last completions of a loop, so that a broken invariant can be explained.
//
// Invariant: it holds the last traceLength completions; it is printed with the panic.

package engine

import (
	"strconv"

	"ringnbd/engine/uring"
)

const traceLength = 64 // a power of two

type trace struct {
	at   uint32
	rows [traceLength]uring.CQE
}

func (t *trace) add(c *uring.CQE) {
	t.rows[t.at&(traceLength-1)] = *c
	t.at++
}

var kindNames = [...]string{onReceive: "receive", onSend: "send", onDisk: "disk", onFlush: "flush",
	onWake: "wake", onCancel: "cancel"}

// String lists the completions, the oldest first.
func (t *trace) String() string {
	var b []byte
	for i := t.at - min(t.at, traceLength); i != t.at; i++ {
		row := t.rows[i&(traceLength-1)]
		tok := token(row.UserData)
		name := "?"
		if int(tok.kind()) < len(kindNames) {
			name = kindNames[tok.kind()]
		}
		b = append(b, "\n  "...)
		b = append(b, name...)
		b = append(b, " slot "...)
		b = strconv.AppendUint(b, uint64(tok.slot()), 10)
		b = append(b, " part "...)
		b = strconv.AppendUint(b, uint64(tok.part()), 10)
		b = append(b, " generation "...)
		b = strconv.AppendUint(b, uint64(tok.generation()), 10)
		b = append(b, ": "...)
		b = strconv.AppendInt(b, int64(row.Res), 10)
	}
	return string(b)
}
