// A small NBD server in memory, right in everything that the suite asks, and wrong in one thing on
// demand: it shows that the checks can fail.
//
// Invariant: without a flaw it breaks no rule; each flaw breaks one.

package conform

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

const (
	fakeName        = "disk"
	fakeOther       = "other"
	fakeDescription = "a disk in memory"
	fakeMax         = 32 << 20
	fakeFlags       = proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA |
		proto.FlagSendTrim | proto.FlagSendWriteZeroes | proto.FlagCanMultiConn
)

// fake is the server; its connections share the disk.
type fake struct {
	flaw string
	lock sync.Mutex
	disk []byte
}

// fakeConn is one connection.
type fakeConn struct {
	*fake
	net.Conn
	fixed, noZeroes, structured bool
	contextsOf                  string // the export for which contexts were set
	context                     bool
	export                      string
	named                       bool // INFO_NAME was sent
	options                     int
}

// fakeTarget starts a server with a flaw; it ends with the test.
func fakeTarget(t *testing.T, flaw string) Target {
	t.Helper()
	f := &fake{flaw: flaw,
		disk: make([]byte, minSize+map[bool]int{true: 1 << 20}[flaw == "any length"])}
	path := testbed.Listen(t, func(c net.Conn) {
		defer func() { _ = recover() }() // a panic of gone ends a connection
		(&fakeConn{fake: f, Conn: c}).serve()
	})
	return Target{Text: "a server in memory", Network: "unix", Address: path, Export: fakeName}
}

// silentTarget starts a server that sends its banner and then only reads; it ends with the test.
func silentTarget(t *testing.T) Target {
	t.Helper()
	path := testbed.Listen(t, func(c net.Conn) {
		b := be.AppendUint64(be.AppendUint64(nil, proto.Magic), proto.OptionMagic)
		if _, err := c.Write(be.AppendUint16(b, 3)); err == nil {
			_, _ = io.Copy(io.Discard, c) // until the suite has closed
		}
	})
	return Target{Text: "a silent server", Network: "unix", Address: path}
}

// gone is the value of a panic that ends a connection.
type gone struct{}

func (c *fakeConn) is(flaw string) bool { return c.flaw == flaw }

func (c *fakeConn) read(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		panic(gone{})
	}
	return b
}

func (c *fakeConn) send(b []byte) {
	if _, err := c.Write(b); err != nil {
		panic(gone{})
	}
}

var be = binary.BigEndian

func (c *fakeConn) serve() {
	b := be.AppendUint64(nil, proto.Magic)
	b = be.AppendUint64(b, proto.OptionMagic)
	flags := proto.FlagFixedNewstyle | proto.FlagNoZeroes
	if c.is("banner bit") {
		flags |= 1 << 5
	}
	b = be.AppendUint16(b, flags)
	if c.is("banner byte") {
		b = append(b, 0)
	}
	c.send(b)
	client := be.Uint32(c.read(4))
	if client&^3 != 0 && !c.is("client flags") {
		return
	}
	c.fixed, c.noZeroes = client&1 != 0, client&2 != 0 || c.is("no zeroes")
	for !c.haggle() {
	}
	if c.is("padding") {
		c.send(make([]byte, 124))
	}
	for c.request() {
	}
}

// haggle serves one option, and reports whether transmission follows.
func (c *fakeConn) haggle() bool {
	h := c.read(16)
	if be.Uint64(h) != proto.OptionMagic && !c.is("option magic") {
		panic(gone{})
	}
	option, length := be.Uint32(h[8:]), be.Uint32(h[12:])
	if length > 1<<20 ||
		option == proto.OptExportName && length > proto.MaxString && !c.is("long name") {
		panic(gone{})
	}
	if c.options++; c.is("hangs up") && c.options > 6 {
		panic(gone{})
	}
	known := option >= 1 && option <= 10 && option != proto.OptPeekExport &&
		option != proto.OptStartTLS
	if !known && c.is("does not skip") {
		c.reply(option, proto.RepErrUnsup, nil)
		return false
	}
	return c.option(option, c.read(int(length)))
}

func (c *fakeConn) reply(option, kind uint32, data []byte) {
	if c.is("echo") {
		option &= 0xffff
	}
	if kind&proto.RepErrorBit != 0 {
		data = []byte("no")
		if c.is("text with NUL") {
			data = []byte("no\x00")
		}
	}
	b := be.AppendUint64(nil, proto.OptionReplyMagic)
	b = be.AppendUint32(b, option)
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	c.send(append(b, data...))
	if kind == proto.RepAck && c.is("two ACKs") {
		c.send(append(b[:16:16], 0, 0, 0, 0))
	}
}

