// Checks of how connections end, and of clients that hang, leave or flood (CD, SD, DS).
//
// Invariant: whatever a connection does, a new connection is served at the end, and others were
// served meanwhile.

package conform

import (
	"bytes"
	"fmt"
	"net"
	"time"

	"ringnbd/proto"
)

var endChecks = []Check{
	{"CD-01a", must, nil,
		"DISC ends the connection without a reply",
		"clients do not expect a reply",
		disconnects},
	{"CD-01b", must, []need{needWrite},
		"requests before DISC are done, even if the client does not wait for their replies",
		"a client that sends its last WRITEs and DISC in one piece counts on it",
		writesThenDisconnect},
	{"CD-01c", quality, nil,
		"DISC with an offset, a length or FUA ends the connection like any DISC",
		"the client leaves, whatever the fields are",
		oddDisconnects},
	{"CD-02", quality, []need{needWrite},
		"requests after DISC are ignored",
		"they were not meant to be done",
		afterDisconnect},
	{"SD-02", must, nil,
		"an idle connection stays open",
		"a disk must not be lost because it is not used for a while",
		idle},
	{"SD-04", quality, nil,
		"hundreds of connections that are dropped in every state leak neither descriptors nor " +
			"memory",
		"a server that leaks descriptors or memory ends some night",
		droppedInEveryState},
	{"DS-06", quality, []need{needPattern},
		"thousands of requests before the first reply is read: the server holds them back, then " +
			"answers all",
		"a server that keeps them all runs out of memory, and a server that hangs up loses the " +
			"client",
		thousandsUnread},
	{"DS-07", quality, []need{needPattern},
		"a client that does not read its replies slows no other client",
		"one client that hangs must not hang the others",
		slowReader},
	{"DS-08", quality, []need{needPattern, needWrite},
		"a client that stops in the middle of a WRITE slows no other client",
		"one client that hangs must not hang the others",
		slowWriter},
	{"DS-10", quality, nil,
		"a client that is gone while replies are written costs only its connection",
		"servers have died of SIGPIPE",
		goneWhileWriting},
	{"DS-16", quality, nil,
		"a session that breaks off at any byte costs only its connection",
		"after each byte the server's parser is in a state that it must be able to leave",
		brokenOffAnywhere},
	{"DS-18", quality, []need{needContexts},
		"a block status is not longer than the range of the request",
		"small requests with large replies are used to flood others",
		statusAmplification},
}

func disconnects(t *trial) {
	t.eachMode(func(c *conn) {
		c.succeeds(newRead(0, t.block()))
		c.disconnect()
	})
}

func oddDisconnects(t *trial) {
	t.eachMode(func(c *conn) {
		for _, r := range []*request{newCommand(proto.CmdDisc, 1<<63, 0),
			newCommand(proto.CmdDisc, 0, 1<<32-1),
			newCommand(proto.CmdDisc, 0, 0).with(proto.CmdFlagFUA)} {
			other := t.open(c.mode)
			other.send(r)
			open, got := other.openAfter(t.patience / 8)
			if open {
				c.differOnce(r, pick(len(got) > 0, "an answer", "no end of the connection"))
			}
			other.close()
		}
		c.stillUp("other connections that ended")
	})
}

func writesThenDisconnect(t *trial) {
	t.eachMode(func(c *conn) {
		const n = 100
		size := t.page()
		at := t.scratch(n * size)
		var b []byte
		for i := range uint64(n) {
			r := c.number(newWrite(at+i*size, fill(i+uint64(c.mode)*1000, int(size))))
			c.expect(r)
			b = append(b, c.encode(r)...)
		}
		c.write(append(b, c.encode(c.number(newCommand(proto.CmdDisc, 0, 0)))...))
		failed := c.untilClosed()
		other, missing, refused := t.open(c.mode), 0, 0
		for i := range uint64(n) {
			if bytes.Equal(other.succeeds(newRead(at+i*size, size)).data,
				fill(i+uint64(c.mode)*1000, int(size))) {
				continue
			}
			if failed[at+i*size] != 0 {
				refused++
			} else {
				missing++
			}
		}
		t.want(missing == 0,
			"of %d WRITEs before DISC %d were not done, without an error", n, missing)
		if refused > 0 {
			t.differ("with %s %d of %d WRITEs before DISC were not done, with an error",
				c.mode, refused, n)
		}
	})
}

