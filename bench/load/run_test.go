// Whole runs against the server of the tests: every pattern, every kind of failure, and what
// reports say about them.

package load

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ringnbd/proto"
)

func TestEveryPatternRuns(t *testing.T) {
	for _, pattern := range patterns {
		t.Run(pattern.Name, func(t *testing.T) {
			p := &peer{}
			o := options(t, serve(t, p), pattern.Name, "4k:3,512:1,64k:1")
			o.Threads = 2
			if o.changes() {
				o.FlushEvery, o.FUA = 10, true
			}
			r := runs(t, o)
			if r.Requests != o.Count || r.Failures != 0 {
				t.Errorf("%d requests measured, %d failed; want %d and 0", r.Requests, r.Failures,
					o.Count)
			}
			p.end()
			total := 0
			for k, n := range p.seen {
				total += n
				if flushes := requestKind(k) == kindFlush &&
					o.FlushEvery > 0; (n > 0) != (pattern.Does[k] || flushes) {
					t.Errorf("%d requests of kind %v", n, requestKind(k))
				}
			}
			if total != int(o.Count) {
				t.Errorf("the server saw %d requests, want %d", total, o.Count)
			}
			if p.goodbyes != o.Connections {
				t.Errorf("%d connections said goodbye, want %d", p.goodbyes, o.Connections)
			}
			if (p.fua > 0) != o.FUA {
				t.Errorf("%d requests with FUA", p.fua)
			}
		})
	}
}

// --fill writes each block once, whichever connection does
// it; a single connection that reads in order reads each once.
func TestFillAndOrderCoverTheWindow(t *testing.T) {
	p := &peer{}
	const first, blocks = 8192, 67
	var written, read [first/4096 + blocks + 8]int
	p.answer = func(_ *peer, r *proto.Request) (proto.Errno, bool) {
		switch at := r.Offset / 4096; r.Command {
		case proto.CmdWrite:
			written[at]++
		case proto.CmdRead:
			read[at]++
		}
		return 0, false
	}
	uri := serve(t, p)
	o := options(t, uri, "read", "4k")
	o.Fill, o.Offset, o.Size, o.Count, o.Connections, o.Threads = true, first, blocks*4096, 1, 5, 3
	runs(t, o)
	p.mu.Lock()
	clear(read[:]) // the first run is over: all its requests are answered
	p.mu.Unlock()
	o.Fill, o.Count, o.Connections, o.Threads = false, blocks, 1, 1
	runs(t, o)
	p.end()
	for at := range written {
		want := 0
		if at >= first/4096 && at < first/4096+blocks {
			want = 1
		}
		if written[at] != want || read[at] != want {
			t.Errorf("block %d was written %d times and read %d times, want %d", at, written[at],
				read[at], want)
		}
	}
}

func TestSeedDecidesWhatIsAsked(t *testing.T) {
	asked := func(seed uint64) (list []proto.Request) {
		p := &peer{answer: func(_ *peer, r *proto.Request) (proto.Errno, bool) {
			list = append(list,
				proto.Request{Command: r.Command, Offset: r.Offset, Length: r.Length})
			return 0, false
		}}
		o := options(t, serve(t, p), "randrw", "4k:1,512:1")
		o.Seed, o.Connections, o.ZeroPercent = seed, 1, 10
		runs(t, o)
		p.end()
		return list
	}
	one, again, other := asked(1), asked(1), asked(2)
	if len(one) < 2000 || !slices.Equal(one, again) {
		t.Errorf("%d requests, and with the same seed others", len(one))
	}
	if slices.Equal(one, other) {
		t.Error("another seed asks for the same")
	}
}

func TestOldServers(t *testing.T) {
	for name, p := range map[string]*peer{"no GO": {old: true}, "not fixed": {plain: true}} {
		t.Run(name, func(t *testing.T) {
			if r := runs(t, options(t, serve(t, p), "randread", "4k")); r.ExportSize != 1<<20 {
				t.Errorf("export of %d bytes", r.ExportSize)
			}
		})
	}
	p := &peer{old: true, names: []string{"other"}}
	fails(t, options(t, serve(t, p), "randread", "4k"), "may have none of that name")
}

