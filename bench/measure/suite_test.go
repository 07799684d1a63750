// Tests of what a run consists of: loads, sections, turns, command lines. No server runs here.

package measure

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRoundsShuffleTheServersWithinALoad(t *testing.T) {
	base := Load{Section: "disk", BlockSize: SmallBlock, Depth: UsualDepth, Connections: 1,
		Backend: File}
	s := &Suite{Raw: true,
		Programs: append([]Program{Ringnbd("r"), RingnbdCached("r")}, Peers()...),
		Loads:    combine(base, patterns("randread", "randwrite"), transports(Unix, TCP))}
	all := s.meetings()
	const group = 13 // raw, and six servers over each transport
	if len(all) != 2*group {
		t.Fatalf("%d meetings", len(all))
	}
	follows, places := map[string]int{}, map[int]int{}
	const rounds = 300
	for round := range rounds {
		turns := order(round, all)
		if !slices.Equal(turns, order(round, all)) {
			t.Fatalf("round %d: the order is not repeated", round)
		}
		if sorted := slices.Sorted(slices.Values(turns)); len(turns) != len(all) ||
			sorted[0] != 0 || len(slices.Compact(sorted)) != len(all) {
			t.Fatalf("round %d does not have every meeting once: %v", round, turns)
		}
		var served []string
		for i, k := range turns {
			if all[k].load.Pattern != all[i/group*group].load.Pattern {
				t.Fatalf("round %d: loads are mixed: %v", round, turns)
			}
			if all[k].program == nil {
				places[i%group]++
				continue
			}
			served = append(served, all[k].load.Transport)
			if i%group > 0 && all[turns[i-1]].name() == "nbdkit" {
				follows[all[k].name()]++
			}
		}
		if len(slices.Compact(served)) > 4 {
			t.Fatalf("round %d: transports are mixed", round)
		}
	}
	if len(places) != group {
		t.Errorf("the raw limit has only the places %v", places)
	}
	for _, name := range []string{"ringnbd", "ringnbd-cached", "qemu-nbd", "qemu-nbd-cached",
		"nbd-server"} {
		if n := follows[name]; n < rounds/3 || n > rounds { // of 4 × rounds, a sixth or so each
			t.Errorf("%s follows nbdkit %d times in %d rounds", name, n, rounds)
		}
	}
}

func TestMeetingsAreOfServersThatAreInvitedAndAble(t *testing.T) {
	s := &Suite{Raw: true,
		Programs: append([]Program{Ringnbd("r"), RingnbdCached("r"), RingnbdPoll("r")}, Peers()...)}
	who := func(l Load) string {
		s.Loads = []Load{l}
		var names []string
		for _, m := range s.meetings() {
			names = append(names, m.name())
		}
		return strings.Join(names, " ")
	}
	for _, c := range []struct {
		load Load
		want string
	}{
		{Load{Section: "disk", Backend: File, Transport: Unix},
			"raw ringnbd ringnbd-cached nbdkit qemu-nbd qemu-nbd-cached nbd-server"},
		{Load{Section: "memory", Backend: Memory, Transport: Unix}, "ringnbd nbdkit"},
		{Load{Section: "null", Backend: Null, Transport: TCP}, "ringnbd nbdkit qemu-nbd"},
		{Load{Section: "poll", Backend: Null, Transport: Unix},
			"ringnbd ringnbd-poll nbdkit qemu-nbd"},
		{Load{Section: "exports", Backend: File, Transport: Unix, Exports: 999},
			"ringnbd nbd-server"},
		{Load{Section: "overlay", Backend: Mapped, Transport: Unix},
			"ringnbd ringnbd-cached qemu-nbd qemu-nbd-cached"},
		{Load{Backend: Overlay, Transport: Unix},
			"ringnbd ringnbd-cached ringnbd-poll qemu-nbd qemu-nbd-cached"},
		{Load{Backend: Loop, Transport: Unix},
			"raw ringnbd ringnbd-cached ringnbd-poll nbdkit qemu-nbd qemu-nbd-cached nbd-server"},
		{Load{Backend: Memory, Exports: 3, Transport: Unix}, "ringnbd ringnbd-poll"},
	} {
		if got := who(c.load); got != c.want {
			t.Errorf("%+v meets %q, want %q", c.load, got, c.want)
		}
	}
}

