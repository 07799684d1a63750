// Checks of WRITE and FLUSH (CW, CF). Invariant: they write in the scratch only, and look at the
// blocks on both sides of what they wrote.

package conform

import (
	"bytes"
	"fmt"
	"time"

	"ringnbd/proto"
)

var writeChecks = []Check{
	{"CW-01a", Must,
		"what was written is read back, of every size, and its neighbours are untouched",
		"it is what the whole thing is for", []Need{NeedWrite}, writeSizes},
	{"CW-01b", Must, "a WRITE of the maximum payload works",
		"it is what the server promised, or 32 MiB for those that promise nothing",
		[]Need{NeedWrite}, writeMaximum},
	{"CW-01c", Must, "the last block can be written",
		"an off-by-one in the range check makes file systems fail at their backup super block",
		[]Need{NeedWrite}, writeLastBlock},
	{"CW-01d", Must,
		"what is 4 GiB apart is not the same place: WRITE, READ, WRITE_ZEROES, TRIM and the " +
			"image itself",
		"a server that cuts offsets to 32 bits keeps the end of a disk at its beginning",
		[]Need{NeedWrite, needHigh}, writeHigh},
	{"CW-02", Should, "a WRITE beyond the end is ENOSPC, is drained and writes nothing",
		"a half of it that was written is a torn request", []Need{NeedWrite}, writeBeyondEnd},
	{"CW-03", Should, "a WRITE to a read-only export is EPERM, and is drained",
		"ENOSPC or EIO would send the user looking in the wrong place", []Need{NeedReadOnlyChange},
		writeReadOnly},
	{"CW-04", Must, "READ_ONLY means it: WRITE, TRIM and WRITE_ZEROES all fail",
		"two machines with one disk count on it", []Need{NeedReadOnlyChange}, changeReadOnly},
	{"CW-05", Must, "a WRITE with FUA succeeds, and is read back",
		"whether it is on stable storage cannot be seen from here", []Need{NeedWrite, NeedFUA},
		writeFUA},
	{"CW-07", Should,
		"a WRITE that is not aligned to the minimum block size is EINVAL, is drained, and harms " +
			"no neighbour",
		"a server that rounds writes what nobody sent", []Need{NeedWrite, NeedBlocks},
		writeMisaligned},
	{"CW-09", Quality, "a WRITE whose data breaks off in the middle writes nothing",
		"half of a request that nobody finished sending is a torn write", []Need{NeedWrite},
		writeBrokenOff},
	{"CW-10a", Must, "WRITEs of neighbouring bytes on two connections at once: none is lost",
		"a server that reads, modifies and writes a block must not do so twice at a time",
		[]Need{NeedWrite, NeedByteUnit}, neighboursAtOnce},
	{"CW-10b", Quality, "overlapping WRITEs at once: each block is from one of them",
		"blocks with a bit of both are in neither writer's plan", []Need{NeedWrite},
		overlapsAtOnce},
	{"CF-01", Must, "FLUSH after WRITEs succeeds",
		"whether all is on stable storage then cannot be seen from here",
		[]Need{NeedWrite, NeedFlush}, flushAfterWrites},
	{"CF-02", Quality, "FLUSH with an offset or a length is EINVAL or ignored",
		"the fields must be zero; a server may not hang or hang up over them", []Need{NeedFlush},
		flushWithRange},
	{"CF-03a", Quality, "FLUSH on a read-only export succeeds, if it is advertised there",
		"clients flush before they leave, whatever they opened", []Need{NeedReadOnly},
		flushReadOnly},
	{"CF-03b", Must, "FLUSHes among WRITEs in flight are all answered",
		"a FLUSH that waits for the requests behind it waits for ever",
		[]Need{NeedWrite, NeedFlush}, flushAmongWrites},
}

// frame writes a frame of known data around [at, at+n), and gives a function that proves it
// unharmed.
func (c *Conn) frame(at, n uint64, seed uint64) func(when string) {
	block := c.t.block()
	first, last := Fill(seed, int(block)), Fill(seed+1, int(block))
	c.wrote(at-block, first)
	c.wrote(at+n, last)
	return func(when string) {
		c.wantRead(Read(at-block, block), first, when+": the block before it")
		c.wantRead(Read(at+n, block), last, when+": the block behind it")
	}
}

