// The negotiation at its limits, where a conversation would be too long to read: ten thousand
// exports, data of 32 MiB, more options than any client needs; none of it costs memory.

package proto

import (
	"fmt"
	"strings"
	"testing"
)

// begun returns a negotiation with a fixed newstyle client after the flags.
func begun(c Catalog, p Policy) *run {
	r := &run{Negotiator: NewNegotiator(c, p)}
	r.drain()
	r.feed(AppendClientFlags(nil, FlagClientFixedNewstyle|FlagClientNoZeroes))
	r.out = nil
	return r
}

// frames counts replies by type.
func frames(t *testing.T, b []byte, option uint32) map[uint32]int {
	t.Helper()
	count := map[uint32]int{}
	for len(b) > 0 {
		r, err := ParseOptionReply(b, option)
		if err != nil || int(r.Length) > len(b)-OptionReplySize {
			t.Fatalf("%+v %v", r, err)
		}
		count[r.Type]++
		b = b[OptionReplySize+r.Length:]
	}
	return count
}

func TestListOfManyExportsIsBounded(t *testing.T) {
	list := make([]Export, 10_000)
	for i := range list {
		list[i] = Export{Name: fmt.Sprintf("%0200d", i), Description: strings.Repeat("d", 1000)}
	}
	list[5000].Description = strings.Repeat("d", MaxString)
	r := begun(mustCatalog(-1, list...), Policy{})
	r.Feed(AppendOption(nil, OptList, ""))
	seen, longest := 0, 0
	for b := r.Out(); len(b) > 0; b = r.Out() {
		if r.Need() != 0 || r.Feed([]byte{0}) != 0 {
			t.Fatal("asked for more in the middle of an answer")
		}
		longest = max(longest, len(b))
		for at := b; len(at) > 0; {
			reply, err := ParseOptionReply(at, OptList)
			if err != nil {
				t.Fatal(err)
			}
			if data := at[OptionReplySize:][:reply.Length]; reply.Type == RepServer {
				name, description, err := ParseServer(data)
				if err != nil || name != list[seen].Name || description != list[seen].Description {
					t.Fatalf("export %d: %q %q %v", seen, name, description, err)
				}
				seen++
			}
			at = at[OptionReplySize+reply.Length:]
		}
		r.Sent(len(b))
	}
	if seen != len(list) || r.Need() != OptionSize {
		t.Errorf("%d exports listed, then need %d", seen, r.Need())
	}
	if limit := listChunk + OptionReplySize + 4 + 2*MaxString + OptionReplySize; longest > limit ||
		cap(r.Negotiator.out) > 2*limit {
		t.Errorf("pieces of %d bytes in a buffer of %d", longest, cap(r.Negotiator.out))
	}
}

func TestLongestDataIsDrained(t *testing.T) {
	for _, option := range []uint32{0x1234, OptList, OptInfo, OptGo, OptAbort} {
		r := begun(catalogs["one"], Policy{})
		r.feed(appendOptionHead(nil, option, maxOptionDrain))
		block := make([]byte, 1<<20)
		for left := maxOptionDrain; left > 0; left -= len(block) {
			if r.Need() != left || len(r.out) > 0 {
				t.Fatalf("option %d: need %d with %d to come, sent %d", option, r.Need(), left,
					len(r.out))
			}
			r.feed(block)
		}
		if option == OptAbort {
			if e := r.Event(); e.Reason != CloseAbort {
				t.Errorf("%+v", e)
			}
			continue
		}
		if n := frames(t, r.out, option); len(n) != 1 || r.Need() != OptionSize {
			t.Errorf("option %d: replies %v, need %d", option, n, r.Need())
		}
	}
}

func TestTooManyOptionsClose(t *testing.T) {
	r := begun(catalogs["two"], Policy{})
	limit := baseOptions + 2*optionsPerExport
	for range limit {
		r.feed(AppendOption(nil, 0x1234, ""))
	}
	if n := frames(t, r.out, 0x1234); n[RepErrUnsup] != limit || r.Event().Kind != EventNone {
		t.Fatalf("%v %+v", n, r.Event())
	}
	r.feed(AppendOption(nil, OptAbort, ""))
	if e := r.Event(); e.Kind != EventClose || e.Reason != CloseOptionCount {
		t.Errorf("%+v", e)
	}
}

