// Checks of STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT and EXTENDED_HEADERS (SR, MC, X).
//
// Invariant: what an option changed is proven in transmission, not by its ACK.

package conform

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"ringnbd/proto"
)

var structuredChecks = []Check{
	{"SR-01", must, []need{needStructured, needGo},
		"after STRUCTURED_REPLY, READs are answered in chunks",
		"a simple reply to a READ would be misread",
		func(t *trial) {
			c := t.open(modeStructured)
			reply := c.succeeds(newRead(0, t.block()))
			t.want(!reply.simple && len(reply.chunks) > 0, "the reply is a simple reply")
			c.stillUp("a structured READ")
		}},
	{"SR-02", should, []need{needStructured, needGo},
		"STRUCTURED_REPLY with data is ERR_INVALID, the data is skipped, and nothing changes",
		"the two sides would speak different formats",
		func(t *trial) {
			c := t.haggle()
			r := c.preferReply(proto.OptStructuredReply, []byte("data"),
				"STRUCTURED_REPLY with data",
				proto.RepErrInvalid)
			c.enterGo(t.export())
			if c.mode = modeGo; r.kind == proto.RepAck {
				c.mode = modeStructured
			}
			c.stillUp("STRUCTURED_REPLY with data")
		}},
	{"SR-03", must, []need{needGo},
		"without STRUCTURED_REPLY every reply is a simple reply, also an error",
		"the kernel's client understands nothing else",
		func(t *trial) {
			c := t.open(modeGo)
			c.succeeds(newRead(0, uint64(len(t.profile.probe))))
			c.do(newRead(c.size&^4095, 8192))
			c.stillUp("a READ beyond the end")
		}},
	{"SR-04", should, []need{needExtended},
		"STRUCTURED_REPLY after EXTENDED_HEADERS is ERR_EXT_HEADER_REQD",
		"the two formats exclude each other",
		func(t *trial) {
			c := t.haggle()
			c.wantReply(c.finalReply(proto.OptExtendedHeaders, nil), "EXTENDED_HEADERS",
				proto.RepAck)
			c.preferReply(proto.OptStructuredReply, nil, "STRUCTURED_REPLY after EXTENDED_HEADERS",
				proto.RepErrExtHeaderReqd)
			c.enterGo(t.export())
			c.mode = modeExtended
			c.stillUp("STRUCTURED_REPLY after EXTENDED_HEADERS")
		}},
}

var needSetMeta = need{"LIST_META_CONTEXT or SET_META_CONTEXT", func(p *Profile) bool {
	return p.Meta || p.setMeta
}}

// metaOptions has the two options with queries.
var metaOptions = []uint32{proto.OptListMetaContext, proto.OptSetMetaContext}

