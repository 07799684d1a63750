// Checks of several connections, and of the ways of real clients (MO, TF-08, K). Invariant: what
// one connection was told to be done is there for the others.

package conform

import (
	"bytes"

	"ringnbd/proto"
)

var multiChecks = []Check{
	{"MO-01", Must,
		"overlapping requests in flight are all answered, and each block is of one of them",
		"there is no promise of order, but one of wholeness", []Need{NeedWrite}, overlapsInFlight},
	{"MO-04", Must,
		"what was written on one connection, and flushed on a second, is read on a third",
		"it is what CAN_MULTI_CONN says; copies over several connections count on it",
		[]Need{NeedWrite, NeedMultiConn, NeedFlush}, threeConnections},
	{"MO-05", Must, "an answered WRITE is seen on every connection at once",
		"a cache of each connection would serve old data", []Need{NeedWrite, NeedMultiConn},
		seenAtOnce},
	{"MO-07", Quality, "a connection that dies with WRITEs in flight leaves each block old or new",
		"a buffer that is used again while the kernel still reads it writes somebody else's data",
		[]Need{NeedWrite}, deathInFlight},
	{"MO-08", Must, "TRIM and WRITE_ZEROES next to WRITEs on another connection harm nothing",
		"rounding outward, or a read-modify-write of a shared block, loses the WRITE",
		[]Need{NeedWrite}, changesNextDoor},
	{"TF-08", Must,
		"CAN_MULTI_CONN is honest: a WRITE with FUA on one connection is read on another",
		"it is the spec's own definition", []Need{NeedWrite, NeedMultiConn, NeedFUA},
		honestMultiConn},
	{"K-01", Must, "a client that knows simple replies only is served, and never answered twice",
		"nbd.ko hangs up on a cookie or a magic that it does not expect", nil, kernelReplies},
	{"K-02", Should,
		"what nbd.ko sends: FLUSH, FUA on WRITEs, TRIM of up to 4 GiB, long WRITE_ZEROES with " +
			"NO_HOLE",
		"it is the client that most disks hang on", []Need{NeedWrite}, kernelRequests},
	{"K-03", Must,
		"the same WRITE again on another connection, with a newer one between: the last one " +
			"sent stays",
		"nbd.ko sends again what it heard nothing of", []Need{NeedWrite, NeedMultiConn}, sentAgain},
	{"K-05", Must,
		"qemu's way in: LIST, structured replies, its own contexts, GO with block sizes, CACHE",
		"unknown contexts are ignored, not an error", []Need{NeedGo, NeedList}, qemuWay},
	{"K-06", Must,
		"libnbd's way in: structured replies, base:allocation, GO for all that there is, 64 " +
			"requests in flight",
		"nbdcopy and nbdinfo go this way", []Need{NeedGo, NeedPattern}, libnbdWay},
	{"K-07", Must, "nbd-client's way in: GO that asks for nothing, simple replies",
		"it never asks for block sizes", []Need{NeedGo}, func(t *T) {
			t.openPlain().StillUp("GO that asked for nothing")
		}},
	{"K-08", Should,
		"clients that do not look: FUA where it means nothing, CACHE that is not advertised, " +
			"long TRIMs",
		"they exist; an error is fine, a lost connection is not", nil, carelessClient},
	{"K-09", Must, "plain clients: simple replies and requests of several MiB",
		"the drivers of other systems know no more", []Need{NeedWrite}, plainClient},
}

