// Servers that break the rules: the client returns an error that says how, at once, and never
// hangs, crashes or fills its memory.

package client

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

const done = 1 // the flag of the last chunk

// silence is the error of an answer that never ends.
const silence = "did not answer"

// lies are answers to a READ of 4096 bytes at 8192, and the errors that they must cause.
var lies = []struct {
	name   string
	most   proto.Framing
	answer func(q asked) []byte
	words  string
}{
	{"early close", proto.Simple, func(asked) []byte { return nil }, "closed the connection"},
	{"half an answer", proto.Simple, func(q asked) []byte {
		if q.offset == 8192 {
			return simple(q, 0, make([]byte, 100)) // and then nothing: the client gives up waiting
		}
		return nil
	}, silence},
	{"garbage", proto.Simple, func(asked) []byte {
		return []byte("HTTP/1.1 400 Bad Request\r\n")
	}, "magic 0x48545450"},
	{"wrong cookie", proto.Simple, func(q asked) []byte {
		q.cookie++
		return simple(q, 0, make([]byte, 4096))
	}, "not in flight"},
	{"cookie of no slot", proto.Simple, func(q asked) []byte {
		q.cookie |= 0xffff
		return simple(q, 0, make([]byte, 4096))
	}, "not in flight"},
	{"twice", proto.Simple, func(q asked) []byte {
		return append(simple(q, 0, make([]byte, 4096)), simple(q, 0, make([]byte, 4096))...)
	}, "not in flight"},
	{"chunk without leave", proto.Simple, func(q asked) []byte {
		return chunk(q, done, 0)
	}, "magic 0x668e33ef"},
	{"simple reply to READ", proto.Structured, func(q asked) []byte {
		return simple(q, 0, make([]byte, 4096))
	}, "simple reply to READ"},
	{"simple reply with extended headers", proto.Extended, func(q asked) []byte {
		return simple(q, 5)
	}, "magic 0x67446698"},
	{"chunk of the older layout", proto.Extended, func(q asked) []byte {
		q.extended = false
		return chunk(q, done, 0, make([]byte, 16))
	}, "magic 0x668e33ef"},
	{"offset of another request", proto.Extended, func(q asked) []byte {
		q.offset++
		return chunk(q, done, 2, uint64(8192), uint32(4096))
	}, "for offset 8193"},
	{"nothing", proto.Structured, func(q asked) []byte { return chunk(q, done, 0) }, "has gaps"},
	{"too little", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 1, uint64(8192), make([]byte, 4095))
	}, "has gaps"},
	{"a gap", proto.Structured, func(q asked) []byte {
		return append(chunk(q, 0, 2, uint64(8192), uint32(100)),
			chunk(q, done, 2, uint64(8300), uint32(4096-108))...)
	}, "has gaps"},
	{"overlapping data", proto.Structured, func(q asked) []byte {
		return append(chunk(q, 0, 1, uint64(8192), make([]byte, 2048)),
			chunk(q, done, 1, uint64(8192+2047), make([]byte, 2049))...)
	}, "same offset 10239"},
	{"overlapping holes, backwards", proto.Structured, func(q asked) []byte {
		return append(chunk(q, 0, 2, uint64(8192+2048), uint32(2048)),
			chunk(q, done, 2, uint64(8192), uint32(2049))...)
	}, "same offset 10240"},
	{"before the request", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 1, uint64(8191), make([]byte, 4096))
	}, "4096 bytes for offset 8191"},
	{"after the request", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 2, uint64(8193), uint32(4096))
	}, "4096 bytes for offset 8193"},
	{"offset near 2^64", proto.Extended, func(q asked) []byte {
		return chunk(q, done, 2, ^uint64(0), uint32(4096))
	}, "for offset 18446744073709551615"},
	{"data without bytes", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 1, uint64(8192))
	}, "length or flags"},
	{"hole without bytes", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 2, uint64(8192), uint32(0))
	}, "length or flags"},
	{"huge length", proto.Structured, func(q asked) []byte {
		return be(uint32(0x668e33ef), uint16(done), uint16(1), q.cookie, uint32(0xffffffff),
			uint64(8192))
	}, "4294967287 bytes for offset 8192"},
	{"huger length", proto.Extended, func(q asked) []byte {
		return be(uint32(0x6e8a278c), uint16(done), uint16(1), q.cookie, q.offset, ^uint64(0),
			uint64(8192))
	}, "18446744073709551607 bytes"},
	{"huge error", proto.Extended, func(q asked) []byte {
		return be(uint32(0x6e8a278c), uint16(done), uint16(0x8001), q.cookie, q.offset,
			uint64(1<<40))
	}, "length or flags"},
	{"huge unknown error", proto.Extended, func(q asked) []byte {
		return be(uint32(0x6e8a278c), uint16(done), uint16(0x8123), q.cookie, q.offset,
			uint64(1<<40))
	}, "an error of 1099511627776 bytes"},
	{"errors without end", proto.Structured, func(q asked) []byte {
		var b []byte
		for range 2000 {
			b = append(b, chunk(q, 0, 0x8001, uint32(5), uint16(0))...)
		}
		return b
	}, "more than 1024 errors"},
	{"error whose text is longer than it", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 0x8001, uint32(5), uint16(9), "short")
	}, "length or flags"},
	{"error at an offset elsewhere", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 0x8002, uint32(5), uint16(0), uint64(0))
	}, "an error at offset 0"},
	{"unknown flag", proto.Structured, func(q asked) []byte {
		return chunk(q, 3, 2, uint64(8192), uint32(4096))
	}, "length or flags"},
	{"unknown type", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 77)
	}, "type 77"},
	{"NONE that goes on", proto.Structured, func(q asked) []byte {
		return chunk(q, 0, 0)
	}, "length or flags"},
	{"status for READ", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 5, uint32(1), uint32(4096), uint32(0))
	}, "type 5 in the answer to READ"},
	{"simple error in the middle", proto.Structured, func(q asked) []byte {
		return append(chunk(q, 0, 2, uint64(8192), uint32(4)), simple(q, 5)...)
	}, "in the middle of chunks"},
	{"scattered", proto.Structured, func(q asked) []byte {
		var b []byte
		for i := uint64(0); i < q.length; i += 2 {
			b = append(b, chunk(q, 0, 2, 8192+i, uint32(1))...)
		}
		return b
	}, silence}, // 2048 pieces are allowed; the rest never comes
}

