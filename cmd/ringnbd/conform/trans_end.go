// Checks of how connections end, and of clients that do not take part as they should (CD, SD, DS).
// Invariant: whatever one connection does, a new one is served at the end, and others were served
// meanwhile.

package conform

import (
	"bytes"
	"fmt"
	"net"
	"time"

	"ringnbd/proto"
)

var endChecks = []Check{
	{"CD-01a", Must, "DISC ends the connection without a reply",
		"clients close at once; one that waits for an answer would wait for ever", nil,
		disconnects},
	{"CD-01b", Must, "what was sent before DISC is done, even if its replies are not awaited",
		"a client that sends its last writes and DISC in one piece counts on it", []Need{NeedWrite},
		writesThenDisconnect},
	{"CD-01c", Quality, "DISC with an offset, a length or FUA ends the connection as any other",
		"a client that leaves is gone, whatever it said last", nil, oddDisconnects},
	{"CD-02", Quality, "what comes behind DISC is ignored",
		"a WRITE behind it was never meant to be done", []Need{NeedWrite}, afterDisconnect},
	{"SD-02", Must, "an idle connection stays open",
		"a disk that nobody uses for a while is no reason to lose it", nil, idle},
	{"SD-04", Quality,
		"hundreds of connections that are dropped in every state leave nothing behind that hurts",
		"descriptors and memory that leak end the server some night", nil, droppedInEveryState},
	{"DS-06", Quality,
		"thousands of requests before the first reply is read: held back, then all answered",
		"memory for all of them is a denial of service, hanging up a lost client",
		[]Need{NeedPattern}, thousandsUnread},
	{"DS-07", Quality, "a client that does not read its replies slows nobody else",
		"one hung client must not be everybody's", []Need{NeedPattern}, slowReader},
	{"DS-08", Quality, "a client that stops in the middle of a WRITE slows nobody else",
		"one hung client must not be everybody's", []Need{NeedPattern, NeedWrite}, slowWriter},
	{"DS-10", Quality, "a client that is gone while replies are written costs its connection only",
		"SIGPIPE has ended servers", nil, goneWhileWriting},
	{"DS-16", Quality, "a session that breaks off at any byte costs its connection only",
		"each byte is a state of the parser that the server must get out of", nil,
		brokenOffAnywhere},
	{"DS-18", Quality, "a block status is no longer than what was asked about",
		"a small request for a large reply is how others are flooded", []Need{NeedContexts},
		statusAmplification},
}

func disconnects(t *T) {
	t.eachMode(func(c *Conn) {
		c.Succeeds(Read(0, t.block()))
		c.Disconnect()
	})
}

func oddDisconnects(t *T) {
	t.eachMode(func(c *Conn) {
		for _, r := range []*Request{Command(proto.CmdDisc, 1<<63, 0),
			Command(proto.CmdDisc, 0, 1<<32-1),
			Command(proto.CmdDisc, 0, 0).With(proto.CmdFlagFUA)} {
			other := t.Open(c.Mode)
			other.Send(r)
			open, got := other.Hangs(t.patience / 8)
			if open {
				c.differOnce(r, pick(len(got) > 0, "an answer", "no end of the connection"))
			}
			other.Close()
		}
		c.StillUp("other connections that ended")
	})
}

func writesThenDisconnect(t *T) {
	t.eachMode(func(c *Conn) {
		const n = 100
		size := t.page()
		at := t.Scratch(n * size)
		var b []byte
		for i := range uint64(n) {
			r := c.Name(Write(at+i*size, Fill(i+uint64(c.Mode)*1000, int(size))))
			c.Expect(r)
			b = append(b, c.Encode(r)...)
		}
		c.Write(append(b, c.Encode(c.Name(Command(proto.CmdDisc, 0, 0)))...))
		told := c.untilClosed()
		other, missing, refused := t.Open(c.Mode), 0, 0
		for i := range uint64(n) {
			if bytes.Equal(other.Succeeds(Read(at+i*size, size)).Data,
				Fill(i+uint64(c.Mode)*1000, int(size))) {
				continue
			}
			if told[at+i*size] != 0 {
				refused++
			} else {
				missing++
			}
		}
		t.Want(missing == 0,
			"of %d WRITEs before DISC %d were not done, and not told to have failed", n, missing)
		if refused > 0 {
			t.Differ("with %s %d of %d WRITEs before DISC were not done, and told to have failed",
				c.Mode, refused, n)
		}
	})
}

