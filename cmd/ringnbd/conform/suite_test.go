// The suite itself: its list of checks, its results whatever a check does, its servers, its
// reports.
//
// Invariant: no test needs more than a shell; those that need a server by name skip by name.

package conform

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	commandLine "flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
)

// TestMain lets more tests run at a time than there are processors: most of them wait for a flaw
// that shows as a stall.
func TestMain(m *testing.M) {
	commandLine.Parse()
	// not set by -parallel
	f := commandLine.Lookup("test.parallel")
	if f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("16") // a number is always accepted
	}
	os.Exit(m.Run())
}

// TestCatalog: IDs are unique and well formed, each check has its title and its reason in one line,
// and every rule has a check or a reason for none.
func TestCatalog(t *testing.T) {
	shape := regexp.MustCompile(`^[A-Z]{1,2}-\d\d[a-z]?$`)
	known, checked, seen := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range sections {
		for _, id := range strings.Fields(s.rules) {
			if known[id] {
				t.Errorf("%s: the rule %s is listed twice", s.name, id)
			}
			known[id] = true
		}
	}
	if len(known) < 200 {
		t.Fatalf("only %d rules", len(known))
	}
	for _, c := range Checks() {
		switch {
		case !shape.MatchString(c.ID):
			t.Errorf("%q is not an ID", c.ID)
		case seen[c.ID]:
			t.Errorf("%s: twice", c.ID)
		case !known[c.rule()]:
			t.Errorf("%s: there is no such rule", c.ID)
		case c.Title == "" || c.Why == "" || strings.Contains(c.Title+c.Why, "\n") || c.Run == nil:
			t.Errorf("%s: what, why or the check itself is missing, or has several lines", c.ID)
		case !slices.Contains([]Level{must, should, may, quality}, c.Level):
			t.Errorf("%s: the level %q", c.ID, c.Level)
		}
		seen[c.ID], checked[c.rule()] = true, true
	}
	for _, id := range slices.Sorted(maps.Keys(known)) {
		if checked[id] == (unchecked[id] != "") {
			t.Errorf("%s: a check: %v, a reason for none: %q", id, checked[id], unchecked[id])
		}
	}
	name := regexp.MustCompile(`\b[A-Z]{1,2}-\d\d`)
	for id, reason := range unchecked {
		if !known[id] {
			t.Errorf("%s: a reason for a rule that does not exist", id)
		}
		for _, other := range name.FindAllString(reason, -1) {
			if !checked[other] {
				t.Errorf("%s: the reason names %s, which has no check: %s", id, other, reason)
			}
		}
	}
}

// TestExplanations: each key is a server and a check.
func TestExplanations(t *testing.T) {
	all := Checks()
	for key, text := range explained {
		server, id, _ := strings.Cut(key, " ")
		if !slices.Contains([]string{"qemu-nbd", "nbdkit", "nbd-server", "ringnbd"}, server) ||
			!slices.ContainsFunc(all, func(c Check) bool { return c.ID == id }) ||
			text == "" || strings.Contains(text, "\n") {
			t.Errorf("%q: %q", key, text)
		}
	}
}

func TestOnly(t *testing.T) {
	all := []Check{{ID: "H-03a"}, {ID: "H-03b"}, {ID: "H-10"}, {ID: "RQ-01"}}
	for _, test := range []struct {
		patterns, want string
	}{{"", "H-03a H-03b H-10 RQ-01"}, {"H-03", "H-03a H-03b"}, {"h-03A", "H-03a"}, {"H",
		"H-03a H-03b H-10"}, {"rq-*", "RQ-01"}, {"H-10 RQ", "H-10 RQ-01"}} {
		picked, idle := Only(all, strings.Fields(test.patterns))
		var ids []string
		for _, c := range picked {
			ids = append(ids, c.ID)
		}
		if got := strings.Join(ids, " "); got != test.want || idle != "" {
			t.Errorf("--only %q: %q, want %q", test.patterns, got, test.want)
		}
	}
	if _, idle := Only(all, []string{"H", "Z-*"}); idle != "Z-*" {
		t.Errorf("the pattern that picks nothing is %q", idle)
	}
}