func TestLies(t *testing.T) {
	for _, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{size: 1 << 20, flags: 1, most: lie.most, answer: lie.answer}
			timeout := 5 * time.Second // of the negotiation, too
			if lie.words == silence {
				timeout = time.Second
			}
			c, err := Dial(context.Background(), f.serve(t), Options{Timeout: timeout})
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := &Request{Command: proto.CmdRead, Offset: 8192, Data: make([]byte, 4096)}
			began := time.Now()
			first := c.Do(context.Background(), r)
			if first == nil { // an answer twice: the first was good
				r2 := &Request{Command: proto.CmdRead, Offset: 0, Data: make([]byte, 512)}
				first = c.Do(context.Background(), r2)
			}
			runtime.ReadMemStats(&after)
			if first == nil || !strings.Contains(first.Error(), lie.words) {
				t.Fatalf("%v; want %q", first, lie.words)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
				t.Errorf("%d bytes allocated, by all tests that run together with this", n)
			}
			if d := time.Since(began); d >= 5*time.Second {
				t.Errorf("took %v", d)
			}
			// Every request gets the reason for which the connection ended, and Close too.
			if again := c.Do(context.Background(), r); again == nil ||
				again.Error() != first.Error() {
				t.Errorf("later: %v; first: %v", again, first)
			}
			if err := c.Close(); err == nil || err.Error() != first.Error() {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// statusLies are answers to BLOCK_STATUS of 1 MiB at 0 of an export of 1 MiB + 100, with two
// contexts, of numbers 1 and 2.
var statusLies = []struct {
	name   string
	most   proto.Framing
	answer func(q asked) []byte
	words  string
}{
	{"extent of no length", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 5, uint32(1), uint32(0), uint32(0))
	}, "no length"},
	{"extent beyond the end", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 5, uint32(1), uint32(1<<20+1024), uint32(0))
	}, "beyond the end of the export"},
	{"extent beyond 2^64", proto.Extended, func(q asked) []byte {
		return chunk(q, done, 6, uint32(1), uint32(2), uint64(4096), uint64(0), ^uint64(0)-4095,
			uint64(0))
	}, "beyond the end of the export"},
	{"extents after the request", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 5, uint32(1), uint32(1<<20), uint32(0), uint32(64), uint32(1))
	}, "after the end of what"},
	{"no extents", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 5, uint32(1))
	}, "length or flags"},
	{"half an extent", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 5, uint32(1), uint32(512), uint32(0), uint32(512))
	}, "length or flags"},
	{"another count than the length", proto.Extended, func(q asked) []byte {
		return chunk(q, done, 6, uint32(1), uint32(2), uint64(4096), uint64(0))
	}, "length or flags"},
	{"more extents than allowed", proto.Structured, func(q asked) []byte {
		return be(uint32(0x668e33ef), uint16(done), uint16(5), q.cookie, uint32(4+8*(1<<20+1)),
			uint32(1))
	}, "length or flags"},
	{"the layout of extended headers", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 6, uint32(1), uint32(1), uint64(4096), uint64(0))
	}, "length or flags"},
	{"the layout without extended headers", proto.Extended, func(q asked) []byte {
		return chunk(q, done, 5, uint32(1), uint32(512), uint32(0))
	}, "length or flags"},
	{"a context that was not selected", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 5, uint32(3), uint32(512), uint32(0))
	}, "was not selected"},
	{"a context twice", proto.Structured, func(q asked) []byte {
		return append(chunk(q, 0, 5, uint32(1), uint32(512), uint32(0)),
			chunk(q, done, 5, uint32(1), uint32(512), uint32(0))...)
	}, "two answers"},
	{"a context left out", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 5, uint32(2), uint32(512), uint32(0))
	}, "leaves out"},
	{"nothing", proto.Structured, func(q asked) []byte { return chunk(q, done, 0) }, "leaves out"},
	{"a simple reply", proto.Structured, func(q asked) []byte {
		return simple(q, 0)
	}, "simple reply to BLOCK_STATUS"},
	{"data", proto.Structured, func(q asked) []byte {
		return chunk(q, done, 1, uint64(0), "x")
	}, "type 1 in the answer to BLOCK_STATUS"},
}

