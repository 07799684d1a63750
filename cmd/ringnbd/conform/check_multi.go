// Checks of several connections, and of what real clients do (MO, TF-08, K).
//
// Invariant: the effect of a request that was answered is visible to the other connections.

package conform

import (
	"bytes"

	"ringnbd/proto"
)

var multiChecks = []Check{
	{"MO-01", must, []need{needWrite},
		"overlapping requests in flight are all answered, and each block is from one of them",
		"the order is not promised, but that no block is torn",
		overlapsInFlight},
	{"MO-04", must, []need{needWrite, needMultiConn, needFlush},
		"what was written on one connection, and flushed on a second, is read on a third",
		"CAN_MULTI_CONN says so, and copies over several connections count on it",
		threeConnections},
	{"MO-05", must, []need{needWrite, needMultiConn},
		"a WRITE that was answered is seen on every connection at once",
		"a cache for each connection would serve old data",
		seenAtOnce},
	{"MO-07", quality, []need{needWrite},
		"a connection that dies with WRITEs in flight leaves each block old or new",
		"a buffer that is used again while the kernel still writes it puts other data on the disk",
		deathInFlight},
	{"MO-08", must, []need{needWrite},
		"TRIM and WRITE_ZEROES next to WRITEs on another connection do no harm",
		"a server that rounds outward, or reads, modifies and writes a shared block, loses the " +
			"WRITE",
		changesNextDoor},
	{"TF-08", must, []need{needWrite, needMultiConn, needFUA},
		"CAN_MULTI_CONN is true: a WRITE with FUA on one connection is read on another",
		"the protocol defines the flag so",
		honestMultiConn},
	{"K-01", must, nil,
		"a client that knows only simple replies is served, and never answered twice",
		"nbd.ko hangs up on a cookie or a magic that it does not expect",
		kernelReplies},
	{"K-02", should, []need{needWrite},
		"the requests of nbd.ko work: FLUSH, FUA on WRITEs, TRIM of up to 4 GiB, long " +
			"WRITE_ZEROES with NO_HOLE",
		"the kernel's client is the most used",
		kernelRequests},
	{"K-03", must, []need{needWrite, needMultiConn},
		"a WRITE that is sent again on another connection, after a newer WRITE, stays",
		"nbd.ko sends requests again that were not answered",
		sentAgain},
	{"K-05", must, []need{needGo, needList},
		"the session of qemu works: LIST, structured replies, its own contexts, GO with block " +
			"sizes, CACHE",
		"qemu asks for contexts that only qemu has",
		qemuWay},
	{"K-06", must, []need{needGo, needPattern},
		"the session of libnbd works: structured replies, base:allocation, GO with all " +
			"information requests, 64 requests in flight",
		"nbdcopy and nbdinfo do so",
		libnbdWay},
	{"K-07", must, []need{needGo},
		"the session of nbd-client works: GO without information requests, simple replies",
		"nbd-client does not ask for block sizes",
		func(t *trial) {
			t.openPlain().stillUp("GO without information requests")
		}},
	{"K-08", should, nil,
		"odd requests do not cost the connection: FUA where it has no meaning, CACHE that is not " +
			"advertised, long TRIMs",
		"some clients do not look at the flags; an error is fine, a lost connection is not",
		carelessClient},
	{"K-09", must, []need{needWrite},
		"the session of a plain client works: simple replies and requests of several MiB",
		"the drivers of other systems do not know more",
		plainClient},
}

func overlapsInFlight(t *trial) {
	t.eachMode(func(c *conn) {
		const size = 64 << 10
		at := t.scratch(1 << 20)
		var b []byte
		for i := range uint64(8) {
			for _, r := range []*request{newWrite(at, fill(i+uint64(c.mode)*100, size)),
				newRead(at, size)} {
				c.expect(c.number(r))
				b = append(b, c.encode(r)...)
			}
		}
		c.writeAside(b) // a server may have to send replies before it reads on
		for _, reply := range c.allReplies() {
			t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
		}
		got := c.succeeds(newRead(at, size)).data
		for piece := 0; piece < size; piece += 4096 {
			known := false
			for i := range uint64(8) {
				known = known ||
					bytes.Equal(got[piece:piece+4096],
						fill(i+uint64(c.mode)*100, size)[piece:piece+4096])
			}
			t.want(known, "the block at %d is from none of eight WRITEs", at+uint64(piece))
		}
		c.stillUp("overlapping requests")
	})
}

// trio opens three connections, in different modes if the server has several.
func (t *trial) trio() (a, b, c *conn) {
	modes := t.profile.richModes()
	return t.open(modes[0]), t.open(modes[len(modes)/2]), t.open(modes[len(modes)-1])
}

