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
	{"SR-01", Must, "after STRUCTURED_REPLY, READs are answered in chunks",
		"a simple reply to a READ would be misread", []Need{NeedStructured, NeedGo}, func(t *T) {
			c := t.Open(ModeStructured)
			reply := c.Succeeds(Read(0, t.block()))
			t.Want(!reply.Simple && len(reply.Chunks) > 0, "the reply is a simple one")
			c.StillUp("a structured READ")
		}},
	{"SR-02", Should,
		"STRUCTURED_REPLY with data is ERR_INVALID, the data is skipped, and nothing is switched on",
		"the two sides would speak different formats", []Need{NeedStructured, NeedGo}, func(t *T) {
			c := t.Haggle()
			r := c.Prefers(proto.OptStructuredReply, []byte("data"), "STRUCTURED_REPLY with data",
				proto.RepErrInvalid)
			c.EnterGo(t.Export())
			if c.Mode = ModeGo; r.Type == proto.RepAck {
				c.Mode = ModeStructured
			}
			c.StillUp("STRUCTURED_REPLY with data")
		}},
	{"SR-03", Must, "without STRUCTURED_REPLY every reply is a simple one, also to errors",
		"the kernel's client understands nothing else", []Need{NeedGo}, func(t *T) {
			c := t.Open(ModeGo)
			c.Succeeds(Read(0, uint64(len(t.facts.probe))))
			c.Do(Read(c.Size&^4095, 8192))
			c.StillUp("a READ beyond the end")
		}},
	{"SR-04", Should, "STRUCTURED_REPLY after EXTENDED_HEADERS is ERR_EXT_HEADER_REQD",
		"the two formats exclude each other", []Need{NeedExtended}, func(t *T) {
			c := t.Haggle()
			c.WantReply(c.Final(proto.OptExtendedHeaders, nil), "EXTENDED_HEADERS", proto.RepAck)
			c.Prefers(proto.OptStructuredReply, nil, "STRUCTURED_REPLY after EXTENDED_HEADERS",
				proto.RepErrExtHeaderReqd)
			c.EnterGo(t.Export())
			c.Mode = ModeExtended
			c.StillUp("STRUCTURED_REPLY after EXTENDED_HEADERS")
		}},
}

var needSetMeta = Need{"LIST_META_CONTEXT or SET_META_CONTEXT", func(f *Facts) bool {
	return f.Meta || f.setMeta
}}

// both are the two options with queries.
var both = []uint32{proto.OptListMetaContext, proto.OptSetMetaContext}

