// The conversations in testdata. Each is replayed whole, byte by byte, cut in two at every point,
// and by a driver that reads exactly what Need says; all must give the same bytes and the same end.
//
// A file is a dialogue of lines, with # for comments:
//
//	catalog: two        which exports, see catalogs
//	C: words            the client sends
//	S: words            the server has answered, see notation_test.go
//	! shutdown          something happens to the server: shutdown, full, hide
//	E: ...              how it stands at the end
//
// go test ./proto -run Conversation -rewrite writes the S and E lines anew; commit a change only if
// you understand it.

package proto

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the server's lines of testdata anew")

// allFlags are the flags of a writable export of a device that can do everything.
const allFlags = FlagHasFlags | FlagSendFlush | FlagSendFUA | FlagSendTrim |
	FlagSendWriteZeroes | FlagSendFastZero | FlagCanMultiConn

var catalogs = map[string]*Exports{
	"none": mustCatalog(-1),
	"one":  mustCatalog(0, Export{Facts: Facts{Size: 1 << 30, Flags: allFlags}}),
	"two": mustCatalog(0,
		Export{Name: "disk", Description: "the first disk", PreferredBlock: 64 << 10,
			Facts: Facts{Size: 1 << 40, MinBlock: 512, MaxPayload: 16 << 20, Flags: allFlags}},
		Export{Name: "größe",
			Facts: Facts{Size: 1<<63 - 1, Flags: FlagReadOnly | FlagSendFastZero}}),
	"named": mustCatalog(-1, Export{Name: "a", Facts: Facts{Size: 0}}),
	"contexts": mustCatalog(0,
		Export{Name: "disk", Facts: Facts{Size: 1 << 40, Flags: allFlags}, Contexts: []Context{
			{Name: ContextAllocation}, {Name: "qemu:dirty-bitmap:größe"},
			{Name: "qemu:dirty-bitmap:b"}, {Name: "x:wide", Wide: true},
			{Name: "qemu:allocation-depth"}}},
		Export{Name: "other", Facts: Facts{Size: 4096},
			Contexts: []Context{{Name: "x:wide", Wide: true}, {Name: ContextAllocation}}},
		Export{Name: "bare", Facts: Facts{Size: 4096}},
		Export{Name: "most", Facts: Facts{Size: 4096}, Contexts: manyContexts(MaxContexts)}),
	"long": mustCatalog(-1,
		Export{Name: strings.Repeat("n", MaxString), Description: strings.Repeat("d", MaxString),
			Facts: Facts{Size: 512}}),
}

func manyContexts(n int) (list []Context) {
	for i := range n {
		list = append(list, Context{Name: fmt.Sprintf("x:%d", i)})
	}
	return list
}

func mustCatalog(primary int, list ...Export) *Exports {
	list = slices.Clone(list)
	for i := range list {
		list[i].ID = uint64(i) // so that a transcript says which
	}
	c, err := NewExports(list, primary)
	if err != nil {
		panic(err)
	}
	return c
}

// script is a conversation as read from a file.
type script struct {
	catalog *Exports
	lines   []string       // without S and E
	client  []byte         // everything the client sends
	events  map[int]string // what happens to the server, by how much the client has sent by then
	want    string         // the whole file
}

// readScript reads a file.
func readScript(t *testing.T, name string) *script {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{catalog: catalogs["one"], events: map[int]string{}, want: string(text)}
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		switch kind {
		case "S:", "E:":
			continue
		case "C:":
			b, err := parse(rest)
			if err != nil {
				t.Fatalf("%s:%d: %v", name, i+1, err)
			}
			s.client = append(s.client, b...)
		case "!":
			s.events[len(s.client)] = rest
		case "catalog:":
			if s.catalog = catalogs[rest]; s.catalog == nil {
				t.Fatalf("%s:%d: no catalog %s", name, i+1, rest)
			}
		case "#", "":
		default:
			t.Fatalf("%s:%d: cannot read %q", name, i+1, line)
		}
		s.lines = append(s.lines, line)
	}
	return s
}

// run is a negotiation in progress with everything it sent.
type run struct {
	*Negotiator
	full bool
	out  []byte
	used int
}

func (s *script) begin() *run {
	r := &run{}
	r.Negotiator = NewNegotiator(s.catalog, Policy{Admit: func(*Export) Refusal {
		if r.full {
			return Refusal{RepErrPolicy, "the server is full"}
		}
		return Refusal{}
	}})
	r.happen(s.events[0])
	r.drain()
	return r
}

// happen changes the state of the server.
func (r *run) happen(event string) {
	switch event {
	case "full":
		r.full = true
	case "hide":
		r.policy.HideExports = true
	case "shutdown":
		r.Refuse(Refusal{RepErrShutdown, "the server is shutting down"})
	}
}

// drain sends Out, in unequal pieces.
func (r *run) drain() {
	for piece := 1; len(r.Out()) > 0; piece += 777 {
		k := min(piece, len(r.Out()))
		r.out = append(r.out, r.Out()[:k]...)
		r.Sent(k)
	}
}