var contextChecks = []Check{
	{"MC-01", should, []need{needSetMeta},
		"SET_META_CONTEXT without structured replies is ERR_INVALID; LIST_META_CONTEXT is " +
			"answered",
		"block status needs chunks",
		func(t *trial) {
			c := t.haggle()
			c.preferReply(proto.OptSetMetaContext, contextData(t.export(), proto.ContextAllocation),
				"SET_META_CONTEXT", proto.RepErrInvalid, proto.RepErrExtHeaderReqd)
			c.preferReply(proto.OptListMetaContext, contextData(t.export()), "LIST_META_CONTEXT",
				proto.RepErrInvalid, proto.RepErrExtHeaderReqd, proto.RepAck)
		}},
	{"MC-02a", must, []need{needMeta, needStructured},
		"LIST_META_CONTEXT and SET_META_CONTEXT with lengths beyond their data are ERR_INVALID, " +
			"and the negotiation goes on",
		"such lengths have overflowed buffers",
		checkShortContext},
	{"MC-02b", must, []need{needMeta, needStructured},
		"LIST_META_CONTEXT and SET_META_CONTEXT with bytes after the last query are ERR_INVALID, " +
			"the bytes are skipped, and the negotiation goes on",
		"the rest of the data would be taken for the next option",
		checkTrailingContext},
	{"MC-03", must, []need{needMeta, needStructured},
		"a query without a colon is ERR_INVALID or ignored",
		"it does not name a context",
		func(t *trial) {
			for _, option := range metaOptions {
				c := t.structured()
				list := c.option(option, contextData(t.export(), "nocolon"))
				c.wantReply(list[len(list)-1], "a query without a colon",
					proto.RepAck, proto.RepErrInvalid)
				t.want(len(list) == 1, "a query without a colon finds %d contexts", len(list)-1)
				c.stillHaggling("a query without a colon")
			}
		}},
	{"MC-04", must, []need{needMeta, needStructured},
		"queries in unknown namespaces are ignored",
		"clients ask for contexts that only some servers have",
		func(t *trial) {
			t.wantContexts(proto.OptSetMetaContext,
				[]string{"x-conform:nothing", "nosuch:", "x-conform:"})
			t.wantContexts(proto.OptSetMetaContext,
				[]string{"x-conform:nothing", "qemu:dirty-bitmap:conform-no-such-bitmap"})
		}},
	{"MC-05", must, []need{needContexts},
		"LIST_META_CONTEXT without queries lists every context",
		"it is how a client finds contexts",
		func(t *trial) {
			c := t.structured()
			list := c.option(proto.OptListMetaContext, contextData(t.export()))
			if last := list[len(list)-1]; last.kind == proto.RepErrUnsup ||
				last.kind == proto.RepErrPolicy {
				t.differ("base:allocation can be set, and LIST_META_CONTEXT is answered by %s",
					last)
				c.stillHaggling("LIST_META_CONTEXT")
				return
			}
			c.wantReply(list[len(list)-1], "LIST_META_CONTEXT", proto.RepAck)
			names := contextNames(list) // "base:" stands for all contexts in it
			t.want(slices.Contains(names, proto.ContextAllocation) || slices.Contains(names,
				"base:"), "base:allocation can be set, and the list is %q",
				names)
			c.stillHaggling("LIST_META_CONTEXT")
		}},
	{"MC-06", must, []need{needContexts, needMeta},
		"LIST_META_CONTEXT of base: lists base:allocation",
		"an empty leaf asks for all of a namespace",
		func(t *trial) {
			t.wantContexts(proto.OptListMetaContext, []string{"base:"}, proto.ContextAllocation)
		}},
	{"MC-07", must, []need{needMeta, needStructured},
		"LIST_META_CONTEXT of contexts that do not exist is a single ACK",
		"that nothing was found is an answer, not an error",
		func(t *trial) {
			t.wantContexts(proto.OptListMetaContext, []string{"x-conform:nothing", "base:nosuch"})
		}},
	{"MC-08", should, []need{needMeta, needStructured},
		"contexts that are listed have the id 0",
		"ids have a meaning only after SET_META_CONTEXT",
		func(t *trial) {
			list := t.structured().option(proto.OptListMetaContext, contextData(t.export()))
			for _, r := range list[:len(list)-1] {
				t.prefer(binary.BigEndian.Uint32(r.data) == 0, "%q is listed with the id %d",
					r.data[4:], binary.BigEndian.Uint32(r.data))
			}
		}},
	{"MC-09", must, []need{needMeta, needStructured},
		"SET_META_CONTEXT without queries selects nothing",
		"it is how a client clears its selection",
		func(t *trial) {
			t.wantContexts(proto.OptSetMetaContext, nil)
		}},
	{"MC-10", must, []need{needMeta, needStructured},
		"SET_META_CONTEXT of base: and of base:nosuch selects nothing",
		"the client would get a context that it did not select in every reply",
		func(t *trial) {
			t.wantContexts(proto.OptSetMetaContext, []string{"base:"})
			t.wantContexts(proto.OptSetMetaContext, []string{"base:nosuch"})
			t.wantContexts(proto.OptSetMetaContext, []string{"base:allocationx", "base:allocatio"})
		}},
	{"MC-11", must, []need{needContexts},
		"SET_META_CONTEXT of base:allocation selects it",
		"it is the map of holes that copying tools use",
		func(t *trial) {
			t.wantContexts(proto.OptSetMetaContext, []string{proto.ContextAllocation},
				proto.ContextAllocation)
			c := t.open(modeContexts)
			c.succeeds(newCommand(proto.CmdBlockStatus, 0, c.t.block()))
			c.stillUp("BLOCK_STATUS")
		}},
	{"MC-12", must, []need{needContexts},
		"the ids of one SET_META_CONTEXT differ, and a query that comes twice selects once",
		"clients tell chunks apart by ids",
		checkUniqueIDs},
	{"MC-13a", must, []need{needContexts},
		"a SET_META_CONTEXT that fails clears the selection before it",
		"the server would send contexts that the client no longer expects",
		checkFailedSet},
	{"MC-13b", must, []need{needContexts},
		"a SET_META_CONTEXT without queries clears the selection before it",
		"the server would send contexts that the client no longer expects",
		func(t *trial) {
			c := t.structured()
			c.setContexts(t.export(), proto.ContextAllocation)
			c.wantReply(c.setContexts(t.export()), "SET_META_CONTEXT without queries", proto.RepAck)
			c.wantNoContext("SET_META_CONTEXT without queries", t.export())
		}},
	{"MC-14", must, []need{needMeta, needStructured, needNames},
		"LIST_META_CONTEXT and SET_META_CONTEXT with an unknown name are ERR_UNKNOWN, or refused " +
			"by policy",
		"a client may have another name to try",
		func(t *trial) {
			for _, option := range metaOptions {
				t.structured().refusedOption(option,
					contextData(unknownName, proto.ContextAllocation),
					"an unknown name", proto.RepErrUnknown, proto.RepErrPolicy, proto.RepErrTLSReqd)
			}
		}},
	{"MC-15", must, []need{needContexts},
		"contexts that were set for one export do not count for another",
		"the client asked about other data",
		checkOtherExport},
	{"MC-17", may, []need{needMeta, needStructured},
		"five thousand queries are served, or ERR_TOO_BIG or ERR_INVALID",
		"a server has to limit what it keeps",
		func(t *trial) {
			queries := make([]string, 5000)
			for i := range queries {
				queries[i] = fmt.Sprintf("x-conform:%d", i)
			}
			for _, option := range metaOptions {
				t.structured().preferReply(option, contextData(t.export(), queries...),
					"5000 queries",
					proto.RepAck, proto.RepErrTooBig, proto.RepErrInvalid)
			}
		}},
	{"MC-18", must, []need{needMeta, needStructured},
		"the name of a context is a namespace, a colon and a leaf, which may be empty",
		"clients look for the namespaces that they know",
		func(t *trial) {
			list := t.structured().option(proto.OptListMetaContext, contextData(t.export()))
			for _, name := range contextNames(list) {
				space, _, ok := strings.Cut(name, ":")
				t.want(ok && space != "", "%q is not the name of a context", name)
				t.prefer(space == "base" || space == "qemu" || space == "nbd-server" ||
					strings.HasPrefix(space, "x-"), "the namespace of %q is not a known one",
					name)
			}
		}},
	{"MC-19", quality, []need{needContexts},
		"after SET_META_CONTEXT by the canonical name GO works by the empty name, and the other " +
			"way round",
		"whether the contexts count then is left open, but the export must open",
		checkTwoNames},
}