var contextChecks = []Check{
	{"MC-01", Should,
		"SET_META_CONTEXT without structured replies is ERR_INVALID; LIST_META_CONTEXT is answered",
		"block status needs chunks", []Need{needSetMeta}, func(t *T) {
			c := t.Haggle()
			c.Prefers(proto.OptSetMetaContext, ContextData(t.Export(), proto.ContextAllocation),
				"SET_META_CONTEXT", proto.RepErrInvalid, proto.RepErrExtHeaderReqd)
			c.Prefers(proto.OptListMetaContext, ContextData(t.Export()), "LIST_META_CONTEXT",
				proto.RepErrInvalid, proto.RepErrExtHeaderReqd, proto.RepAck)
		}},
	{"MC-02a", Must,
		"LIST_META_CONTEXT and SET_META_CONTEXT that would end beyond their data are " +
			"ERR_INVALID, and the negotiation goes on",
		"such lengths have overflowed buffers", []Need{NeedMeta, NeedStructured},
		checkShortContext},
	{"MC-02b", Must, "LIST_META_CONTEXT and SET_META_CONTEXT with bytes behind the last query " +
		"are ERR_INVALID, the bytes are skipped, and the negotiation goes on",
		"what is left over would be taken for the next option", []Need{NeedMeta, NeedStructured},
		checkTrailingContext},
	{"MC-03", Must, "a query without a colon is ERR_INVALID or ignored",
		"it names no context", []Need{NeedMeta, NeedStructured}, func(t *T) {
			for _, option := range both {
				c := t.structured()
				list := c.Option(option, ContextData(t.Export(), "nocolon"))
				c.WantReply(list[len(list)-1], "a query without a colon", proto.RepAck,
					proto.RepErrInvalid)
				t.Want(len(list) == 1, "a query without a colon finds %d contexts", len(list)-1)
				c.StillHaggling("a query without a colon")
			}
		}},
	{"MC-04", Must, "queries in unknown namespaces are ignored",
		"clients ask for what only some servers have", []Need{NeedMeta, NeedStructured},
		func(t *T) {
			t.contexts(proto.OptSetMetaContext,
				[]string{"x-conform:nothing", "nosuch:", "x-conform:"})
			t.contexts(proto.OptSetMetaContext,
				[]string{"x-conform:nothing", "qemu:dirty-bitmap:conform-no-such-bitmap"})
		}},
	{"MC-05", Must, "LIST_META_CONTEXT without queries lists every context",
		"it is how a client finds them", []Need{NeedContexts}, func(t *T) {
			c := t.structured()
			list := c.Option(proto.OptListMetaContext, ContextData(t.Export()))
			if last := list[len(list)-1]; last.Type == proto.RepErrUnsup ||
				last.Type == proto.RepErrPolicy {
				t.Differ("base:allocation can be set, and LIST_META_CONTEXT is answered by %s",
					last)
				c.StillHaggling("LIST_META_CONTEXT")
				return
			}
			c.WantReply(list[len(list)-1], "LIST_META_CONTEXT", proto.RepAck)
			names := contextNames(list) // "base:" stands for all that there is in it
			t.Want(slices.Contains(names, proto.ContextAllocation) ||
				slices.Contains(names, "base:"), "base:allocation can be set, and the list is %q",
				names)
			c.StillHaggling("LIST_META_CONTEXT")
		}},
	{"MC-06", Must, "LIST_META_CONTEXT of base: lists base:allocation",
		"an empty leaf asks for all of a namespace", []Need{NeedContexts, NeedMeta}, func(t *T) {
			t.contexts(proto.OptListMetaContext, []string{"base:"}, proto.ContextAllocation)
		}},
	{"MC-07", Must, "LIST_META_CONTEXT of what does not exist is a single ACK",
		"nothing found is an answer, no error", []Need{NeedMeta, NeedStructured}, func(t *T) {
			t.contexts(proto.OptListMetaContext, []string{"x-conform:nothing", "base:nosuch"})
		}},
	{"MC-08", Should, "contexts that are listed have the id 0",
		"ids mean something after SET_META_CONTEXT only", []Need{NeedMeta, NeedStructured},
		func(t *T) {
			list := t.structured().Option(proto.OptListMetaContext, ContextData(t.Export()))
			for _, r := range list[:len(list)-1] {
				t.Prefer(binary.BigEndian.Uint32(r.Data) == 0, "%q is listed with the id %d",
					r.Data[4:], binary.BigEndian.Uint32(r.Data))
			}
		}},
	{"MC-09", Must, "SET_META_CONTEXT without queries selects nothing",
		"that is how a client unselects", []Need{NeedMeta, NeedStructured}, func(t *T) {
			t.contexts(proto.OptSetMetaContext, nil)
		}},
	{"MC-10", Must, "SET_META_CONTEXT of base: and of base:nosuch selects nothing",
		"a context that nobody named would be a surprise in every reply",
		[]Need{NeedMeta, NeedStructured}, func(t *T) {
			t.contexts(proto.OptSetMetaContext, []string{"base:"})
			t.contexts(proto.OptSetMetaContext, []string{"base:nosuch"})
			t.contexts(proto.OptSetMetaContext, []string{"base:allocationx", "base:allocatio"})
		}},
	{"MC-11", Must, "SET_META_CONTEXT of base:allocation selects it",
		"it is the map of holes that copying tools use", []Need{NeedContexts}, func(t *T) {
			t.contexts(proto.OptSetMetaContext, []string{proto.ContextAllocation},
				proto.ContextAllocation)
			c := t.Open(ModeContexts)
			c.Succeeds(Command(proto.CmdBlockStatus, 0, c.t.block()))
			c.StillUp("BLOCK_STATUS")
		}},
	{"MC-12", Must, "the ids of one SET_META_CONTEXT differ, and a query twice selects once",
		"chunks are told apart by them", []Need{NeedContexts}, checkUniqueIDs},
	{"MC-13a", Must, "a SET_META_CONTEXT that fails unselects what was selected before",
		"the server would send what the client no longer expects", []Need{NeedContexts},
		checkFailedSet},
	{"MC-13b", Must, "a SET_META_CONTEXT without queries unselects what was selected before",
		"the server would send what the client no longer expects", []Need{NeedContexts},
		func(t *T) {
			c := t.structured()
			c.SetContexts(t.Export(), proto.ContextAllocation)
			c.WantReply(c.SetContexts(t.Export()), "SET_META_CONTEXT without queries", proto.RepAck)
			c.enterWithout("SET_META_CONTEXT without queries", t.Export())
		}},
	{"MC-14", Must,
		"LIST_META_CONTEXT and SET_META_CONTEXT with an unknown name are ERR_UNKNOWN, or " +
			"refused by policy",
		"a client may have another name to try", []Need{NeedMeta, NeedStructured, NeedNames},
		func(t *T) {
			for _, option := range both {
				t.structured().Refused(option, ContextData(unknownName, proto.ContextAllocation),
					"an unknown name", proto.RepErrUnknown, proto.RepErrPolicy, proto.RepErrTLSReqd)
			}
		}},
	{"MC-15", Must, "contexts that were set for one export mean nothing for another",
		"the client asked about other data", []Need{NeedContexts}, checkOtherExport},
	{"MC-17", May, "five thousand queries are served, or ERR_TOO_BIG or ERR_INVALID",
		"a server has to bound what it keeps", []Need{NeedMeta, NeedStructured}, func(t *T) {
			queries := make([]string, 5000)
			for i := range queries {
				queries[i] = fmt.Sprintf("x-conform:%d", i)
			}
			for _, option := range both {
				t.structured().Prefers(option, ContextData(t.Export(), queries...), "5000 queries",
					proto.RepAck, proto.RepErrTooBig, proto.RepErrInvalid)
			}
		}},
	{"MC-18", Must, "names of contexts are a namespace, a colon and a leaf, which may be empty",
		"clients find the namespaces that they know by it", []Need{NeedMeta, NeedStructured},
		func(t *T) {
			list := t.structured().Option(proto.OptListMetaContext, ContextData(t.Export()))
			for _, name := range contextNames(list) {
				space, _, ok := strings.Cut(name, ":")
				t.Want(ok && space != "", "%q is no name of a context", name)
				t.Prefer(space == "base" || space == "qemu" || space == "nbd-server" ||
					strings.HasPrefix(space, "x-"), "the namespace of %q is none that is known",
					name)
			}
		}},
	{"MC-19", Quality,
		"SET_META_CONTEXT by the canonical name and GO by the empty one, or the other way " +
			"round: GO works all the same",
		"whether the contexts count then is open; that the export opens is not",
		[]Need{NeedContexts}, checkTwoNames},
}