func writeSizes(t *T) {
	t.eachMode(func(c *Conn) {
		base := t.Scratch(8<<20) + 1<<20
		sizes := []uint64{t.block(), 2 * t.block(), 64 << 10, 1 << 20}
		if t.facts.MinBlock() == 1 {
			sizes = append(sizes, 1, 7, 511, 513, 4095, 4097, 65537)
		}
		for i, n := range sizes {
			unharmed := c.frame(base, n, uint64(i))
			data := Fill(uint64(100+i), int(n))
			c.wrote(base, data)
			when := fmt.Sprintf("after a WRITE of %d bytes", n)
			c.WantData(base, data, when)
			unharmed(when)
		}
		c.StillUp("WRITEs of every size")
	})
}

func writeMaximum(t *T) {
	t.eachMode(func(c *Conn) {
		n := min(t.facts.MaxPayload(), 1<<25)
		if t.facts.Size < ScratchStart+n {
			n = (t.facts.Size - ScratchStart) / t.block() * t.block()
		}
		data := Fill(uint64(c.Mode), int(n))
		c.wrote(ScratchStart, data)
		c.WantData(ScratchStart, data, "after a WRITE of the maximum payload")
		c.StillUp("a WRITE of the maximum payload")
	})
}

func writeLastBlock(t *T) {
	t.eachMode(func(c *Conn) {
		at := t.tail(t.block())
		data := Fill(uint64(c.Mode), int(c.Size-at))
		c.wrote(at, data)
		c.wantRead(Read(at, c.Size-at), data, "the last block")
		if t.facts.MinBlock() == 1 {
			c.wrote(c.Size-1, []byte{0xa5})
			c.wantRead(Read(c.Size-1, 1), []byte{0xa5}, "the last byte")
		}
	})
}

// high is the distance of two places that a server of 32 bits takes for one, in bytes.
const high = 1 << 32

var needHigh = Need{"an export of 17 MiB more than 4 GiB", func(f *Facts) bool {
	return f.Size >= high+ScratchStart+1<<20
}}

func writeHigh(t *T) {
	t.eachMode(func(c *Conn) {
		const n = 64 << 10
		at := t.Scratch(1 << 20)
		low, up, zeroes := Fill(uint64(c.Mode)+300, n), Fill(uint64(c.Mode)+400, n), make([]byte, n)
		c.wrote(at, low)
		c.wrote(at+high, up)
		c.WantData(at, low, "after a WRITE 4 GiB further on")
		c.WantData(at+high, up, "after a WRITE 4 GiB before it, and one there")
		c.inImage(at, low, up)
		for _, command := range []uint16{proto.CmdTrim, proto.CmdWriteZeroes} {
			if !c.offers(command) {
				continue
			}
			c.Succeeds(Command(command, at+high, n))
			c.WantData(at, low, "after "+commandName(command)+" 4 GiB further on")
			if command == proto.CmdWriteZeroes {
				c.WantData(at+high, zeroes, "after WRITE_ZEROES")
			}
			c.wrote(at+high, up)
			c.Succeeds(Command(command, at, n))
			c.WantData(at+high, up, "after "+commandName(command)+" 4 GiB before it")
			if len(c.Contexts) > 0 {
				c.notZero(at+high, n, "after "+commandName(command)+" 4 GiB before it")
			}
			c.wrote(at, low)
		}
		c.StillUp("requests 4 GiB apart")
	})
}

// inImage looks for data at its own place in the image, and for what is 4 GiB behind it. A server
// that keeps what is written somewhere else says nothing.
func (c *Conn) inImage(at uint64, low, up []byte) {
	t := c.t
	if t.facts.Image == "" {
		return
	}
	if c.offers(proto.CmdFlush) {
		c.Succeeds(Command(proto.CmdFlush, 0, 0))
	}
	f := t.Image()
	defer f.Close()
	got := make([]byte, len(low))
	if _, err := f.ReadAt(got, int64(at)); err != nil || !bytes.Equal(got, low) {
		return
	}
	_, err := f.ReadAt(got, int64(at+high))
	t.Want(err == nil && bytes.Equal(got, up),
		"a WRITE at %d stands in the image, and one at %d does not (%v)", at, at+high, err)
}

func writeBeyondEnd(t *T) {
	t.eachMode(func(c *Conn) {
		block := t.block()
		at := t.tail(2 * block)
		before := Fill(uint64(c.Mode)+7, int(c.Size-at))
		c.wrote(at, before)
		for _, s := range []span{{at + block, 2 * block}, {c.Size, block},
			{c.Size + 64*block, block}, {at, 1 << 20}} {
			c.refused(request(proto.CmdWrite, s.from, s.to), ENOSPC)
			c.wantRead(Read(at, c.Size-at), before, "after a WRITE beyond the end")
		}
	})
}

