// Checks of the form of replies (RP): simple replies, chunks, errors. conn judges every chunk of
// every check as it is read; these checks make sure that there is something to judge.
//
// Invariant: a check that saw nothing of its subject is a skip, not a pass.

package conform

import (
	"bytes"

	"ringnbd/proto"
)

var replyChecks = []Check{
	{"RP-01", must, nil,
		"without structured replies every reply is simple, and no data follows an error",
		"the oldest clients and the kernel's know nothing else; data after an error is taken for " +
			"the next reply",
		simpleReplies},
	{"RP-02", must, []need{needStructured},
		"with structured replies a READ never gets a simple reply, not even for an error",
		"a client cannot tell whether data follows a simple reply",
		structuredReadErrors},
	{"RP-03", should, []need{needStructured},
		"errors are structured, and say in words what is wrong",
		"otherwise the user learns no more than one of seven error numbers",
		errorsWithText},
	{"RP-04", must, []need{needStructured},
		"each reply has DONE on its last chunk and on no other chunk, and no flag that does not " +
			"exist",
		"a client waits for DONE, and frees the request when it has seen DONE",
		doneFlags},
	{"RP-05", must, []need{needStructured},
		"a NONE chunk has no payload and ends a reply",
		"a reply without content succeeds by it",
		noneChunks},
	{"RP-06", must, []need{needStructured, needPattern},
		"OFFSET_DATA is inside the request, has at least one byte and overlaps nothing",
		"clients copy into the user's memory by these numbers",
		dataChunks},
	{"RP-07", must, []need{needStructured, needPattern},
		"OFFSET_HOLE has 12 bytes, is inside the request, is not empty and overlaps nothing",
		"clients clear memory by these numbers",
		holeChunks},
	{"RP-08", must, []need{needStructured, needPattern},
		"the chunks of a READ that succeeds hold each byte once",
		"the client's memory is left as it was where no chunk covers it",
		exactCover},
	{"RP-09", must, []need{needStructured},
		"an error chunk has an error that is not 0 and a message no longer than the chunk; one " +
			"error chunk is enough",
		"a client that trusts the length of the message reads beyond the chunk",
		errorChunks},
	{"RP-10", must, []need{needStructured},
		"an error with an offset has an offset inside the request",
		"the client counts the data before the offset as valid",
		errorOffsets},
	{"RP-15", should, []need{needStructured, needPattern},
		"a READ of data comes in one chunk, and chunks are cut at multiples of 512",
		"each chunk costs both sides a header and a system call",
		fewChunks},
	{"RP-16", must, []need{needStructured},
		"no chunk holds more than the maximum payload",
		"clients have buffers of that size",
		chunkOfMaximum},
	{"RP-17", must, []need{needStructured},
		"no command is answered by a chunk type or a flag that was not agreed on",
		"a client must hang up on a chunk that it does not know",
		agreedChunks},
}

// wrongRequests returns one request for each kind of mistake, all without data. Commands that
// change data are among them only where data may be changed: a server that wraps or cuts a range
// beyond the end would change something.
func (c *conn) wrongRequests() []*request {
	t, block := c.t, c.t.block()
	list := []*request{
		newRead(0, block).with(1 << 14),
		newCommand(0x7ff0, 0, block),
		newRead(t.profile.Size, block),
		newRead(1<<63, block),
		newCommand(proto.CmdFlush, 0, 0).with(proto.CmdFlagDF),
		newCommand(proto.CmdCache, t.profile.Size+block, block),
		newCommand(proto.CmdBlockStatus, t.profile.Size+block, block),
	}
	if t.profile.Writable {
		list = append(list, newCommand(proto.CmdTrim, t.profile.Size+block, block),
			newCommand(proto.CmdWriteZeroes, t.profile.Size+block, block))
	}
	return list
}

// wrongReplies sends wrongRequests and returns the replies that are errors.
func (c *conn) wrongReplies() []*reply {
	var list []*reply
	for _, r := range c.wrongRequests() {
		reply, _ := c.attempt(r)
		if reply == nil {
			c.differOnce(r, "the server hangs up")
			c.reopen(r.String())
			continue
		}
		c.inStep(r.String())
		if reply.errno != 0 {
			list = append(list, reply)
		}
	}
	return list
}