func (c *fakeConn) option(option uint32, data []byte) bool {
	switch option {
	case proto.OptExportName:
		return c.exportName(string(data))
	case proto.OptAbort:
		if !c.is("silent ABORT") {
			c.reply(option, proto.RepAck, nil)
		}
		panic(gone{})
	case proto.OptList:
		c.list(data)
	case proto.OptInfo, proto.OptGo:
		return c.info(option, data)
	case proto.OptStructuredReply:
		if len(data) > 0 {
			c.reply(option, proto.RepErrInvalid, nil)
		} else {
			c.structured = !c.is("unstructured")
			c.reply(option, proto.RepAck, nil)
		}
	case proto.OptListMetaContext, proto.OptSetMetaContext:
		c.meta(option, data)
	case proto.OptPeekExport:
		kind := proto.RepErrUnsup
		if c.is("PEEK_EXPORT") {
			kind = proto.RepErrInvalid
		}
		c.reply(option, kind, nil)
	case proto.OptStartTLS:
		kind := proto.RepErrUnsup
		if c.is("STARTTLS") {
			kind = proto.RepErrTLSReqd
		}
		c.reply(option, kind, nil)
	default:
		if c.is("unknown option") {
			panic(gone{})
		}
		c.reply(option, proto.RepErrUnsup, nil)
	}
	return false
}

func (c *fakeConn) knows(name string) bool {
	if c.is("name to the NUL") {
		name, _, _ = strings.Cut(name, "\x00")
	}
	return name == "" || name == fakeName || name == fakeOther
}

func (c *fakeConn) flags() uint16 {
	flags := fakeFlags
	if c.structured || c.is("DF") {
		flags |= proto.FlagSendDF
	}
	return flags
}

func (c *fakeConn) exportName(name string) bool {
	if !c.knows(name) {
		if c.is("unknown EXPORT_NAME") {
			c.reply(proto.OptExportName, proto.RepErrUnknown, nil)
		}
		if !c.is("long name") {
			panic(gone{})
		}
	}
	c.export = name
	b := be.AppendUint64(nil, uint64(len(c.disk)))
	b = be.AppendUint16(b, c.flags())
	if !c.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	if c.is("dirty zeroes") && !c.noZeroes {
		b[50] = 1
	}
	c.send(b)
	return true
}

func (c *fakeConn) list(data []byte) {
	switch {
	case c.is("no LIST"):
		c.reply(proto.OptList, proto.RepErrUnsup, nil)
		return
	case len(data) > 0:
		c.reply(proto.OptList, proto.RepErrInvalid, nil)
		return
	}
	for c.is("LIST without end") {
		c.reply(proto.OptList, proto.RepServer,
			append(be.AppendUint32(nil, proto.MaxString),
				strings.Repeat("n", 2*proto.MaxString)...))
	}
	names := []string{fakeName, fakeOther}
	if c.is("listed twice") {
		names = append(names, fakeName)
	}
	if c.is("listed only") {
		names = append(names, "ghost")
	}
	for _, name := range names {
		b := be.AppendUint32(nil, uint32(len(name)))
		if c.is("long SERVER") {
			b[0] = 1
		}
		c.reply(proto.OptList, proto.RepServer, append(append(b, name...), fakeDescription...))
	}
	c.reply(proto.OptList, proto.RepAck, nil)
}

// parseInfo parses the data of INFO and GO.
func parseInfo(data []byte) (name string, kinds []uint16, ok bool) {
	if len(data) < 6 || uint64(be.Uint32(data)) > uint64(len(data)-6) {
		return "", nil, false
	}
	end := 4 + be.Uint32(data)
	name, data = string(data[4:end]), data[end:]
	if n := int(be.Uint16(data)); len(data) != 2+2*n {
		return "", nil, false
	}
	for data = data[2:]; len(data) > 0; data = data[2:] {
		kinds = append(kinds, be.Uint16(data))
	}
	return name, kinds, utf8.ValidString(name) && len(name) <= proto.MaxString
}

func (c *fakeConn) info(option uint32, data []byte) bool {
	name, kinds, ok := parseInfo(data)
	if !ok && c.is("malformed INFO") {
		name, ok = fakeName, true
	}
	switch {
	case !ok:
		c.reply(option, proto.RepErrInvalid, nil)
		return false
	case !c.knows(name) && c.is("unknown GO"):
		panic(gone{})
	case !c.knows(name):
		c.reply(option, proto.RepErrUnknown, nil)
		return false
	case c.is("GO by policy"):
		c.reply(option, proto.RepErrPolicy, nil)
		return false
	case c.is("GO fails") && option == proto.OptGo:
		c.reply(option, proto.RepErrPlatform, nil)
		return false
	case c.is("no GO"):
		c.reply(option, proto.RepErrUnsup, nil)
		return false
	}
	size := uint64(len(c.disk))
	if c.is("size of INFO") && option == proto.OptInfo {
		size = 0
	}
	if c.is("size of GO") {
		size += 512
	}
	if !c.is("no INFO_EXPORT") {
		c.reply(option, proto.RepInfo,
			be.AppendUint16(be.AppendUint64([]byte{0, 0}, size), c.flags()))
	}
	asked := false
	for _, kind := range kinds {
		asked = asked || kind == proto.InfoBlockSize
		c.infoOf(option, kind, name)
	}
	if c.is("BLOCK_SIZE_REQD") && asked && option == proto.OptInfo {
		c.reply(option, proto.RepErrBlockSizeReqd, nil)
		return false
	}
	c.reply(option, proto.RepAck, nil)
	c.export = name
	return option == proto.OptGo
}