// TestVerdicts: each way in which a check can end has its result, also the ways of a broken check.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	run := func(id string, f func(*trial)) Check {
		return Check{ID: id, Level: must, Title: id, Why: id, Run: f}
	}
	checks := []Check{
		run("pass", func(*trial) {}),
		run("fail", func(t *trial) { t.failf("seen %d", 1) }),
		run("skip", func(t *trial) { t.skip("a reason") }),
		run("differs", func(t *trial) { t.differ("this"); t.differ("that") }),
		run("differs, then fail", func(t *trial) { t.differ("this"); t.failf("that") }),
		run("differs, then skip", func(t *trial) { t.differ("this"); t.skip("that") }),
		run("panic", func(*trial) { panic(errors.New("a mistake")) }),
		run("index", func(t *trial) { _ = t.differs[len(t.differs)] }),
		run("stall", func(t *trial) { t.haggle().read(1, "what never comes") }),
		run("hang", func(*trial) { select {} }),
		{ID: "need", Level: must, Title: "x", Why: "x",
			Needs: []need{{"the moon", func(*Profile) bool {
				return false
			}}}, Run: func(t *trial) { t.failf("ran") }},
		run("after", func(t *trial) { t.haggle().stillHaggling("nothing") }),
	}
	report, err := Run(context.Background(),
		Config{Target: fakeTarget(t, ""), Checks: checks, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"pass": "pass ", "fail": "fail seen 1", "skip": "skip a reason",
		"differs": "differs this; that", "differs, then fail": "fail that",
		"differs, then skip": "differs this; that",
		"panic":              "fail the check itself is broken: a mistake",
		"index":              "fail the check itself is broken: runtime error",
		"stall":              "fail what never comes: nothing more came before the deadline",
		"hang":               "fail the check did not end within 2s", "need": "skip needs the moon",
		"after": "pass "}
	for _, r := range report.Results {
		if got := string(r.Verdict) + " " + r.Detail; !strings.HasPrefix(got, want[r.ID]) ||
			r.ID == "pass" && got != "pass " {
			t.Errorf("%s: %q, want %q", r.ID, got, want[r.ID])
		}
	}
	if report.Counts[Fail] != 6 || report.Counts[Pass] != 2 || len(report.Results) != len(checks) {
		t.Errorf("the counts are %v", report.Counts)
	}
}

// TestReports: the three forms have the same results.
func TestReports(t *testing.T) {
	r := &Report{Server: "s", Profile: &Profile{},
		Counts: map[Verdict]int{Pass: 1, Fail: 1, Differs: 1, Skip: 1}, Results: []Result{
			{ID: "A-01", Level: must, Title: "one", Why: "w", Verdict: Pass}, {ID: "A-02",
				Level: must,
				Title: "two", Why: "because", Verdict: Fail, Detail: "seen <that>"},
			{ID: "A-03", Level: should, Title: "three", Verdict: Differs, Detail: "otherwise"},
			{ID: "A-04", Level: may, Title: "four", Verdict: Skip, Detail: "needs it"}}}
	var text, js, ju bytes.Buffer
	if err := errors.Join(r.Table(&text, false, Screen{}), r.JSON(&js), r.JUnit(&ju)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pass    A-01 one\n", "fail    A-02 two\n", "seen <that>",
		"why MUST: because", "otherwise", "4 checks: 1 pass, 1 fail, 1 differs, 1 skip"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table does not have %q:\n%s", want, text.String())
		}
	}
	for _, test := range []struct {
		checks        []Check
		verbose, want bool
	}{{Checks(), true, true}, {Checks(), false, false}, {Checks()[:3], true, false}} {
		var list bytes.Buffer
		err := List(&list, test.checks, test.verbose, Screen{})
		if listed := strings.Contains(list.String(),
			"H-18    none     takes as long as the server's own timeout"); err != nil ||
			listed != test.want {
			t.Errorf("of %d checks, verbose %v: the list has the rules without a check: %v, %v",
				len(test.checks), test.verbose, listed, err)
		}
	}
	if err := r.Err(); err == nil || err.Error() != "1 of 4 checks failed" {
		t.Errorf("the error is %v", err)
	}
	if strings.Contains(text.String(), "needs it") {
		t.Errorf("the table has the reason of a skip without verbose")
	}
	if r.Results[3].Detail = goneReason +
		"A-02"; !strings.HasSuffix(r.Summary(), "1 skip (1 because the server was gone)") {
		t.Errorf("the summary is %q", r.Summary())
	}
	r.Results[3].Detail = "needs it"
	var back Report
	if err := json.Unmarshal(js.Bytes(), &back); err != nil || len(back.Results) != 4 ||
		back.Results[1].Verdict != Fail || back.Counts[Fail] != 1 {
		t.Errorf("JSON: %v, %+v", err, back)
	}
	var suite junitSuite
	if err := xml.Unmarshal(ju.Bytes(), &suite); err != nil || suite.Failures != 1 ||
		suite.Skipped != 1 || len(suite.Cases) != 4 ||
		suite.Cases[1].Failure.Message != "seen <that>" {
		t.Errorf("JUnit: %v, %+v", err, suite)
	}
}