// everyCommand sends wrong requests, then one right request of each command. It does not judge:
// conn fails on a reply whose form was not agreed on.
func (c *conn) everyCommand() {
	c.wrongReplies()
	for _, command := range c.ranged() {
		c.succeeds(newRequest(command, c.t.safeOffset(command), c.t.block()))
	}
	if c.offers(proto.CmdFlush) {
		c.succeeds(newCommand(proto.CmdFlush, 0, 0))
	}
	c.stillUp("every command")
}

func simpleReplies(t *trial) {
	c := t.open(t.profile.richModes()[0])
	for _, reply := range c.wrongReplies() {
		t.want(reply.simple, "%s: not a simple reply", reply.request)
	}
	for _, length := range []uint64{t.block(), c.upTo(3 * t.block()), c.upTo(1 << 20)} {
		t.want(c.succeeds(newRead(0, length)).simple, "a READ is not answered by a simple reply")
	}
	if c.offers(proto.CmdWrite) {
		t.want(c.succeeds(newWrite(t.scratch(t.block()), fill(1, int(t.block())))).simple,
			"a WRITE is not answered by a simple reply")
	}
}

// structuredReadErrors does not judge: conn fails on a simple reply to a READ.
func structuredReadErrors(t *trial) {
	c := t.open(modeStructured)
	seen := 0
	for _, r := range []*request{newRead(0, t.block()).with(1 << 14),
		newRead(0, t.block()).with(proto.CmdFlagNoHole), newRead(t.profile.Size, t.block()),
		newRead(1<<64-1, 1), newRead(t.tail(t.block()), 1<<32-1)} {
		if reply := c.refused(r, einval, eoverflow, enomem); reply != nil && reply.errno != 0 {
			seen++
		}
	}
	t.want(seen > 0, "no wrong READ was refused")
}

func errorsWithText(t *trial) {
	c := t.open(modeStructured)
	silent, simple, all := 0, 0, c.wrongReplies()
	for _, reply := range all {
		switch {
		case reply.simple:
			simple++
		case reply.message == "":
			silent++
		}
	}
	t.prefer(simple == 0, "%d of %d errors come as simple replies", simple, len(all))
	t.prefer(silent == 0, "%d of %d errors come without text", silent, len(all))
}

// patternReads returns READs of everything in the suite's data: data, holes, both, across each kind
// of border.
func (t *trial) patternReads() []*request {
	block := t.block()
	list := []*request{
		newRead(0, block),
		newRead(0, 1<<20),
		newRead(holeStart-block, 2*block),
		newRead(holeStart, 1<<20),
		newRead(stripeStart-block, 2*block),
		newRead(stripeStart, 16*stripe),
		newRead(stripeStart+stripe-block, 2*block),
		newRead(stripeStart+stripe, stripe),
		newRead(scratchStart-2*stripe-block, 2*stripe+block),
	}
	if t.profile.minBlock() == 1 {
		list = append(list,
			newRead(1, 1),
			newRead(511, 2),
			newRead(holeStart-1, 2),
			newRead(holeStart-3, 4099),
			newRead(stripeStart+stripe-1, stripe+2),
			newRead(stripeStart+7, 3*stripe+5))
	}
	return list
}

// readPattern sends patternReads one by one, then in one piece, and judges the data.
func (c *conn) readPattern() []*reply {
	var list []*reply
	for _, r := range c.t.patternReads() {
		list = append(list, c.wantRead(r, expected(r.offset, r.length), "the suite's data"))
	}
	c.sendAll(c.t.patternReads()...)
	for _, reply := range c.allReplies() {
		c.t.want(bytes.Equal(reply.data, expected(reply.request.offset, reply.request.length)),
			"%s, pipelined: %s and wrong data", reply.request, reply.errorText())
		list = append(list, reply)
	}
	c.stillUp("many READs")
	return list
}

// countChunks returns how many chunks of a type the replies have.
func countChunks(list []*reply, kind uint16) int {
	n := 0
	for _, r := range list {
		n += r.count(kind)
	}
	return n
}

// count returns how many chunks of a type the reply has.
func (r *reply) count(kind uint16) int {
	n := 0
	for _, chunk := range r.chunks {
		if chunk.kind == kind {
			n++
		}
	}
	return n
}