func TestStatusLies(t *testing.T) {
	for _, lie := range statusLies {
		t.Run(lie.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{size: 1<<20 + 100, flags: 1, most: lie.most, answer: lie.answer,
				contexts: map[string]uint32{"base:allocation": 1, "x-test:two": 2}}
			c := f.dial(t)
			err := c.Do(context.Background(),
				&Request{Command: proto.CmdBlockStatus, Length: 1 << 20, Context: 1})
			if err == nil || !strings.Contains(err.Error(), lie.words) {
				t.Errorf("%v; want %q", err, lie.words)
			}
		})
	}
}

// An answer that ends within a block is asked about again; an answer that describes the same again
// describes nothing.
func TestAMapThatDoesNotGoOn(t *testing.T) {
	f := &fake{size: 1 << 20, flags: 1, most: proto.Structured,
		blocks: []uint32{512, 4096, 64 << 10}, contexts: map[string]uint32{"base:allocation": 7}}
	f.answer = func(q asked) []byte { return chunk(q, done, 5, uint32(7), uint32(100), uint32(0)) }
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := f.dial(t).Extents(ctx, "base:allocation", 0, 1<<20, func(Extent) error {
		return nil
	}); err == nil || !strings.Contains(err.Error(), "describes nothing") {
		t.Errorf("%v", err)
	}
}