var extendedChecks = []Check{
	{"X-01", must, []need{needExtended},
		"after EXTENDED_HEADERS everything has extended headers; a compact request closes the " +
			"connection",
		"headers have another size: the stream would be out of step",
		func(t *trial) {
			c := t.open(modeExtended)
			c.stillUp("EXTENDED_HEADERS")
			c.mode = modeGo
			r := c.encode(c.number(newRead(0, t.block())))
			_ = c.tryWrite(append(r, r...)) // a single one is shorter than an extended header
			c.wantClosed("after compact requests")
		}},
	{"X-02", should, []need{needGo},
		"EXTENDED_HEADERS with data is refused, the data is skipped, and nothing changes",
		"the two sides would speak different formats",
		func(t *trial) {
			c := t.haggle()
			want := proto.RepErrInvalid
			if !t.profile.Extended {
				want = proto.RepErrUnsup
			}
			c.preferReply(proto.OptExtendedHeaders, []byte("data"), "EXTENDED_HEADERS with data",
				want)
			c.enterGo(t.export())
			c.mode = modeGo
			c.stillUp("EXTENDED_HEADERS with data")
		}},
	{"X-03", should, []need{needExtended},
		"EXTENDED_HEADERS works without STRUCTURED_REPLY before it, and after it",
		"EXTENDED_HEADERS has chunks of its own",
		func(t *trial) {
			for _, before := range []bool{false, true} {
				c := t.haggle()
				if before {
					c.option(proto.OptStructuredReply, nil)
				}
				r := c.finalReply(proto.OptExtendedHeaders, nil)
				if r.failed() {
					t.differ("EXTENDED_HEADERS is answered by %s (STRUCTURED_REPLY before: %v)",
						r, before)
					continue
				}
				c.enterGo(t.export())
				c.mode = modeExtended
				c.stillUp("EXTENDED_HEADERS")
			}
		}},
	{"X-04", must, []need{needExtended},
		"a server with EXTENDED_HEADERS has GO",
		"EXPORT_NAME may not be used with extended headers",
		func(t *trial) {
			c := t.haggle()
			c.option(proto.OptExtendedHeaders, nil)
			r := c.finalReply(proto.OptGo, infoData(t.export()))
			c.wantReply(r, "GO", proto.RepAck)
		}},
	{"X-05", should, []need{needGo},
		"GO works without extended headers",
		"most clients do not have extended headers",
		func(t *trial) {
			r := t.haggle().finalReply(proto.OptGo, infoData(t.export()))
			t.prefer(r.kind != proto.RepErrExtHeaderReqd, "GO is answered by %s", r)
		}},
	{"X-06", must, []need{needContexts},
		"base:allocation needs no extended headers",
		"base:allocation has always had 32 bits",
		func(t *trial) {
			r := t.structured().finalReply(proto.OptListMetaContext,
				contextData(t.export(), proto.ContextAllocation))
			c := t.structured()
			t.want(r.kind != proto.RepErrExtHeaderReqd &&
				c.setContexts(t.export(), proto.ContextAllocation).kind == proto.RepAck,
				"it is answered by %s", r)
		}},
	{"X-08", must, []need{without(needExtended)},
		"a server without EXTENDED_HEADERS answers it by ERR_UNSUP",
		"clients fall back to compact headers",
		func(t *trial) {
			t.wantUnsupported(proto.OptExtendedHeaders, 0)
		}},
}

