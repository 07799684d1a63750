// Clients and servers of other releases of Debian, in addition to those of this one: the tests of
// this package that drive them run once more with each. The table of what was done with which
// version goes to the test's output, a row in each attribute `table`; make test and make clients
// print it.
//
// Invariant: a version that is not available is a skip with its reason; a row without a result says
// so.

package live_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ringnbd/cmd/ringnbd/debian"
)

// family is a program with what is done with it.
type family struct {
	name  string
	from  string   // its Debian package, whose version stands in the table
	tests []string // without Test
}

var families = []family{
	{"qemu-io, qemu-img", "qemu-utils",
		[]string{"QemuIOWritesZeroesDiscardsAndFlushes", "QemuIOFastZeroesLeaveNoHole",
			"QemuIOKeepsManyRequestsInFlight", "QemuImgMapCompareAndBench",
			"QemuImgConvertsALargeImageInAndOut", "QemuFindsEveryName",
			"OldstyleWithQemu"}},
	{"nbdinfo, nbdcopy", "libnbd-bin",
		[]string{"NbdcopyThereAndBackOverSeveralConnections", "NbdinfoDescribesTheExport",
			"NbdinfoShowsTheSizeInBytes", "NbdinfoCanAndIsAnswerEveryFlag",
			"NbdinfoListsEveryExport", "MapAgreesWithTheFile", "ServerOnAnInheritedSocket",
			"NamesInAnyLanguageAreListed", "OldstyleWithNbdinfoAndNbdcopy"}},
	{"libnbd from Python", "python3-libnbd",
		[]string{"RequestsBeyondTheEndAreRefused", "AnyOffsetAndLengthIsServed",
			"FUAAndFlushReachTheImage", "WriteZeroesWithEveryFlag", "TrimStaysInItsRange",
			"RequestsUpTo64MiB", "LeavingWithRequestsInFlight",
			"RequestsOfNoBytesSucceed", "UnadvertisedCommandsAreRefused",
			"ReadOnlyExportRefusesEveryChange", "StructuredReadsAndErrors"}},
	{"nbdkit's nbd plugin", "nbdkit", []string{"NbdkitInBetweenSeesACorrectDisk"}},
	{"nbd-client", "nbd-client", []string{"NbdClientListsExports"}},
	{"fio", "fio", []string{"FioVerifiesWhileReadingAndWriting"}},
	{"qemu-nbd, nbdkit, nbd-server", "nbd-server",
		[]string{"InfoAgreesWithNbdinfo", "MapsAgreeWithNbdinfo", "CopyFromAndToEveryServer",
			"CopyOfServersWithBlocksAndLimits", "CopyToAServerWithAnOddEnd",
			"CopyReportsErrorsOfTheServer"}},
}

// TestFamiliesNameTests finds a test that was renamed at once, not when all releases have run.
func TestFamiliesNameTests(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var source []byte
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, b...)
	}
	for _, f := range families {
		for _, name := range f.tests {
			if !bytes.Contains(source, []byte("\nfunc Test"+name+"(t *testing.T)")) {
				t.Errorf("%s: there is no Test%s", f.name, name)
			}
		}
	}
}

// programs are what is taken of a whole release, by package.
var programs = map[string][]string{
	"qemu-utils": {"qemu-io", "qemu-img", "qemu-nbd"}, "libnbd-bin": {"nbdinfo",
		"nbdcopy"}, "python3-libnbd": nil, "python3": {"python3"},
	"nbdkit": {"nbdkit"}, "nbd-client": {"nbd-client"}, "nbd-server": {"nbd-server"},
	"fio": {"fio"},
}

// release is where programs come from, and what came of their tests.
type release struct {
	debian.Suite
	packages map[string][]string
	versions func(name string) string
	results  map[string]string // by test, without Test
}

