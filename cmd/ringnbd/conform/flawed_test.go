// A second server in memory, for the rules of the transmission phase: it speaks everything that
// package proto can negotiate, and has one flaw on demand.
//
// Invariant: without a flaw it breaks no rule and skips no feature; a flaw changes one thing, named
// where it strikes.

package conform

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

const (
	flawedPayload = 8 << 20
	flawedFlags   = proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA |
		proto.FlagSendTrim | proto.FlagSendWriteZeroes | proto.FlagCanMultiConn |
		proto.FlagSendCache | proto.FlagSendFastZero
)

// flawed is the server. It is its own catalog of one export, because proto's catalog would refuse
// some flaws.
type flawed struct {
	flaw     string
	export   proto.Export
	path     string // of its socket
	lock     sync.Mutex
	disk     []byte
	snapshot []byte   // what the status is computed from, with "stale status"
	noHole   bool     // NO_HOLE was requested
	changes  []string // the received requests that would change data
}

func (f *flawed) Len() int                       { return 1 }
func (f *flawed) At(int) proto.Export            { return f.export }
func (f *flawed) Lookup(name string) (int, bool) { return 0, name == "" || name == f.export.Name }

// flawedConn is one connection.
type flawedConn struct {
	*flawed
	net.Conn
	proto.Session
	facts   proto.Facts
	private []byte  // the disk of "own disk"
	late    *func() // the WRITE that "DISC loses" carries out with the next request
	last    []byte  // the data of the READ before, for "swapped"
}

// flawedTarget starts a server with a flaw; it ends with the test.
func flawedTarget(t *testing.T, flaw string) Target {
	t.Helper()
	_, target := newFlawed(t, flaw)
	return target
}

func newFlawed(t *testing.T, flaw string) (*flawed, Target) {
	t.Helper()
	f := &flawed{flaw: flaw, disk: make([]byte, minSize)}
	f.export = proto.Export{Name: "disk", PreferredBlock: 4096,
		Contexts: []proto.Context{{Name: proto.ContextAllocation}, {Name: "x-test:other"}}}
	f.export.Facts = proto.Facts{Size: minSize, MinBlock: 1, MaxPayload: flawedPayload,
		Flags: flawedFlags}
	f.shape()
	if n := f.export.Size; n > minSize {
		var err error
		if f.disk, err = unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE); err != nil {
			t.Skipf("no room for a disk of %d bytes, most of which stays untouched: %v", n, err)
		}
	}
	f.path = testbed.Listen(t, func(c net.Conn) {
		defer func() { _ = recover() }() // a panic of gone ends a connection
		(&flawedConn{flawed: f, Conn: c}).serve()
	})
	return f, Target{Text: "a flawed server", Network: "unix", Address: f.path, Export: "disk"}
}

// shape changes what the server says of its export: for some flaws, and for kinds of right servers.
func (f *flawed) shape() {
	e := &f.export
	switch f.flaw {
	case "minimum of 3":
		e.MinBlock = 3
	case "preferred of 300":
		e.PreferredBlock = 300
	case "payload of 512":
		e.MaxPayload = 512
	case "zeroes unsupported, FAST_ZERO too":
		e.Flags &^= proto.FlagSendFastZero
	case "large", "offsets of 32 bits": // the first kind is right
		e.Size = farApart + minSize
	case "odd size":
		e.Size, e.MinBlock = minSize-100, 512
	case "blocks", "rounds down", "EIO for misaligned":
		e.MinBlock = 512
	case "read-only", "read-only hangs up", "writes all the same", "EIO for read-only":
		e.Flags |= proto.FlagReadOnly
	case "read-only without": // this kind is right
		e.Flags = proto.FlagHasFlags | proto.FlagReadOnly | proto.FlagSendFlush
	case "small": // this kind is right, as the next
		e.Size = 64 << 10
	case "tiny":
		e.Size = 100
	case "empty":
		e.Size = 0
	case "poor", "FUA unadvertised", "hangs up on what is not advertised":
		// the first kind is right
		e.Flags = proto.FlagHasFlags
	}
}

func (c *flawedConn) is(flaw string) bool { return c.flaw == flaw }

func (c *flawedConn) read(n uint64) []byte {
	b := make([]byte, n)
	if c.is("idle") {
		// fails on a closed connection only
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	}
	if got, err := io.ReadFull(c, b); err != nil {
		if c.is("dies of a broken header") && got > 0 {
			_ = os.Remove(c.path) // new connections do not find it any more
		}
		panic(gone{})
	}
	return b
}

func (c *flawedConn) send(b []byte) {
	if _, err := c.Write(b); err != nil {
		panic(gone{})
	}
}