func TestVerifyOfAnHonestServer(t *testing.T) {
	for _, flags := range []uint16{everyFlag, everyFlag &^ proto.FlagCanMultiConn} {
		p := &peer{export: proto.Export{Facts: proto.Facts{Flags: flags}}}
		o := options(t, serve(t, p), "randrw", "4k:2,16k:1,512:1")
		o.Verify, o.Fill, o.Threads, o.Connections, o.Count, o.ZeroPercent = true, true, 2, 4,
			20000, 30
		r := runs(t, o)
		if r.Verify.Found != 0 || r.Verify.Judged == 0 {
			t.Errorf("judged %d bytes, found %d bad blocks", r.Verify.Judged, r.Verify.Found)
		}
		if noted := len(r.Notes) > 0; noted == r.MultiConn {
			t.Errorf("multi-conn %v, notes %q", r.MultiConn, r.Notes)
		}
	}
}

// TestVerifyOfATinyWindow has more slots than blocks, so that connections must wait for each other
// and none may starve.
func TestVerifyOfATinyWindow(t *testing.T) {
	o := options(t, serve(t, &peer{}), "randrw", "4k")
	o.Verify, o.Size, o.Connections, o.Depth, o.Count = true, 8192, 8, 4, 3000
	if r := runs(t, o); r.Requests != o.Count {
		t.Errorf("%d requests, want %d", r.Requests, o.Count)
	}
}

func TestVerifyCatchesLies(t *testing.T) {
	const unlucky = 64 << 10
	hits := func(r *proto.Request) bool { return r.Offset == unlucky }
	cases := map[string]struct {
		read, write func(p *peer, r *proto.Request, b []byte)
		words       string
	}{
		"stale": {read: func(p *peer, r *proto.Request, b []byte) {
			// before the second write there is nothing older but zeroes
			if hits(r) && p.previous[r.Offset] != 0 {
				copy(b, p.previous[r.Offset:r.Offset+r.Length])
			}
		}, words: "older generation"},
		"lost write": {write: func(p *peer, r *proto.Request, b []byte) {
			if hits(r) && p.data[r.Offset] != 0 {
				copy(b, p.data[r.Offset:r.Offset+r.Length])
			}
		}, words: "older generation"},
		"torn": {write: func(p *peer, r *proto.Request, b []byte) {
			if hits(r) && p.data[r.Offset] != 0 {
				copy(b[r.Length/2:], p.data[r.Offset+r.Length/2:r.Offset+r.Length])
			}
		}, words: "torn"},
		"misdirected read": {read: func(p *peer, r *proto.Request, b []byte) {
			if hits(r) {
				copy(b, p.data[r.Offset+4096:])
			}
		}, words: "this is the data of offset 69632"},
		"bit flip": {read: func(_ *peer, r *proto.Request, b []byte) {
			if hits(r) {
				b[300] ^= 4
			}
		}, words: "checksum"},
		"zeroes": {read: func(_ *peer, r *proto.Request, b []byte) {
			if hits(r) {
				clear(b)
			}
		}, words: "no stamp"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := options(t, serve(t, &peer{read: c.read, write: c.write}), "randrw", "4k")
			o.Verify, o.Fill, o.Count = true, true, 20000
			r := fails(t, o, "offset 6", "expected generation", "found", c.words)
			if r == nil || r.Verify.Found == 0 || len(r.Verify.Findings) == 0 ||
				len(r.Verify.Findings) > maxFindings {
				t.Fatalf("the report has %+v", r.Verify)
			}
			if at := r.Verify.Findings[0].Offset; at < unlucky || at >= unlucky+4096 {
				t.Errorf("found at %d, the lie is at %d", at, unlucky)
			}
		})
	}
}

