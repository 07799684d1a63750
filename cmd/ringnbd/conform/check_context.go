// STRUCTURED_REPLY, LIST_META_CONTEXT, SET_META_CONTEXT, EXTENDED_HEADERS (rules SR, MC, X).
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
			t.want(!reply.simple && len(reply.chunks) > 0, "the reply is a simple one")
			c.stillUp("a structured READ")
		}},
	{"SR-02", should, []need{needStructured, needGo},
		"STRUCTURED_REPLY with data is ERR_INVALID, the data is skipped, and nothing is switched " +
			"on",
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
		"without STRUCTURED_REPLY every reply is a simple one, also to errors",
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

// both are the two options with queries.
var both = []uint32{proto.OptListMetaContext, proto.OptSetMetaContext}

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
		"LIST_META_CONTEXT and SET_META_CONTEXT that would end beyond their data are " +
			"ERR_INVALID, and the negotiation goes on",
		"such lengths have overflowed buffers",
		checkShortContext},
	{"MC-02b", must, []need{needMeta, needStructured},
		"LIST_META_CONTEXT and SET_META_CONTEXT with bytes behind the last query are " +
			"ERR_INVALID, the bytes are skipped, and the negotiation goes on",
		"what is left over would be taken for the next option",
		checkTrailingContext},
	{"MC-03", must, []need{needMeta, needStructured},
		"a query without a colon is ERR_INVALID or ignored",
		"it names no context",
		func(t *trial) {
			for _, option := range both {
				c := t.structured()
				list := c.option(option, contextData(t.export(), "nocolon"))
				c.wantReply(list[len(list)-1], "a query without a colon", proto.RepAck,
					proto.RepErrInvalid)
				t.want(len(list) == 1, "a query without a colon finds %d contexts", len(list)-1)
				c.stillHaggling("a query without a colon")
			}
		}},
	{"MC-04", must, []need{needMeta, needStructured},
		"queries in unknown namespaces are ignored",
		"clients ask for what only some servers have",
		func(t *trial) {
			t.contexts(proto.OptSetMetaContext,
				[]string{"x-conform:nothing", "nosuch:", "x-conform:"})
			t.contexts(proto.OptSetMetaContext,
				[]string{"x-conform:nothing", "qemu:dirty-bitmap:conform-no-such-bitmap"})
		}},
	{"MC-05", must, []need{needContexts},
		"LIST_META_CONTEXT without queries lists every context",
		"it is how a client finds them",
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
			names := contextNames(list) // "base:" stands for all that there is in it
			t.want(slices.Contains(names, proto.ContextAllocation) ||
				slices.Contains(names, "base:"), "base:allocation can be set, and the list is %q",
				names)
			c.stillHaggling("LIST_META_CONTEXT")
		}},
	{"MC-06", must, []need{needContexts, needMeta},
		"LIST_META_CONTEXT of base: lists base:allocation",
		"an empty leaf asks for all of a namespace",
		func(t *trial) {
			t.contexts(proto.OptListMetaContext, []string{"base:"}, proto.ContextAllocation)
		}},
	{"MC-07", must, []need{needMeta, needStructured},
		"LIST_META_CONTEXT of what does not exist is a single ACK",
		"nothing found is an answer, no error",
		func(t *trial) {
			t.contexts(proto.OptListMetaContext, []string{"x-conform:nothing", "base:nosuch"})
		}},
	{"MC-08", should, []need{needMeta, needStructured},
		"contexts that are listed have the id 0",
		"ids mean something after SET_META_CONTEXT only",
		func(t *trial) {
			list := t.structured().option(proto.OptListMetaContext, contextData(t.export()))
			for _, r := range list[:len(list)-1] {
				t.prefer(binary.BigEndian.Uint32(r.data) == 0, "%q is listed with the id %d",
					r.data[4:], binary.BigEndian.Uint32(r.data))
			}
		}},
	{"MC-09", must, []need{needMeta, needStructured},
		"SET_META_CONTEXT without queries selects nothing",
		"that is how a client unselects",
		func(t *trial) {
			t.contexts(proto.OptSetMetaContext, nil)
		}},
	{"MC-10", must, []need{needMeta, needStructured},
		"SET_META_CONTEXT of base: and of base:nosuch selects nothing",
		"a context that nobody named would be a surprise in every reply",
		func(t *trial) {
			t.contexts(proto.OptSetMetaContext, []string{"base:"})
			t.contexts(proto.OptSetMetaContext, []string{"base:nosuch"})
			t.contexts(proto.OptSetMetaContext, []string{"base:allocationx", "base:allocatio"})
		}},
	{"MC-11", must, []need{needContexts},
		"SET_META_CONTEXT of base:allocation selects it",
		"it is the map of holes that copying tools use",
		func(t *trial) {
			t.contexts(proto.OptSetMetaContext, []string{proto.ContextAllocation},
				proto.ContextAllocation)
			c := t.open(modeContexts)
			c.succeeds(newCommand(proto.CmdBlockStatus, 0, c.t.block()))
			c.stillUp("BLOCK_STATUS")
		}},
	{"MC-12", must, []need{needContexts},
		"the ids of one SET_META_CONTEXT differ, and a query twice selects once",
		"chunks are told apart by them",
		checkUniqueIDs},
	{"MC-13a", must, []need{needContexts},
		"a SET_META_CONTEXT that fails unselects what was selected before",
		"the server would send what the client no longer expects",
		checkFailedSet},
	{"MC-13b", must, []need{needContexts},
		"a SET_META_CONTEXT without queries unselects what was selected before",
		"the server would send what the client no longer expects",
		func(t *trial) {
			c := t.structured()
			c.setContexts(t.export(), proto.ContextAllocation)
			c.wantReply(c.setContexts(t.export()), "SET_META_CONTEXT without queries", proto.RepAck)
			c.enterWithout("SET_META_CONTEXT without queries", t.export())
		}},
	{"MC-14", must, []need{needMeta, needStructured, needNames},
		"LIST_META_CONTEXT and SET_META_CONTEXT with an unknown name are ERR_UNKNOWN, or refused " +
			"by policy",
		"a client may have another name to try",
		func(t *trial) {
			for _, option := range both {
				t.structured().refusedOption(option,
					contextData(unknownName, proto.ContextAllocation),
					"an unknown name", proto.RepErrUnknown, proto.RepErrPolicy, proto.RepErrTLSReqd)
			}
		}},
	{"MC-15", must, []need{needContexts},
		"contexts that were set for one export mean nothing for another",
		"the client asked about other data",
		checkOtherExport},
	{"MC-17", may, []need{needMeta, needStructured},
		"five thousand queries are served, or ERR_TOO_BIG or ERR_INVALID",
		"a server has to bound what it keeps",
		func(t *trial) {
			queries := make([]string, 5000)
			for i := range queries {
				queries[i] = fmt.Sprintf("x-conform:%d", i)
			}
			for _, option := range both {
				t.structured().preferReply(option, contextData(t.export(), queries...),
					"5000 queries",
					proto.RepAck, proto.RepErrTooBig, proto.RepErrInvalid)
			}
		}},
	{"MC-18", must, []need{needMeta, needStructured},
		"names of contexts are a namespace, a colon and a leaf, which may be empty",
		"clients find the namespaces that they know by it",
		func(t *trial) {
			list := t.structured().option(proto.OptListMetaContext, contextData(t.export()))
			for _, name := range contextNames(list) {
				space, _, ok := strings.Cut(name, ":")
				t.want(ok && space != "", "%q is no name of a context", name)
				t.prefer(space == "base" || space == "qemu" || space == "nbd-server" ||
					strings.HasPrefix(space, "x-"), "the namespace of %q is none that is known",
					name)
			}
		}},
	{"MC-19", quality, []need{needContexts},
		"SET_META_CONTEXT by the canonical name and GO by the empty one, or the other way round: " +
			"GO works all the same",
		"whether the contexts count then is open; that the export opens is not",
		checkTwoNames},
}

