// Transport and strings (rules T-01 to T-06), and what oldstyle leaves to see (O-01).
//
// Invariant: how bytes are cut into segments changes nothing that is checked here, only when it
// arrives.

package conform

import (
	"encoding/binary"
	"slices"
	"time"

	"ringnbd/proto"
)

var transportChecks = []Check{
	{"T-01", Should, "small replies are sent at once (TCP_NODELAY)",
		"with Nagle's algorithm, replies wait for acknowledgements that come 40 ms later",
		[]Need{NeedTCP}, checkNoDelay},
	{"T-02", Must, "strings are UTF-8, without NUL, of at most 4096 bytes",
		"clients keep them in buffers of that size, and as C strings", nil, checkStrings},
	{"T-03", Should, "names of exports have at most 256 bytes",
		"not every client takes more", []Need{NeedList}, func(t *T) {
			for _, name := range t.facts.Names {
				t.Prefer(len(name) <= 256, "an export's name has %d bytes: %.40q...", len(name),
					name)
			}
		}},
	{"T-04a", Quality, "a name with a NUL in it names no export",
		"a name that is cut at the NUL opens another export than the one that was checked",
		[]Need{NeedGo, NeedNames}, func(t *T) {
			t.namesNothing(t.Export()+"\x00x", "a name with a NUL")
		}},
	{"T-04b", Quality, "a name that is not UTF-8 names no export",
		"it cannot be logged or listed as it is", []Need{NeedGo, NeedNames}, func(t *T) {
			t.namesNothing("x\xff\xfe", "a name that is not UTF-8")
		}},
	{"T-05a", Quality, "the handshake works however its bytes are cut: one by one",
		"TCP keeps no boundaries; slow and tunnelled links show it", nil, checkSlowHandshake},
	{"T-05b", Quality,
		"requests work however their bytes are cut: one by one, and in the middle of a header",
		"TCP keeps no boundaries; slow and tunnelled links show it", nil, checkSlowRequests},
	{"T-05c", Quality, "a thousand requests in one piece are all answered",
		"clients with many requests send them together", []Need{NeedPattern}, checkThousand},
	{"T-05d", Quality, "a WRITE, its data and the next request in one piece are told apart",
		"a server that reads ahead must not lose what it read", []Need{NeedWrite}, checkJoined},
	{"T-06", Quality,
		"a client that ends its direction after its requests gets answers or the end, soon",
		"a connection that stays open for ever is a leak, and one that is read for ever is a spin",
		nil, checkHalfClose},
	{"O-01", Should, "the server does not greet with the oldstyle handshake",
		"oldstyle has no errors, no TLS and one export", nil, func(t *T) {
			b := t.Dial().Read(16, "the start of the banner")
			t.Want(binary.BigEndian.Uint64(b) == proto.Magic,
				"the banner does not begin with NBDMAGIC:%s", shown(b))
			t.Prefer(binary.BigEndian.Uint64(b[8:]) != proto.OldstyleMagic,
				"the banner is that of the oldstyle handshake")
		}},
}

// checkNoDelay sends pairs of requests: with Nagle's algorithm, the second reply waits until the
// first is acknowledged. What the disk takes for each is in the single requests as well, and a
// server may do one after the other.
func checkNoDelay(t *T) {
	c := t.Open(t.facts.Best())
	n := uint64(len(t.facts.probe))
	var singles, pairs []time.Duration
	for range 20 {
		singles = append(singles, took(func() { c.Succeeds(Read(0, n)) }))
		pairs = append(pairs, took(func() {
			c.SendAll(Read(0, n), Read(0, n))
			c.All()
		}))
		if t.Left() < t.patience/2 {
			break // a disk that takes its time
		}
	}
	single, pair := median(singles), median(pairs)
	// A machine that is busy delays single requests as well; the algorithm does so seldom.
	most := max(30*time.Millisecond, singles[len(singles)*3/4])
	t.Prefer(pair-2*single < most,
		"two short READs at once take %v, and one %v, which looks like Nagle's algorithm",
		pair.Round(time.Millisecond), single.Round(time.Millisecond))
}

// median sorts the list.
func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// checkStrings makes the server say what it can; the strings are judged while they are read.
func checkStrings(t *T) {
	c := t.Haggle()
	c.Option(proto.OptList, nil)
	c.Option(0x4321, nil)
	for _, name := range []string{t.Export(), unknownName} {
		list := c.Option(proto.OptInfo, InfoData(name, proto.InfoName, proto.InfoDescription))
		c.Infos(list)
	}
	c.Option(proto.OptStructuredReply, nil)
	c.Option(proto.OptListMetaContext, ContextData(t.Export()))
	c.StillHaggling("all that has strings")
}

