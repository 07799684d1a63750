// A check in every mode of a connection, and the sizes and commands that a server takes.
//
// Invariant: these sizes and commands keep to the server's block sizes, to its maximum payload and
// to what it advertises.

package conform

import "ringnbd/proto"

// eachMode runs a check on a new connection in every mode of richModes; a failure names the mode.
func (t *trial) eachMode(f func(c *conn)) { t.inModes(t.profile.richModes(), f) }

// eachChunkMode is eachMode without the mode of simple replies.
func (t *trial) eachChunkMode(f func(c *conn)) { t.inModes(t.profile.richModes()[1:], f) }

func (t *trial) inModes(modes []mode, f func(c *conn)) {
	for _, mode := range modes {
		t.within(mode.String(), func() {
			c := t.open(mode)
			defer c.close()
			f(c)
			if _, got := c.openAfter(quiet); len(got) > 0 {
				t.failf("at the end: stray bytes from the server%s", shown(got))
			}
		})
	}
}

// within runs f and begins the text of its failure or skip with "with " and where.
func (t *trial) within(where string, f func()) {
	defer func() {
		if e := recover(); e != nil {
			if verdict, ok := e.(ended); ok {
				verdict.detail = "with " + where + ": " + verdict.detail
				e = verdict
			}
			panic(e)
		}
	}()
	f()
}

// block returns a size in bytes of which every offset and length of a polite request can be a
// multiple; an export that is smaller is one block.
func (t *trial) block() uint64 { return max(min(512, t.profile.Size), t.profile.minBlock()) }

// upTo returns n, or the whole blocks of the longest READ at 0 if that is less, in bytes.
func (c *conn) upTo(n uint64) uint64 {
	return min(n, c.size, c.t.profile.maxPayload()) / c.t.block() * c.t.block()
}

// longestAtScratch returns the length of the longest request at scratchStart, in bytes: whole
// blocks, at most limit, and no more than the header has room for.
func (c *conn) longestAtScratch(limit uint64) uint64 {
	if !c.mode.extended() {
		limit = min(limit, 1<<32-c.t.block())
	}
	return min(c.size-scratchStart, limit) / c.t.block() * c.t.block()
}

// page returns a usual size of small requests in bytes, in whole blocks.
func (t *trial) page() uint64 { return max(4096, t.block()) }

// tail returns the offset of the last n bytes of the export, rounded down to whole blocks.
func (t *trial) tail(n uint64) uint64 {
	if t.profile.Size < n {
		t.skip("the export has less than %d bytes", n)
	}
	return (t.profile.Size - n) / t.block() * t.block()
}

// offers reports whether the export of the connection has the command, and the suite may use it.
func (c *conn) offers(command uint16) bool {
	needed := map[uint16]uint16{proto.CmdFlush: proto.FlagSendFlush,
		proto.CmdTrim: proto.FlagSendTrim, proto.CmdCache: proto.FlagSendCache,
		proto.CmdWriteZeroes: proto.FlagSendWriteZeroes}
	switch command {
	case proto.CmdRead:
		return true
	case proto.CmdWrite:
		return c.t.profile.Writable
	case proto.CmdTrim, proto.CmdWriteZeroes:
		return c.t.profile.Writable && c.flags&needed[command] != 0
	case proto.CmdFlush, proto.CmdCache:
		return c.flags&needed[command] != 0
	case proto.CmdBlockStatus:
		return len(c.contexts) > 0
	}
	return false
}

// ranged returns the commands on a range that the connection offers.
func (c *conn) ranged() []uint16 {
	var list []uint16
	for _, command := range []uint16{proto.CmdRead, proto.CmdWrite, proto.CmdTrim,
		proto.CmdWriteZeroes, proto.CmdCache, proto.CmdBlockStatus} {
		if c.offers(command) {
			list = append(list, command)
		}
	}
	return list
}

// area is a range of the export that a request names.
type area struct{ offset, length uint64 }

// longCost limits ranges, in bytes, for commands that servers carry out block by block.
const longCost = 160 << 20