// releases are this machine's, what was ported back to it, and the newest two.
func releases() []*release {
	all := []*release{{Suite: debian.Suite{Name: "installed"}, versions: installed}}
	if name := codename(); name != "" {
		qemu := map[string][]string{"qemu-utils": programs["qemu-utils"]}
		all = append(all,
			&release{Suite: debian.Suite{Name: name + "-backports", Base: name}, packages: qemu})
	}
	return append(all, &release{Suite: debian.Suite{Name: "stable"}, packages: programs},
		&release{Suite: debian.Suite{Name: "sid"}, packages: programs})
}

// codename is the name of the Debian that this machine runs.
func codename() string {
	b, _ := os.ReadFile("/etc/os-release")
	found := regexp.MustCompile(`(?m)^VERSION_CODENAME=(\w+)$`).FindSubmatch(b)
	if found == nil {
		return ""
	}
	return string(found[1])
}

// installed is the version of a package of this machine.
func installed(name string) string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", name).Output()
	if err != nil {
		return ""
	}
	return debian.Upstream(string(out))
}

func TestVersionsOfClientsAndServers(t *testing.T) {
	onlyRingnbd(t)
	if testing.Short() {
		t.Skip("downloads clients of other releases (not with -short)")
	}
	dependOnSources()
	cache, err := debian.CacheDir("clients")
	if err != nil {
		t.Fatal(err)
	}
	all := releases()
	for _, r := range all {
		t.Run(r.Name, func(t *testing.T) {
			path := os.Getenv("PATH")
			environment := append(os.Environ(), "RINGNBD_BIN="+ringnbd)
			if r.packages != nil {
				p, err := debian.Fetch(cache, r.Suite, r.packages)
				if err != nil {
					t.Skipf("no clients of %s: %v", r.Name, err)
				}
				r.versions = p.Version
				environment = append(environment, "PATH="+p.Bin()+":"+path,
					"RINGNBD_LIVE_PYTHON="+p.Bin()+"/python3")
			}
			r.run(t, environment)
		})
	}
	for _, row := range table(all) {
		t.Attr("table", row)
	}
}

// wanted are the tests of what the release has.
func (r *release) wanted() (tests []string) {
	for _, f := range families {
		if r.versions(f.from) != "" {
			tests = append(tests, f.tests...)
		}
	}
	return tests
}

var verdict = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): Test(\w+) `)

// run runs this very program for the tests of a release.
func (r *release) run(t *testing.T, environment []string) {
	const limit = 8 * time.Minute
	r.results = map[string]string{}
	tests := r.wanted()
	if len(tests) == 0 {
		t.Skip("no client is installed (make packages names them)")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^Test("+strings.Join(tests, "|")+")$", "-test.v",
		"-test.short", "-test.timeout="+limit.String())
	cmd.Env = environment
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for _, v := range verdict.FindAllStringSubmatch(string(out), -1) {
		r.results[v[2]] = strings.ToLower(v[1])
	}
	for _, name := range tests {
		switch r.results[name] {
		case "pass", "skip":
			// the test itself has said why, and is skipped for it in this machine's own run, too
		case "":
			t.Errorf("Test%s did not end", name)
			r.results[name] = "none"
		default:
			t.Errorf("Test%s fails with the clients and servers of %s", name, r.Name)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// table is a row for each client with its versions, and one for each thing that was done with it.
func table(all []*release) (rows []string) {
	row := func(first string, cell func(r *release) string) {
		text := fmt.Sprintf("%-44s", first)
		for _, r := range all {
			text += fmt.Sprintf(" %-18s", cell(r))
		}
		rows = append(rows, strings.TrimRight(text, " "))
	}
	row("", func(r *release) string { return r.Name })
	for _, f := range families {
		row(f.name, func(r *release) string {
			if r.versions == nil || r.versions(f.from) == "" {
				return "–"
			}
			if f.from == "nbd-server" { // the first column has the names
				return fmt.Sprintf("%s %s %s", r.versions("qemu-utils"), r.versions("nbdkit"),
					r.versions("nbd-server"))
			}
			return r.versions(f.from)
		})
		for _, name := range f.tests {
			row("  "+name, func(r *release) string { return r.results[name] })
		}
	}
	return rows
}
