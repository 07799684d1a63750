// Checks of the form of replies (RP): simple ones, chunks, errors. Conn judges every chunk of every
// check as it comes; these checks see to it that there is something to judge. Invariant: a check
// that saw none of what it is about is a skip, not a pass.

package conform

import (
	"bytes"

	"ringnbd/proto"
)

var replyChecks = []Check{
	{"RP-01", Must,
		"without structured replies every reply is simple, and an error has no data behind it",
		"the oldest clients, the kernel's among them, know nothing else; data behind an error " +
			"is taken for the next reply", nil, simpleReplies},
	{"RP-02", Must, "with structured replies a READ never has a simple one, not even for an error",
		"a client cannot tell whether data follows a simple reply", []Need{NeedStructured},
		structuredReadErrors},
	{"RP-03", Should, "errors are structured, and say in words what is wrong",
		"a number of seven values is all that the user learns otherwise", []Need{NeedStructured},
		errorsWithText},
	{"RP-04", Must,
		"each reply has DONE on its last chunk and on no other, and no flag that does not exist",
		"a client that waits for DONE waits for ever; one that saw it frees the request",
		[]Need{NeedStructured}, doneFlags},
	{"RP-05", Must, "NONE has no payload and is the end of a reply",
		"it is how a reply without content succeeds", []Need{NeedStructured}, noneChunks},
	{"RP-06", Must,
		"OFFSET_DATA lies inside of the request, has at least a byte and overlaps nothing",
		"clients copy by these numbers into the user's memory", []Need{NeedStructured, NeedPattern},
		dataChunks},
	{"RP-07", Must,
		"OFFSET_HOLE has 12 bytes, lies inside of the request, is not empty and overlaps nothing",
		"clients clear memory by these numbers", []Need{NeedStructured, NeedPattern}, holeChunks},
	{"RP-08", Must, "the chunks of a READ that succeeds hold each byte once",
		"what no chunk told stays whatever was in the client's memory",
		[]Need{NeedStructured, NeedPattern}, exactCover},
	{"RP-09", Must,
		"an error chunk has an error that is not 0 and a message of at most its own length; one " +
			"is enough",
		"a client that trusts the length of a message reads behind it", []Need{NeedStructured},
		errorChunks},
	{"RP-10", Must, "an error with an offset names one inside of the request",
		"the client counts as valid what lies before it", []Need{NeedStructured}, errorOffsets},
	{"RP-15", Should, "a READ of data comes in one chunk, and chunks are cut at multiples of 512",
		"each chunk costs both sides a header and a system call",
		[]Need{NeedStructured, NeedPattern}, fewChunks},
	{"RP-16", Must, "no chunk holds more than the maximum payload",
		"clients have buffers of that size", []Need{NeedStructured}, chunkOfMaximum},
	{"RP-17", Must, "no chunk type or flag that was not agreed on, whatever the command",
		"a client must hang up on a chunk that it does not know", []Need{NeedStructured},
		agreedChunks},
}

// wrongRequests is one request of each kind of mistake, none of which has data behind it. Commands
// that change data are among them only where data may be changed: a server that wraps or cuts what
// is beyond the end would do it somewhere.
func (c *Conn) wrongRequests() []*Request {
	t, block := c.t, c.t.block()
	list := []*Request{
		Read(0, block).With(1 << 14), Command(0x7ff0, 0, block), Read(t.facts.Size,
			block), Read(1<<63, block), Command(proto.CmdFlush, 0, 0).With(proto.CmdFlagDF),
		Command(proto.CmdCache, t.facts.Size+block, block),
		Command(proto.CmdBlockStatus, t.facts.Size+block, block),
	}
	if t.facts.Writable {
		list = append(list, Command(proto.CmdTrim, t.facts.Size+block, block),
			Command(proto.CmdWriteZeroes, t.facts.Size+block, block))
	}
	return list
}

// wrongReplies sends them all and gives the replies that are errors.
func (c *Conn) wrongReplies() []*Reply {
	var list []*Reply
	for _, r := range c.wrongRequests() {
		reply, _ := c.attempt(r)
		if reply == nil {
			c.differOnce(r, "the server hangs up")
			c.reopen(r.String())
			continue
		}
		c.inStep(r.String())
		if reply.Errno != 0 {
			list = append(list, reply)
		}
	}
	return list
}