// readOnlyModes is eachMode on the read-only export.
func (t *T) readOnlyModes(f func(c *Conn)) {
	for _, mode := range t.facts.richModes() {
		t.within(mode.String(), func() {
			c := t.OpenReadOnly(mode)
			defer c.Close()
			f(c)
		})
	}
}

func writeReadOnly(t *T) {
	t.readOnlyModes(func(c *Conn) {
		t.Want(c.Flags&proto.FlagReadOnly != 0,
			"the export that should be read-only has the flags %#x", c.Flags)
		before := c.Succeeds(Read(0, c.upTo(1<<20))).Data
		for _, n := range []uint64{t.block(), c.upTo(1 << 20)} {
			c.wantReadOnly(request(proto.CmdWrite, 0, n))
		}
		t.Want(bytes.Equal(c.Succeeds(Read(0, c.upTo(1<<20))).Data, before),
			"a WRITE to a read-only export changed its data")
		c.wantReadOnly(request(proto.CmdWrite, c.Size, t.block()))
	})
}

// wantReadOnly sends what would change a read-only export and wants EPERM; the server may hang up.
func (c *Conn) wantReadOnly(r *Request) {
	reply, _ := c.attempt(r)
	switch {
	case reply == nil:
		c.differOnce(r, "the server hangs up instead of answering EPERM")
		c.Close()
		*c = *c.t.OpenReadOnly(c.Mode)
		return
	case reply.Errno == 0:
		c.t.Failf("%s: success on a read-only export", reply.Request)
	}
	if reply.Errno != EPERM {
		c.differOnce(reply.Request, ErrnoName(reply.Errno)+" instead of EPERM")
	}
	c.wantRead(Read(0, c.t.block()), c.Succeeds(Read(0, c.t.block())).Data, "still in step")
	c.Silent(quiet, "after the reply")
}

func changeReadOnly(t *T) {
	t.readOnlyModes(func(c *Conn) {
		before := c.Succeeds(Read(0, c.upTo(1<<20))).Data
		for _, command := range []uint16{proto.CmdWrite, proto.CmdTrim, proto.CmdWriteZeroes} {
			reply, _ := c.attempt(request(command, 0, c.upTo(64<<10)))
			t.Want(reply == nil ||
				reply.Errno != 0, "command %d succeeds on a read-only export", command)
			if reply == nil {
				c.Close()
				c = t.OpenReadOnly(c.Mode)
			}
		}
		t.Want(bytes.Equal(c.Succeeds(Read(0, c.upTo(1<<20))).Data, before),
			"a read-only export changed")
	})
}

func writeFUA(t *T) {
	t.eachMode(func(c *Conn) {
		at := t.Scratch(1 << 20)
		data := Fill(uint64(c.Mode)+50, 64<<10)
		c.Succeeds(Write(at, data).With(proto.CmdFlagFUA))
		c.WantData(at, data, "after a WRITE with FUA")
		c.StillUp("a WRITE with FUA")
	})
}

func writeMisaligned(t *T) {
	t.eachMode(func(c *Conn) {
		least := t.facts.MinBlock()
		at := t.Scratch(8*least) + least
		before := Fill(uint64(c.Mode), int(4*least))
		c.wrote(at-least, before)
		for _, s := range []span{{at + 1, least}, {at, least - 1}, {at + least/2, least},
			{at, least + 1}} {
			reply := c.refused(request(proto.CmdWrite, s.from, s.to), EINVAL)
			if reply != nil && reply.Errno == 0 {
				// it took it: then it must have written just that
				copy(before[s.from+least-at:], reply.Request.Payload)
			}
			c.wantRead(Read(at-least, 4*least), before, "after a misaligned WRITE")
		}
	})
}

func writeBrokenOff(t *T) {
	t.eachMode(func(c *Conn) {
		const n = 1 << 20
		at := t.Scratch(n)
		before := Fill(uint64(c.Mode)+3, n)
		c.WantData(at, c.overwrite(at, before), "before")
		r := c.Name(Write(at, Fill(uint64(c.Mode)+4, n)))
		b := c.Encode(r)
		c.Write(b[:len(b)-n/2])
		t.Sleep(pause)
		c.Close()
		t.Sleep(pause)
		other := t.Open(c.Mode)
		var got []byte
		for done := 0; done < n; done += n / 4 {
			got = append(got, other.Succeeds(Read(at+uint64(done), n/4)).Data...)
		}
		switch i := firstDifference(got, before); {
		case i < 0:
		case bytes.Equal(got[:n/2], r.Payload[:n/2]) || i < n/2:
			t.Differ("half of the data came, and was written")
		default:
			t.Failf("half of the data came, and bytes changed that it did not reach")
		}
		other.StillUp("a WRITE that broke off")
	})
}