// untilClosed reads replies until the server closes, and returns the errors by the requests'
// offsets.
func (c *conn) untilClosed() map[uint64]uint32 {
	errors := map[uint64]uint32{}
	for {
		open, got := c.openAfter(c.t.left())
		if !open {
			return errors
		}
		if len(got) == 0 || len(c.pending) == 0 {
			c.t.failf("the server does not close the connection; %d requests have no reply, %d "+
				"bytes are unread", len(c.pending), len(got))
		}
		reply := c.nextReply()
		errors[reply.request.offset] = reply.errno
	}
}

func afterDisconnect(t *trial) {
	t.eachMode(func(c *conn) {
		at := t.scratch(1 << 20)
		before := fill(uint64(c.mode)+21, int(t.page()))
		c.writeData(at, before)
		b := c.encode(c.number(newCommand(proto.CmdDisc, 0, 0)))
		b = append(b, c.encode(c.number(newWrite(at, fill(99, len(before)))))...)
		_ = c.tryWrite(append(b, make([]byte, 64<<10)...)) // the connection may be gone
		c.drain("DISC with a WRITE after it")
		other := t.open(c.mode)
		t.prefer(bytes.Equal(other.succeeds(newRead(at, uint64(len(before)))).data, before),
			"a WRITE after DISC was done")
		other.stillUp("a WRITE after DISC")
	})
}

func idle(t *trial) {
	c := t.open(t.profile.bestMode())
	c.stillUp("nothing yet")
	c.wantSilence(t.patience/4, "while the connection is idle")
	c.stillUp("a pause")
}

// reset drops a connection so that the server gets an error, if the transport has resets.
func (c *conn) reset() {
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only on a connection that is gone
	}
	c.close()
}

// closeAndProveAlive closes what the check opened, gives the server time to notice, and proves that
// it lives, so that a server that dies fails this check and not the next.
func (t *trial) closeAndProveAlive(after string) {
	t.closeAll()
	t.sleep(10 * pause)
	t.alive(after)
}

func droppedInEveryState(t *trial) {
	states := []func(c *conn){
		func(c *conn) {},
		func(c *conn) { c.banner() },
		func(c *conn) { c.banner(); c.write([]byte{0, 0}) },
		func(c *conn) {
			c.banner()
			c.write([]byte{0, 0, 0, 1})
			c.write(optionBytes(proto.OptList, nil)[:9])
		},
		func(c *conn) { c.banner(); c.write([]byte{0, 0, 0, 1}); c.sendOption(proto.OptList, nil) },
	}
	before, dropped := t.holdings(), 0
	for i := 0; i < 40 && t.left() > t.patience/3; i++ {
		dropped += len(states) + len(t.profile.richModes())
		for _, state := range states {
			c := t.dial()
			state(c)
			c.reset()
		}
		for _, mode := range t.profile.richModes() {
			c := t.open(mode)
			c.send(newRead(0, t.block()))
			if i%2 == 0 {
				c.nextReply()
			}
			if i%3 == 0 {
				c.write(c.encode(c.number(newRead(0, 512)))[:13])
			}
			c.reset()
		}
		t.closeAll()
	}
	t.closeAndProveAlive("hundreds of dropped connections")
	t.released(before, dropped)
}

func thousandsUnread(t *trial) {
	t.eachMode(func(c *conn) {
		const n = 3000
		size := max(16<<10, t.block())
		want := expected(0, 8*size)
		var b []byte
		for i := range uint64(n) {
			r := c.number(newRead(i%8*size, size))
			c.expect(r)
			b = append(b, c.encode(r)...)
		}
		sent := c.writeAside(b)
		t.sleep(5 * pause)
		for range n {
			reply := c.nextReply()
			at := reply.request.offset
			t.want(reply.errno == 0 && bytes.Equal(reply.data, want[at:at+size]),
				"%s, one of %d in flight: %s, or wrong data (RQ-10, a MUST)", reply.request, n,
				reply.errorText())
		}
		t.want(<-sent == nil, "the server did not read all of %d requests", n)
		c.stillUp("3000 requests at once")
	})
}

