// Hostile servers: what they send is cut, distorted, doubled or held back
// at every point of a conversation.

package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ringnbd/engine/client"
	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

// between stands between a client and the server at a URI, and hands what the server says through
// distort, piece by piece: at is how many bytes of the connection were before. False closes the
// connection.
func between(t *testing.T, uri string, distort func(at int, b []byte) ([]byte, bool)) string {
	t.Helper()
	target, err := client.ParseTarget(uri)
	if err != nil {
		t.Fatal(err)
	}
	path := testbed.Listen(t, func(client net.Conn) {
		server, err := net.Dial(target.Network, target.Address)
		if err != nil {
			return
		}
		defer server.Close()
		go func() {
			_, _ = io.Copy(server, client)
			_ = server.Close()
		}()
		b, at := make([]byte, 1<<16), 0
		for {
			got, err := server.Read(b)
			if err != nil {
				return
			}
			out, more := distort(at, b[:got])
			at += got
			if _, err := client.Write(out); err != nil || !more {
				return
			}
		}
	})
	return "nbd+unix:///?socket=" + url.PathEscape(path)
}

// survives does a run that may end in any way but three: hanging, with an error of several lines,
// or with an error that says nothing.
func survives(t *testing.T, name string, o Options) (*Report, error) {
	t.Helper()
	begin := time.Now()
	r, err := Run(t.Context(), o, nil)
	if d := time.Since(begin); d > o.Timeout+5*time.Second {
		t.Errorf("%s: took %v", name, d)
	}
	if err != nil && (r == nil && strings.Contains(err.Error(), "\n") || len(err.Error()) < 10) {
		t.Errorf("%s: %q", name, err)
	}
	if r != nil && err != nil && strings.Join(r.Trouble, "\n") != err.Error() {
		t.Errorf("%s: %q, but the report says %q", name, err, r.Trouble)
	}
	if r != nil && (err != nil) != (len(r.Trouble) > 0) {
		t.Errorf("%s: %v, but the report says %q", name, err, r.Trouble)
	}
	return r, err
}

// short is a run of a moment, of which the whole conversation is some 1200 bytes long.
func short(t *testing.T, uri string) Options {
	o := options(t, uri, "randrw", "512")
	o.Connections, o.Depth, o.Count, o.Verify, o.Timeout = 1, 2, 3, true, 3*time.Second
	return o
}

// The server closes after any number of bytes.
func TestCutAtEveryByte(t *testing.T) {
	uri := serve(t, &peer{})
	var cut, said atomic.Int64
	bad := between(t, uri, func(at int, b []byte) ([]byte, bool) {
		if left := int(cut.Load()) - at; len(b) > left {
			return b[:max(left, 0)], false
		}
		said.Store(int64(at + len(b)))
		return b, true
	})
	cut.Store(1 << 20)
	if _, err := survives(t, "whole", short(t, bad)); err != nil {
		t.Fatal(err)
	}
	whole := int(said.Load())
	if whole < 500 {
		t.Fatalf("the conversation has only %d bytes", whole)
	}
	for n := range whole {
		if n > 200 && n < whole-100 && n%7 != 0 {
			continue // the inside of a payload
		}
		cut.Store(int64(n))
		if _, err := survives(t, fmt.Sprintf("cut after %d", n), short(t, bad)); err == nil ||
			!strings.Contains(err.Error(), "closed") {
			t.Errorf("cut after %d of %d bytes: %v", n, whole, err)
		}
	}
}

// Each byte of the server's in turn is another one. What it says about
// itself may still make sense.
func TestFlippedAtEveryByte(t *testing.T) {
	var flip atomic.Int64
	bad := between(t, serve(t, &peer{}), func(at int, b []byte) ([]byte, bool) {
		if i := int(flip.Load()) - at; i >= 0 && i < len(b) {
			b[i] ^= 0x55
		}
		return b, true
	})
	failed := 0
	for n := range 260 {
		flip.Store(int64(n))
		o := short(t, bad)
		o.Timeout = 100 * time.Millisecond
		if _, err := survives(t, fmt.Sprintf("byte %d flipped", n), o); err != nil {
			failed++
		}
	}
	if failed < 60 {
		t.Errorf("only %d of 260 were noticed", failed)
	}
}