// structured returns a connection in the option phase with structured replies.
func (t *trial) structured() *conn {
	c := t.haggle()
	c.negotiate(modeStructured)
	return c
}

func contextNames(list []optionReply) []string {
	var names []string
	for _, r := range list[:len(list)-1] {
		names = append(names, string(r.data[4:]))
	}
	return names
}

// wantContexts sends queries that must find exactly the contexts in want.
func (t *trial) wantContexts(option uint32, queries []string, want ...string) {
	c := t.structured()
	list := c.option(option, contextData(t.export(), queries...))
	what := fmt.Sprintf("option %d with the queries %q", option, queries)
	c.wantReply(list[len(list)-1], what, proto.RepAck)
	t.want(slices.Equal(contextNames(list), want),
		"%s finds %q, not %q", what, contextNames(list), want)
	c.stillHaggling(what)
}

func checkShortContext(t *trial) {
	good := contextData(t.export(), proto.ContextAllocation, "base:")
	var bad [][]byte
	for _, n := range []int{0, 1, 3, 4, 7} {
		bad = append(bad, make([]byte, n))
	}
	for _, n := range []int{1, 4, 5, 9} { // cut short
		bad = append(bad, good[:len(good)-n])
	}
	at := 4 + len(t.export())
	for _, x := range []struct {
		where int
		what  uint32
	}{
		{0, 0xffffffff}, {0, uint32(len(good))},
		{at, 3}, {at, 0xffffffff},
		{at + 4, 0xffffffff}, {at + 4, 0xfffffff0}, {at + 4, 4096},
	} {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[x.where:], x.what)
		bad = append(bad, b)
	}
	for _, option := range metaOptions {
		c := t.structured()
		for i, b := range bad {
			if i%8 == 7 {
				c = t.structured() // servers limit the options of a connection
			}
			c.refusedOption(option, b, fmt.Sprintf("option %d with the data%s",
				option, shown(b)), proto.RepErrInvalid)
		}
	}
}