func (c *flawedConn) serve() {
	n := proto.NewNegotiator(c.flawed, proto.Policy{})
	for n.Event().Kind == proto.EventNone || len(n.Out()) > 0 {
		if out := n.Out(); len(out) > 0 {
			c.send(out)
			n.Sent(len(out))
			continue
		}
		n.Feed(c.read(uint64(n.Need())))
	}
	if n.Event().Kind != proto.EventTransmit {
		return
	}
	c.Session, c.facts = n.Event().Mode.Session, c.export.Facts
	if c.is("own disk") {
		c.lock.Lock()
		c.private = append([]byte(nil), c.disk...)
		c.lock.Unlock()
	}
	for c.request() {
	}
}

// request serves one request, and reports whether the connection goes on.
func (c *flawedConn) request() bool {
	framing := c.Framing
	h := c.read(uint64(proto.RequestSize))
	if compact := be.Uint32(h) == proto.RequestMagic; framing == proto.Extended &&
		!(compact && c.is("compact all the same")) {
		h = append(h, c.read(uint64(proto.ExtRequestSize-proto.RequestSize))...)
	} else if framing == proto.Extended {
		framing = proto.Structured
	}
	r, ok := framing.ParseRequest(h)
	if ok {
		c.record(&r)
	}
	if c.is("cookies of 32 bits") {
		r.Cookie &= 1<<32 - 1
	}
	if c.is("lengths of 32 bits") {
		r.Length &= 1<<32 - 1
	}
	if !ok && !c.is("any magic") {
		if c.is("answers garbage") {
			c.fail(&r, proto.EINVAL)
		}
		return false
	}
	if c.late != nil && r.Command != proto.CmdDisc {
		(*c.late)()
		c.late = nil
	}
	if r.Command == proto.CmdDisc {
		return c.disconnect(&r)
	}
	return c.judge(&r)
}

// record keeps a request that would change data, whatever else is wrong with it. The number of the
// command is cut to 8 bits, as a faulty server might do.
func (c *flawedConn) record(r *proto.Request) {
	switch uint16(r.Command) & 0xff {
	case proto.CmdWrite, proto.CmdTrim, proto.CmdWriteZeroes, proto.CmdResize:
		c.lock.Lock()
		c.changes = append(c.changes,
			fmt.Sprintf("command %d of %d bytes at %d", r.Command, r.Length, r.Offset))
		c.lock.Unlock()
	}
}

func (c *flawedConn) disconnect(r *proto.Request) bool {
	switch {
	case c.is("answers DISC"):
		c.succeed(r)
	case c.is("ignores DISC"):
		return true
	case c.is("odd DISC") && (r.Offset != 0 || r.Length != 0):
		return true
	case c.is("works after DISC"):
		defer c.request()
	}
	return false
}

// judge refuses or performs a request, whose payload has been read or not.
func (c *flawedConn) judge(r *proto.Request) bool {
	e, cause := proto.Judge(r, &c.facts, c.Session)
	var payload []byte
	n := r.Payload()
	switch {
	case n > proto.MaxDrain:
		return false
	case e != 0 && c.is("drains nothing"), cause == proto.CauseFlags && c.is("bad flags undrained"),
		r.Command != proto.CmdWrite && c.is("payloads undrained"):
		n = 0
	case cause == proto.CauseUnknown && c.is("drains unknown commands") && !r.Extended,
		r.Flags&proto.CmdFlagPayloadLen != 0 && c.is("payload of a flag"):
		n = r.Length
	case bare(r) && c.is("bare WRITE undrained"):
		e, n = proto.EINVAL, 0
	case bare(r) && c.is("bare WRITE refused"):
		e = proto.EINVAL
	case bare(r) && c.is("bare WRITE hangs up"):
		return false
	case bare(r) && c.is("bare WRITE dropped"):
		c.read(n)
		c.succeed(r)
		return true
	case c.is("torn WRITE") && r.Command == proto.CmdWrite && e == 0:
		return c.torn(r)
	}
	payload = c.read(n)
	switch {
	case cause == proto.CauseUnknown && c.is("unknown commands hang up"),
		r.Length == 0 && r.Command != proto.CmdFlush && c.is("nothing hangs up"),
		cause == proto.CauseAbsent && c.is("hangs up on what is not advertised"),
		r.Length > flawedPayload && c.is("long hangs up"),
		cause == proto.CauseFlushRange && c.is("FLUSH of a range hangs up"),
		cause == proto.CauseReadOnly && c.is("read-only hangs up"):
		return false
	}
	if e = c.verdict(r, e, cause); e != proto.Success {
		c.fail(r, e)
		return true
	}
	c.perform(r, payload)
	return true
}

// bare reports whether this is a WRITE without PAYLOAD_LEN, as QEMU sends it.
func bare(r *proto.Request) bool {
	return r.Command == proto.CmdWrite && r.Extended && r.Flags&proto.CmdFlagPayloadLen == 0
}