// What was zeroed must be read as zeroes, until it is written again.
func TestZeroesAreKnown(t *testing.T) {
	for _, pattern := range []string{"zeroes", "randzeroes"} {
		o := options(t, serve(t, &peer{}), pattern, "4k")
		o.Verify, o.Fill, o.NoHole, o.FastZero = true, true, true, true
		// with those of --fill
		if r := runs(t, o); r.Verify.Judged == 0 || len(r.Kinds) != 2 || r.ReadPercent == nil ||
			r.RequestsTotal != o.Count+256 {
			t.Errorf("%+v", r)
		}
	}
	var flags uint16
	p := &peer{answer: func(_ *peer, r *proto.Request) (proto.Errno, bool) {
		if r.Command == proto.CmdWriteZeroes {
			flags = r.Flags
		}
		return 0, false
	}}
	o := options(t, serve(t, p), "zeroes", "4k")
	o.NoHole, o.FastZero, o.FUA = true, true, true
	runs(t, o)
	p.end()
	if flags != proto.CmdFlagNoHole|proto.CmdFlagFastZero|proto.CmdFlagFUA {
		t.Errorf("flags %#x", flags)
	}
	for name, zero := range map[string]func(p *peer, r *proto.Request) bool{
		"older generation": func(*peer, *proto.Request) bool { return false },
		"zeroes were written here": func(p *peer, r *proto.Request) bool {
			copy(p.data[r.Offset:r.Offset+r.Length], "x")
			return false
		},
		"torn": func(p *peer, r *proto.Request) bool {
			clear(p.data[r.Offset : r.Offset+512])
			return false
		},
	} {
		o := options(t, serve(t, &peer{zero: zero}), "randrw", "4k")
		o.Verify, o.Fill, o.ZeroPercent = true, true, 30
		r := fails(t, o, "not as written", "zeroes, found", name)
		if r == nil || r.Verify.Found == 0 || !r.Verify.Findings[0].Zeroes {
			t.Errorf("%+v", r)
		}
	}
	// A failed WRITE_ZEROES leaves open what is there.
	refuses := &peer{answer: func(_ *peer, r *proto.Request) (proto.Errno, bool) {
		if r.Command == proto.CmdWriteZeroes {
			return proto.ENOTSUP, false
		}
		return 0, false
	}}
	o = options(t, serve(t, refuses), "randrw", "4k")
	o.Verify, o.Fill, o.ZeroPercent, o.FastZero = true, true, 30, true
	if r := fails(t, o, "requests failed",
		"ENOTSUP for a WRITE_ZEROES of 4096 bytes"); r.Verify.Found != 0 {
		t.Errorf("%+v", r.Verify)
	}
}

func TestServerErrorsAreCounted(t *testing.T) {
	n := 0
	p := &peer{answer: func(_ *peer, r *proto.Request) (proto.Errno, bool) {
		if n++; r.Command == proto.CmdWrite && n%50 == 0 {
			return proto.ENOSPC, false
		}
		return 0, false
	}}
	o := options(t, serve(t, p), "randrw", "4k")
	o.Verify = true // the outcome of a write that failed is not known, so nothing is found wrong
	r := fails(t, o, "requests failed", "ENOSPC for a write of 4096 bytes at offset")
	if r.Failures == 0 || r.Requests+r.Failures != o.Count || r.Verify.Found != 0 {
		t.Errorf("%d requests and %d failures of %d, %d bad blocks", r.Requests, r.Failures,
			o.Count, r.Verify.Found)
	}
	for _, k := range r.Kinds {
		if (k.Errors["ENOSPC"] == r.Failures) != (k.Kind == "write") {
			t.Errorf("%s: %v", k.Kind, k.Errors)
		}
	}
}

func TestConnectionThatDies(t *testing.T) {
	n := 0
	p := &peer{answer: func(*peer, *proto.Request) (proto.Errno, bool) { n++; return 0, n == 500 }}
	r := fails(t, options(t, serve(t, p), "randread", "4k"), "connection ",
		" of 2: closed by the server", "in flight")
	if r == nil || r.Requests == 0 {
		t.Error("what was measured until then is not reported")
	}
}