// feed takes bytes of the client until all are used or the negotiation is over.
func (r *run) feed(b []byte) {
	for len(b) > 0 {
		k := r.Feed(b)
		r.used, b = r.used+k, b[k:]
		r.drain()
		if k == 0 {
			return
		}
	}
}

// end returns how a run ended, in words, after the client sent that many bytes.
func (r *run) end(sent int) string {
	unread := fmt.Sprintf("unread=%d", sent-r.used)
	switch e := r.Event(); e.Kind {
	case EventTransmit:
		return fmt.Sprintf("E: transmit export=%d fixed=%v nozeroes=%v%s %s", e.Export.ID,
			e.Mode.FixedNewstyle, e.Mode.NoZeroes, spellSession(e.Mode.Session), unread)
	case EventClose:
		return fmt.Sprintf("E: close (%s) %s", e.Reason, unread)
	}
	return "E: open " + unread
}

// spellSession returns the framing, and the selected contexts as bits; nothing for the zero value.
func spellSession(s Session) string {
	if s == (Session{}) {
		return ""
	}
	return fmt.Sprintf(" framing=%s contexts=%#x",
		[...]string{"simple", "structured", "extended"}[s.Framing], uint32(s.Contexts))
}

// pieces replays the client's bytes cut every size bytes, or only at cut if size is 0.
func (s *script) pieces(size, cut int) *run {
	r := s.begin()
	for from := 0; from < len(s.client); {
		to := s.nextEvent(from)
		if size > 0 {
			to = min(to, from+size)
		}
		if cut > from {
			to = min(to, cut)
		}
		r.feed(s.client[from:to])
		r.happen(s.events[to])
		from = to
	}
	return r
}

// nextEvent returns how many bytes the client has sent at the next event after from, or all.
func (s *script) nextEvent(from int) int {
	next := len(s.client)
	for at := range s.events {
		if at > from {
			next = min(next, at)
		}
	}
	return next
}

// exact replays the client's bytes and never feeds more than Need, all of which must be used.
func (s *script) exact(t *testing.T) *run {
	r := s.begin()
	at := 0
	for r.Need() > 0 && at < len(s.client) {
		k := min(r.Need(), s.nextEvent(at)-at)
		if used := r.Feed(s.client[at : at+k]); used != k {
			t.Fatalf("asked for %d bytes, used %d", k, used)
		}
		at += k
		r.used = at
		r.drain()
		r.happen(s.events[at])
	}
	return r
}

// transcript returns the file as -rewrite would write it.
func (s *script) transcript() string {
	r := s.begin()
	var text strings.Builder
	told, sent, begun := 0, 0, false
	tell := func() {
		for _, line := range spell(r.out[told:]) {
			text.WriteString("S: " + line + "\n")
		}
		told = len(r.out)
	}
	for _, line := range s.lines {
		kind, rest, _ := strings.Cut(line, " ")
		if kind == "C:" && !begun {
			tell()
			begun = true
		}
		text.WriteString(line + "\n")
		switch kind {
		case "C:":
			b, _ := parse(rest)
			sent += len(b)
			r.feed(b)
		case "!":
			r.happen(rest)
		}
		if begun {
			tell()
		}
	}
	return text.String() + r.end(sent) + "\n"
}

func TestConversation(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			s := readScript(t, file)
			got := s.transcript()
			if *rewrite && got != s.want {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != s.want {
				t.Errorf("got\n%s\nwant\n%s", got, s.want)
			}
			checkServerLines(t, s, got)
			checkSplits(t, s)
		})
	}
}

// checkServerLines compares bytes, so that the notation cannot hide a difference.
func checkServerLines(t *testing.T, s *script, text string) {
	var want []byte
	for _, line := range strings.Split(text, "\n") {
		if words, ok := strings.CutPrefix(line, "S: "); ok {
			b, err := parse(words)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, b...)
		}
	}
	if r := s.pieces(0, 0); string(r.out) != string(want) {
		t.Errorf("sent\n%x\nthe text says\n%x", r.out, want)
	}
}

// checkSplits replays a conversation in all ways, with the same result.
func checkSplits(t *testing.T, s *script) {
	whole := s.pieces(0, 0)
	same := func(how string, r *run) {
		t.Helper()
		if string(r.out) != string(whole.out) {
			t.Fatalf("%s: sent\n%v\nwhole\n%v", how, spell(r.out), spell(whole.out))
		}
		if got, want := r.end(len(s.client)), whole.end(len(s.client)); got != want {
			t.Fatalf("%s: %s, whole %s", how, got, want)
		}
	}
	same("byte by byte", s.pieces(1, 0))
	same("by sevens", s.pieces(7, 0))
	same("by need", s.exact(t))
	for cut := 1; cut < len(s.client); cut++ {
		if long := len(s.client) > 16<<10; long && cut > 256 && cut < len(s.client)-128 &&
			cut%8191 != 0 {
			continue // long data is all alike
		}
		same(fmt.Sprintf("cut at %d", cut), s.pieces(0, cut))
	}
}