var extendedChecks = []Check{
	{"X-01", Must,
		"after EXTENDED_HEADERS everything has extended headers; a compact request closes the " +
			"connection",
		"sizes of headers are part of the stream: it cannot be in step otherwise",
		[]Need{NeedExtended}, func(t *T) {
			c := t.Open(ModeExtended)
			c.StillUp("EXTENDED_HEADERS")
			c.Mode = ModeGo
			r := c.Encode(c.Name(Read(0, t.block())))
			_ = c.TryWrite(append(r, r...)) // one alone is shorter than an extended header
			c.Closed("after compact requests")
		}},
	{"X-02", Should,
		"EXTENDED_HEADERS with data is refused, the data is skipped, and nothing is switched on",
		"the two sides would speak different formats", []Need{NeedGo}, func(t *T) {
			c := t.Haggle()
			want := proto.RepErrInvalid
			if !t.facts.Extended {
				want = proto.RepErrUnsup
			}
			c.Prefers(proto.OptExtendedHeaders, []byte("data"), "EXTENDED_HEADERS with data", want)
			c.EnterGo(t.Export())
			c.Mode = ModeGo
			c.StillUp("EXTENDED_HEADERS with data")
		}},
	{"X-03", Should, "EXTENDED_HEADERS works without STRUCTURED_REPLY before it, and after it",
		"it brings chunks of its own", []Need{NeedExtended}, func(t *T) {
			for _, before := range []bool{false, true} {
				c := t.Haggle()
				if before {
					c.Option(proto.OptStructuredReply, nil)
				}
				r := c.Final(proto.OptExtendedHeaders, nil)
				if r.Failed() {
					t.Differ("EXTENDED_HEADERS is answered by %s (STRUCTURED_REPLY before: %v)", r,
						before)
					continue
				}
				c.EnterGo(t.Export())
				c.Mode = ModeExtended
				c.StillUp("EXTENDED_HEADERS")
			}
		}},
	{"X-04", Must, "a server with EXTENDED_HEADERS has GO",
		"EXPORT_NAME may not be used then", []Need{NeedExtended}, func(t *T) {
			c := t.Haggle()
			c.Option(proto.OptExtendedHeaders, nil)
			r := c.Final(proto.OptGo, InfoData(t.Export()))
			c.WantReply(r, "GO", proto.RepAck)
		}},
	{"X-05", Should, "GO works without extended headers",
		"most clients do not have them", []Need{NeedGo}, func(t *T) {
			r := t.Haggle().Final(proto.OptGo, InfoData(t.Export()))
			t.Prefer(r.Type != proto.RepErrExtHeaderReqd, "GO is answered by %s", r)
		}},
	{"X-06", Must, "base:allocation needs no extended headers",
		"it has always had 32 bits", []Need{NeedContexts}, func(t *T) {
			r := t.structured().Final(proto.OptListMetaContext,
				ContextData(t.Export(), proto.ContextAllocation))
			c := t.structured()
			t.Want(r.Type != proto.RepErrExtHeaderReqd &&
				c.SetContexts(t.Export(), proto.ContextAllocation).Type == proto.RepAck,
				"it is answered by %s", r)
		}},
	{"X-08", Must, "a server without EXTENDED_HEADERS answers it by ERR_UNSUP",
		"clients fall back to compact headers", []Need{Without(NeedExtended)}, func(t *T) {
			t.unsupported(proto.OptExtendedHeaders, 0)
		}},
}