// namesNothing asks for an export by a name that should not exist.
func (t *T) namesNothing(name, what string) {
	c := t.Haggle()
	r := c.Final(proto.OptInfo, InfoData(name))
	t.Prefer(r.Type != proto.RepAck, "%s is accepted although a plain unknown name is not", what)
	t.Prefer(r.Type == proto.RepErrInvalid || r.Type == proto.RepErrUnknown ||
		r.Type == proto.RepAck, "%s is answered by %s", what, r)
	c.StillHaggling(what)
}

func checkSlowHandshake(t *T) {
	c := t.Dial()
	c.banner()
	c.WriteSlowly(binary.BigEndian.AppendUint32(nil, t.clientFlags(c.Handshake)))
	c.WriteSlowly(optionBytes(proto.OptList, nil))
	c.ReadReplies(proto.OptList)
	c.WriteSlowly(optionBytes(0x1234, []byte("data of an option that does not exist")))
	c.ReadReplies(0x1234)
	if !t.facts.Go {
		c.WriteSlowly(optionBytes(proto.OptExportName, []byte(t.Export())))
		c.readExportName(c.Handshake&proto.FlagNoZeroes != 0)
	} else {
		c.WriteSlowly(optionBytes(proto.OptGo, InfoData(t.Export(), proto.InfoBlockSize)))
		list := c.ReadReplies(proto.OptGo)
		c.WantReply(list[len(list)-1], "GO", proto.RepAck)
		info := c.Infos(list)
		c.Size, c.Flags, c.Block, c.Mode = info.Size, info.Flags, info.Block, ModeGo
	}
	c.StillUp("a handshake byte by byte")
}

func checkSlowRequests(t *T) {
	for _, mode := range t.facts.Modes() {
		c := t.Open(mode)
		n := uint64(len(t.facts.probe))
		r := c.Name(Read(0, n))
		c.Expect(r)
		c.WriteSlowly(c.Encode(r))
		reply := c.Next()
		t.Want(reply.Errno == 0, "%s, %s byte by byte: %s", mode, r, reply.Error())
		a, b := c.Name(Read(0, n)), c.Name(Read(0, n))
		c.Expect(a)
		c.Expect(b)
		both := append(c.Encode(a), c.Encode(b)...)
		cut := len(both)/2 + 7 // in the middle of the second header
		c.Write(both[:cut])
		t.Sleep(5 * time.Millisecond)
		c.Write(both[cut:])
		c.All()
		c.StillUp("requests in pieces")
		c.Close()
	}
}

func checkThousand(t *T) {
	c := t.Open(t.facts.Best())
	list := make([]*Request, 1000)
	for i := range list {
		list[i] = Read(uint64(i)*t.page()%HoleStart, t.page())
	}
	var all []byte
	for _, r := range list {
		c.Expect(c.Name(r))
		all = append(all, c.Encode(r)...)
	}
	sent := c.WriteAside(all)
	for _, reply := range c.All() {
		t.Want(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
		at := firstDifference(reply.Data, Expected(reply.Request.Offset, reply.Request.Length))
		t.Want(at < 0, "%s: byte %d is not what is there", reply.Request, at)
	}
	if err := <-sent; err != nil {
		t.Failf("sending a thousand requests: %s", wireError(err))
	}
	c.StillUp("a thousand requests in one piece")
}

func checkJoined(t *T) {
	c := t.Open(t.facts.Best())
	at := t.Scratch(1 << 20)
	data := Fill(5, int(t.page()))
	c.SendAll(Write(at, data), Read(0, uint64(len(t.facts.probe))), Write(at+t.page(), data))
	for _, reply := range c.All() {
		t.Want(reply.Errno == 0, "%s: %s", reply.Request, reply.Error())
	}
	c.WantData(at, append(data[:len(data):len(data)], data...), "what two joined WRITEs wrote")
	c.StillUp("joined requests")
}

func checkHalfClose(t *T) {
	c := t.Open(t.facts.Best())
	n := uint64(len(t.facts.probe))
	list := make([]*Request, 16)
	for i := range list {
		list[i] = Read(0, n)
	}
	c.SendAll(list...)
	c.CloseWrite()
	answered := 0
	t.Try(func() { // the server may close instead
		for c.Pending() > 0 {
			c.Next()
			answered++
		}
	})
	open, got := c.Hangs(t.Left() / 2)
	t.Want(len(got) == 0, "after %d replies: stray bytes%s", answered, shown(got))
	t.Prefer(!open, "the server keeps the connection open (%d of 16 requests were answered)",
		answered)
}
