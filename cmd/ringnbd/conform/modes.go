// A check in every mode of a connection, and the sizes and commands that a server takes.
//
// Invariant: what these give keeps to the server's block sizes, to its maximum payload and to what
// it advertises.

package conform

import "ringnbd/proto"

// eachMode runs a check on a new connection in every mode; a failure says in which.
func (t *trial) eachMode(f func(c *conn)) { t.inModes(t.profile.richModes(), f) }

// eachChunkMode is eachMode without that of simple replies.
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

// within puts the circumstances before whatever fails or skips.
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

// block is a size in bytes that every offset and length of a polite request can be a multiple of;
// an export of less is one block.
func (t *trial) block() uint64 { return max(min(512, t.profile.Size), t.profile.minBlock()) }

// upTo is n bytes, or as many whole blocks as a READ at 0 may have.
func (c *conn) upTo(n uint64) uint64 {
	return min(n, c.size, c.t.profile.maxPayload()) / c.t.block() * c.t.block()
}

// rest is how many bytes from scratchStart one request can be about, whole blocks of the scratch:
// at most most, and what its header has room for.
func (c *conn) rest(most uint64) uint64 {
	if !c.mode.extended() {
		most = min(most, 1<<32-c.t.block())
	}
	return min(c.size-scratchStart, most) / c.t.block() * c.t.block()
}

// page is a size in bytes that is usual for small requests, and whole blocks.
func (t *trial) page() uint64 { return max(4096, t.block()) }

// tail is the offset of the last n bytes of the export, rounded down to whole blocks.
func (t *trial) tail(n uint64) uint64 {
	if t.profile.Size < n {
		t.skip("the export has less than %d bytes", n)
	}
	return (t.profile.Size - n) / t.block() * t.block()
}

// offers says whether the connection's export has the command.
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

// ranged are the commands that work on a range, of those the connection's export has.
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

// Servers really do some commands of long ranges, block by block; those ranges end here, in bytes.
const longCost = 160 << 20