func TestServerThatFallsSilent(t *testing.T) {
	o := options(t, serve(t, &peer{stall: func(n int) time.Duration {
		// whichever connection, the other one's requests are in flight for long enough as well
		if n > 100 && n <= 102 {
			return time.Second
		}
		return 0
	}}), "randread", "4k")
	o.Timeout = 200 * time.Millisecond
	fails(t, o, "no reply for 200ms")
}

func TestWhatDoesNotFit(t *testing.T) {
	strict := proto.Export{Facts: proto.Facts{MinBlock: 4096, MaxPayload: 65536}}
	readOnly := proto.Export{Facts: proto.Facts{Flags: proto.FlagHasFlags | proto.FlagReadOnly}}
	uris := map[string]string{"": serve(t, &peer{export: strict}),
		"ro": serve(t, &peer{export: readOnly}), "named": serve(t, &peer{names: []string{"x"}})}
	for _, c := range []struct {
		uri, pattern, bs string
		change           func(o *Options)
		words            string
	}{
		{"", "randread", "128k", nil, "at most 64 KiB in one request"},
		{"", "randread", "6k", nil, "multiples of 4096 bytes"},
		{"", "randread", "4k", func(o *Options) {
			o.Offset = 512
		}, "--offset 512: the export takes only multiples of 4096"},
		{"", "randread", "4k", func(o *Options) {
			o.Offset = 1 << 20
		}, "not inside the export, which has 1048576 bytes"},
		{"", "randread", "4k", func(o *Options) { o.Size = 2 << 20 }, "end beyond the export"},
		{"", "read", "64k", func(o *Options) { o.Size, o.Connections = 64<<10, 2 }, "too small"},
		{"ro", "randwrite", "4k", nil, "read-only"},
		{"ro", "randread", "4k", func(o *Options) { o.Fill = true }, "read-only"},
		{"ro", "flush", "4k", nil, "does not offer FLUSH"},
		{"named", "randread", "4k", nil, `no such export: "never heard of it"`},
	} {
		o := options(t, uris[c.uri], c.pattern, c.bs)
		if c.change != nil {
			c.change(&o)
		}
		if r := fails(t, o, c.words); r != nil {
			t.Errorf("%s %s: a report although nothing was started", c.pattern, c.bs)
		}
	}
	fails(t, options(t, "nbd+unix:///?socket=/nowhere", "randread", "4k"), "is the server running?")
}

func TestEndedEarly(t *testing.T) {
	o := options(t, serve(t, &peer{}), "randread", "4k")
	o.Count, o.Duration = 0, time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	var phases []string
	r, err := Run(ctx, o, func(p Progress) {
		if phases = append(phases, p.Phase); p.Requests > 0 {
			cancel()
		}
	})
	if err != nil || !r.Interrupted || r.Requests == 0 || r.Seconds <= 0 || r.Seconds > 60 {
		t.Errorf("%+v, %v", r, err)
	}
	if text := strings.Join(phases, " "); !strings.HasPrefix(text, "connecting") ||
		!strings.Contains(text, "measuring") {
		t.Errorf("phases %s", text)
	}
}

// The server is fast at first, and slow from before the end of the warm-up
// on. Nothing fast is in the results.
func TestWarmupIsNotMeasured(t *testing.T) {
	begin := time.Now()
	p := &peer{stall: func(int) time.Duration {
		if time.Since(begin) > 300*time.Millisecond {
			return 5 * time.Millisecond
		}
		return 0
	}}
	o := options(t, serve(t, p), "randread", "4k")
	o.Count, o.Warmup, o.Duration, o.Depth = 0, 800*time.Millisecond, 300*time.Millisecond, 1
	r := runs(t, o)
	p.end()
	if l := r.Kinds[0].Latency; r.Requests == 0 || l.Min < 4.9e3 {
		t.Errorf("%d requests, the fastest of which took %v µs, has the warm-up in it", r.Requests,
			l.Min)
	}
	if r.Seconds < 0.299 || r.Seconds > 0.301 {
		t.Errorf("measured %v s", r.Seconds)
	}
	if n := p.n - p.goodbyes; r.RequestsTotal != uint64(n) || r.RequestsTotal <= r.Requests {
		t.Errorf("%d requests measured of %d, and the server answered %d", r.Requests,
			r.RequestsTotal, n)
	}
}