func overlapsInFlight(t *T) {
	t.eachMode(func(c *Conn) {
		const size = 64 << 10
		at := t.Scratch(1 << 20)
		var b []byte
		for i := range uint64(8) {
			for _, r := range []*Request{Write(at, Fill(i+uint64(c.Mode)*100, size)),
				Read(at, size)} {
				c.Expect(c.Name(r))
				b = append(b, c.Encode(r)...)
			}
		}
		c.WriteAside(b) // a server may write replies before it reads on
		for _, reply := range c.All() {
			t.Want(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
		}
		got := c.Succeeds(Read(at, size)).Data
		for piece := 0; piece < size; piece += 4096 {
			known := false
			for i := range uint64(8) {
				known = known ||
					bytes.Equal(got[piece:piece+4096],
						Fill(i+uint64(c.Mode)*100, size)[piece:piece+4096])
			}
			t.Want(known, "the block at %d is of none of eight WRITEs", at+uint64(piece))
		}
		c.StillUp("overlapping requests")
	})
}

// trio opens three connections, in different modes if there are.
func (t *T) trio() (a, b, c *Conn) {
	modes := t.facts.richModes()
	return t.Open(modes[0]), t.Open(modes[len(modes)/2]), t.Open(modes[len(modes)-1])
}

func threeConnections(t *T) {
	a, b, c := t.trio()
	at := t.Scratch(8 << 20)
	for round := range uint64(16) {
		place, data := at+round*256<<10, Fill(round, 64<<10)
		c.Succeeds(Read(place, 64<<10)) // so that a cache would have it
		a.wrote(place, data)
		b.Succeeds(Command(proto.CmdFlush, 0, 0))
		c.wantRead(Read(place, 64<<10), data, "written on one connection, flushed on another")
	}
}

func seenAtOnce(t *T) {
	a, b, c := t.trio()
	at := t.Scratch(8 << 20)
	for round := range uint64(16) {
		data := Fill(round+1000, 64<<10)
		for _, reader := range []*Conn{b, c} {
			reader.Succeeds(Read(at, 64<<10))
		}
		a.wrote(at, data)
		for _, reader := range []*Conn{b, c, a} {
			reader.wantRead(Read(at, 64<<10), data,
				"just after the WRITE was answered on another connection")
		}
	}
}

func honestMultiConn(t *T) {
	a, b, c := t.trio()
	at := t.Scratch(8 << 20)
	for round := range uint64(16) {
		data := Fill(round+2000, int(t.page()))
		b.Succeeds(Read(at, t.page()))
		a.Succeeds(Write(at, data).With(proto.CmdFlagFUA))
		b.wantRead(Read(at, t.page()), data, "after a WRITE with FUA on another connection")
		c.wantRead(Read(at, t.page()), data, "after a WRITE with FUA on another connection")
	}
}

func deathInFlight(t *T) {
	const n, size, block = 32, 64 << 10, 4096
	at := t.Scratch(n * size)
	for round := range uint64(4) {
		c := t.Open(t.facts.Best())
		before, after := Fill(round*2, n*size), Fill(round*2+1, n*size)
		c.overwrite(at, before)
		var b []byte
		for i := range uint64(n) {
			b = append(b, c.Encode(c.Name(Write(at+i*size, after[i*size:(i+1)*size])))...)
		}
		_ = c.TryWrite(b)
		c.reset()
		t.Sleep(5 * pause) // what the server has in flight still ends
		other := t.Open(t.facts.Best())
		for i := uint64(0); i < n*size; i += 512 << 10 {
			got := other.Succeeds(Read(at+i, 512<<10)).Data
			for k := uint64(0); k < 512<<10; k += block {
				piece := got[k : k+block]
				t.Want(bytes.Equal(piece, before[i+k:i+k+block]) ||
					bytes.Equal(piece, after[i+k:i+k+block]),
					"the block at %d is neither what it was nor what was written", at+i+k)
			}
		}
	}
	t.settled("connections that died with WRITEs in flight")
}

func changesNextDoor(t *T) {
	a, b := t.Open(t.facts.Best()), t.Open(t.facts.Best())
	var commands []uint16
	for _, command := range []uint16{proto.CmdTrim, proto.CmdWriteZeroes} {
		if a.offers(command) {
			commands = append(commands, command)
		}
	}
	if len(commands) == 0 {
		t.Skip("the server has neither TRIM nor WRITE_ZEROES")
	}
	n := t.block()
	if t.facts.MinBlock() == 1 {
		n = 1000 // so that both work on the same block of any device
	}
	at := t.Scratch(1 << 20)
	for round := range uint64(64) {
		place := at + 2*n*round
		a.wrote(place, Fill(3, int(2*n)))
		data := Fill(round, int(n))
		for _, command := range commands {
			a.Send(Command(command, place, n))
		}
		b.Send(Write(place+n, data))
		for _, c := range []*Conn{a, b} {
			for _, reply := range c.All() {
				t.Want(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
			}
		}
		b.wantRead(Read(place+n, n), data, "written while its neighbour was trimmed and zeroed")
	}
}

func kernelReplies(t *T) {
	c := t.openPlain()
	for range 4 {
		for range 16 {
			c.Send(Read(0, t.block()))
		}
		for range 16 {
			reply := c.Next()
			t.Want(reply.Simple && reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
		}
		c.Silent(2*quiet, "after all replies")
	}
	c.StillUp("a kernel's READs")
}

func kernelRequests(t *T) {
	c := t.openPlain()
	at := t.Scratch(1 << 20)
	data := Fill(4, 128<<10)
	r := Write(at, data)
	if c.Flags&proto.FlagSendFUA != 0 {
		r.With(proto.CmdFlagFUA)
	}
	c.Succeeds(r)
	c.WantData(at, data, "after the WRITE")
	if c.offers(proto.CmdFlush) {
		c.Succeeds(Command(proto.CmdFlush, 0, 0))
	}
	page := t.page()
	if c.offers(proto.CmdTrim) {
		c.mayWork(Command(proto.CmdTrim, at, min(c.Size-ScratchStart, 1<<32-page)/page*page),
			EOVERFLOW, EINVAL)
	}
	n := min(c.Size-ScratchStart, longCost) / page * page // NO_HOLE takes the blocks
	if c.offers(proto.CmdWriteZeroes) {
		c.wrote(at+n-page, Fill(5, int(page)))
		if reply := c.mayWork(Command(proto.CmdWriteZeroes, at, n).With(proto.CmdFlagNoHole),
			EOVERFLOW, EINVAL); reply != nil && reply.Errno == 0 {
			c.wantRead(Read(at+n-page, page), make([]byte, page), "the end of a long WRITE_ZEROES")
		}
	}
	c.mayWork(Read(0, min(1<<25, c.Size)/t.block()*t.block()), EOVERFLOW, EINVAL)
	c.Disconnect()
}

func sentAgain(t *T) {
	a, b, c := t.trio()
	at := t.Scratch(1 << 20)
	first, newer := Fill(31, int(t.page())), Fill(32, int(t.page()))
	a.Send(Write(at, first))
	b.Send(Write(at, first))
	for _, conn := range []*Conn{a, b} {
		t.Want(conn.Next().Errno == 0, "the same WRITE on two connections fails")
	}
	a.wrote(at, newer)
	c.wantRead(Read(at, t.page()), newer, "after a newer WRITE")
	b.wrote(at, first)
	c.wantRead(Read(at, t.page()), first, "after the old WRITE came again")
}

func qemuWay(t *T) {
	c := t.Haggle()
	list := c.Option(proto.OptList, nil)
	c.WantReply(list[len(list)-1], "LIST", proto.RepAck)
	if c.Final(proto.OptStructuredReply, nil).Type == proto.RepAck {
		c.Mode = ModeStructured
		c.Option(proto.OptListMetaContext, ContextData(t.Export()))
		c.SetContexts(t.Export(), proto.ContextAllocation, "qemu:dirty-bitmap:none-of-this-name")
	}
	c.EnterGo(t.Export())
	if len(c.Contexts) > 0 {
		c.Mode = ModeContexts
		c.status(Command(proto.CmdBlockStatus, 0, t.block()).With(proto.CmdFlagReqOne))
	}
	c.mayWork(Command(proto.CmdCache, 0, t.block()), EINVAL)
	c.SendAll(Read(0, t.block()), Read(t.tail(t.block()), t.block()), Read(0, c.upTo(64<<10)))
	for _, reply := range c.All() {
		t.Want(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
	}
	c.Disconnect()
}

func libnbdWay(t *T) {
	c := t.Haggle()
	if c.Final(proto.OptStructuredReply, nil).Type == proto.RepAck {
		c.Mode = ModeStructured
		c.SetContexts(t.Export(), proto.ContextAllocation)
	}
	list := c.Option(proto.OptGo,
		InfoData(t.Export(), proto.InfoName, proto.InfoDescription, proto.InfoBlockSize))
	c.WantReply(list[len(list)-1], "GO for all that there is", proto.RepAck)
	info := c.Infos(list)
	c.Size, c.Flags, c.Block = info.Size, info.Flags, info.Block
	var b []byte
	for i := range uint64(64) {
		r := c.Name(Read(i*64<<10, 64<<10))
		c.Expect(r)
		b = append(b, c.Encode(r)...)
	}
	c.WriteAside(b)
	for _, reply := range c.All() {
		t.Want(bytes.Equal(reply.Data, Expected(reply.Request.Offset, reply.Request.Length)),
			"%s: %s, or wrong data", reply.Request, reply.Error())
	}
	c.Disconnect()
}

func carelessClient(t *T) {
	t.eachMode(func(c *Conn) {
		for _, r := range []*Request{
			Read(0, t.block()).With(proto.CmdFlagFUA), Command(proto.CmdFlush, 0,
				0).With(proto.CmdFlagFUA), Command(proto.CmdCache, 0, t.block()),
			Command(proto.CmdCache, 0, min(c.Size, longCost)/t.block()*t.block()),
		} {
			c.survives(r)
		}
		if t.facts.Writable {
			c.survives(Command(proto.CmdTrim, ScratchStart,
				min(c.Size-ScratchStart,
					1<<32-1)/t.block()*t.block()).With(pick(c.Flags&proto.FlagSendFUA != 0,
				proto.CmdFlagFUA, 0)))
		}
	})
}

func plainClient(t *T) {
	c := t.openPlain()
	n := int(min(8<<20, c.Size-ScratchStart, t.facts.MaxPayload()))
	data := Fill(8, n)
	c.wrote(ScratchStart, data)
	c.wantRead(Read(ScratchStart, uint64(n)), data, "a WRITE of several MiB")
	c.Disconnect()
}