// torn writes data as it is received.
func (c *flawedConn) torn(r *proto.Request) bool {
	for at := r.Offset; at < r.Offset+r.Length; {
		n := min(4096, r.Offset+r.Length-at)
		b := c.read(n)
		c.lock.Lock()
		copy(c.disk[at:], b)
		c.lock.Unlock()
		at += n
	}
	c.succeed(r)
	return true
}

// forgiven has the causes of refusal that each flaw overlooks.
var forgiven = map[string]proto.Cause{
	"any flag": proto.CauseFlags, "any command": proto.CauseUnknown, "any range": proto.CauseBeyond,
	"writes all the same": proto.CauseReadOnly, "rounds down": proto.CauseAlignment,
	"status of nothing": proto.CauseContext, "FUA unadvertised": proto.CauseFlags,
}

// mistaken has the causes of refusal for which each flaw answers another error.
var mistaken = map[string]struct {
	cause proto.Cause
	e     proto.Errno
}{
	"EIO beyond":          {proto.CauseBeyond, proto.EIO},
	"EIO for read-only":   {proto.CauseReadOnly, proto.EIO},
	"EIO for misaligned":  {proto.CauseAlignment, proto.EIO},
	"EOVERFLOW for flags": {proto.CauseFlags, proto.EOVERFLOW},
	"ENOMEM for size":     {proto.CauseSize, proto.ENOMEM},
	"EIO for no context":  {proto.CauseContext, proto.EIO},
	"EIO for unknown":     {proto.CauseUnknown, proto.EIO},
}

// verdict returns the answer to the request, which a flaw may change.
func (c *flawedConn) verdict(r *proto.Request, e proto.Errno, cause proto.Cause) proto.Errno {
	if blind, ok := forgiven[c.flaw]; ok && blind == cause && cause != proto.CauseNone {
		return proto.Success
	}
	if wrong, ok := mistaken[c.flaw]; ok && wrong.cause == cause && cause != proto.CauseNone {
		return wrong.e
	}
	end, zeroes := r.Offset+r.Length, r.Command == proto.CmdWriteZeroes
	switch {
	case cause == proto.CauseBeyond && c.is("wraps") && end <= c.facts.Size,
		cause == proto.CauseSize && c.is("large chunks"):
		return proto.Success
	case cause == proto.CauseBeyond && c.is("writes what fits") && r.Command == proto.CmdWrite &&
		r.Offset < c.facts.Size:
		c.change(r.Offset, c.facts.Size, 0xee)
	case e != proto.Success:
	case c.is("last block") && end == c.facts.Size && r.Command == proto.CmdWrite,
		c.is("half the payload") && r.Length > flawedPayload/2 && r.Command <= proto.CmdWrite,
		c.is("FUA on WRITE only") && r.Flags&proto.CmdFlagFUA != 0 && r.Command != proto.CmdWrite,
		c.is("FLUSH fails") && r.Command == proto.CmdFlush,
		c.is("NO_HOLE fails") && zeroes && r.Flags&proto.CmdFlagNoHole != 0,
		c.is("FAST_ZERO fails") && r.Flags&proto.CmdFlagFastZero != 0,
		c.is("DF of 4 KiB") && r.Flags&proto.CmdFlagDF != 0 && r.Length > 4096,
		c.is("odd READ fails") && r.Command == proto.CmdRead && r.Length%512 != 0,
		c.is("odd lengths fail") && r.Length%512 != 0,
		c.is("REQ_ONE fails") && r.Flags&proto.CmdFlagReqOne != 0:
		return proto.EINVAL
	case c.is("TRIM unsupported") && r.Command == proto.CmdTrim,
		(c.is("zeroes unsupported") || c.is("zeroes unsupported, FAST_ZERO too")) && zeroes:
		return proto.ENOTSUP
	case c.is("FAST_ZERO destroys") && r.Flags&proto.CmdFlagFastZero != 0:
		c.change(r.Offset, end, 0xdd)
		return proto.ENOTSUP
	}
	return e
}

// change fills the part of a range that is on the disk.
func (c *flawedConn) change(from, to uint64, with byte) {
	c.lock.Lock()
	defer c.lock.Unlock()
	for i := min(from, c.facts.Size); i < min(to, c.facts.Size); i++ {
		c.bytes()[i] = with
	}
}

// place returns where the disk keeps the data of an offset.
func (c *flawedConn) place(at uint64) uint64 {
	if c.is("offsets of 32 bits") {
		return at & (1<<32 - 1)
	}
	return at
}

// bytes returns the disk of the connection; the lock must be held.
func (c *flawedConn) bytes() []byte {
	if c.private != nil {
		return c.private
	}
	return c.disk
}
