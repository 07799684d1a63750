// Checks of transport and strings (T), and that the server does not greet by oldstyle (O-01).
//
// Invariant: how the suite cuts bytes into segments changes when they arrive, and nothing else.

package conform

import (
	"encoding/binary"
	"slices"
	"time"

	"ringnbd/proto"
)

var transportChecks = []Check{
	{"T-01", should, []need{needTCP},
		"small replies are sent at once (TCP_NODELAY)",
		"with Nagle's algorithm, replies wait for acknowledgements that come 40 ms later",
		checkNoDelay},
	{"T-02", must, nil,
		"strings are UTF-8, without NUL, of at most 4096 bytes",
		"clients keep strings in buffers of that size, and as C strings",
		checkStrings},
	{"T-03", should, []need{needList},
		"the names of exports have at most 256 bytes",
		"not every client takes longer names",
		func(t *trial) {
			for _, name := range t.profile.Names {
				t.prefer(len(name) <= 256,
					"an export's name has %d bytes: %.40q...", len(name), name)
			}
		}},
	{"T-04a", quality, []need{needGo, needNames},
		"a name with a NUL in it does not open an export",
		"a name that is cut at the NUL opens another export than the name that was checked",
		func(t *trial) {
			t.wantUnknownName(t.export()+"\x00x", "a name with a NUL")
		}},
	{"T-04b", quality, []need{needGo, needNames},
		"a name that is not UTF-8 does not open an export",
		"the name cannot be logged or listed as it is",
		func(t *trial) {
			t.wantUnknownName("x\xff\xfe", "a name that is not UTF-8")
		}},
	{"T-05a", quality, nil,
		"the handshake works when its bytes come one by one",
		"TCP does not keep boundaries, which shows on slow and tunnelled links",
		checkSlowHandshake},
	{"T-05b", quality, nil,
		"requests work when their bytes come one by one, or cut in the middle of a header",
		"TCP does not keep boundaries, which shows on slow and tunnelled links",
		checkSlowRequests},
	{"T-05c", quality, []need{needPattern},
		"a thousand requests in one piece are all answered",
		"clients that have many requests send them together",
		checkThousand},
	{"T-05d", quality, []need{needWrite},
		"a WRITE, its data and the next request are told apart when they come in one piece",
		"a server that reads ahead must not lose what it read",
		checkJoined},
	{"T-06", quality, nil,
		"a client that ends its direction after its requests soon gets replies or a closed " +
			"connection",
		"a connection that stays open for ever is a leak, and a server that goes on reading it " +
			"spins",
		checkHalfClose},
	{"O-01", should, nil,
		"the server does not greet with the oldstyle handshake",
		"oldstyle has one export, no errors and no TLS",
		func(t *trial) {
			b := t.dial().read(16, "the start of the banner")
			t.want(binary.BigEndian.Uint64(b) == proto.Magic,
				"the banner does not begin with NBDMAGIC:%s", shown(b))
			t.prefer(binary.BigEndian.Uint64(b[8:]) != proto.OldstyleMagic,
				"the banner is that of the oldstyle handshake")
		}},
}

// checkNoDelay sends pairs of requests: with Nagle's algorithm, the second reply waits until the
// first is acknowledged. The time that the disk takes is in single requests as well, and a server
// may do one request after the other.
func checkNoDelay(t *trial) {
	c := t.open(t.profile.bestMode())
	n := uint64(len(t.profile.probe))
	var singles, pairs []time.Duration
	for range 20 {
		singles = append(singles, timed(func() { c.succeeds(newRead(0, n)) }))
		pairs = append(pairs, timed(func() {
			c.sendAll(newRead(0, n), newRead(0, n))
			c.allReplies()
		}))
		if t.left() < t.patience/2 {
			break // the disk is slow
		}
	}
	single, pair := median(singles), median(pairs)
	// A busy machine delays single requests as well; the algorithm seldom does.
	limit := max(30*time.Millisecond, singles[len(singles)*3/4])
	t.prefer(pair-2*single < limit,
		"two short READs at once take %v and a single READ %v, which looks like Nagle's algorithm",
		pair.Round(time.Millisecond), single.Round(time.Millisecond))
}

// median sorts the list and returns its middle.
func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// checkStrings makes the server send every string that it can; option.go judges each as it is read.
func checkStrings(t *trial) {
	c := t.haggle()
	c.option(proto.OptList, nil)
	c.option(0x4321, nil)
	for _, name := range []string{t.export(), unknownName} {
		list := c.option(proto.OptInfo, infoData(name, proto.InfoName, proto.InfoDescription))
		c.parseInfos(list)
	}
	c.option(proto.OptStructuredReply, nil)
	c.option(proto.OptListMetaContext, contextData(t.export()))
	c.stillHaggling("every option with strings")
}

