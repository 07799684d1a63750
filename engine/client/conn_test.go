// A connection with an honest server: every form of the protocol, many requests at a time, and
// nothing allocated.

package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ringnbd/proto"
)

// disk answers like a disk, in the form of the request; READ in several chunks, the last first.
func disk(memory []byte, structured bool) func(q asked) []byte {
	var mu sync.Mutex
	return func(q asked) []byte {
		mu.Lock()
		defer mu.Unlock()
		end := q.offset + q.length
		switch {
		case q.command == 1 && q.extended && q.flags&32 == 0:
			return nil // an extended WRITE has PAYLOAD_LEN
		case q.command == 0 && !structured && !q.extended:
			return simple(q, 0, memory[q.offset:end])
		case q.command == 0:
			half := q.offset + q.length/2
			return append(chunk(q, 0, 1, half, memory[half:end]),
				chunk(q, done, 1, q.offset, memory[q.offset:half])...)
		case q.command == 1:
			copy(memory[q.offset:], q.data)
		case q.command == 6:
			clear(memory[q.offset:end])
		}
		if q.extended {
			return chunk(q, done, 0)
		}
		return simple(q, 0)
	}
}

// changing is what an export has that takes every command which changes it or makes it durable.
const changing = proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendTrim |
	proto.FlagSendWriteZeroes