func TestAdmitIsAskedOnceAndOnlyForTheWayIn(t *testing.T) {
	var asked []uint64
	p := Policy{Admit: func(e *Export) Refusal { asked = append(asked, e.ID); return Refusal{} }}
	r := begun(catalogs["two"], p)
	r.feed(AppendInfo(nil, OptInfo, "disk"))
	r.feed(AppendInfo(nil, OptGo, "nosuch"))
	r.feed(AppendOption(nil, OptGo, "malformed"))
	r.feed(AppendOption(nil, OptList, ""))
	if len(asked) != 0 {
		t.Fatalf("asked %v before anyone wanted in", asked)
	}
	r.feed(AppendInfo(nil, OptGo, "größe"))
	if e := r.Event(); len(asked) != 1 || asked[0] != 1 || e.Kind != EventTransmit ||
		e.Export.ID != 1 {
		t.Errorf("asked %v, then %+v", asked, e)
	}
	r = begun(catalogs["two"], p)
	r.feed(AppendOption(nil, OptExportName, "disk"))
	if e := r.Event(); len(asked) != 2 || asked[1] != 0 || e.Kind != EventTransmit {
		t.Errorf("asked %v, then %+v", asked, e)
	}
}

func TestLongMessagesAreCut(t *testing.T) {
	long := strings.Repeat("é", MaxString)
	r := begun(catalogs["one"], Policy{Admit: func(*Export) Refusal {
		return Refusal{RepErrPolicy, "x" + long}
	}})
	r.feed(AppendInfo(nil, OptGo, ""))
	r.Refuse(Refusal{RepErrShutdown, "x" + long})
	r.feed(AppendInfo(nil, OptGo, ""))
	for range 2 {
		reply, err := ParseOptionReply(r.out, OptGo)
		if err != nil || reply.Length > MaxString {
			t.Fatalf("%+v %v", reply, err)
		}
		text := string(r.out[OptionReplySize:][:reply.Length])
		if !ValidString(text) || len(text) < MaxString-1 {
			t.Errorf("%d bytes, ends in %q", len(text), text[len(text)-2:])
		}
		r.out = r.out[OptionReplySize+reply.Length:]
	}
}

func TestEventWaitsForTheLastByte(t *testing.T) {
	r := begun(catalogs["one"], Policy{})
	r.Feed(AppendInfo(nil, OptGo, ""))
	for len(r.Out()) > 0 {
		if e := r.Event(); e.Kind != EventNone {
			t.Fatalf("%+v with %d bytes to send", e, len(r.Out()))
		}
		r.Sent(1)
	}
	if e := r.Event(); e.Kind != EventTransmit {
		t.Errorf("%+v", e)
	}
	if r.Need() != 0 || r.Feed(make([]byte, 100)) != 0 {
		t.Error("takes bytes after the end")
	}
}

func TestSentOfMoreThanOutPanics(t *testing.T) {
	for _, k := range []int{-1, BannerSize + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Sent(%d) went through", k)
				}
			}()
			NewNegotiator(catalogs["one"], Policy{}).Sent(k)
		}()
	}
}

func TestFedBytesDoNotAllocate(t *testing.T) {
	r := begun(catalogs["one"], Policy{})
	r.feed(appendOptionHead(nil, OptInfo, maxOptionDrain))
	r.feed([]byte{0, 0, 16, 0}) // a name of 4096 bytes
	block := make([]byte, 64)
	if n := testing.AllocsPerRun(50, func() { r.Feed(block) }); n != 0 {
		t.Errorf("%v allocations while a name comes in", n)
	}
	r = begun(catalogs["one"], Policy{})
	if n := testing.AllocsPerRun(20, func() {
		r.Negotiator.options = 0
		r.Feed(AppendOption(block[:0], 0x1234, ""))
		r.Sent(len(r.Out()))
	}); n != 0 {
		t.Errorf("%v allocations an unknown option", n)
	}
}

func TestCloseReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range CloseReason(CloseReasons) {
		if s := r.String(); s == "unknown" || seen[s] {
			t.Errorf("reason %d: %q", r, s)
		} else {
			seen[s] = true
		}
	}
	if CloseReason(CloseReasons).String() != "unknown" {
		t.Error("CloseReasons is not the number of reasons")
	}
}