// Instead of replies, from some point on, come drawn bytes, the same thing twice,
// nothing, or things that were not asked for.
func TestNonsense(t *testing.T) {
	uri := serve(t, &peer{})
	structured := binary.BigEndian.AppendUint32(nil, 0x668e33ef)
	for name, distort := range map[string]func(b []byte) ([]byte, bool){
		"drawn bytes": func(b []byte) ([]byte, bool) {
			r := random(len(b))
			for i := range b {
				b[i] = byte(r.next())
			}
			return b, true
		},
		"everything twice": func(b []byte) ([]byte, bool) {
			return append(b[:len(b):len(b)], b...), true
		},
		"nothing": func([]byte) ([]byte, bool) { return nil, true },
		"structured replies": func(b []byte) ([]byte, bool) {
			return append(structured, b...), true
		},
		"half of it":    func(b []byte) ([]byte, bool) { return b[:len(b)/2], true },
		"one byte less": func(b []byte) ([]byte, bool) { return b[:len(b)-1], true },
		"zeroes":        func(b []byte) ([]byte, bool) { clear(b); return b, true },
		"a reply too many": func(b []byte) ([]byte, bool) {
			return append(b[:len(b):len(b)], b[:min(16, len(b))]...), true
		},
		"and a closed socket": func(b []byte) ([]byte, bool) { return b, false },
	} {
		for _, pattern := range []string{"randread", "randrw"} {
			t.Run(name+" "+pattern, func(t *testing.T) {
				t.Parallel()
				bad := between(t, uri, func(at int, b []byte) ([]byte, bool) {
					if at < 2000 { // after the negotiation
						return b, true
					}
					return distort(b)
				})
				o := options(t, bad, pattern, "4k")
				o.Verify, o.Fill, o.Timeout = pattern == "randrw", pattern == "randrw", time.Second
				r, err := Run(t.Context(), o, nil)
				if err == nil || r == nil {
					t.Fatalf("%+v, %v", r, err)
				}
				if text := err.Error(); !strings.Contains(text, "connection ") {
					t.Error(text)
				}
			})
		}
	}
}

// A reply to what is not in flight, and one of each error.
func TestWrongAnswers(t *testing.T) {
	for _, cookie := range []uint64{1 << 63, 3, 1<<32 | 15, 2<<32 | 1<<31, 1<<64 - 1} {
		replied := atomic.Bool{}
		bad := between(t, serve(t, &peer{}), func(at int, b []byte) ([]byte, bool) {
			if at < 2000 || replied.Swap(true) {
				return b, true
			}
			head := make([]byte, proto.SimpleReplySize)
			proto.PutSimpleReply(head, cookie, 0)
			return append(head, b...), true
		})
		o := options(t, bad, "randwrite", "4k")
		o.Connections = 1
		fails(t, o, "connection 1 of 1: ", "not in flight")
	}
	for errno := range uint32(1000) {
		if errno > 130 && errno%97 != 0 {
			continue
		}
		o := options(t, serve(t, &peer{answer: func(_ *peer, r *proto.Request) (proto.Errno, bool) {
			return proto.Errno(errno), false
		}}), "randrw", "4k")
		o.Count = 20
		if r, err := survives(t, fmt.Sprintf("errno %d", errno), o); errno > 0 &&
			(err == nil || r == nil || r.Failures < 20 || r.Requests != 0 ||
				r.RequestsTotal != r.Failures) {
			t.Errorf("errno %d: %+v, %v", errno, r, err)
		}
	}
}

