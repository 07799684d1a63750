// Checks of WRITE and FLUSH (CW, CF).
//
// Invariant: these checks write in the scratch only, and read the blocks on both sides of what
// they wrote.

package conform

import (
	"bytes"
	"fmt"
	"time"

	"ringnbd/proto"
)

var writeChecks = []Check{
	{"CW-01a", must, []need{needWrite},
		"WRITEs of every size are read back, and the blocks next to them are untouched",
		"an export exists for this",
		writeSizes},
	{"CW-01b", must, []need{needWrite},
		"a WRITE of the maximum payload works",
		"the server promised it; 32 MiB if it promised nothing",
		writeMaximum},
	{"CW-01c", must, []need{needWrite},
		"the last block can be written",
		"with a range check that is off by one, file systems fail at their backup superblock",
		writeLastBlock},
	{"CW-01d", must, []need{needWrite, needHigh},
		"blocks that are 4 GiB apart are different blocks: for WRITE, READ, WRITE_ZEROES, TRIM " +
			"and in the image",
		"a server that cuts offsets to 32 bits stores the end of a disk at its beginning",
		writeHigh},
	{"CW-02", should, []need{needWrite},
		"a WRITE beyond the end is ENOSPC, is drained and writes nothing",
		"if half of it is written, the request is torn",
		writeBeyondEnd},
	{"CW-03", should, []need{needReadOnlyChange},
		"a WRITE to a read-only export is EPERM, and is drained",
		"ENOSPC or EIO would mislead the user",
		writeReadOnly},
	{"CW-04", must, []need{needReadOnlyChange},
		"on an export that is READ_ONLY, WRITE, TRIM and WRITE_ZEROES all fail",
		"machines that share a disk count on it",
		changeReadOnly},
	{"CW-05", must, []need{needWrite, needFUA},
		"a WRITE with FUA succeeds, and is read back",
		"a client sets FUA to have data on stable storage, which cannot be seen on the wire",
		writeFUA},
	{"CW-07", should, []need{needWrite, needBlocks},
		"a WRITE that is not aligned to the minimum block size is EINVAL, is drained, and harms " +
			"no neighbour",
		"a server that rounds the range writes bytes that the client did not send",
		writeMisaligned},
	{"CW-09", quality, []need{needWrite},
		"a WRITE whose data breaks off in the middle writes nothing",
		"half of a request that was not sent completely is a torn write",
		writeBrokenOff},
	{"CW-10a", must, []need{needWrite, needByteUnit},
		"of WRITEs of neighbouring bytes on two connections at once none is lost",
		"a server must not read, modify and write the same block for two requests at a time",
		neighboursAtOnce},
	{"CW-10b", quality, []need{needWrite},
		"after overlapping WRITEs at once each block is from one of them",
		"neither writer expects blocks with data of both",
		overlapsAtOnce},
	{"CF-01", must, []need{needWrite, needFlush},
		"FLUSH after WRITEs succeeds",
		"a client flushes to have data on stable storage, which cannot be seen on the wire",
		flushAfterWrites},
	{"CF-02", quality, []need{needFlush},
		"FLUSH with an offset or a length is EINVAL or ignored",
		"the fields must be zero, but a server must not hang or hang up if they are not",
		flushWithRange},
	{"CF-03a", quality, []need{needReadOnly},
		"FLUSH on a read-only export succeeds, if it is advertised there",
		"clients flush before they leave, also after reading",
		flushReadOnly},
	{"CF-03b", must, []need{needWrite, needFlush},
		"FLUSHes between WRITEs in flight are all answered",
		"a FLUSH that waits for later requests waits for ever",
		flushAmongWrites},
}

// frame writes known data before and after [at, at+n), and returns a function that proves it
// unharmed.
func (c *conn) frame(at, n uint64, seed uint64) func(when string) {
	block := c.t.block()
	first, last := fill(seed, int(block)), fill(seed+1, int(block))
	c.writeData(at-block, first)
	c.writeData(at+n, last)
	return func(when string) {
		c.wantRead(newRead(at-block, block), first, when+": the block before it")
		c.wantRead(newRead(at+n, block), last, when+": the block after it")
	}
}