func TestEveryProtocol(t *testing.T) {
	for _, most := range []proto.Framing{proto.Simple, proto.Structured, proto.Extended} {
		t.Run((&Negotiated{Framing: most}).Protocol(), func(t *testing.T) {
			memory := make([]byte, 1<<20)
			f := &fake{size: 1 << 20, flags: changing | proto.FlagSendCache, most: most,
				answer: disk(memory, most == proto.Structured)}
			c := f.dial(t)
			if c.Framing != most || c.Size != 1<<20 {
				t.Fatalf("%v, %d bytes", c.Protocol(), c.Size)
			}
			data := bytes.Repeat([]byte("ringnbd!"), 512)
			for _, r := range []*Request{
				{Command: proto.CmdWrite, Offset: 8192, Data: data},
				{Command: proto.CmdWriteZeroes, Offset: 8192, Length: 512},
				{Command: proto.CmdFlush, Offset: 99},
				{Command: proto.CmdTrim, Offset: 0, Length: 1 << 20},
				{Command: proto.CmdCache, Offset: 0, Length: 1},
			} {
				if err := c.Do(context.Background(), r); err != nil {
					t.Fatal(err)
				}
			}
			clear(data[:512])
			got := make([]byte, 4096)
			if err := c.Do(context.Background(),
				&Request{Command: proto.CmdRead, Offset: 8192, Data: got}); err != nil ||
				!bytes.Equal(got, data) {
				t.Fatalf("%v, %q", err, got[500:530])
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if err := c.Do(context.Background(), &Request{Command: proto.CmdFlush}); !errors.Is(err,
				ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

func TestManyRequestsAtATime(t *testing.T) {
	memory := make([]byte, 1<<20)
	for i := range memory {
		memory[i] = byte(rand.Uint32())
	}
	f := &fake{size: 1 << 20, flags: 1, most: proto.Structured, answer: disk(memory, true)}
	c := f.dial(t)
	var all sync.WaitGroup
	for range 100 { // more than the depth
		all.Go(func() {
			r := &Request{Command: proto.CmdRead, Data: make([]byte, 3000)}
			for range 50 {
				r.Offset = rand.Uint64N(1<<20 - 3000)
				if err := c.Do(context.Background(), r); err != nil ||
					!bytes.Equal(r.Data, memory[r.Offset:][:3000]) {
					t.Errorf("offset %d: %v", r.Offset, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestLossIsToldToAll(t *testing.T) {
	n := 0
	f := &fake{size: 1 << 20, flags: 1, answer: func(q asked) []byte {
		if n++; n == 20 {
			return nil
		}
		return []byte{}
	}}
	c := f.dial(t)
	requests := make([]Request, 30)
	for i := range requests {
		requests[i] = Request{Command: proto.CmdRead, Data: make([]byte, 512)}
		if err := c.Start(context.Background(), &requests[i]); err != nil && i < 20 {
			t.Fatal(err)
		} else if err != nil {
			requests = requests[:i]
			break
		}
	}
	for i := range requests { // whether the sender or the receiver notices first, all hear of it
		if err := c.Wait(context.Background(), &requests[i]); err == nil ||
			!strings.Contains(err.Error(), "closed the connection") {
			t.Errorf("request %d: %v", i, err)
		}
	}
}

func TestRefusalsLeaveTheConnection(t *testing.T) {
	for _, most := range []proto.Framing{proto.Simple, proto.Structured, proto.Extended} {
		f := &fake{size: 1 << 20, flags: 1, most: most, answer: func(q asked) []byte {
			switch {
			case most == proto.Simple:
				return simple(q, 28)
			case q.command == 0:
				return append(chunk(q, 0, 0x8002, uint32(5), uint16(3), "bad", q.offset+7),
					chunk(q, done, 0x8001, uint32(1), uint16(0))...)
			}
			return chunk(q, done, 0x8001, uint32(28), uint16(4), "full")
		}}
		c := f.dial(t)
		write := c.Do(context.Background(),
			&Request{Command: proto.CmdWrite, Offset: 4096, Data: make([]byte, 512)})
		read := c.Do(context.Background(),
			&Request{Command: proto.CmdRead, Offset: 4096, Data: make([]byte, 512)})
		want := map[proto.Framing]string{
			proto.Simple: "the server answers ENOSPC to WRITE of 512 bytes at offset 4096; " +
				"the server answers ENOSPC to READ of 512 bytes at offset 4096",
			proto.Structured: `the server answers ENOSPC to WRITE of 512 bytes at offset 4096: ` +
				`"full"; the server answers EIO to READ of 512 bytes at offset 4096 ` +
				`(failed at 4103): "bad"`,
		}
		want[proto.Extended] = want[proto.Structured]
		if got := fmt.Sprintf("%v; %v", write, read); got != want[most] {
			t.Errorf("%v: %s", most, got)
		}
		if c.lossError() != nil {
			t.Errorf("%v: %v", most, c.lossError())
		}
	}
}

func TestWhatMustNotBeAsked(t *testing.T) {
	f := &fake{size: 1 << 20, flags: 1 | proto.FlagReadOnly, blocks: []uint32{512, 4096, 64 << 10},
		answer: func(asked) []byte {
			return nil
		}}
	c := f.dial(t)
	for words, r := range map[string]*Request{
		"read-only":         {Command: proto.CmdWrite, Data: make([]byte, 512)},
		"does not offer it": {Command: proto.CmdFlush},
		"beyond the end": {Command: proto.CmdRead, Offset: 1 << 20,
			Data: make([]byte, 512)},
		"no bytes":                   {Command: proto.CmdRead},
		"multiples of 512":           {Command: proto.CmdRead, Offset: 1, Data: make([]byte, 512)},
		"takes at most 65536":        {Command: proto.CmdRead, Data: make([]byte, 128<<10)},
		"context was not selected":   {Command: proto.CmdBlockStatus, Length: 512},
		"DISC: cannot be requested":  {Command: proto.CmdDisc},
		"command 99: cannot be requ": {Command: 99},
	} {
		if err := c.Do(context.Background(), r); err == nil ||
			!strings.Contains(err.Error(), words) {
			t.Errorf("%v; want %q", err, words)
		}
	}
	if c.lossError() != nil {
		t.Error(c.lossError())
	}
}

func TestFallbackToExportName(t *testing.T) {
	f := &fake{size: 12345, flags: 1, noGo: true, most: proto.Structured}
	c := f.dial(t)
	if !c.ExportName || c.Size != 12345 || c.Framing != proto.Structured || c.contexts != nil {
		t.Errorf("%+v", c.Negotiated)
	}
}

func TestOldstyle(t *testing.T) {
	ctx := context.Background()
	// the last flags do not count: HAS_FLAGS is missing
	for _, flags := range []uint16{0, proto.FlagHasFlags | proto.FlagSendFlush,
		proto.FlagSendFlush} {
		f := &fake{oldstyle: true, size: 64 << 10, flags: flags,
			answer: disk(bytes.Repeat([]byte("oldstyle"), 8<<10), false)}
		c := f.dial(t)
		if c.Size != 64<<10 || !c.Oldstyle || c.ExportName || c.Framing != proto.Simple ||
			c.Name != "" || c.contexts != nil ||
			c.Can(proto.FlagSendFlush) != (flags&proto.FlagHasFlags != 0) {
			t.Errorf("%+v", c.Negotiated)
		}
		data, want := make([]byte, 4096), "written!"+strings.Repeat("oldstyle", 511)
		if err := c.Do(ctx,
			&Request{Command: proto.CmdWrite, Offset: 8, Data: []byte("written!")}); err != nil {
			t.Error(err)
		}
		if err := c.Do(ctx, &Request{Command: proto.CmdRead, Offset: 8, Data: data}); err != nil ||
			string(data) != want {
			t.Errorf("%v, %q", err, data[:16])
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The name in a URI is an error if the server has no names, unless the caller allows that.
func TestOldstyleHasNoNames(t *testing.T) {
	f := &fake{oldstyle: true, size: 64 << 10, flags: 1}
	named := f.serve(t)
	named.Export = "disk"
	if _, err := Dial(context.Background(), named, Options{}); err == nil ||
		!strings.Contains(err.Error(),
			`may have another export than "disk" here; leave the name out`) {
		t.Errorf("%v", err)
	}
	c, err := Dial(context.Background(), named, Options{Nameless: true})
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "" || !c.Oldstyle {
		t.Errorf("%+v", c.Negotiated)
	}
	_ = c.Close()
	if _, _, err := List(context.Background(), named, Options{}); err == nil ||
		!strings.Contains(err.Error(), "it has one export, and no list") {
		t.Errorf("%v", err)
	}
}

// mapped answers BLOCK_STATUS from a list of borders, at most four extents at a time.
func mapped(size uint64, borders []uint64) func(q asked) []byte {
	return func(q asked) []byte {
		var extents []byte
		at, n := q.offset, uint32(0)
		for i, end := range append(borders, size) {
			if end <= at || at >= q.offset+q.length || n == 4 {
				continue
			}
			if n++; q.extended {
				extents = append(extents, be(end-at, uint64(i%2*3))...)
			} else {
				extents = append(extents, be(uint32(min(end-at, 1<<31)), uint32(i%2*3))...)
				if end-at > 1<<31 {
					break
				}
			}
			at = end
		}
		if q.extended {
			return chunk(q, done, 6, uint32(7), n, extents)
		}
		return chunk(q, done, 5, uint32(7), extents)
	}
}

func TestExtents(t *testing.T) {
	const size = 20 << 30
	var borders []uint64
	for at := uint64(0); at < 5<<30; {
		at += 512 + 512*rand.Uint64N(1<<20)
		borders = append(borders, at)
	}
	borders = append(borders, 19<<30+512)
	for _, most := range []proto.Framing{proto.Structured, proto.Extended} {
		f := &fake{size: size, flags: 1, most: most, answer: mapped(size, borders),
			contexts: map[string]uint32{"base:allocation": 7}}
		c := f.dial(t)
		var got []uint64
		last := Extent{Flags: 99}
		err := c.Extents(context.Background(), "base:allocation", 0, size, func(e Extent) error {
			if e.Offset != last.Offset+last.Length || e.Flags == last.Flags {
				t.Fatalf("%+v after %+v", e, last)
			}
			got, last = append(got, e.Offset+e.Length), e
			return nil
		})
		if want := append(slices.Clone(borders), size); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: %v, %d extents, want %d", most, err, len(got), len(want))
		}
		stop := errors.New("enough")
		if err := c.Extents(context.Background(), "base:allocation", borders[2]+3, borders[4],
			func(e Extent) error {
				if e.Offset != borders[2]+3 || e.Offset+e.Length != borders[3] {
					t.Errorf("%+v", e)
				}
				return stop
			}); !errors.Is(err, stop) {
			t.Error(err)
		}
		if err := c.Extents(context.Background(), "x:y", 0, 1, nil); err == nil {
			t.Error("a context that was not selected")
		}
	}
}

// An incomplete block at the end of an export cannot be asked about: it is data, if the server does
// not describe it together with the bytes before it.
func TestExtentsOfATail(t *testing.T) {
	const size, whole = 10_000, 9728
	for _, c := range []struct {
		described, from, end uint64 // described: how far the server's answer reaches
		contexts             string
		want                 []Extent
	}{
		{whole, 0, size, "base:allocation", []Extent{{0, whole, 3}, {whole, size - whole, 0}}},
		{size, 0, size, "base:allocation", []Extent{{0, size, 3}}},
		{whole, 0, 4001, "base:allocation", []Extent{{0, 4001, 3}}},
		{whole, 9800, 9900, "base:allocation", []Extent{{9800, 100, 0}}},
		{whole, 0, size, "x-test:two", []Extent{{0, whole, 3}}},
		{whole, 9800, 9900, "x-test:two", nil},
	} {
		f := &fake{size: size, flags: 1, most: proto.Structured,
			blocks: []uint32{512, 4096, 64 << 10}, contexts: map[string]uint32{c.contexts: 7},
			answer: func(q asked) []byte {
				if q.offset%512 != 0 || q.length%512 != 0 || q.length == 0 {
					return nil
				}
				return chunk(q, done, 5, uint32(7), uint32(c.described-q.offset), uint32(3))
			}}
		var got []Extent
		err := f.dial(t).Extents(context.Background(), c.contexts, c.from, c.end,
			func(e Extent) error {
				got = append(got, e)
				return nil
			})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}

func TestRequestsAllocateNothing(t *testing.T) {
	const size = 64 << 10
	for _, most := range []proto.Framing{proto.Simple, proto.Structured, proto.Extended} {
		f := &fake{size: 1 << 20, flags: 1, most: most, transmit: func(c net.Conn) {
			sameAnswer(c, most, size)
		}}
		c := f.dial(t)
		r := &Request{Command: proto.CmdRead, Data: make([]byte, size)}
		ctx := context.Background()
		if err := c.Do(ctx, r); err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(200, func() {
			if err := c.Do(ctx, r); err != nil {
				t.Fatal(err)
			}
		}); n >= 1 {
			t.Errorf("%v: %v allocations for a request", most, n)
		}
	}
}

// sameAnswer is a server in the same process that does not allocate either: it has one answer, to
// READ at offset 0.
func sameAnswer(c net.Conn, most proto.Framing, size int) {
	q := asked{extended: most == proto.Extended}
	answer, request := simple(q, 0, make([]byte, size)), make([]byte, 28)
	if most != proto.Simple {
		answer = chunk(q, done, 1, uint64(0), make([]byte, size))
	}
	if most == proto.Extended {
		request = make([]byte, 32)
	}
	for {
		if _, err := io.ReadFull(c, request); err != nil {
			return
		}
		copy(answer[8:16], request[8:16])
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func TestSlowDisksAreWaitedFor(t *testing.T) {
	const timeout = time.Second // of the negotiation, too
	f := &fake{size: 1 << 20, flags: changing, most: proto.Simple,
		answer: func(q asked) []byte {
			time.Sleep(3 * timeout)
			if q.command == proto.CmdRead {
				return simple(q, 0, make([]byte, q.length))
			}
			return simple(q, 0)
		}}
	target := f.serve(t)
	for command, patient := range map[uint16]bool{proto.CmdFlush: true, proto.CmdWriteZeroes: true,
		proto.CmdTrim: true, proto.CmdRead: false} {
		t.Run(CommandName(command), func(t *testing.T) {
			t.Parallel()
			conn, err := Dial(context.Background(), target, Options{Timeout: timeout})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			r := &Request{Command: command, Length: 4096}
			if command == proto.CmdRead {
				r.Data = make([]byte, 4096)
			}
			if err := conn.Do(context.Background(), r); (err == nil) != patient ||
				err != nil && !strings.Contains(err.Error(), "did not answer") {
				t.Error(err)
			}
		})
	}
}

func TestListsAreBounded(t *testing.T) {
	const exports = 100
	f := &fake{options: func(option uint32, _ []byte) ([]byte, bool) {
		var b []byte
		for range exports {
			b = append(b,
				rep(option, 2, uint32(4), "name", make([]byte, 0), "description of it")...)
		}
		return append(b, rep(option, 1)...), true
	}}
	for _, c := range []struct{ most, kept int }{{1 << 20, exports}, {listingSize + 21, 1},
		{10*(listingSize+21) + 5, 10}, {0, 0}} {
		ours, theirs := net.Pipe()
		go f.connection(theirs)
		talk := &handshake{sock: ours}
		if _, err := talk.readBanner(); err != nil {
			t.Fatal(err)
		}
		all, left, err := talk.list(c.most)
		if err != nil || len(all) != c.kept || left != exports-c.kept {
			t.Errorf("%d: %d, %d left, %v", c.most, len(all), left, err)
		}
		_ = ours.Close()
	}
}