// Sizes that are no use, and facts that cannot be.
func TestStrangeExports(t *testing.T) {
	for size, words := range map[uint64]string{
		1:     "too small for requests of 4 KiB",
		511:   "too small",
		4095:  "too small",
		4096:  "",
		4097:  "",
		10000: "",
	} {
		for _, pattern := range []string{"randread", "randrw", "write"} {
			o := options(t, serve(t, &peer{export: proto.Export{Facts: proto.Facts{Size: size}}}),
				pattern, "4k")
			o.Connections = 1
			r, err := survives(t, fmt.Sprint(size), o)
			if words == "" && (err != nil || r.Requests != o.Count || r.Size != size/4096*4096) ||
				words != "" && (err == nil || !strings.Contains(err.Error(), words)) {
				t.Errorf("%s of %d bytes: %v", pattern, size, err)
			}
		}
	}
	told := func(size uint64, block uint32) string { // the peer keeps less than it says
		return between(t, serve(t, &peer{export: proto.Export{Facts: proto.Facts{MinBlock: 512}}}),
			func(at int, b []byte) ([]byte, bool) {
				if at >= 18 && at < 100 && len(b) >= 32 {
					binary.BigEndian.PutUint64(b[22:], size)
					binary.BigEndian.PutUint32(b[32+20+2:], block)
				}
				return b, true
			})
	}
	fails(t, options(t, told(0, 1), "randread", "4k"), "the export is empty")
	fails(t, options(t, told(1<<20, 3), "randread", "4k"), "minimum block has 3 bytes")
	fails(t, options(t, told(1<<20, 1<<17), "randread", "4k"), "minimum block has 131072 bytes")
	if r := runs(t, options(t, told(0, 1), "flush", "4k")); r.Requests == 0 {
		t.Error("an empty export cannot be flushed")
	}
	fails(t, options(t, told(1<<64-1, 0), "randread", "4k"), "more than 2^63-1")
	o := options(t, told(1<<63-1, 0), "randread", "4k")
	o.Size = 1 << 20
	runs(t, o)
	o.Size, o.Verify, o.Fill = 0, true, true
	fails(t, o, "--verify would have to remember")
}

// A thousand of them, and each does its part.
func TestManyConnections(t *testing.T) {
	p := &peer{export: proto.Export{Facts: proto.Facts{Size: 8 << 20}}}
	o := options(t, serve(t, p), "randrw", "4k")
	o.Connections, o.Depth, o.Threads, o.Count, o.Verify, o.Idle = 1000, 1, 2, 20000, true, 100
	r := runs(t, o)
	p.end()
	if r.Requests != o.Count || p.goodbyes != 1100 {
		t.Errorf("%d requests, %d goodbyes", r.Requests, p.goodbyes)
	}
}

// Whatever it is doing, a run that is cancelled ends at once.
func TestInterruptedInEveryPhase(t *testing.T) {
	silent := testbed.Listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	slow := func(int) time.Duration { return 20 * time.Millisecond }
	hour := func(o *Options) { o.Count, o.Duration = 0, time.Hour }
	for phase, c := range map[string]struct {
		uri    string
		change func(o *Options)
		words  string // of the error, if there is to be one
	}{
		"connecting": {"nbd+unix:///?socket=" + url.PathEscape(silent), hour,
			"interrupted while connecting"},
		"connecting, ": {serve(t, &peer{}), func(o *Options) { // idle ones
			hour(o)
			o.Idle = 1 << 13
		}, "interrupted while connecting"},
		"filling":    {serve(t, &peer{stall: slow}), func(o *Options) { o.Fill = true }, ""},
		"warming up": {serve(t, &peer{}), func(o *Options) { hour(o); o.Warmup = time.Hour }, ""},
		"measuring":  {serve(t, &peer{}), hour, ""},
		"finishing": {serve(t, &peer{stall: func(n int) time.Duration {
			if n > 100 {
				return 2 * time.Second // the phase is seen in this time
			}
			return 0
		}}), func(o *Options) {
			o.Count, o.Duration, o.Connections, o.Depth = 0, 50*time.Millisecond, 2, 2
		}, ""},
	} {
		t.Run(phase, func(t *testing.T) {
			o := options(t, c.uri, "randread", "4k")
			c.change(&o)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var at time.Time
			r, err := Run(ctx, o, func(p Progress) {
				if strings.HasPrefix(p.Phase, phase) && at.IsZero() {
					time.AfterFunc(20*time.Millisecond, cancel)
					at = time.Now()
				}
			})
			if at.IsZero() {
				t.Fatalf("the phase never came: %v", err)
			}
			if d := time.Since(at); d > 30*time.Second { // of an hour
				t.Errorf("took %v to end", d)
			}
			switch {
			case c.words != "" &&
				(err == nil || !strings.Contains(err.Error(), c.words) || r != nil):
				t.Errorf("%+v, %v", r, err)
			case c.words == "" && (err != nil || !r.Interrupted):
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}