func simpleReplies(t *T) {
	c := t.Open(t.facts.richModes()[0])
	for _, reply := range c.wrongReplies() {
		t.Want(reply.Simple, "%s: not a simple reply", reply.Request)
	}
	for _, length := range []uint64{t.block(), c.upTo(3 * t.block()), c.upTo(1 << 20)} {
		t.Want(c.Succeeds(Read(0, length)).Simple, "a READ is not answered by a simple reply")
	}
	if c.offers(proto.CmdWrite) {
		t.Want(c.Succeeds(Write(t.Scratch(t.block()), Fill(1, int(t.block())))).Simple,
			"a WRITE is not answered by a simple reply")
	}
}

// structuredReadErrors needs no judgement of its own: Conn fails on a simple reply to a READ.
func structuredReadErrors(t *T) {
	c := t.Open(ModeStructured)
	seen := 0
	for _, r := range []*Request{Read(0, t.block()).With(1 << 14),
		Read(0, t.block()).With(proto.CmdFlagNoHole), Read(t.facts.Size, t.block()),
		Read(1<<64-1, 1), Read(t.tail(t.block()), 1<<32-1)} {
		if reply := c.refused(r, EINVAL, EOVERFLOW, ENOMEM); reply != nil && reply.Errno != 0 {
			seen++
		}
	}
	t.Want(seen > 0, "no READ was refused, whatever was wrong with it")
}

func errorsWithText(t *T) {
	c := t.Open(ModeStructured)
	silent, simple, all := 0, 0, c.wrongReplies()
	for _, reply := range all {
		switch {
		case reply.Simple:
			simple++
		case reply.Message == "":
			silent++
		}
	}
	t.Prefer(simple == 0, "%d of %d errors come as simple replies", simple, len(all))
	t.Prefer(silent == 0, "%d of %d errors come without a word of text", silent, len(all))
}

// patternReads are READs of all that the suite's data has: data, holes, both, each odd boundary of
// them.
func (t *T) patternReads() []*Request {
	block := t.block()
	list := []*Request{
		Read(0, block), Read(0, 1<<20), Read(HoleStart-block, 2*block), Read(HoleStart,
			1<<20), Read(StripeStart-block, 2*block), Read(StripeStart, 16*Stripe),
		Read(StripeStart+Stripe-block, 2*block), Read(StripeStart+Stripe, Stripe),
		Read(ScratchStart-2*Stripe-block, 2*Stripe+block),
	}
	if t.facts.MinBlock() == 1 {
		list = append(list, Read(1, 1), Read(511, 2), Read(HoleStart-1, 2), Read(HoleStart-3, 4099),
			Read(StripeStart+Stripe-1, Stripe+2), Read(StripeStart+7, 3*Stripe+5))
	}
	return list
}

// readPattern does them one by one, then all in one piece, and judges the data.
func (c *Conn) readPattern() []*Reply {
	var list []*Reply
	for _, r := range c.t.patternReads() {
		list = append(list, c.wantRead(r, Expected(r.Offset, r.Length), "the suite's data"))
	}
	c.SendAll(c.t.patternReads()...)
	for _, reply := range c.All() {
		c.t.Want(bytes.Equal(reply.Data, Expected(reply.Request.Offset, reply.Request.Length)),
			"%s, pipelined: %s and wrong data", reply.Request, reply.Error())
		list = append(list, reply)
	}
	c.StillUp("many READs")
	return list
}

// count is how many chunks of a type there are in some replies.
func count(list []*Reply, kind uint16) int {
	n := 0
	for _, reply := range list {
		for _, chunk := range reply.Chunks {
			if chunk.Type == kind {
				n++
			}
		}
	}
	return n
}

func doneFlags(t *T) {
	t.eachChunkMode(func(c *Conn) {
		chunks := 0
		for _, reply := range c.wrongReplies() {
			chunks += len(reply.Chunks)
		}
		for length := t.block(); length <= c.upTo(1<<20); length *= 2 {
			reply := c.Succeeds(Read(0, length))
			for i, chunk := range reply.Chunks[:len(reply.Chunks)-1] {
				t.Want(chunk.Flags&proto.ReplyFlagDone == 0,
					"%s: chunk %d has DONE, and %d more come", reply.Request, i,
					len(reply.Chunks)-i-1)
			}
			chunks += len(reply.Chunks)
		}
		c.Silent(4*quiet, "after the last DONE")
		t.Want(chunks > 0, "no reply had a chunk")
	})
}

