// What the checks of the transmission phase share: a connection in every mode, requests that should
// be refused, and the errors that the spec wants.
//
// Invariant: an answer that the spec allows is never a failure here, and one that it forbids never
// a mere deviation.

package conform

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringnbd/proto"
)

// beyondError is the error of each command for a range beyond the end of the export ("Error
// values").
var beyondError = map[uint16]uint32{
	proto.CmdRead: EINVAL, proto.CmdWrite: ENOSPC, proto.CmdTrim: EINVAL, proto.CmdCache: EINVAL,
	proto.CmdWriteZeroes: ENOSPC, proto.CmdBlockStatus: EINVAL,
}

// richModes are the formats that the server speaks, each with a context if it has one.
func (f *Facts) richModes() []Mode {
	list := []Mode{ModeGo}
	if !f.Go {
		list[0] = ModeExportName
	}
	if f.Structured && f.Go {
		list = append(list, pick(f.Allocation, ModeContexts, ModeStructured))
	}
	if f.Extended {
		list = append(list, pick(f.Allocation, ModeExtendedContexts, ModeExtended))
	}
	return list
}

func pick[V any](first bool, a, b V) V {
	if first {
		return a
	}
	return b
}

// eachMode runs a check on a new connection in every mode; a failure says in which.
func (t *T) eachMode(f func(c *Conn)) { t.inModes(t.facts.richModes(), f) }

// eachChunkMode is eachMode without that of simple replies.
func (t *T) eachChunkMode(f func(c *Conn)) { t.inModes(t.facts.richModes()[1:], f) }

func (t *T) inModes(modes []Mode, f func(c *Conn)) {
	for _, mode := range modes {
		t.within(mode.String(), func() {
			c := t.Open(mode)
			defer c.Close()
			f(c)
			if _, got := c.Hangs(quiet); len(got) > 0 {
				t.Failf("at the end: stray bytes from the server%s", shown(got))
			}
		})
	}
}

// inStep is StillUp without listening for stray bytes, for checks that ask it often: those would be
// found in the way of the next reply, and at the end.
func (c *Conn) inStep(after string) {
	if problem := c.t.Try(func() {
		reply := c.Succeeds(Read(0, uint64(len(c.t.facts.probe))))
		if i := firstDifference(reply.Data, c.t.facts.probe); c.t.facts.probeKnown && i >= 0 {
			c.t.Failf("byte %d of the export is %#x, and was %#x when the suite began", i,
				reply.Data[i], c.t.facts.probe[i])
		}
	}); problem != "" {
		c.t.Failf("the stream is out of step after %s: %s", after, problem)
	}
}

