// ringnbd info, held next to nbdinfo.

package live_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

func TestInfoAgreesWithNbdinfo(t *testing.T) {
	need(t, "nbdinfo")
	for _, name := range peers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dependOnSources()
			s := servePeer(t, name, measure.Unix, patchy(t, 32<<20, 21)) // servers take locks
			var ours, theirs struct{ Exports []map[string]any }
			for program, into := range map[string]any{ringnbd + " info": &ours,
				"nbdinfo": &theirs} {
				words := strings.Fields(program)
				out := must(t, time.Minute, words[0], append(words[1:], "--json", s.uri(""))...)
				if err := json.Unmarshal([]byte(out), into); err != nil {
					t.Fatalf("%v in %s", err, out)
				}
			}
			if len(ours.Exports) != 1 || len(theirs.Exports) != 1 {
				t.Fatalf("%v, %v", ours, theirs)
			}
			for key, want := range theirs.Exports[0] {
				switch key {
				case "content", "uri": // nbdinfo asks file(1), and writes URIs in its own way
					continue
				case "export-name":
					// the empty name is shown as the one it stands for, if the server tells
					want = s.export
					if name == "ringnbd" {
						want = ours.Exports[0][key]
					}
				case "export-size-str":
					continue
				case "export-size":
					// its answer to INFO, which nbdinfo asks, has no size; that to GO has
					if name == "nbd-server" {
						want = float64(32 << 20)
					}
				}
				if got := ours.Exports[0][key]; !reflect.DeepEqual(got, want) &&
					!(got == nil && want == "") {
					switch key {
					case "contexts":
						continue
					case "can_df", "can_block_status_payload":
						// what ringnbd offers depends on the client: nbdinfo selects no contexts,
						if name == "ringnbd" { // and its older versions speak no extended headers
							continue
						}
					}
					t.Errorf("%s: %v, nbdinfo says %v", key, got, want)
				}
			}
		})
	}
}

func TestMapsAgreeWithNbdinfo(t *testing.T) {
	need(t, "nbdinfo")
	for _, name := range []string{"ringnbd", "qemu-nbd", "nbdkit"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dependOnSources()
			s := servePeer(t, name, measure.Unix, patchy(t, 256<<20, 22))
			var ours, theirs []map[string]any
			if err := json.Unmarshal([]byte(must(t, time.Minute, ringnbd, "info", "--map", "--json",
				s.uri(""))), &ours); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(must(t, time.Minute, "nbdinfo", "--map", "--json",
				s.uri(""))), &theirs); err != nil {
				t.Fatal(err)
			}
			if len(ours) < 5 || !reflect.DeepEqual(ours, theirs) {
				t.Errorf("ours:\n%v\ntheirs:\n%v", ours, theirs)
			}
		})
	}
}

func TestAMillionExtentsAreMappedQuickly(t *testing.T) {
	need(t, "nbdkit")
	dependOnSources()
	socket := filepath.Join(t.TempDir(), "s")
	startSocket(t, socket, "nbdkit", "-f", "-U", socket, "sparse-random", "100G", "percent=50",
		"runlength=90000", "seed=1")
	uri := "nbd+unix:///?socket=" + socket
	began := time.Now()
	out := must(t, time.Minute, ringnbd, "info", "--map", uri)
	took := time.Since(began)
	var extents int
	lines := strings.Split(strings.TrimSpace(out), "\n")
	total := strings.ReplaceAll(lines[len(lines)-1], ",", "") // 1,192,312 extents
	if _, err := fmt.Sscanf(total, "%d extents", &extents); err != nil || extents < 900_000 {
		t.Errorf("%s", out)
	}
	t.Logf("%d extents in %v", extents, took)
	if took > 30*time.Second {
		t.Errorf("%d extents took %v", extents, took)
	}
}

func TestInfoListsEveryExport(t *testing.T) {
	s := serveRingnbd(t, measure.TCP, "--export", "alpha=null:1G,description=the first", "--export",
		"be ta=null:2T,ro")
	out := must(t, time.Minute, ringnbd, "info", "--list", s.uri(""))
	for _, words := range []string{`"alpha"`, "1 GiB", `"the first"`, `"be ta"`, "2 TiB", " ro ",
		s.uri("alpha")} {
		if !strings.Contains(out, words) {
			t.Errorf("%s is not in:\n%s", words, out)
		}
	}
}

func TestCopyReportsATailThatCannotBeRead(t *testing.T) {
	need(t, "nbdkit")
	dependOnSources()
	socket := filepath.Join(t.TempDir(), "s")
	startSocket(t, socket, "nbdkit", "-f", "-U", socket, "--filter=blocksize-policy", "memory",
		"10000", "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=1M")
	out, err := exec.Command(ringnbd, "copy", "nbd+unix:///?socket="+socket,
		filepath.Join(t.TempDir(), "new")).CombinedOutput()
	if words := "not a multiple of its minimum block of 4096 bytes: the last 1808 bytes " +
		"cannot be read"; err == nil || !strings.Contains(string(out), words) {
		t.Errorf("%v: %s", err, out)
	}
}