// overwrite writes in pieces, and gives the data.
func (c *Conn) overwrite(at uint64, data []byte) []byte {
	for done := 0; done < len(data); done += 256 << 10 {
		c.wrote(at+uint64(done), data[done:min(done+256<<10, len(data))])
	}
	return data
}

func neighboursAtOnce(t *T) {
	at := t.Scratch(1 << 20)
	t.Open(t.facts.Best()).wrote(at, make([]byte, 64<<10))
	const each, rounds = 16, 256
	conns := []*Conn{t.Open(t.facts.Best()), t.Open(t.facts.Best())}
	for round := range uint64(rounds) {
		for i, c := range conns {
			c.Send(Write(at+round*2*each+uint64(i)*each,
				bytes.Repeat([]byte{byte(1 + round%100 + uint64(i)*100)}, each)))
		}
		if round%8 == 7 {
			for _, c := range conns {
				for _, reply := range c.All() {
					t.Want(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
				}
			}
		}
	}
	for round := range uint64(rounds) {
		for i := range uint64(2) {
			conns[0].wantRead(Read(at+round*2*each+i*each, each),
				bytes.Repeat([]byte{byte(1 + round%100 + i*100)}, each),
				"16 bytes next to 16 bytes of another connection")
		}
	}
}

func overlapsAtOnce(t *T) {
	block := max(t.block(), 4096)
	at := t.Scratch(1 << 20)
	a, b := t.Open(t.facts.Best()), t.Open(t.facts.Best())
	mixed := 0
	for round := range uint64(64) {
		one, two := Fill(2*round, int(8*block)), Fill(2*round+1, int(8*block))
		a.Send(Write(at, one))
		b.Send(Write(at, two))
		for _, c := range []*Conn{a, b} {
			reply := c.Next()
			t.Want(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
		}
		got := a.Succeeds(Read(at, 8*block)).Data
		for i := uint64(0); i < 8*block; i += block {
			if piece := got[i : i+block]; !bytes.Equal(piece, one[i:i+block]) &&
				!bytes.Equal(piece, two[i:i+block]) {
				mixed++
			}
		}
	}
	t.Prefer(mixed == 0, "%d blocks of %d bytes are from neither of two WRITEs alone", mixed, block)
}

func flushAfterWrites(t *T) {
	t.eachMode(func(c *Conn) {
		at := t.Scratch(1 << 20)
		data := Fill(uint64(c.Mode)+9, 64<<10)
		c.wrote(at, data)
		c.Succeeds(Command(proto.CmdFlush, 0, 0))
		c.WantData(at, data, "after FLUSH")
		c.StillUp("FLUSH")
	})
}

func flushWithRange(t *T) {
	t.eachMode(func(c *Conn) {
		for _, s := range []span{{0, t.block()}, {t.block(), 0}, {1 << 63, 1<<32 - 1},
			{1<<64 - 1, 0}} {
			c.mayWork(Command(proto.CmdFlush, s.from, s.to), EINVAL)
		}
	})
}

func flushReadOnly(t *T) {
	t.readOnlyModes(func(c *Conn) {
		if c.Flags&proto.FlagSendFlush == 0 {
			t.Skip("the read-only export does not advertise FLUSH")
		}
		c.Succeeds(Command(proto.CmdFlush, 0, 0))
		c.Succeeds(Read(0, t.block()))
	})
}

func flushAmongWrites(t *T) {
	t.eachMode(func(c *Conn) {
		at, page := t.Scratch(1<<20), t.page()
		for round := range uint64(4) {
			var list []*Request
			for i := range uint64(12) {
				list = append(list, Write(at+i*page, Fill(round*100+i, int(page))))
				if i%4 == 1 {
					list = append(list, Command(proto.CmdFlush, 0, 0))
				}
			}
			c.SendAll(list...)
			for _, reply := range c.All() {
				t.Want(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
			}
			for i := range uint64(12) {
				c.wantRead(Read(at+i*page, page), Fill(round*100+i, int(page)),
					"after FLUSHes among WRITEs")
			}
		}
		t.Want(t.Left() > time.Millisecond, "no time left")
	})
}