func writeSizes(t *trial) {
	t.eachMode(func(c *conn) {
		base := t.scratch(8<<20) + 1<<20
		sizes := []uint64{t.block(), 2 * t.block(), 64 << 10, 1 << 20}
		if t.profile.minBlock() == 1 {
			sizes = append(sizes, 1, 7, 511, 513, 4095, 4097, 65537)
		}
		for i, n := range sizes {
			unharmed := c.frame(base, n, uint64(i))
			data := fill(uint64(100+i), int(n))
			c.writeData(base, data)
			when := fmt.Sprintf("after a WRITE of %d bytes", n)
			c.wantData(base, data, when)
			unharmed(when)
		}
		c.stillUp("WRITEs of every size")
	})
}

func writeMaximum(t *trial) {
	t.eachMode(func(c *conn) {
		n := min(t.profile.maxPayload(), 1<<25)
		if t.profile.Size < scratchStart+n {
			n = (t.profile.Size - scratchStart) / t.block() * t.block()
		}
		data := fill(uint64(c.mode), int(n))
		c.writeData(scratchStart, data)
		c.wantData(scratchStart, data, "after a WRITE of the maximum payload")
		c.stillUp("a WRITE of the maximum payload")
	})
}

func writeLastBlock(t *trial) {
	t.eachMode(func(c *conn) {
		at := t.tail(t.block())
		data := fill(uint64(c.mode), int(c.size-at))
		c.writeData(at, data)
		c.wantRead(newRead(at, c.size-at), data, "the last block")
		if t.profile.minBlock() == 1 {
			c.writeData(c.size-1, []byte{0xa5})
			c.wantRead(newRead(c.size-1, 1), []byte{0xa5}, "the last byte")
		}
	})
}

// farApart is the distance, in bytes, of two offsets that are the same for a server with 32 bits.
const farApart = 1 << 32

var needHigh = need{"an export of 17 MiB more than 4 GiB", func(p *Profile) bool {
	return p.Size >= farApart+scratchStart+1<<20
}}

func writeHigh(t *trial) {
	t.eachMode(func(c *conn) {
		const n = 64 << 10
		at := t.scratch(1 << 20)
		low, up, zeroes := fill(uint64(c.mode)+300, n), fill(uint64(c.mode)+400, n), make([]byte, n)
		c.writeData(at, low)
		c.writeData(at+farApart, up)
		c.wantData(at, low, "after a WRITE 4 GiB further on")
		c.wantData(at+farApart, up, "after a WRITE 4 GiB before it, and one there")
		c.inImage(at, low, up)
		for _, command := range []uint16{proto.CmdTrim, proto.CmdWriteZeroes} {
			if !c.offers(command) {
				continue
			}
			c.succeeds(newCommand(command, at+farApart, n))
			c.wantData(at, low, "after "+commandName(command)+" 4 GiB further on")
			if command == proto.CmdWriteZeroes {
				c.wantData(at+farApart, zeroes, "after WRITE_ZEROES")
			}
			c.writeData(at+farApart, up)
			c.succeeds(newCommand(command, at, n))
			c.wantData(at+farApart, up, "after "+commandName(command)+" 4 GiB before it")
			if len(c.contexts) > 0 {
				c.notZero(at+farApart, n, "after "+commandName(command)+" 4 GiB before it")
			}
			c.writeData(at, low)
		}
		c.stillUp("requests 4 GiB apart")
	})
}

// inImage looks in the image for the data of two WRITEs, 4 GiB apart. A server that keeps written
// data elsewhere than in the image shows nothing.
func (c *conn) inImage(at uint64, low, up []byte) {
	t := c.t
	if t.profile.Image == "" {
		return
	}
	if c.offers(proto.CmdFlush) {
		c.succeeds(newCommand(proto.CmdFlush, 0, 0))
	}
	f := t.image()
	defer f.Close()
	got := make([]byte, len(low))
	if _, err := f.ReadAt(got, int64(at)); err != nil || !bytes.Equal(got, low) {
		return
	}
	_, err := f.ReadAt(got, int64(at+farApart))
	t.want(err == nil && bytes.Equal(got, up),
		"a WRITE at %d is in the image, and a WRITE at %d is not (%v)", at, at+farApart, err)
}

func writeBeyondEnd(t *trial) {
	t.eachMode(func(c *conn) {
		block := t.block()
		at := t.tail(2 * block)
		before := fill(uint64(c.mode)+7, int(c.size-at))
		c.writeData(at, before)
		for _, s := range []area{{at + block, 2 * block}, {c.size, block},
			{c.size + 64*block, block}, {at, 1 << 20}} {
			c.refused(newRequest(proto.CmdWrite, s.offset, s.length), enospc)
			c.wantRead(newRead(at, c.size-at), before, "after a WRITE beyond the end")
		}
	})
}