// untilClosed reads the replies that come until the server closes, and gives the errors by the
// requests' offsets.
func (c *Conn) untilClosed() map[uint64]uint32 {
	errors := map[uint64]uint32{}
	for {
		open, got := c.Hangs(c.t.Left())
		if !open {
			return errors
		}
		if len(got) == 0 || len(c.pending) == 0 {
			c.t.Failf("the server does not close the connection; %d requests have no reply, %d "+
				"bytes are unread", len(c.pending), len(got))
		}
		reply := c.Next()
		errors[reply.Request.Offset] = reply.Errno
	}
}

func afterDisconnect(t *T) {
	t.eachMode(func(c *Conn) {
		at := t.Scratch(1 << 20)
		before := Fill(uint64(c.Mode)+21, int(t.page()))
		c.wrote(at, before)
		b := c.Encode(c.Name(Command(proto.CmdDisc, 0, 0)))
		b = append(b, c.Encode(c.Name(Write(at, Fill(99, len(before)))))...)
		_ = c.TryWrite(append(b, make([]byte, 64<<10)...)) // the connection may be gone
		c.Drained("DISC with a WRITE behind it")
		other := t.Open(c.Mode)
		t.Prefer(bytes.Equal(other.Succeeds(Read(at, uint64(len(before)))).Data, before),
			"a WRITE behind DISC was done")
		other.StillUp("a WRITE behind DISC")
	})
}

func idle(t *T) {
	c := t.Open(t.facts.Best())
	c.StillUp("nothing yet")
	c.Silent(t.patience/4, "while the connection is idle")
	c.StillUp("a pause")
}

// reset drops a connection so that the other side learns it by an error, where the transport can.
func (c *Conn) reset() {
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails on a connection that is gone already
	}
	c.Close()
}

// settled closes what the check opened, gives the server time to notice, and proves that it lives:
// so that what it dies of is this check's, not the next one's.
func (t *T) settled(after string) {
	t.closeAll()
	t.Sleep(10 * pause)
	t.alive(after)
}

func droppedInEveryState(t *T) {
	states := []func(c *Conn){
		func(c *Conn) {},
		func(c *Conn) { c.banner() },
		func(c *Conn) { c.banner(); c.Write([]byte{0, 0}) },
		func(c *Conn) {
			c.banner()
			c.Write([]byte{0, 0, 0, 1})
			c.Write(optionBytes(proto.OptList, nil)[:9])
		},
		func(c *Conn) { c.banner(); c.Write([]byte{0, 0, 0, 1}); c.SendOption(proto.OptList, nil) },
	}
	before, dropped := t.spent(), 0
	for i := 0; i < 40 && t.Left() > t.patience/3; i++ {
		dropped += len(states) + len(t.facts.richModes())
		for _, state := range states {
			c := t.Dial()
			state(c)
			c.reset()
		}
		for _, mode := range t.facts.richModes() {
			c := t.Open(mode)
			c.Send(Read(0, t.block()))
			if i%2 == 0 {
				c.Next()
			}
			if i%3 == 0 {
				c.Write(c.Encode(c.Name(Read(0, 512)))[:13])
			}
			c.reset()
		}
		t.closeAll()
	}
	t.settled("hundreds of dropped connections")
	t.released(before, dropped)
}

func thousandsUnread(t *T) {
	t.eachMode(func(c *Conn) {
		const n = 3000
		size := max(16<<10, t.block())
		want := Expected(0, 8*size)
		var b []byte
		for i := range uint64(n) {
			r := c.Name(Read(i%8*size, size))
			c.Expect(r)
			b = append(b, c.Encode(r)...)
		}
		sent := c.WriteAside(b)
		t.Sleep(5 * pause)
		for range n {
			reply := c.Next()
			at := reply.Request.Offset
			t.Want(reply.Errno == 0 && bytes.Equal(reply.Data, want[at:at+size]),
				"%s, one of %d in flight: %s, or wrong data (RQ-10, a MUST)", reply.Request, n,
				reply.Error())
		}
		t.Want(<-sent == nil, "not all of %d requests were taken", n)
		c.StillUp("3000 requests at once")
	})
}