// TestScreens: no line is wider than the terminal, and no word is missing.
func TestScreens(t *testing.T) {
	problem := strings.Repeat("this went wrong ", 30)
	r := &Report{Server: "s", Profile: &Profile{Problems: []string{problem}},
		Counts: map[Verdict]int{}}
	for _, c := range Checks() {
		r.Results = append(r.Results, Result{ID: c.ID, Level: c.Level, Title: c.Title, Why: c.Why,
			Verdict: Differs, Detail: strings.Repeat("otherwise ", 30)})
	}
	words := func(all string) int { return len(strings.Fields(all)) }
	whole := map[string]int{}
	for _, width := range []int{0, 60, 80, 200} {
		var table, list bytes.Buffer
		on := Screen{Width: width}
		err := errors.Join(r.Table(&table, true, on), List(&list, Checks(), true, on))
		if err != nil {
			t.Fatal(err)
		}
		for name, out := range map[string]string{"table": table.String(), "list": list.String()} {
			if width == 0 {
				whole[name] = words(out)
			} else if n := words(out); n != whole[name] {
				t.Errorf("%d columns: the %s has %d words of %d", width, name, n, whole[name])
			}
			for line := range strings.SplitSeq(out, "\n") {
				if n := text.StringWidth(line); width > 0 && n > width &&
					strings.Contains(strings.TrimSpace(line[min(20, len(line)):]), " ") {
					t.Errorf("%d columns: %d: %s", width, n, line)
				}
			}
		}
	}
}

// TestMarkdown: each failure of a peer is there with its reason, or as unexplained.
func TestMarkdown(t *testing.T) {
	result := func(id string, v Verdict) Result {
		return Result{ID: id, Level: must, Title: "a|b", Verdict: v, Detail: "seen"}
	}
	peers := []Peer{
		{Name: "ringnbd", Version: "1",
			Report: &Report{Results: []Result{result("H-03a", Pass), result("H-09", Pass),
				result("MC-12", Skip)}}},
		{Name: "nbd-server", Version: "2",
			Report: &Report{Results: []Result{result("H-03a", Fail), result("H-09", Differs),
				result("MC-12", Skip)}}},
	}
	var b bytes.Buffer
	if err := Markdown(&b, peers); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| rule | level | what | ringnbd | nbd-server |",
		`| H-03a | MUST | a\|b | ✓ | **✗** |`, "- H-03a fail: nbd-server.c negotiate",
		"- H-09 differs: **unexplained**", "Nothing to explain."} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table does not have %q:\n%s", want, b.String())
		}
	}
	if got := Unexplained(peers); !slices.Equal(got, []string{"nbd-server H-09"}) {
		t.Errorf("unexplained: %q", got)
	}
	peers[1].Report.Results[0].Verdict = Pass
	if got := Idle(peers); !slices.Equal(got, []string{"nbd-server H-03a"}) {
		t.Errorf("idle: %q", got)
	}
}