// checkTrailingContext counts an ACK as a deviation if the bytes that are left over were skipped.
func checkTrailingContext(t *trial) {
	good := contextData(t.export(), proto.ContextAllocation, "base:")
	for _, option := range metaOptions {
		for _, n := range []int{1, 8, 20} {
			t.structured().preferReply(option,
				append(bytes.Clone(good), bytes.Repeat([]byte{1}, n)...),
				fmt.Sprintf("option %d with %d bytes too many", option, n), proto.RepErrInvalid)
		}
	}
}

func checkUniqueIDs(t *trial) {
	c := t.structured()
	queries := append([]string{proto.ContextAllocation, proto.ContextAllocation},
		t.profile.Contexts...)
	c.wantReply(c.setContexts(t.export(), queries...), "all contexts that are listed", proto.RepAck)
	for i, x := range c.contexts {
		for _, y := range c.contexts[:i] {
			t.want(x.id != y.id && x.name != y.name,
				"%q has the id %d, and %q the id %d", x.name, x.id, y.name, y.id)
		}
	}
	c.stillHaggling("all contexts that are listed")
}

func checkFailedSet(t *trial) {
	good := contextData(t.export(), proto.ContextAllocation)
	unknown := contextData(unknownName, proto.ContextAllocation)
	for what, data := range map[string][]byte{
		"a malformed SET_META_CONTEXT":             good[:len(good)-1],
		"a SET_META_CONTEXT for an unknown export": unknown,
	} {
		c := t.structured()
		c.wantReply(c.setContexts(t.export(), proto.ContextAllocation), "SET_META_CONTEXT",
			proto.RepAck)
		if r := c.finalReply(proto.OptSetMetaContext, data); !r.failed() {
			continue // the server accepts any name: nothing failed
		}
		c.wantNoContext(what, t.export())
	}
}

// wantNoContext enters transmission, where no context must be selected any more.
func (c *conn) wantNoContext(after, export string) {
	c.contexts = nil
	c.enterGo(export)
	c.mode = modeStructured
	reply := c.do(newCommand(proto.CmdBlockStatus, 0, c.t.block()))
	c.t.want(reply.errno == einval,
		"BLOCK_STATUS after %s: %s, not EINVAL", after, reply.errorText())
	c.stillUp("BLOCK_STATUS without a context")
}

// checkOtherExport needs two exports; a server that takes any name has them.
func checkOtherExport(t *trial) {
	other := unknownName
	if !t.profile.AnyName {
		at := slices.IndexFunc(t.profile.Names, func(name string) bool {
			return name != t.export() && t.export() != ""
		})
		if at < 0 {
			t.skip("needs a second export (name one by URI or --export)")
		}
		other = t.profile.Names[at]
	}
	c := t.structured()
	c.wantReply(c.setContexts(t.export(), proto.ContextAllocation), "SET_META_CONTEXT",
		proto.RepAck)
	c.wantNoContext("SET_META_CONTEXT for another export", other)
}

func checkTwoNames(t *trial) {
	info := t.haggle()
	name := info.parseInfos(info.option(proto.OptInfo, infoData("", proto.InfoName))).name
	if name == nil || *name == "" {
		t.skip("the default export has no other name")
	}
	for _, names := range [][2]string{{"", *name}, {*name, ""}} {
		c := t.structured()
		c.setContexts(names[0], proto.ContextAllocation)
		c.enterGo(names[1])
		c.mode = modeStructured
		reply := c.do(newCommand(proto.CmdBlockStatus, 0, c.t.block()))
		t.want(reply.errno == 0 || reply.errno == einval, "BLOCK_STATUS: %s", reply.errorText())
		c.succeeds(newRead(0, uint64(len(t.profile.probe))))
	}
}