// structured is a negotiation with structured replies.
func (t *T) structured() *Conn {
	c := t.Haggle()
	c.Negotiate(ModeStructured)
	return c
}

func contextNames(list []OptionReply) []string {
	var names []string
	for _, r := range list[:len(list)-1] {
		names = append(names, string(r.Data[4:]))
	}
	return names
}

// contexts sends queries that must find exactly these contexts.
func (t *T) contexts(option uint32, queries []string, want ...string) {
	c := t.structured()
	list := c.Option(option, ContextData(t.Export(), queries...))
	what := fmt.Sprintf("option %d with the queries %q", option, queries)
	c.WantReply(list[len(list)-1], what, proto.RepAck)
	t.Want(slices.Equal(contextNames(list), want), "%s finds %q, not %q", what, contextNames(list),
		want)
	c.StillHaggling(what)
}

func checkShortContext(t *T) {
	good := ContextData(t.Export(), proto.ContextAllocation, "base:")
	var bad [][]byte
	for _, n := range []int{0, 1, 3, 4, 7} {
		bad = append(bad, make([]byte, n))
	}
	for _, n := range []int{1, 4, 5, 9} { // cut short
		bad = append(bad, good[:len(good)-n])
	}
	at := 4 + len(t.Export())
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
			c.Refused(option, b, fmt.Sprintf("option %d with the data%s", option, shown(b)),
				proto.RepErrInvalid)
		}
	}
}