// within puts the circumstances before whatever fails or skips.
func (t *T) within(where string, f func()) {
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
func (t *T) block() uint64 { return max(min(512, t.facts.Size), t.facts.MinBlock()) }

// upTo is n bytes, or as many whole blocks as a READ at 0 may have.
func (c *Conn) upTo(n uint64) uint64 {
	return min(n, c.Size, c.t.facts.MaxPayload()) / c.t.block() * c.t.block()
}

// rest is how many bytes from ScratchStart one request can be about, whole blocks of the scratch:
// at most most, and what its header has room for.
func (c *Conn) rest(most uint64) uint64 {
	if !c.Mode.Extended() {
		most = min(most, 1<<32-c.t.block())
	}
	return min(c.Size-ScratchStart, most) / c.t.block() * c.t.block()
}

// Servers really do some commands of long ranges, block by block; those ranges end here, in bytes.
const longCost = 160 << 20

// page is a size in bytes that is usual for small requests, and whole blocks.
func (t *T) page() uint64 { return max(4096, t.block()) }

// tail is the offset of the last n bytes of the export, rounded down to whole blocks.
func (t *T) tail(n uint64) uint64 {
	if t.facts.Size < n {
		t.Skip("the export has less than %d bytes", n)
	}
	return (t.facts.Size - n) / t.block() * t.block()
}

// offers says whether the connection's export has the command.
func (c *Conn) offers(command uint16) bool {
	needed := map[uint16]uint16{proto.CmdFlush: proto.FlagSendFlush,
		proto.CmdTrim: proto.FlagSendTrim, proto.CmdCache: proto.FlagSendCache,
		proto.CmdWriteZeroes: proto.FlagSendWriteZeroes}
	switch command {
	case proto.CmdRead:
		return true
	case proto.CmdWrite:
		return c.t.facts.Writable
	case proto.CmdTrim, proto.CmdWriteZeroes:
		return c.t.facts.Writable && c.Flags&needed[command] != 0
	case proto.CmdFlush, proto.CmdCache:
		return c.Flags&needed[command] != 0
	case proto.CmdBlockStatus:
		return len(c.Contexts) > 0
	}
	return false
}

// ranged are the commands that work on a range, of those the connection's export has.
func (c *Conn) ranged() []uint16 {
	var list []uint16
	for _, command := range []uint16{proto.CmdRead, proto.CmdWrite, proto.CmdTrim,
		proto.CmdWriteZeroes, proto.CmdCache, proto.CmdBlockStatus} {
		if c.offers(command) {
			list = append(list, command)
		}
	}
	return list
}

// request is any command on a range, with data if it is a WRITE.
func request(command uint16, offset, length uint64) *Request {
	r := Command(command, offset, length)
	if command == proto.CmdWrite {
		r.Payload = Fill(length+offset, int(length))
	}
	return r
}

// attempt sends a request that a server may take as a reason to hang up, and gives its reply; nil
// means that it hung up. The request's data is sent while the reply is awaited, so that neither
// side waits for the other; complete says that all of it was taken.
func (c *Conn) attempt(r *Request) (reply *Reply, complete bool) {
	c.Name(r)
	c.Expect(r)
	sent := c.WriteAside(c.Encode(r))
	if open, _ := c.Hangs(c.t.Left()); !open {
		c.pending = nil
		return nil, false
	}
	reply = c.Next()
	return reply, <-sent == nil
}

// refused sends a request that is wrong. The spec asks for one of these errors and lets a server
// hang up instead, as the client broke a rule; another error is a deviation, success too unless the
// request would have changed data that is not there. Whoever does not hang up must stay in step.
func (c *Conn) refused(r *Request, errors ...uint32) *Reply {
	if !slices.Contains(errors, 0) {
		c.bait(r)
	}
	reply, complete := c.attempt(r)
	if reply == nil {
		c.differOnce(r, "the server hangs up instead of answering "+errnoList(errors))
		c.reopen(r.String())
		return nil
	}
	c.judgeRefusal(reply, errors)
	problem := c.t.Try(func() { c.inStep(r.String()) })
	if problem == "" && complete {
		return reply
	}
	if open, _ := c.Hangs(c.t.patience / 10); open {
		c.t.Failf("%s", pick(problem != "", problem, "the data behind "+r.String()+" was not read"))
	}
	c.differOnce(r, "the server hangs up after answering "+ErrnoName(reply.Errno))
	c.reopen(r.String())
	return reply
}

// bait makes the data of a WRITE that should be refused out of READs: a server that does not drain
// it answers those, with a cookie that nobody sent, instead of tripping over noise, which would
// look like a server that hangs up on purpose.
func (c *Conn) bait(r *Request) {
	if len(r.Payload) == 0 || r.Type != proto.CmdWrite {
		return
	}
	one := c.Encode(&Request{Cookie: 0x6261697462616974, Length: c.t.block()})
	r.Payload = bytes.Repeat(one, len(r.Payload)/len(one)+1)[:len(r.Payload)]
}

func (c *Conn) judgeRefusal(reply *Reply, errors []uint32) {
	for _, e := range errors {
		if reply.Errno == e {
			return
		}
	}
	r := reply.Request
	beyond := r.Offset > c.Size || r.Length > c.Size-r.Offset
	if reply.Errno == 0 && beyond && r.Length > 0 &&
		(r.Type == proto.CmdWrite || r.Type == proto.CmdWriteZeroes) {
		c.t.Failf("%s: success, although the export ends at %d", r, c.Size)
	}
	c.differOnce(r, ErrnoName(reply.Errno)+" instead of "+errnoList(errors))
}

// differOnce notes a deviation once for each command, with the first request that showed it; the
// same in other modes and ranges is no news.
func (c *Conn) differOnce(r *Request, what string) {
	what = commandName(r.Type) + ": " + what
	for _, told := range c.t.differs {
		if strings.HasPrefix(told, what+" (") {
			return
		}
	}
	c.t.Differ("%s (%s, %s)", what, r, c.Mode)
}

func commandName(command uint16) string {
	if name := proto.CommandName(command); name != "" {
		return name
	}
	return "an unknown command"
}

func errnoList(errors []uint32) string {
	text := ""
	for i, e := range errors {
		if i > 0 {
			text += " or "
		}
		text += ErrnoName(e)
	}
	return text
}

// reopen replaces a connection that the server closed by one in the same mode, and proves that this
// one works.
func (c *Conn) reopen(after string) {
	c.Close()
	*c = *c.t.Open(c.Mode)
	c.StillUp(after)
}

// alive proves that a server still serves, by a new connection.
func (t *T) alive(after string) {
	c := t.Open(t.facts.Best())
	defer c.Close()
	c.StillUp(after)
}

// survives sends a request of which the outcome is unspecified, and wants no more than that the
// connection lives.
func (c *Conn) survives(r *Request) *Reply {
	reply, complete := c.attempt(r)
	if reply == nil || !complete {
		c.differOnce(r, "the server hangs up")
		c.reopen(r.String())
		return nil
	}
	c.inStep(r.String())
	return reply
}

// wantRead reads and compares, in one READ.
func (c *Conn) wantRead(r *Request, want []byte, when string) *Reply {
	reply := c.Succeeds(r)
	if i := firstDifference(reply.Data, want); i >= 0 {
		c.t.Failf("%s: %s: the byte at %d is not what it should be", when, r, r.Offset+uint64(i))
	}
	return reply
}

// wrote writes data that must be taken.
func (c *Conn) wrote(offset uint64, data []byte) { c.Succeeds(Write(offset, data)) }

// took runs f and says how long it took.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// hexFlag names a command flag for a person.
func hexFlag(flag uint16) string {
	names := map[uint16]string{
		proto.CmdFlagFUA: "FUA", proto.CmdFlagNoHole: "NO_HOLE", proto.CmdFlagDF: "DF",
		proto.CmdFlagReqOne: "REQ_ONE", proto.CmdFlagFastZero: "FAST_ZERO",
		proto.CmdFlagPayloadLen: "PAYLOAD_LEN",
	}
	if name, ok := names[flag]; ok {
		return name
	}
	return fmt.Sprintf("%#x", flag)
}

func hex(n uint32) string { return fmt.Sprintf("%#08x", n) }