var extendedChecks = []Check{
	{"X-01", must, []need{needExtended},
		"after EXTENDED_HEADERS everything has extended headers; a compact request closes the " +
			"connection",
		"sizes of headers are part of the stream: it cannot be in step otherwise",
		func(t *trial) {
			c := t.open(modeExtended)
			c.stillUp("EXTENDED_HEADERS")
			c.mode = modeGo
			r := c.encode(c.number(newRead(0, t.block())))
			_ = c.tryWrite(append(r, r...)) // one alone is shorter than an extended header
			c.wantClosed("after compact requests")
		}},
	{"X-02", should, []need{needGo},
		"EXTENDED_HEADERS with data is refused, the data is skipped, and nothing is switched on",
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
		"it brings chunks of its own",
		func(t *trial) {
			for _, before := range []bool{false, true} {
				c := t.haggle()
				if before {
					c.option(proto.OptStructuredReply, nil)
				}
				r := c.finalReply(proto.OptExtendedHeaders, nil)
				if r.failed() {
					t.differ("EXTENDED_HEADERS is answered by %s (STRUCTURED_REPLY before: %v)", r,
						before)
					continue
				}
				c.enterGo(t.export())
				c.mode = modeExtended
				c.stillUp("EXTENDED_HEADERS")
			}
		}},
	{"X-04", must, []need{needExtended},
		"a server with EXTENDED_HEADERS has GO",
		"EXPORT_NAME may not be used then",
		func(t *trial) {
			c := t.haggle()
			c.option(proto.OptExtendedHeaders, nil)
			r := c.finalReply(proto.OptGo, infoData(t.export()))
			c.wantReply(r, "GO", proto.RepAck)
		}},
	{"X-05", should, []need{needGo},
		"GO works without extended headers",
		"most clients do not have them",
		func(t *trial) {
			r := t.haggle().finalReply(proto.OptGo, infoData(t.export()))
			t.prefer(r.kind != proto.RepErrExtHeaderReqd, "GO is answered by %s", r)
		}},
	{"X-06", must, []need{needContexts},
		"base:allocation needs no extended headers",
		"it has always had 32 bits",
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
			t.unsupported(proto.OptExtendedHeaders, 0)
		}},
}