// TestSpawnDies: when a server dies the current check fails, with the server's last words, and the
// next check has a new server.
func TestSpawnDies(t *testing.T) {
	if _, err := exec.LookPath("nbdkit"); err != nil {
		t.Skip("nbdkit is not installed (Debian package nbdkit)")
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	pid := func() int {
		text, _ := os.ReadFile(pidFile)
		n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return n
	}
	first := 0
	var counted []int // descriptors of the server, as SD-04 counts them
	count := func(t *trial) { counted = append(counted, t.holdings().descriptors) }
	checks := []Check{
		{ID: "X-01", Run: func(t *trial) {
			count(t)
			first = pid()
			_ = syscall.Kill(first, syscall.SIGKILL)
		}},
		{ID: "X-02", Run: func(t *trial) { count(t); t.open(modeGo).stillUp("a new start") }},
	}
	spawn := fmt.Sprintf("echo $$ > %s; echo famous last words >&2; exec nbdkit -f -U {socket} "+
		"file {img}", pidFile)
	report, err := Run(context.Background(),
		Config{Spawn: spawn, Size: 32 << 20, Checks: checks, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if r := report.Results[0]; r.Verdict != Fail ||
		!strings.Contains(r.Detail,
			"the server died: signal: killed; its last words: famous last words") {
		t.Errorf("the check that the server died in: %+v", r)
	}
	if r := report.Results[1]; r.Verdict != Pass {
		t.Errorf("the next one: %+v", r)
	}
	if len(counted) != 2 || min(counted[0], counted[1]) < 4 {
		t.Errorf("descriptors of the server, and of the server that was started again: %d", counted)
	}
	if second := pid(); second == first || syscall.Kill(second, 0) == nil {
		t.Errorf("process %d after %d: not started again, or left behind", second, first)
	}
}

// TestReadOnlyDies: the server with the read-only export is proven alive after each check as well,
// and started again.
func TestReadOnlyDies(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nbdkit"); err != nil {
		t.Skip("nbdkit is not installed (Debian package nbdkit)")
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	checks := []Check{
		{ID: "X-01", Run: func(t *trial) {
			text, _ := os.ReadFile(pidFile)
			pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
			t.want(pid > 1 && syscall.Kill(pid, syscall.SIGKILL) == nil,
				"the server cannot be killed")
		}},
		{ID: "X-02", Needs: []need{needReadOnly}, Run: func(t *trial) {
			t.openReadOnly(modeGo).stillUp("a new start")
		}},
	}
	config := Config{Spawn: "exec nbdkit -f -U {socket} file {img}",
		SpawnReadOnly: fmt.Sprintf("echo $$ > %s; exec nbdkit -f -r -U {socket} file {img}",
			pidFile),
		Size: 32 << 20, Checks: checks, Timeout: 5 * time.Second}
	report, err := Run(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	if r := report.Results[0]; r.Verdict != Fail ||
		!strings.Contains(r.Detail, "the read-only server died: signal: killed") {
		t.Errorf("the check that the server died in: %+v", r)
	}
	if r := report.Results[1]; r.Verdict != Pass {
		t.Errorf("the next one: %+v", r)
	}
}

// TestEmpty: an export without bytes is not checked.
func TestEmpty(t *testing.T) {
	t.Parallel()
	_, err := Run(context.Background(),
		Config{Target: flawedTarget(t, "empty"), Checks: Checks(), Timeout: 5 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "the export is empty") {
		t.Errorf("the error is %v", err)
	}
}

// TestSpawnFails: a command that does not serve is reported with its last words, and leaves no
// files behind.
func TestSpawnFails(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	_, err := Run(context.Background(),
		Config{Spawn: "echo no such thing >&2; exit 3 # {port}", Size: 32 << 20,
			Timeout: time.Second})
	if err == nil ||
		!strings.Contains(err.Error(), "exit status 3; its last words: no such thing") {
		t.Errorf("the error is %v", err)
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if CheckSpawn("server {img}") == nil || CheckSpawn("server {socket}") != nil {
		t.Error("a command must say where it listens")
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{"/tmp/a-b_1.img": "/tmp/a-b_1.img",
		"/tmp/a b": "'/tmp/a b'", "/tmp/it's": `'/tmp/it'\''s'`, "": ""} {
		if got := quote(text); got != want {
			t.Errorf("%q becomes %s, not %s", text, got, want)
		}
	}
}

// TestPeers: the suite runs to its end on real servers, and everything that the handshake's checks
// find in them is explained.
func TestPeers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes long")
	}
	for name, spawn := range map[string]string{"qemu-nbd": "qemu-nbd -f raw -k {socket} -t -e 0 " +
		"-x '' {img}",
		"nbdkit": "nbdkit -f -U {socket} --filter=exportname file {img} exportname= " +
			"exportname-strict=true"} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				t.Skipf("%s is not installed (Debian package %s)", name,
					map[string]string{"qemu-nbd": "qemu-utils", "nbdkit": "nbdkit"}[name])
			}
			checks := handshakeChecks()
			report, err := Run(context.Background(),
				Config{Spawn: spawn, Size: 32 << 20, Checks: checks, Timeout: 10 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Results) != len(checks) || report.Counts[Pass] < len(checks)*2/3 {
				t.Errorf("of %d checks: %s", len(checks), report.Summary())
			}
			for _, id := range Unexplained([]Peer{{Name: name, Report: report}}) {
				t.Errorf("%s is unexplained", id)
			}
		})
	}
}

// TestReadme: the number of checks and the totals of README.md are those of the package and of
// TABLE.md, and TABLE.md has the checks by their present titles.
func TestReadme(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	readme, table := read("README.md"), read("TABLE.md")
	if want := fmt.Sprintf("It has %d checks", len(Checks())); !strings.Contains(readme, want) {
		t.Errorf("README.md does not say %q", want)
	}
	totals := regexp.MustCompile(`(?m)^- \*\*([\w-]+)\*\*: .* checks: ` +
		`(\d+) pass, (\d+) fail, (\d+) differs, (\d+) skip\.`)
	found := totals.FindAllStringSubmatch(table, -1)
	if len(found) != 4 {
		t.Errorf("TABLE.md has the totals of %d servers", len(found))
	}
	for _, m := range found {
		row := "| " + strings.Join(m[1:], " | ") + " |"
		if !strings.Contains(readme, row) {
			t.Errorf("README.md does not have the totals of TABLE.md: %s", row)
		}
	}
	for _, c := range Checks() {
		row := fmt.Sprintf("| %s | %s | %s |", c.ID, c.Level, cell(c.Title))
		if !strings.Contains(table, row) {
			t.Errorf("TABLE.md does not have %q: make conform", row)
		}
	}
}