// readOnlyModes is eachMode on the read-only export.
func (t *trial) readOnlyModes(f func(c *conn)) {
	for _, mode := range t.profile.richModes() {
		t.within(mode.String(), func() {
			c := t.openReadOnly(mode)
			defer c.close()
			f(c)
		})
	}
}

func writeReadOnly(t *trial) {
	t.readOnlyModes(func(c *conn) {
		t.want(c.flags&proto.FlagReadOnly != 0,
			"the export that should be read-only has the flags %#x", c.flags)
		before := c.succeeds(newRead(0, c.upTo(1<<20))).data
		for _, n := range []uint64{t.block(), c.upTo(1 << 20)} {
			c.wantReadOnly(newRequest(proto.CmdWrite, 0, n))
		}
		t.want(bytes.Equal(c.succeeds(newRead(0, c.upTo(1<<20))).data, before),
			"a WRITE to a read-only export changed its data")
		c.wantReadOnly(newRequest(proto.CmdWrite, c.size, t.block()))
	})
}

// wantReadOnly sends a request that would change a read-only export and wants EPERM; the server may
// hang up.
func (c *conn) wantReadOnly(r *request) {
	reply, _ := c.attempt(r)
	switch {
	case reply == nil:
		c.differOnce(r, "the server hangs up instead of answering EPERM")
		c.close()
		*c = *c.t.openReadOnly(c.mode)
		return
	case reply.errno == 0:
		c.t.failf("%s: success on a read-only export", reply.request)
	}
	if reply.errno != eperm {
		c.differOnce(reply.request, errnoName(reply.errno)+" instead of EPERM")
	}
	c.wantRead(newRead(0, c.t.block()), c.succeeds(newRead(0, c.t.block())).data, "still in step")
	c.wantSilence(quiet, "after the reply")
}

func changeReadOnly(t *trial) {
	t.readOnlyModes(func(c *conn) {
		before := c.succeeds(newRead(0, c.upTo(1<<20))).data
		for _, command := range []uint16{proto.CmdWrite, proto.CmdTrim, proto.CmdWriteZeroes} {
			reply, _ := c.attempt(newRequest(command, 0, c.upTo(64<<10)))
			t.want(reply == nil || reply.errno != 0,
				"command %d succeeds on a read-only export", command)
			if reply == nil {
				c.close()
				c = t.openReadOnly(c.mode)
			}
		}
		t.want(bytes.Equal(c.succeeds(newRead(0, c.upTo(1<<20))).data, before),
			"a read-only export changed")
	})
}

func writeFUA(t *trial) {
	t.eachMode(func(c *conn) {
		at := t.scratch(1 << 20)
		data := fill(uint64(c.mode)+50, 64<<10)
		c.succeeds(newWrite(at, data).with(proto.CmdFlagFUA))
		c.wantData(at, data, "after a WRITE with FUA")
		c.stillUp("a WRITE with FUA")
	})
}

func writeMisaligned(t *trial) {
	t.eachMode(func(c *conn) {
		minBlock := t.profile.minBlock()
		at := t.scratch(8*minBlock) + minBlock
		before := fill(uint64(c.mode), int(4*minBlock))
		c.writeData(at-minBlock, before)
		for _, s := range []area{{at + 1, minBlock}, {at, minBlock - 1},
			{at + minBlock/2, minBlock},
			{at, minBlock + 1}} {
			reply := c.refused(newRequest(proto.CmdWrite, s.offset, s.length), einval)
			if reply != nil && reply.errno == 0 {
				// success means that it was written exactly
				copy(before[s.offset+minBlock-at:], reply.request.payload)
			}
			c.wantRead(newRead(at-minBlock, 4*minBlock), before, "after a misaligned WRITE")
		}
	})
}

func writeBrokenOff(t *trial) {
	t.eachMode(func(c *conn) {
		const n = 1 << 20
		at := t.scratch(n)
		before := fill(uint64(c.mode)+3, n)
		c.wantData(at, c.overwrite(at, before), "before")
		r := c.number(newWrite(at, fill(uint64(c.mode)+4, n)))
		b := c.encode(r)
		c.write(b[:len(b)-n/2])
		t.sleep(pause)
		c.close()
		t.sleep(pause)
		other := t.open(c.mode)
		var got []byte
		for done := 0; done < n; done += n / 4 {
			got = append(got, other.succeeds(newRead(at+uint64(done), n/4)).data...)
		}
		switch i := firstDifference(got, before); {
		case i < 0:
		case bytes.Equal(got[:n/2], r.payload[:n/2]) || i < n/2:
			t.differ("half of the data was sent, and was written")
		default:
			t.failf("half of the data was sent, and bytes beyond it have changed")
		}
		other.stillUp("a WRITE that broke off")
	})
}