func threeConnections(t *trial) {
	a, b, c := t.trio()
	at := t.scratch(8 << 20)
	for round := range uint64(16) {
		place, data := at+round*256<<10, fill(round, 64<<10)
		c.succeeds(newRead(place, 64<<10)) // so that a cache would have the block
		a.writeData(place, data)
		b.succeeds(newCommand(proto.CmdFlush, 0, 0))
		c.wantRead(newRead(place, 64<<10), data, "written on one connection, flushed on another")
	}
}

func seenAtOnce(t *trial) {
	a, b, c := t.trio()
	at := t.scratch(8 << 20)
	for round := range uint64(16) {
		data := fill(round+1000, 64<<10)
		for _, reader := range []*conn{b, c} {
			reader.succeeds(newRead(at, 64<<10))
		}
		a.writeData(at, data)
		for _, reader := range []*conn{b, c, a} {
			reader.wantRead(newRead(at, 64<<10), data,
				"just after the WRITE was answered on another connection")
		}
	}
}

func honestMultiConn(t *trial) {
	a, b, c := t.trio()
	at := t.scratch(8 << 20)
	for round := range uint64(16) {
		data := fill(round+2000, int(t.page()))
		b.succeeds(newRead(at, t.page()))
		a.succeeds(newWrite(at, data).with(proto.CmdFlagFUA))
		b.wantRead(newRead(at, t.page()), data, "after a WRITE with FUA on another connection")
		c.wantRead(newRead(at, t.page()), data, "after a WRITE with FUA on another connection")
	}
}

func deathInFlight(t *trial) {
	const n, size, block = 32, 64 << 10, 4096
	at := t.scratch(n * size)
	for round := range uint64(4) {
		c := t.open(t.profile.bestMode())
		before, after := fill(round*2, n*size), fill(round*2+1, n*size)
		c.overwrite(at, before)
		var b []byte
		for i := range uint64(n) {
			b = append(b, c.encode(c.number(newWrite(at+i*size, after[i*size:(i+1)*size])))...)
		}
		_ = c.tryWrite(b)
		c.reset()
		t.sleep(5 * pause) // the requests that the server has in flight still end
		other := t.open(t.profile.bestMode())
		for i := uint64(0); i < n*size; i += 512 << 10 {
			got := other.succeeds(newRead(at+i, 512<<10)).data
			for k := uint64(0); k < 512<<10; k += block {
				piece := got[k : k+block]
				t.want(bytes.Equal(piece, before[i+k:i+k+block]) ||
					bytes.Equal(piece, after[i+k:i+k+block]),
					"the block at %d is neither what it was nor what was written", at+i+k)
			}
		}
	}
	t.closeAndProveAlive("connections that died with WRITEs in flight")
}

func changesNextDoor(t *trial) {
	a, b := t.open(t.profile.bestMode()), t.open(t.profile.bestMode())
	var commands []uint16
	for _, command := range []uint16{proto.CmdTrim, proto.CmdWriteZeroes} {
		if a.offers(command) {
			commands = append(commands, command)
		}
	}
	if len(commands) == 0 {
		t.skip("the server has neither TRIM nor WRITE_ZEROES")
	}
	n := t.block()
	if t.profile.minBlock() == 1 {
		n = 1000 // so that both work on the same block of any device
	}
	at := t.scratch(1 << 20)
	for round := range uint64(64) {
		place := at + 2*n*round
		a.writeData(place, fill(3, int(2*n)))
		data := fill(round, int(n))
		for _, command := range commands {
			a.send(newCommand(command, place, n))
		}
		b.send(newWrite(place+n, data))
		for _, c := range []*conn{a, b} {
			for _, reply := range c.allReplies() {
				t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
			}
		}
		b.wantRead(newRead(place+n, n), data, "written while its neighbour was trimmed and zeroed")
	}
}

func kernelReplies(t *trial) {
	c := t.openPlain()
	for range 4 {
		for range 16 {
			c.send(newRead(0, t.block()))
		}
		for range 16 {
			reply := c.nextReply()
			t.want(reply.simple && reply.errno == 0, "%s: %s", reply.request, reply.errorText())
		}
		c.wantSilence(2*quiet, "after all replies")
	}
	c.stillUp("a kernel's READs")
}