// wantUnknownName asks for an export by a name that should not exist.
func (t *trial) wantUnknownName(name, what string) {
	c := t.haggle()
	r := c.finalReply(proto.OptInfo, infoData(name))
	t.prefer(r.kind != proto.RepAck, "%s is accepted although a plain unknown name is not", what)
	t.prefer(r.kind == proto.RepErrInvalid || r.kind == proto.RepErrUnknown ||
		r.kind == proto.RepAck, "%s is answered by %s", what, r)
	c.stillHaggling(what)
}

func checkSlowHandshake(t *trial) {
	c := t.dial()
	c.banner()
	c.writeBytewise(binary.BigEndian.AppendUint32(nil, t.clientFlags(c.handshake)))
	c.writeBytewise(optionBytes(proto.OptList, nil))
	c.readOptionReplies(proto.OptList)
	c.writeBytewise(optionBytes(0x1234, []byte("data of an option that does not exist")))
	c.readOptionReplies(0x1234)
	if !t.profile.Go {
		c.writeBytewise(optionBytes(proto.OptExportName, []byte(t.export())))
		c.readExportName(c.handshake&proto.FlagNoZeroes != 0)
	} else {
		c.writeBytewise(optionBytes(proto.OptGo, infoData(t.export(), proto.InfoBlockSize)))
		list := c.readOptionReplies(proto.OptGo)
		c.wantReply(list[len(list)-1], "GO", proto.RepAck)
		info := c.parseInfos(list)
		c.size, c.flags, c.block, c.mode = info.size, info.flags, info.block, modeGo
	}
	c.stillUp("a handshake byte by byte")
}

func checkSlowRequests(t *trial) {
	for _, mode := range t.profile.modes() {
		c := t.open(mode)
		n := uint64(len(t.profile.probe))
		r := c.number(newRead(0, n))
		c.expect(r)
		c.writeBytewise(c.encode(r))
		reply := c.nextReply()
		t.want(reply.errno == 0, "%s, %s byte by byte: %s", mode, r, reply.errorText())
		a, b := c.number(newRead(0, n)), c.number(newRead(0, n))
		c.expect(a)
		c.expect(b)
		both := append(c.encode(a), c.encode(b)...)
		cut := len(both)/2 + 7 // in the middle of the second header
		c.write(both[:cut])
		t.sleep(5 * time.Millisecond)
		c.write(both[cut:])
		c.allReplies()
		c.stillUp("requests in pieces")
		c.close()
	}
}

func checkThousand(t *trial) {
	c := t.open(t.profile.bestMode())
	list := make([]*request, 1000)
	for i := range list {
		list[i] = newRead(uint64(i)*t.page()%holeStart, t.page())
	}
	var all []byte
	for _, r := range list {
		c.expect(c.number(r))
		all = append(all, c.encode(r)...)
	}
	sent := c.writeAside(all)
	for _, reply := range c.allReplies() {
		t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
		at := firstDifference(reply.data, expected(reply.request.offset, reply.request.length))
		t.want(at < 0, "%s: byte %d is not that of the export", reply.request, at)
	}
	if err := <-sent; err != nil {
		t.failf("sending a thousand requests: %s", wireError(err))
	}
	c.stillUp("a thousand requests in one piece")
}

func checkJoined(t *trial) {
	c := t.open(t.profile.bestMode())
	at := t.scratch(1 << 20)
	data := fill(5, int(t.page()))
	c.sendAll(newWrite(at, data), newRead(0, uint64(len(t.profile.probe))),
		newWrite(at+t.page(), data))
	for _, reply := range c.allReplies() {
		t.want(reply.errno == 0, "%s: %s", reply.request, reply.errorText())
	}
	c.wantData(at, append(data[:len(data):len(data)], data...), "what two joined WRITEs wrote")
	c.stillUp("joined requests")
}

func checkHalfClose(t *trial) {
	c := t.open(t.profile.bestMode())
	n := uint64(len(t.profile.probe))
	list := make([]*request, 16)
	for i := range list {
		list[i] = newRead(0, n)
	}
	c.sendAll(list...)
	c.closeWrite()
	answered := 0
	t.try(func() { // the server may close instead
		for c.unanswered() > 0 {
			c.nextReply()
			answered++
		}
	})
	open, got := c.openAfter(t.left() / 2)
	t.want(len(got) == 0, "after %d replies: stray bytes%s", answered, shown(got))
	t.prefer(!open,
		"the server keeps the connection open (%d of 16 requests were answered)", answered)
}