func TestSectionsNameEachLoadOnceAndOnlyKnownServers(t *testing.T) {
	var programs []string
	for _, p := range append([]Program{Ringnbd(""), RingnbdCached(""), RingnbdPoll("")},
		Peers()...) {
		programs = append(programs, p.Name)
	}
	var all []Load
	for _, s := range append(Sections(), FullSection()) {
		if s.Question == "" || len(s.Loads) == 0 {
			t.Errorf("%s: no question or no load", s.Name)
		}
		for _, name := range s.Servers {
			if name != RawName && !slices.Contains(programs, name) {
				t.Errorf("%s: there is no server %s", s.Name, name)
			}
		}
		for _, l := range s.Loads {
			if l.Section != s.Name || l.Pattern == "" || l.BlockSize == 0 || l.Depth == 0 ||
				l.Connections == 0 || l.Backend == "" || l.Transport == "" {
				t.Errorf("%s: an incomplete load: %+v", s.Name, l)
			}
			if slices.Contains(all, l) {
				t.Errorf("%s: %s is there twice", s.Name, l)
			}
			all = append(all, l)
		}
	}
}

func TestSelectFindsSectionsAndNamesThem(t *testing.T) {
	picked, err := Select([]string{"null", "disk"})
	if err != nil || len(picked) != 2 || picked[0].Name != "null" || picked[1].Name != "disk" {
		t.Errorf("null and disk: %v, %v", picked, err)
	}
	if all, err := Select(nil); err != nil || len(all) != len(Sections()) {
		t.Errorf("no names: %d sections, %v", len(all), err)
	}
	if _, err := Select([]string{"tape"}); err == nil ||
		!strings.Contains(err.Error(), `no section "tape"; there are disk, depth`) {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestGeneratorIsToldTheWholeLoad(t *testing.T) {
	d := drive{load: Load{Pattern: "randrw", ReadPercent: 70, BlockSize: 4096, Depth: 8,
		Connections: 2, Rate: 2500.5, Idle: 9, Backend: File},
		target: "nbd://x", size: 1 << 20, seed: 3, seconds: 1.5, warmup: 0.25, fill: true}
	want := "bench --json --pattern randrw --bs 4096 --depth 8 --connections 2 --seed 3 " +
		"--duration 1500ms --read-percent 70 --rate 2500.5 --idle 9 " +
		"--warmup 250ms --size 1048576 --fill nbd://x"
	if got := strings.Join(d.arguments(), " "); got != want {
		t.Errorf("arguments are\n%s, want\n%s", got, want)
	}
	plain := drive{load: Load{Pattern: "read", BlockSize: 512, Depth: 1, Connections: 1},
		target: "file:x", seconds: 1}
	if got, want := strings.Join(plain.arguments(),
		" "),
		"bench --json --pattern read --bs 512 --depth 1 --connections 1 --seed 0 --duration "+
			"1000ms file:x"; got != want {
		t.Errorf("arguments are\n%s, want\n%s", got, want)
	}
}

func TestGeneratorsTroubleIsNoNumber(t *testing.T) {
	for text, want := range map[string]string{
		"nothing": "JSON",
		`{"requests":9,"seconds":1,"trouble":["data was wrong"]}`: "data was wrong",
		`{"requests":9,"seconds":1,"failures":2,"firstFailure":"EIO"}`: "2 requests failed, " +
			"the first: EIO",
		`{"requests":9,"seconds":1,"interrupted":true}`: "interrupted",
		`{"requests":0,"seconds":1}`:                    "no request",
	} {
		if _, err := parseGenerated([]byte(text)); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", text, err, want)
		}
	}
}

func TestSampleTakesTheSlowerKind(t *testing.T) {
	r, err := parseGenerated([]byte(`{"requests":30,"seconds":2,"requestsPerSecond":15,"bytesPerSecond":61440,
		"kinds":[{"kind":"read","latency":{"p50":5,"p99":50,"p999":60}},{"kind":"write","latency":{"p50":7,"p99":40,"p999":90}}],
		"openLoop":{"backlogEnd":4},"generator":{"cpuPerRequest":3}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Sample{Requests: 30, Seconds: 2, RequestsPerSecond: 15, BytesPerSecond: 61440, P50: 7,
		P99: 50, P999: 90, ClientCPU: 3, Backlog: 4}
	if got := generated(r); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestWindowIsTheInnerPartOfTheMeasuringTime(t *testing.T) {
	begun := time.Unix(100, 0)
	// 2 s of connecting, 1 of warming up, 2 of measuring
	w := watched{ended: begun.Add(5 * time.Second)}
	for i := range 51 {
		cpu := time.Duration(i) * time.Millisecond // 1 % of the time
		if i < 20 {
			cpu = time.Duration(i) * time.Second // connecting is dear
		} else {
			cpu += 20 * time.Second
		}
		w.marks = append(w.marks, mark{begun.Add(time.Duration(i) * 100 * time.Millisecond), cpu})
	}
	used, seconds, ok := w.window(2)
	if !ok || seconds < 1.2 || seconds > 1.4 ||
		used != time.Duration(seconds*10+0.5)*time.Millisecond {
		t.Errorf("window: %v in %v s, %v", used, seconds, ok)
	}
	w.marks = w.marks[:3]
	if _, _, ok := w.window(2); ok {
		t.Error("a window without marks")
	}
}