func noneChunks(t *T) {
	seen := 0
	t.eachChunkMode(func(c *Conn) {
		if reply := c.survives(Read(0, 0)); reply != nil && reply.Errno == 0 {
			t.Want(len(reply.Chunks) == 1 && reply.Chunks[0].Type == proto.ChunkNone,
				"%s succeeds with %d chunks, where a NONE would be one", reply.Request,
				len(reply.Chunks))
		}
		list := []*Reply{c.Succeeds(Read(0, c.upTo(1<<20)))}
		if c.offers(proto.CmdFlush) {
			list = append(list, c.Succeeds(Command(proto.CmdFlush, 0, 0)))
		}
		if reply := c.Do(Read(0, 0)); reply.Errno == 0 {
			list = append(list, reply)
		}
		seen += count(list, proto.ChunkNone)
	})
	if seen == 0 {
		t.Skip("the server sent no NONE")
	}
}

func dataChunks(t *T) {
	t.eachChunkMode(func(c *Conn) {
		t.Want(count(c.readPattern(), proto.ChunkOffsetData) > 0,
			"no OFFSET_DATA in replies to READs of data")
	})
}

func holeChunks(t *T) {
	seen := 0
	t.eachChunkMode(func(c *Conn) { seen += count(c.readPattern(), proto.ChunkOffsetHole) })
	if seen == 0 {
		t.Skip("the server sent no OFFSET_HOLE, although there are holes")
	}
}

func exactCover(t *T) {
	t.eachChunkMode(func(c *Conn) {
		c.readPattern()
		c.WantData(HoleStart-1<<20, Expected(HoleStart-1<<20, 2<<20), "across the border of a hole")
	})
}

func errorChunks(t *T) {
	seen := 0
	t.eachChunkMode(func(c *Conn) {
		for _, reply := range c.wrongReplies() {
			plain := 0
			for _, e := range reply.Errors {
				if !e.Located {
					plain++
				}
			}
			seen += count([]*Reply{reply}, proto.ChunkError)
			t.Prefer(plain <= 1, "%s: %d error chunks without an offset", reply.Request, plain)
			t.Prefer(plain == 0 ||
				plain == len(reply.Errors), "%s: error chunks with and without offsets",
				reply.Request)
		}
	})
	if seen == 0 {
		t.Skip("the server sent no error chunk")
	}
}

func errorOffsets(t *T) {
	seen := 0
	t.eachChunkMode(func(c *Conn) {
		for _, reply := range c.wrongReplies() {
			places := map[uint64]bool{}
			for _, e := range reply.Errors {
				if e.Located {
					seen++
					t.Prefer(!places[e.Offset], "%s: two errors at %d", reply.Request, e.Offset)
					places[e.Offset] = true
				}
			}
		}
	})
	if seen == 0 {
		t.Skip("the server sent no ERROR_OFFSET")
	}
}

func fewChunks(t *T) {
	t.eachChunkMode(func(c *Conn) {
		n := min(1<<20, t.facts.MaxPayload())
		if reply := c.wantRead(Read(0, n), Expected(0, n), "data"); len(reply.Chunks) > 1 {
			t.Differ("%s, all of it data, comes in %d chunks", reply.Request, len(reply.Chunks))
		}
		odd := 0
		for _, reply := range c.readPattern() {
			r := reply.Request
			for _, chunk := range reply.Chunks {
				from, to := chunk.Offset, chunk.Offset+chunk.Span
				if chunk.Span > 0 &&
					(from%512 != 0 && from != r.Offset || to%512 != 0 && to != r.Offset+r.Length) {
					odd++
				}
			}
		}
		t.Prefer(odd == 0, "%d chunks are cut at places that are no multiples of 512", odd)
	})
}

func chunkOfMaximum(t *T) {
	t.eachChunkMode(func(c *Conn) {
		n := min(t.facts.MaxPayload(), t.facts.Size, 1<<25) / t.block() * t.block()
		c.Succeeds(Read(0, n))
		c.StillUp("a READ of the maximum payload")
	})
}

func agreedChunks(t *T) {
	t.eachChunkMode(func(c *Conn) {
		c.wrongReplies()
		for _, command := range c.ranged() {
			c.Succeeds(request(command, t.probeSafe(command), t.block()))
		}
		if c.offers(proto.CmdFlush) {
			c.Succeeds(Command(proto.CmdFlush, 0, 0))
		}
		c.StillUp("every command")
	})
}