func (c *fakeConn) infoOf(option uint32, kind uint16, name string) {
	b := be.AppendUint16(nil, kind)
	switch kind {
	case proto.InfoExport:
	case proto.InfoName:
		if c.is("name once") && c.named { // this is right
			return
		}
		c.named = true
		if name == "" {
			name = fakeName
		}
		if c.is("another name") {
			name = "nobody"
		}
		c.reply(option, proto.RepInfo, append(b, name...))
	case proto.InfoDescription:
		text := fakeDescription
		if c.is("another description") {
			text = "something else"
		}
		c.reply(option, proto.RepInfo, append(b, text...))
	case proto.InfoBlockSize:
		for _, n := range []uint32{1, 4096, fakeMax} {
			b = be.AppendUint32(b, n)
		}
		if c.is("long BLOCK_SIZE") {
			b = append(b, 0, 0)
		}
		c.reply(option, proto.RepInfo, b)
	default:
		if c.is("unknown information") {
			c.reply(option, proto.RepErrInvalid, nil)
		}
	}
}

// parseQueries parses the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func parseQueries(data []byte) (name string, queries []string, ok bool) {
	text := func() string {
		if len(data) < 4 || uint64(be.Uint32(data)) > uint64(len(data)-4) {
			ok = false
			return ""
		}
		end := 4 + be.Uint32(data)
		s := string(data[4:end])
		data = data[end:]
		return s
	}
	ok = true
	if name = text(); !ok || len(data) < 4 {
		return "", nil, false
	}
	n := be.Uint32(data)
	data = data[4:]
	for range n {
		if queries = append(queries, text()); !ok {
			return "", nil, false
		}
	}
	return name, queries, len(data) == 0
}

func (c *fakeConn) meta(option uint32, data []byte) {
	set := option == proto.OptSetMetaContext
	if !set && c.is("listed nonsense") {
		c.reply(option, proto.RepServer, make([]byte, 4))
	}
	if !set && (c.is("unlisted") || c.is("unlisted, and zero")) { // the first kind is right
		c.reply(option, proto.RepErrUnsup, nil)
		return
	}
	if set && !c.is("keeps contexts") {
		c.context = false
	}
	name, queries, ok := parseQueries(data)
	if !ok && c.is("malformed queries") {
		name, ok = fakeName, true
	}
	switch {
	case !ok, set && !c.structured:
		c.reply(option, proto.RepErrInvalid, nil)
		return
	case !c.knows(name) && c.is("contexts by policy"): // this is right
		c.reply(option, proto.RepErrPolicy, nil)
		return
	case !c.knows(name) && !c.is("contexts of unknown exports"):
		c.reply(option, proto.RepErrUnknown, nil)
		return
	}
	times := 0
	if len(queries) == 0 && !set && !c.is("empty list") {
		times = 1
	}
	for _, q := range queries {
		switch {
		case q == proto.ContextAllocation, q == "base:" && (!set || c.is("wildcard")):
			if times++; !c.is("context twice") {
				times = 1
			}
		case !strings.HasPrefix(q, "base:") && c.is("unknown namespace"):
			c.reply(option, proto.RepErrInvalid, nil)
			return
		case !strings.Contains(q, ":") && c.is("no colon"):
			panic(gone{})
		}
	}
	text := proto.ContextAllocation
	if c.is("context without colon") {
		text = "base"
	}
	if c.is("listed by namespace") && !set { // this is right
		text = "base:"
	}
	for range times {
		id := uint32(0)
		if set {
			id, c.context, c.contextsOf = 7, true, name
		}
		c.reply(option, proto.RepMetaContext, append(be.AppendUint32(nil, id), text...))
	}
	c.reply(option, proto.RepAck, nil)
}

// zeroes is for zero to compare with.
var zeroes = make([]byte, 64<<10)

// zero reports whether all bytes are 0.
func zero(b []byte) bool {
	for ; len(b) > len(zeroes); b = b[len(zeroes):] {
		if !bytes.Equal(b[:len(zeroes)], zeroes) {
			return false
		}
	}
	return bytes.Equal(b, zeroes[:len(b)])
}