// checkTrailingContext takes an ACK for a deviation only, if what was left over was skipped.
func checkTrailingContext(t *T) {
	good := ContextData(t.Export(), proto.ContextAllocation, "base:")
	for _, option := range both {
		for _, n := range []int{1, 8, 20} {
			t.structured().Prefers(option, append(bytes.Clone(good), bytes.Repeat([]byte{1}, n)...),
				fmt.Sprintf("option %d with %d bytes too many", option, n), proto.RepErrInvalid)
		}
	}
}

func checkUniqueIDs(t *T) {
	c := t.structured()
	queries := append([]string{proto.ContextAllocation, proto.ContextAllocation},
		t.facts.Contexts...)
	c.WantReply(c.SetContexts(t.Export(), queries...), "all contexts there are", proto.RepAck)
	for i, x := range c.Contexts {
		for _, y := range c.Contexts[:i] {
			t.Want(x.ID != y.ID && x.Name != y.Name, "%q has the id %d, and %q the id %d", x.Name,
				x.ID, y.Name, y.ID)
		}
	}
	c.StillHaggling("all contexts there are")
}

func checkFailedSet(t *T) {
	good := ContextData(t.Export(), proto.ContextAllocation)
	for what, data := range map[string][]byte{"a malformed SET_META_CONTEXT": good[:len(good)-1],
		"a SET_META_CONTEXT for an unknown export": ContextData(unknownName,
			proto.ContextAllocation)} {
		c := t.structured()
		c.WantReply(c.SetContexts(t.Export(), proto.ContextAllocation), "SET_META_CONTEXT",
			proto.RepAck)
		if r := c.Final(proto.OptSetMetaContext, data); !r.Failed() {
			continue // any name is good: nothing failed
		}
		c.enterWithout(what, t.Export())
	}
}

// enterWithout goes to transmission, where no context is to be selected any more.
func (c *Conn) enterWithout(after, export string) {
	c.Contexts = nil
	c.EnterGo(export)
	c.Mode = ModeStructured
	reply := c.Do(Command(proto.CmdBlockStatus, 0, c.t.block()))
	c.t.Want(reply.Errno == EINVAL, "BLOCK_STATUS after %s: %s, not EINVAL", after, reply.Error())
	c.StillUp("BLOCK_STATUS without a context")
}

// checkOtherExport needs two names; a server that takes any has them.
func checkOtherExport(t *T) {
	other := unknownName
	if !t.facts.AnyName {
		at := slices.IndexFunc(t.facts.Names, func(name string) bool {
			return name != t.Export() && t.Export() != ""
		})
		if at < 0 {
			t.Skip("needs a second export (name one by URI or --export)")
		}
		other = t.facts.Names[at]
	}
	c := t.structured()
	c.WantReply(c.SetContexts(t.Export(), proto.ContextAllocation), "SET_META_CONTEXT",
		proto.RepAck)
	c.enterWithout("SET_META_CONTEXT for another export", other)
}

func checkTwoNames(t *T) {
	info := t.Haggle()
	name := info.Infos(info.Option(proto.OptInfo, InfoData("", proto.InfoName))).Name
	if name == nil || *name == "" {
		t.Skip("the default export has no other name")
	}
	for _, names := range [][2]string{{"", *name}, {*name, ""}} {
		c := t.structured()
		c.SetContexts(names[0], proto.ContextAllocation)
		c.EnterGo(names[1])
		c.Mode = ModeStructured
		reply := c.Do(Command(proto.CmdBlockStatus, 0, c.t.block()))
		t.Want(reply.Errno == 0 || reply.Errno == EINVAL, "BLOCK_STATUS: %s", reply.Error())
		c.Succeeds(Read(0, uint64(len(t.facts.probe))))
	}
}