func doneFlags(t *trial) {
	t.eachChunkMode(func(c *conn) {
		chunks := 0
		for _, reply := range c.wrongReplies() {
			chunks += len(reply.chunks)
		}
		for length := t.block(); length <= c.upTo(1<<20); length *= 2 {
			reply := c.succeeds(newRead(0, length))
			for i, chunk := range reply.chunks[:len(reply.chunks)-1] {
				t.want(chunk.flags&proto.ReplyFlagDone == 0,
					"%s: chunk %d has DONE, and %d more come", reply.request, i,
					len(reply.chunks)-i-1)
			}
			chunks += len(reply.chunks)
		}
		c.wantSilence(4*quiet, "after the last DONE")
		t.want(chunks > 0, "no reply had a chunk")
	})
}

func noneChunks(t *trial) {
	seen := 0
	t.eachChunkMode(func(c *conn) {
		if reply := c.survives(newRead(0, 0)); reply != nil && reply.errno == 0 {
			t.want(len(reply.chunks) == 1 && reply.chunks[0].kind == proto.ChunkNone,
				"%s succeeds with %d chunks, where a NONE would be one", reply.request,
				len(reply.chunks))
		}
		list := []*reply{c.succeeds(newRead(0, c.upTo(1<<20)))}
		if c.offers(proto.CmdFlush) {
			list = append(list, c.succeeds(newCommand(proto.CmdFlush, 0, 0)))
		}
		if reply := c.do(newRead(0, 0)); reply.errno == 0 {
			list = append(list, reply)
		}
		seen += countChunks(list, proto.ChunkNone)
	})
	if seen == 0 {
		t.skip("the server sent no NONE")
	}
}

func dataChunks(t *trial) {
	t.eachChunkMode(func(c *conn) {
		t.want(countChunks(c.readPattern(), proto.ChunkOffsetData) > 0,
			"no OFFSET_DATA in replies to READs of data")
	})
}

func holeChunks(t *trial) {
	seen := 0
	t.eachChunkMode(func(c *conn) { seen += countChunks(c.readPattern(), proto.ChunkOffsetHole) })
	if seen == 0 {
		t.skip("the server sent no OFFSET_HOLE, although there are holes")
	}
}

func exactCover(t *trial) {
	t.eachChunkMode(func(c *conn) {
		c.readPattern()
		c.wantData(holeStart-1<<20, expected(holeStart-1<<20, 2<<20), "across the border of a "+
			"hole")
	})
}

func errorChunks(t *trial) {
	seen := 0
	t.eachChunkMode(func(c *conn) {
		for _, reply := range c.wrongReplies() {
			plain := 0
			for _, e := range reply.errors {
				if !e.located {
					plain++
				}
			}
			seen += reply.count(proto.ChunkError)
			t.prefer(plain <= 1, "%s: %d error chunks without an offset", reply.request, plain)
			t.prefer(plain == 0 || plain == len(reply.errors),
				"%s: error chunks with and without offsets", reply.request)
		}
	})
	if seen == 0 {
		t.skip("the server sent no error chunk")
	}
}

func errorOffsets(t *trial) {
	seen := 0
	t.eachChunkMode(func(c *conn) {
		for _, reply := range c.wrongReplies() {
			places := map[uint64]bool{}
			for _, e := range reply.errors {
				if e.located {
					seen++
					t.prefer(!places[e.offset], "%s: two errors at %d", reply.request, e.offset)
					places[e.offset] = true
				}
			}
		}
	})
	if seen == 0 {
		t.skip("the server sent no ERROR_OFFSET")
	}
}

func fewChunks(t *trial) {
	t.eachChunkMode(func(c *conn) {
		n := min(1<<20, t.profile.maxPayload())
		if reply := c.wantRead(newRead(0, n), expected(0, n), "data"); len(reply.chunks) > 1 {
			t.differ("%s, which is all data, comes in %d chunks", reply.request, len(reply.chunks))
		}
		odd := 0
		for _, reply := range c.readPattern() {
			r := reply.request
			for _, chunk := range reply.chunks {
				from, to := chunk.offset, chunk.offset+chunk.span
				if chunk.span > 0 &&
					(from%512 != 0 && from != r.offset || to%512 != 0 && to != r.offset+r.length) {
					odd++
				}
			}
		}
		t.prefer(odd == 0, "%d chunks are cut at offsets that are not multiples of 512", odd)
	})
}

func chunkOfMaximum(t *trial) {
	t.eachChunkMode(func(c *conn) {
		n := min(t.profile.maxPayload(), t.profile.Size, 1<<25) / t.block() * t.block()
		c.succeeds(newRead(0, n))
		c.stillUp("a READ of the maximum payload")
	})
}

func agreedChunks(t *trial) {
	t.eachChunkMode((*conn).everyCommand)
}