// Texts of refusals are cut, and may be missing.
func TestTextsOfRefusals(t *testing.T) {
	long := strings.Repeat("é", 30_000)
	for _, text := range []string{"", "go away", long} {
		f := &fake{options: func(option uint32, _ []byte) ([]byte, bool) {
			return rep(option, 1<<31+2, text), true
		}}
		target := f.serve(t)
		_, dialed := Dial(context.Background(), target, Options{Timeout: 5 * time.Second})
		_, _, listed := List(context.Background(), target, Options{Timeout: 5 * time.Second})
		for _, err := range []error{dialed, listed} {
			switch {
			case err == nil:
				t.Error("not refused")
			case text == "" && strings.Contains(err.Error(), `""`) && err == listed:
				t.Errorf("%v", err)
			case text == "go away" && !strings.HasSuffix(err.Error(), `: "go away"`):
				t.Errorf("%v", err)
			case len(err.Error()) > 4096+300 ||
				text == long && !strings.HasSuffix(err.Error(), `éé..."`):
				t.Errorf("%d bytes: %.200s", len(err.Error()), err)
			}
		}
	}
}

// negotiationLies break the rules before transmission.
var negotiationLies = []struct {
	name    string
	options func(option uint32, data []byte) ([]byte, bool)
	words   string
}{
	{"another option's answer", func(uint32, []byte) ([]byte, bool) {
		return rep(3, 1), true
	}, "out of step"},
	{"huge answer", func(option uint32, _ []byte) ([]byte, bool) {
		return be(uint64(0x3e889045565a9), option, uint32(3), uint32(0xffffffff)), option == 7
	}, "answer of 4294967295 bytes"},
	{"no size", func(option uint32, _ []byte) ([]byte, bool) {
		return rep(option, 1), option == 7
	}, "how large"},
	{"size beyond 2^63", func(option uint32, _ []byte) ([]byte, bool) {
		return append(rep(option, 3, uint16(0), uint64(1<<63), uint16(1)),
			rep(option, 1)...), option == 7
	}, "more than 2^63-1"},
	{"blocks of 3 bytes", func(option uint32, _ []byte) ([]byte, bool) {
		b := rep(option, 3, uint16(3), uint32(3), uint32(4096), uint32(1<<20))
		return append(append(b, rep(option, 3, uint16(0), uint64(512), uint16(1))...),
			rep(option, 1)...), option == 7
	}, "power of two"},
	{"payload of no block", func(option uint32, _ []byte) ([]byte, bool) {
		b := rep(option, 3, uint16(3), uint32(512), uint32(4096), uint32(0))
		return append(append(b, rep(option, 3, uint16(0), uint64(512), uint16(1))...),
			rep(option, 1)...), option == 7
	}, "less than a block"},
	{"answers without end", func(option uint32, _ []byte) ([]byte, bool) {
		var b []byte
		for range 2000 {
			b = append(b, rep(option, 3, uint16(0), uint64(512), uint16(1))...)
		}
		return b, option == 7
	}, "more than 1024 answers"},
	{"a context that was not asked for", func(option uint32, _ []byte) ([]byte, bool) {
		return append(rep(option, 4, uint32(1), "x-other:thing"), rep(option, 1)...), option == 10
	}, `"x-other:thing", which was not asked for`},
	{"a context number twice", func(option uint32, _ []byte) ([]byte, bool) {
		b := append(rep(option, 4, uint32(1), "base:allocation"),
			rep(option, 4, uint32(1), "x-test:two")...)
		return append(b, rep(option, 1)...), option == 10
	}, "number that is taken"},
	{"a context without a name", func(option uint32, _ []byte) ([]byte, bool) {
		return append(rep(option, 4, uint32(1)), rep(option, 1)...), option == 10
	}, "out of step"},
	{"GO unknown after EXTENDED_HEADERS", func(option uint32, _ []byte) ([]byte, bool) {
		if option == 11 {
			return rep(option, 1), true
		}
		return rep(option, 1<<31+1), option == 7
	}, "EXTENDED_HEADERS but not GO"},
	{"a refusal with escapes", func(option uint32, _ []byte) ([]byte, bool) {
		return rep(option, 1<<31+6, "\x1b[2J"), option == 7
	}, `no such export: "\x1b[2J"`},
}