func kernelRequests(t *trial) {
	c := t.openPlain()
	at := t.scratch(1 << 20)
	data := fill(4, 128<<10)
	r := newWrite(at, data)
	if c.flags&proto.FlagSendFUA != 0 {
		r.with(proto.CmdFlagFUA)
	}
	c.succeeds(r)
	c.wantData(at, data, "after the WRITE")
	if c.offers(proto.CmdFlush) {
		c.succeeds(newCommand(proto.CmdFlush, 0, 0))
	}
	page := t.page()
	if c.offers(proto.CmdTrim) {
		c.mayWork(newCommand(proto.CmdTrim, at, min(c.size-scratchStart, 1<<32-page)/page*page),
			eoverflow, einval)
	}
	n := min(c.size-scratchStart, longCost) / page * page // NO_HOLE allocates the blocks
	if c.offers(proto.CmdWriteZeroes) {
		c.writeData(at+n-page, fill(5, int(page)))
		if reply := c.mayWork(newCommand(proto.CmdWriteZeroes, at, n).with(proto.CmdFlagNoHole),
			eoverflow, einval); reply != nil && reply.errno == 0 {
			c.wantRead(newRead(at+n-page, page), make([]byte, page),
				"the end of a long WRITE_ZEROES")
		}
	}
	c.mayWork(newRead(0, min(1<<25, c.size)/t.block()*t.block()), eoverflow, einval)
	c.disconnect()
}

func sentAgain(t *trial) {
	a, b, c := t.trio()
	at := t.scratch(1 << 20)
	first, newer := fill(31, int(t.page())), fill(32, int(t.page()))
	a.send(newWrite(at, first))
	b.send(newWrite(at, first))
	for _, conn := range []*conn{a, b} {
		t.want(conn.nextReply().errno == 0, "the same WRITE on two connections fails")
	}
	a.writeData(at, newer)
	c.wantRead(newRead(at, t.page()), newer, "after a newer WRITE")
	b.writeData(at, first)
	c.wantRead(newRead(at, t.page()), first, "after the old WRITE was sent again")
}

func qemuWay(t *trial) {
	c := t.haggle()
	list := c.option(proto.OptList, nil)
	c.wantReply(list[len(list)-1], "LIST", proto.RepAck)
	if c.finalReply(proto.OptStructuredReply, nil).kind == proto.RepAck {
		c.mode = modeStructured
		c.option(proto.OptListMetaContext, contextData(t.export()))
		c.setContexts(t.export(), proto.ContextAllocation, "qemu:dirty-bitmap:none-of-this-name")
	}
	c.enterGo(t.export())
	if len(c.contexts) > 0 {
		c.mode = modeContexts
		c.status(newCommand(proto.CmdBlockStatus, 0, t.block()).with(proto.CmdFlagReqOne))
	}
	c.mayWork(newCommand(proto.CmdCache, 0, t.block()), einval)
	c.sendAll(newRead(0, t.block()), newRead(t.tail(t.block()), t.block()),
		newRead(0, c.upTo(64<<10)))
	for _, reply := range c.allReplies() {
		t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
	}
	c.disconnect()
}

func libnbdWay(t *trial) {
	c := t.haggle()
	if c.finalReply(proto.OptStructuredReply, nil).kind == proto.RepAck {
		c.mode = modeStructured
		c.setContexts(t.export(), proto.ContextAllocation)
	}
	list := c.option(proto.OptGo,
		infoData(t.export(), proto.InfoName, proto.InfoDescription, proto.InfoBlockSize))
	c.wantReply(list[len(list)-1], "GO with all information requests", proto.RepAck)
	info := c.parseInfos(list)
	c.size, c.flags, c.block = info.size, info.flags, info.block
	var b []byte
	for i := range uint64(64) {
		r := c.number(newRead(i*64<<10, 64<<10))
		c.expect(r)
		b = append(b, c.encode(r)...)
	}
	c.writeAside(b)
	for _, reply := range c.allReplies() {
		t.want(bytes.Equal(reply.data, expected(reply.request.offset, reply.request.length)),
			"%s: %s, or wrong data", reply.request, reply.errorText())
	}
	c.disconnect()
}

func carelessClient(t *trial) {
	t.eachMode(func(c *conn) {
		for _, r := range []*request{
			newRead(0, t.block()).with(proto.CmdFlagFUA),
			newCommand(proto.CmdFlush, 0, 0).with(proto.CmdFlagFUA),
			newCommand(proto.CmdCache, 0, t.block()),
			newCommand(proto.CmdCache, 0, min(c.size, longCost)/t.block()*t.block()),
		} {
			c.survives(r)
		}
		if t.profile.Writable {
			c.survives(newCommand(proto.CmdTrim, scratchStart,
				min(c.size-scratchStart,
					1<<32-1)/t.block()*t.block()).with(pick(c.flags&proto.FlagSendFUA != 0,
				proto.CmdFlagFUA, 0)))
		}
	})
}

func plainClient(t *trial) {
	c := t.openPlain()
	n := int(min(8<<20, c.size-scratchStart, t.profile.maxPayload()))
	data := fill(8, n)
	c.writeData(scratchStart, data)
	c.wantRead(newRead(scratchStart, uint64(n)), data, "a WRITE of several MiB")
	c.disconnect()
}