// One stall of 400 ms in two seconds. In a closed loop it is a
// handful of slow requests; at a fixed rate, a fifth of all that were due, half of which waited for
// 200 ms and more. A busy machine makes everything later, never earlier, so the bounds are on that
// side.
func TestStallIsSeenByAllThatWereDue(t *testing.T) {
	run := func(rate float64) *Report {
		var once bool
		begin := time.Now() // connecting takes no time to speak of
		p := &peer{}
		p.stall = func(int) time.Duration {
			p.mu.Lock()
			defer p.mu.Unlock()
			if !once && time.Since(begin) > 300*time.Millisecond {
				once = true
				return 400 * time.Millisecond
			}
			return 0
		}
		o := options(t, serve(t, p), "randread", "4k")
		o.Count, o.Duration, o.Connections, o.Depth, o.Rate = 0, 2*time.Second, 1, 4, rate
		return runs(t, o)
	}
	open, closed := run(1000), run(0)
	if l := open.Kinds[0].Latency; l.P90 < 150e3 || l.P99 < 300e3 {
		t.Errorf("open loop: p90 %v µs, p99 %v µs: the stall should be in both", l.P90, l.P99)
	}
	if open.Open.MaxBacklog < 300 {
		t.Errorf("open loop: a backlog of %d, expected about 400", open.Open.MaxBacklog)
	}
	if n := open.Requests + open.Open.BacklogEnd; n < 1990 || n > 2001 {
		t.Errorf("open loop: %d requests and %d never started; 2000 were due", open.Requests,
			open.Open.BacklogEnd)
	}
	if open.Open.Behind {
		t.Errorf("a stall in the middle of the run is called a target that does not keep up: %+v",
			open.Open)
	}
	if l := closed.Kinds[0].Latency; l.P99 > 100e3 || l.Max < 350e3 {
		t.Errorf("closed loop: p99 %v µs, max %v µs: the stall should be in the maximum only",
			l.P99, l.Max)
	}
}

func TestOverloadLeavesABacklog(t *testing.T) {
	o := options(t, serve(t, &peer{stall: func(int) time.Duration {
		return time.Millisecond
	}}), "randread", "4k")
	o.Count, o.Duration, o.Rate, o.Poisson = 0, 300*time.Millisecond, 20000, true
	r := runs(t, o)
	if r.Open.BacklogEnd < 3000 {
		t.Errorf("only %d were never started", r.Open.BacklogEnd)
	}
	var text strings.Builder
	if err := r.Table(&text, 0); err != nil || !r.Open.Behind || !strings.Contains(text.String(),
		"the target does not keep up") {
		t.Errorf("%v, %+v: %s", err, r.Open, text.String())
	}
	// 6000, give or take five standard deviations
	if due := r.RequestsTotal + r.Open.BacklogEnd; due < 5600 || due > 6400 {
		t.Errorf("%d were due, of which %d were started", due, r.RequestsTotal)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.img")
	if err := os.WriteFile(path, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"randread", "randrw", "write", "trim", "randzeroes", "zeroes",
		"flush"} {
		o := options(t, "file:"+path, pattern, "4k:2,64k:1")
		o.Verify = pattern == "randrw" || pattern == "randzeroes"
		o.NoHole, o.FUA = pattern == "zeroes", pattern == "zeroes" || pattern == "trim"
		o.Fill = o.Verify
		o.Threads = 2
		if pattern == "write" {
			o.FUA, o.Count = true, 200
		}
		if r := runs(t, o); r.Requests != o.Count || r.Transport != "file" ||
			o.Verify && r.Verify.Judged == 0 {
			t.Errorf("%s: %+v", pattern, r)
		}
	}
	fails(t, options(t, "file:"+path, "randread", "100"), "multiples of")
	fails(t, options(t, "file:"+path+"2", "randread", "4k"), "no such file")
	fails(t, options(t, "file:"+filepath.Dir(path), "randread", "4k"), "directory")
}