// others proves that READs on a new connection are quick.
func (t *T) others(while string) {
	c := t.Open(t.facts.Best())
	worst := time.Duration(0)
	for i := range uint64(64) {
		at := i * 31 * t.page() % HoleStart
		worst = max(worst, took(func() {
			c.wantRead(Read(at, t.page()), Expected(at, t.page()), "while "+while)
		}))
	}
	t.Prefer(worst < t.patience/10, "while %s a READ on another connection takes %v", while,
		worst.Round(time.Millisecond))
}

func slowReader(t *T) {
	for range 3 {
		c := t.Open(t.facts.Best())
		var b []byte
		for i := range uint64(256) {
			b = append(b, c.Encode(c.Name(Read(i%8<<20, 1<<20)))...)
		}
		c.WriteAside(b)
	}
	t.Sleep(pause)
	t.others("three clients leave 256 MiB of replies unread")
	t.settled("clients that left without reading their replies")
}

func slowWriter(t *T) {
	at := t.Scratch(1 << 20)
	for i := range 3 {
		c := t.Open(t.facts.Best())
		r := c.Name(Write(at, Fill(uint64(i), 1<<20)))
		c.Write(c.Encode(r)[:proto.RequestSize+1000*i])
	}
	t.Sleep(pause)
	t.others("three clients stop in the middle of a WRITE")
	t.settled("clients that left in the middle of a WRITE")
}

func goneWhileWriting(t *T) {
	for i := range 8 {
		for _, mode := range t.facts.richModes() {
			c := t.Open(mode)
			var b []byte
			n := c.upTo(1 << 20)
			for k := range uint64(32) {
				b = append(b,
					c.Encode(c.Name(Read(min(k%8*n, (c.Size-n)/t.block()*t.block()), n)))...)
			}
			c.Write(b)
			if i%2 == 0 {
				c.Read(proto.SimpleReplySize, "the beginning of a reply")
			}
			c.reset()
		}
	}
	t.settled("clients that left while their replies were written")
}

// session is all that a client sends in a short session, handshake included.
func (t *T) session() []byte {
	c := &Conn{t: t, Mode: ModeGo, mayChange: t.facts.Writable}
	b := []byte{0, 0, 0, byte(t.facts.Handshake)}
	if t.facts.Go {
		b = append(b, optionBytes(proto.OptGo, InfoData(t.Export(), proto.InfoBlockSize))...)
	} else {
		b = append(b, optionBytes(proto.OptExportName, []byte(t.Export()))...)
	}
	b = append(b, c.Encode(c.Name(Read(0, t.block())))...)
	if t.facts.Writable {
		b = append(b, c.Encode(c.Name(Write(t.Scratch(t.block()), Fill(1, int(t.block())))))...)
	}
	b = append(b, c.Encode(c.Name(Command(proto.CmdFlush, 0, 0)))...)
	return append(b, c.Encode(c.Name(Command(proto.CmdDisc, 0, 0)))...)
}

func brokenOffAnywhere(t *T) {
	all := t.session()
	for n := 0; n <= len(all); n++ {
		if n > 200 && n < len(all)-2*proto.RequestSize && n%16 != 0 {
			continue // the middle of a WRITE's data
		}
		if t.Left() < t.patience/3 {
			t.Skip("only %d of %d places were tried in the time there is", n, len(all))
		}
		c := t.Dial()
		_ = c.TryWrite(all[:n]) // all of it at once, without waiting for the banner
		if n%2 == 0 {
			c.reset()
		} else {
			c.CloseWrite()
			c.Drained(fmt.Sprintf("a session that broke off after %d bytes", n))
			c.Close()
		}
	}
	t.settled("sessions that broke off anywhere")
}

func statusAmplification(t *T) {
	t.eachContextMode(func(c *Conn) {
		for _, s := range t.statusRanges() {
			for _, chunk := range c.status(Command(proto.CmdBlockStatus, s.from, s.to)) {
				t.Prefer(chunk.Length <= max(64, s.to),
					"BLOCK_STATUS of %d bytes is answered by %d", s.to, chunk.Length)
			}
		}
	})
}