// wantQuickReads notes a deviation unless READs on a new connection are quick.
func (t *trial) wantQuickReads(while string) {
	c := t.open(t.profile.bestMode())
	worst := time.Duration(0)
	for i := range uint64(64) {
		at := i * 31 * t.page() % holeStart
		worst = max(worst, timed(func() {
			c.wantRead(newRead(at, t.page()), expected(at, t.page()), "while "+while)
		}))
	}
	t.prefer(worst < t.patience/10, "while %s a READ on another connection takes %v", while,
		worst.Round(time.Millisecond))
}

func slowReader(t *trial) {
	for range 3 {
		c := t.open(t.profile.bestMode())
		var b []byte
		for i := range uint64(256) {
			b = append(b, c.encode(c.number(newRead(i%8<<20, 1<<20)))...)
		}
		c.writeAside(b)
	}
	t.sleep(pause)
	t.wantQuickReads("three clients leave 256 MiB of replies unread")
	t.closeAndProveAlive("clients that left without reading their replies")
}

func slowWriter(t *trial) {
	at := t.scratch(1 << 20)
	for i := range 3 {
		c := t.open(t.profile.bestMode())
		r := c.number(newWrite(at, fill(uint64(i), 1<<20)))
		c.write(c.encode(r)[:proto.RequestSize+1000*i])
	}
	t.sleep(pause)
	t.wantQuickReads("three clients stop in the middle of a WRITE")
	t.closeAndProveAlive("clients that left in the middle of a WRITE")
}

func goneWhileWriting(t *trial) {
	for i := range 8 {
		for _, mode := range t.profile.richModes() {
			c := t.open(mode)
			var b []byte
			n := c.upTo(1 << 20)
			for k := range uint64(32) {
				b = append(b,
					c.encode(c.number(newRead(min(k%8*n, (c.size-n)/t.block()*t.block()), n)))...)
			}
			c.write(b)
			if i%2 == 0 {
				c.read(proto.SimpleReplySize, "the beginning of a reply")
			}
			c.reset()
		}
	}
	t.closeAndProveAlive("clients that left while their replies were written")
}

// wholeConversation returns all bytes that a client sends in a short session, with the handshake.
func (t *trial) wholeConversation() []byte {
	c := &conn{t: t, mode: modeGo, mayChange: t.profile.Writable}
	b := []byte{0, 0, 0, byte(t.profile.Handshake)}
	if t.profile.Go {
		b = append(b, optionBytes(proto.OptGo, infoData(t.export(), proto.InfoBlockSize))...)
	} else {
		b = append(b, optionBytes(proto.OptExportName, []byte(t.export()))...)
	}
	b = append(b, c.encode(c.number(newRead(0, t.block())))...)
	if t.profile.Writable {
		b = append(b,
			c.encode(c.number(newWrite(t.scratch(t.block()), fill(1, int(t.block())))))...)
	}
	b = append(b, c.encode(c.number(newCommand(proto.CmdFlush, 0, 0)))...)
	return append(b, c.encode(c.number(newCommand(proto.CmdDisc, 0, 0)))...)
}

func brokenOffAnywhere(t *trial) {
	all := t.wholeConversation()
	for n := 0; n <= len(all); n++ {
		if n > 200 && n < len(all)-2*proto.RequestSize && n%16 != 0 {
			continue // the middle of a WRITE's data
		}
		if t.left() < t.patience/3 {
			t.skip("only %d of %d places could be tried in the time of a check", n, len(all))
		}
		c := t.dial()
		_ = c.tryWrite(all[:n]) // all at once, without a wait for the banner
		if n%2 == 0 {
			c.reset()
		} else {
			c.closeWrite()
			c.drain(fmt.Sprintf("a session that broke off after %d bytes", n))
			c.close()
		}
	}
	t.closeAndProveAlive("sessions that broke off anywhere")
}

func statusAmplification(t *trial) {
	t.eachContextMode(func(c *conn) {
		for _, s := range t.statusRanges() {
			for _, chunk := range c.status(newCommand(proto.CmdBlockStatus, s.offset, s.length)) {
				t.prefer(chunk.length <= max(64, s.length),
					"BLOCK_STATUS of %d bytes is answered by %d bytes", s.length, chunk.length)
			}
		}
	})
}