// structured is a negotiation with structured replies.
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

// contexts sends queries that must find exactly these contexts.
func (t *trial) contexts(option uint32, queries []string, want ...string) {
	c := t.structured()
	list := c.option(option, contextData(t.export(), queries...))
	what := fmt.Sprintf("option %d with the queries %q", option, queries)
	c.wantReply(list[len(list)-1], what, proto.RepAck)
	t.want(slices.Equal(contextNames(list), want), "%s finds %q, not %q", what, contextNames(list),
		want)
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
	}{{0, 0xffffffff}, {0, uint32(len(good))}, {at, 3}, {at, 0xffffffff}, {at + 4,
		0xffffffff}, {at + 4, 0xfffffff0}, {at + 4, 4096}} {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[x.where:], x.what)
		bad = append(bad, b)
	}
	for _, option := range both {
		c := t.structured()
		for i, b := range bad {
			if i%8 == 7 {
				c = t.structured() // servers bound the options of a connection
			}
			c.refusedOption(option, b, fmt.Sprintf("option %d with the data%s", option, shown(b)),
				proto.RepErrInvalid)
		}
	}
}

// checkTrailingContext takes an ACK for a deviation only, if what was left over was skipped.
func checkTrailingContext(t *trial) {
	good := contextData(t.export(), proto.ContextAllocation, "base:")
	for _, option := range both {
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
	c.wantReply(c.setContexts(t.export(), queries...), "all contexts there are", proto.RepAck)
	for i, x := range c.contexts {
		for _, y := range c.contexts[:i] {
			t.want(x.id != y.id && x.name != y.name, "%q has the id %d, and %q the id %d", x.name,
				x.id, y.name, y.id)
		}
	}
	c.stillHaggling("all contexts there are")
}

func checkFailedSet(t *trial) {
	good := contextData(t.export(), proto.ContextAllocation)
	for what, data := range map[string][]byte{"a malformed SET_META_CONTEXT": good[:len(good)-1],
		"a SET_META_CONTEXT for an unknown export": contextData(unknownName,
			proto.ContextAllocation)} {
		c := t.structured()
		c.wantReply(c.setContexts(t.export(), proto.ContextAllocation), "SET_META_CONTEXT",
			proto.RepAck)
		if r := c.finalReply(proto.OptSetMetaContext, data); !r.failed() {
			continue // any name is good: nothing failed
		}
		c.enterWithout(what, t.export())
	}
}

// enterWithout goes to transmission, where no context is to be selected any more.
func (c *conn) enterWithout(after, export string) {
	c.contexts = nil
	c.enterGo(export)
	c.mode = modeStructured
	reply := c.do(newCommand(proto.CmdBlockStatus, 0, c.t.block()))
	c.t.want(reply.errno == einval, "BLOCK_STATUS after %s: %s, not EINVAL", after,
		reply.errorText())
	c.stillUp("BLOCK_STATUS without a context")
}

// checkOtherExport needs two names; a server that takes any has them.
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
	c.enterWithout("SET_META_CONTEXT for another export", other)
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
