// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: what can be asked about the blocks of an
// export, and what this connection will ask ("Metadata querying").
//
// Invariant: the queries are matched as they arrive and none is kept, so that their number costs
// time only. A SET, well or badly formed, ends the selection before it; only one that is answered
// with an acknowledgement makes another.

package proto

import (
	"encoding/binary"
	"strings"
)

// MaxQueries bounds the queries of one option.
const MaxQueries = 4096

const wrongQuery = "a query is UTF-8 of at most 4096 bytes: a namespace, a colon, and more"

// beginMeta expects the name of an export as INFO does, then the number of queries, then each with
// its length.
func (n *Negotiator) beginMeta() {
	n.matched, n.queries = 0, 0
	if n.option == OptSetMetaContext {
		n.selected, n.selector = 0, ""
	}
	switch {
	case n.mode.Framing == Simple:
		n.refuse(RepErrInvalid, "meta contexts need structured replies: negotiate those first")
	case n.left < 4+4:
		n.refuse(RepErrInvalid, wrongLength)
	default:
		n.collect(onNameLength, 4)
	}
}

// queryCount checks the number against the bytes that are left: each query has a length at least.
func (n *Negotiator) queryCount(count uint32) {
	switch {
	case uint64(count)*4 > uint64(n.left):
		n.refuse(RepErrInvalid, wrongLength)
	case count > MaxQueries:
		n.refuse(RepErrTooBig, "more queries than 4096")
	case count == 0 && n.option == OptListMetaContext:
		n.matched = ^ContextSet(0)
		n.endOfQueries()
	default:
		n.queries = count
		n.nextQuery()
	}
}

// nextQuery begins the next, or ends the option.
func (n *Negotiator) nextQuery() {
	if n.queries == 0 {
		n.endOfQueries()
		return
	}
	n.queries--
	if n.left < 4 {
		n.refuse(RepErrInvalid, wrongLength)
		return
	}
	n.collect(onQueryLength, 4)
}

// endOfQueries: the data must end with them.
func (n *Negotiator) endOfQueries() {
	if n.left != 0 {
		n.refuse(RepErrInvalid, wrongLength)
		return
	}
	n.rest()
}

func (n *Negotiator) queryLength(length uint32) {
	switch {
	case length > n.left:
		n.refuse(RepErrInvalid, wrongLength)
	case length > MaxString:
		n.refuse(RepErrInvalid, wrongQuery)
	default:
		n.collect(onQuery, int(length))
	}
}

// query matches one. That an export is unknown was found out before and is kept for the end; a
// malformed query is said to be that, whatever its export.
func (n *Negotiator) query(b []byte) {
	q := string(b)
	if !ValidString(q) || strings.IndexByte(q, ':') < 0 {
		n.refuse(RepErrInvalid, wrongQuery)
		return
	}
	if n.refusal.Reply == 0 {
		for i, c := range n.catalog.At(n.export).Contexts {
			// A query that ends in a colon asks, with LIST, for all that begins so; with SET it
			// selects nothing ("base:" is no context).
			if c.Name == q ||
				n.option == OptListMetaContext && q[len(q)-1] == ':' &&
					strings.HasPrefix(c.Name, q) {
				n.matched |= 1 << i
			}
		}
	}
	n.nextQuery()
}

// answerMeta tells the contexts that matched. With SET the number of each is what BLOCK_STATUS will
// call it by, with LIST it is zero.
func (n *Negotiator) answerMeta() {
	for i, c := range n.catalog.At(n.export).Contexts {
		if n.matched&(1<<i) == 0 || c.Wide && n.mode.Framing != Extended {
			n.matched &^= 1 << i
			continue
		}
		id := uint32(0)
		if n.option == OptSetMetaContext {
			id = ContextID(i)
		}
		n.head(RepMetaContext, 4+len(c.Name))
		n.out = binary.BigEndian.AppendUint32(n.out, id)
		n.out = append(n.out, c.Name...)
	}
	if n.option == OptSetMetaContext {
		n.selected, n.selector = n.matched&(1<<len(n.catalog.At(n.export).Contexts)-1), n.asked
	}
	n.reply(RepAck, "")
}

// ContextID is the number by which BLOCK_STATUS calls the i-th meta context of an export.
func ContextID(i int) uint32 { return uint32(i) + 1 }