// overwrite writes in pieces that every server takes, and returns the data.
func (c *conn) overwrite(at uint64, data []byte) []byte {
	for done := 0; done < len(data); done += 256 << 10 {
		c.writeData(at+uint64(done), data[done:min(done+256<<10, len(data))])
	}
	return data
}

func neighboursAtOnce(t *trial) {
	at := t.scratch(1 << 20)
	t.open(t.profile.bestMode()).writeData(at, make([]byte, 64<<10))
	const each, rounds = 16, 256
	conns := []*conn{t.open(t.profile.bestMode()), t.open(t.profile.bestMode())}
	for round := range uint64(rounds) {
		for i, c := range conns {
			c.send(newWrite(at+round*2*each+uint64(i)*each,
				bytes.Repeat([]byte{byte(1 + round%100 + uint64(i)*100)}, each)))
		}
		if round%8 == 7 {
			for _, c := range conns {
				for _, reply := range c.allReplies() {
					t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
				}
			}
		}
	}
	for round := range uint64(rounds) {
		for i := range uint64(2) {
			conns[0].wantRead(newRead(at+round*2*each+i*each, each),
				bytes.Repeat([]byte{byte(1 + round%100 + i*100)}, each),
				"16 bytes next to 16 bytes of another connection")
		}
	}
}

func overlapsAtOnce(t *trial) {
	block := max(t.block(), 4096)
	at := t.scratch(1 << 20)
	a, b := t.open(t.profile.bestMode()), t.open(t.profile.bestMode())
	mixed := 0
	for round := range uint64(64) {
		one, two := fill(2*round, int(8*block)), fill(2*round+1, int(8*block))
		a.send(newWrite(at, one))
		b.send(newWrite(at, two))
		for _, c := range []*conn{a, b} {
			reply := c.nextReply()
			t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
		}
		got := a.succeeds(newRead(at, 8*block)).data
		for i := uint64(0); i < 8*block; i += block {
			if piece := got[i : i+block]; !bytes.Equal(piece, one[i:i+block]) &&
				!bytes.Equal(piece, two[i:i+block]) {
				mixed++
			}
		}
	}
	t.prefer(mixed == 0, "%d blocks of %d bytes are from neither of two WRITEs alone", mixed, block)
}

func flushAfterWrites(t *trial) {
	t.eachMode(func(c *conn) {
		at := t.scratch(1 << 20)
		data := fill(uint64(c.mode)+9, 64<<10)
		c.writeData(at, data)
		c.succeeds(newCommand(proto.CmdFlush, 0, 0))
		c.wantData(at, data, "after FLUSH")
		c.stillUp("FLUSH")
	})
}

func flushWithRange(t *trial) {
	t.eachMode(func(c *conn) {
		for _, s := range []area{{0, t.block()}, {t.block(), 0}, {1 << 63, 1<<32 - 1},
			{1<<64 - 1, 0}} {
			c.mayWork(newCommand(proto.CmdFlush, s.offset, s.length), einval)
		}
	})
}

func flushReadOnly(t *trial) {
	t.readOnlyModes(func(c *conn) {
		if c.flags&proto.FlagSendFlush == 0 {
			t.skip("the read-only export does not advertise FLUSH")
		}
		c.succeeds(newCommand(proto.CmdFlush, 0, 0))
		c.succeeds(newRead(0, t.block()))
	})
}

func flushAmongWrites(t *trial) {
	t.eachMode(func(c *conn) {
		at, page := t.scratch(1<<20), t.page()
		for round := range uint64(4) {
			var list []*request
			for i := range uint64(12) {
				list = append(list, newWrite(at+i*page, fill(round*100+i, int(page))))
				if i%4 == 1 {
					list = append(list, newCommand(proto.CmdFlush, 0, 0))
				}
			}
			c.sendAll(list...)
			for _, reply := range c.allReplies() {
				t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
			}
			for i := range uint64(12) {
				c.wantRead(newRead(at+i*page, page), fill(round*100+i, int(page)),
					"after FLUSHes between WRITEs")
			}
		}
		t.want(t.left() > time.Millisecond, "the time is over")
	})
}