// oldBanner returns the whole handshake of an oldstyle server.
func oldBanner(size uint64, flags uint32) []byte {
	return be("NBDMAGIC", uint64(0x420281861253), size, flags, make([]byte, 124))
}

// banners are the first bytes of servers, after which each closes, and the errors that they must
// cause.
var banners = []struct {
	name  string
	says  []byte
	words string
}{
	{"nothing", nil, "closed the connection before it said what it is"},
	{"seven bytes", []byte("NBDMAGI"), "closed the connection before it said what it is"},
	{"another protocol", []byte("HTTP/1.1 400 Bad Request\r\n"), "no NBD server at this address"},
	{"another second magic", be("NBDMAGIC", uint64(0x420281861252), make([]byte, 136)),
		"no NBD server at this address"},
	{"another first magic", be("NBDMAGIK", uint64(0x420281861253), make([]byte, 136)),
		"no NBD server at this address"},
	{"newstyle without flags", be("NBDMAGICIHAVEOPT", uint8(0)),
		"closed the connection during the negotiation"},
	{"newstyle and no more", be("NBDMAGICIHAVEOPT", uint16(3)),
		"closed the connection during the negotiation"},
	{"half of oldstyle", oldBanner(1<<20, 1)[:100], "closed the connection during the negotiation"},
	{"all of oldstyle but a byte", oldBanner(1<<20, 1)[:151],
		"closed the connection during the negotiation"},
	{"oldstyle beyond 2^63", oldBanner(1<<63, 1), "more than 2^63-1"},
}

func TestBanners(t *testing.T) {
	for _, c := range banners {
		says := target(testbed.Listen(t, func(conn net.Conn) {
			_, _ = conn.Write(c.says)
			// not Close, which would discard what the client has not received
			_ = conn.(*net.UnixConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		}))
		if _, err := Dial(context.Background(), says,
			Options{Timeout: 5 * time.Second}); err == nil ||
			!strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v; want %q", c.name, err, c.words)
		}
	}
}

func TestNegotiationLies(t *testing.T) {
	for _, lie := range negotiationLies {
		t.Run(lie.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{size: 1 << 20, flags: 1, most: proto.Structured, options: lie.options}
			_, err := Dial(context.Background(), f.serve(t),
				Options{Timeout: 5 * time.Second,
					Contexts: []string{"base:allocation", "x-test:two"}})
			if err == nil || !strings.Contains(err.Error(), lie.words) {
				t.Errorf("%v; want %q", err, lie.words)
			}
		})
	}
}

func TestSilentServers(t *testing.T) {
	f := &fake{options: func(uint32, []byte) ([]byte, bool) { return nil, true }}
	target := f.serve(t)
	if _, err := Dial(context.Background(), target,
		Options{Timeout: 100 * time.Millisecond}); err == nil ||
		!strings.Contains(err.Error(), "did not finish the negotiation") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := Dial(ctx, target, Options{}); err == nil ||
		!strings.Contains(err.Error(), "interrupted") {
		t.Errorf("%v", err)
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	f := &fake{size: 1 << 20, flags: 1, answer: func(q asked) []byte { return []byte{} }}
	c := f.dial(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	r := &Request{Command: proto.CmdRead, Data: make([]byte, 512)}
	if err := c.Do(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
