// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: which meta contexts an export has, and
// which of them this connection will ask about ("Metadata querying").
//
// Invariant: the queries are matched as they arrive and none is kept, so that their number costs
// time only. A SET, well-formed or not, clears the selection before it; only a SET that is
// acknowledged makes a new selection.

package proto

import (
	"encoding/binary"
	"strings"
)

// maxQueries limits the queries of one option.
const maxQueries = 4096

// wrongQuery is the text of the refusal of a malformed query.
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

// queryCount checks the number of queries against the bytes that are left: each query has at least
// a length.
func (n *Negotiator) queryCount(count uint32) {
	switch {
	case uint64(count)*4 > uint64(n.left):
		n.refuse(RepErrInvalid, wrongLength)
	case count > maxQueries:
		n.refuse(RepErrTooBig, "more queries than 4096")
	case count == 0 && n.option == OptListMetaContext:
		n.matched = ^ContextSet(0)
		n.endOfQueries()
	default:
		n.queries = count
		n.nextQuery()
	}
}

// nextQuery begins the next query, or ends the option.
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

// endOfQueries checks that the data ends with the last query.
func (n *Negotiator) endOfQueries() {
	if n.left != 0 {
		n.refuse(RepErrInvalid, wrongLength)
		return
	}
	n.drain()
}

// queryLength checks the length of a query.
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

// query matches one query. If the export is unknown, that error waits for the end of the option; a
// malformed query is answered as malformed, whatever its export.
func (n *Negotiator) query(b []byte) {
	q := string(b)
	if !ValidString(q) || strings.IndexByte(q, ':') < 0 {
		n.refuse(RepErrInvalid, wrongQuery)
		return
	}
	if n.refusal.Reply == 0 {
		for i, c := range n.catalog.At(n.export).Contexts {
			// A query that ends in a colon lists, with LIST, all contexts with that prefix; with
			// SET it selects nothing ("base:" is not a context).
			if c.Name == q ||
				n.option == OptListMetaContext && q[len(q)-1] == ':' &&
					strings.HasPrefix(c.Name, q) {
				n.matched |= 1 << i
			}
		}
	}
	n.nextQuery()
}

// answerMeta lists the contexts that matched. With SET the number of each is its number in
// BLOCK_STATUS replies, with LIST it is zero.
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
		all := ContextSet(1)<<len(n.catalog.At(n.export).Contexts) - 1
		n.selected, n.selector = n.matched&all, n.exportAsked
	}
	n.reply(RepAck, "")
}

// ContextID returns the number of the i-th meta context of an export in BLOCK_STATUS replies.
func ContextID(i int) uint32 { return uint32(i) + 1 }
