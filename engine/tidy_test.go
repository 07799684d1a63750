// House rules as a test: which package may import which and why, the length of functions and files,
// formatting, and marks that must not be in a committed tree.

package engine_test

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const (
	maxFunction = 70 // lines: a screen
	maxFile     = 700
)

// forbidden has, by folder, the imports that are not allowed there, and why. A folder's own rule
// counts, not its parent's.
var forbidden = map[string]map[string]string{
	"proto": {
		"net":     "proto is bytes in, bytes out, so that tests can split them at every point",
		"os":      "proto does no I/O",
		"time":    "proto has no clock; deadlines belong to the gate",
		"sync":    "a negotiator belongs to one goroutine",
		"fmt":     "formatting allocates",
		"ringnbd": "proto stands at the bottom and imports nothing of ours",
	},
	"engine": {
		"net":                    "sockets come in negotiated, as descriptors",
		"log":                    "the data path does not log; it counts",
		"fmt":                    "formatting allocates, and invites logging",
		"os":                     "files come in opened, as descriptors",
		"unsafe":                 "only engine/uring touches memory behind Go's back",
		"github.com":             "giouring stays behind engine/uring",
		"ringnbd/engine/gate":    "the engine does not know how sockets come to be",
		"ringnbd/engine/backing": "the engine does not know how devices are opened",
		"ringnbd/engine/sim":     "the engine does not know which kernel it runs on",
		"math/rand": "what a loop does follows from what happened to it, so that a " +
			"seed replays it",
	},
	"engine/layer": {
		"net":            "a plan has no socket: that is why a seed replays it",
		"os":             "a plan has no descriptor: that is why a seed replays it",
		"time":           "a plan has no clock: that is why a seed replays it",
		"sync":           "a plan belongs to one loop",
		"fmt":            "formatting allocates",
		"math/rand":      "what a plan does follows from what it was asked",
		"ringnbd/engine": "plans know the seam, not the engine",
	},
	"engine/layer/trial": {
		"net":                  "the world of plans is made of tables",
		"os":                   "the world of plans is made of tables",
		"time":                 "the world's time is a number: that is why a seed replays it",
		"sync":                 "a run is one goroutine: that is why a seed replays it",
		"ringnbd/engine/uring": "plans are driven through the seam alone",
		"ringnbd/engine/sim":   "plans are driven through the seam alone",
		"ringnbd/engine/layer/overlay": "the tests of a plan bring it along, so that one world " +
			"is there for all",
	},
	"engine/layer/overlay": { // sync/atomic is needed: lookups of BLOCK_STATUS read the map
		"net":                    "a plan has no socket: that is why a seed replays it",
		"os":                     "a plan has no descriptor: that is why a seed replays it",
		"io":                     "the opener reads a top, and the loop its devices",
		"time":                   "a plan has no clock: that is why a seed replays it",
		"fmt":                    "formatting allocates",
		"math/rand":              "what a plan does follows from what it was asked",
		"golang.org":             "a plan makes no system calls",
		"ringnbd/engine/backing": "a plan does not know how its devices are opened",
		"ringnbd/engine/uring":   "a plan does not know which kernel it runs on",
		"ringnbd/engine/sim":     "a plan does not know which kernel it runs on",
		"ringnbd/engine/gate":    "a plan does not know its clients",
	},
	"engine/tree": {
		"os":      "reading the text of a tree opens nothing",
		"net":     "reading the text of a tree opens nothing",
		"ringnbd": "trees are text: what reads configurations needs them without the engine",
	},
	"engine/uring": {
		"ringnbd": "the wall around the kernel knows nothing of blocks",
		"net":     "sockets come in as descriptors",
		"log":     "the data path does not log",
	},
	"engine/sim": {
		"unsafe":     "the simulated kernel finds memory through arenas, with bounds checks",
		"net":        "simulated sockets are tables",
		"github.com": "nothing of giouring is needed to read a submission",
	},
	"engine/gate": {"unsafe": "only engine/uring",
		"ringnbd/engine/uring": "the gate speaks to the engine, not to the ring"},
	"engine/client": {
		"unsafe":                 "only engine/uring",
		"os":                     "a client of servers opens sockets, not files",
		"github.com":             "the protocol and sockets are all it needs",
		"ringnbd/engine/gate":    "a client knows nothing of how a server is made",
		"ringnbd/engine/backing": "a client knows nothing of how a server is made",
		"ringnbd/engine/uring":   "ordinary sockets do; loops of their own are for bench/load",
	},
	"engine/partition": {
		"os":      "tables are read from what is handed in, by the fuzzer as well",
		"net":     "tables are read from what is handed in",
		"time":    "a table says the same whenever it is read",
		"ringnbd": "partition tables have nothing to do with NBD",
	},
	"engine/progress": {
		"os":      "the caller knows what is a terminal, and how wide it is",
		"ringnbd": "progress stands at the bottom, so that every program can show how far it is",
	},
	"engine/testbed": {
		"os/exec": "programs are built and started by the tests of commands: cmd/ringnbd/testbed",
	},
	"engine/units": {
		"os":      "words and numbers, nothing else",
		"ringnbd": "units stands at the bottom, so that everything above can print alike",
	},
	"engine/backing": {"unsafe": "only engine/uring",
		"net": "what stands behind an export here is local"},
	"cmd/ringnbd": {"unsafe": "only engine/uring",
		"github.com/pawelgaczynski/giouring": "only engine/uring"},
	"cmd/ringnbd/transfer": {"unsafe": "only engine/uring",
		"ringnbd/engine/uring": "a copy waits for disks and lines, not for system calls",
		"net":                  "engine/client has the sockets"},
	"cmd/ringnbd/control": {"unsafe": "only engine/uring",
		"ringnbd/engine/gate":    "control asks a Running, and does not know how a server is made",
		"ringnbd/engine/backing": "control asks a Running, and does not know how a server is made"},
	"cmd/ringnbd/describe": {"unsafe": "only engine/uring", "net": "engine/client has the sockets"},
	"cmd/ringnbd/config": {
		"unsafe":               "only engine/uring",
		"os/exec":              "reading a configuration runs nothing",
		"ringnbd/engine/uring": "reading a configuration needs no ring",
	},
	"bench/load": {"unsafe": "only engine/uring",
		"github.com/pawelgaczynski/giouring": "only engine/uring"},
	"bench/measure": {
		"unsafe":                "only engine/uring",
		"ringnbd/bench/judge":   "measuring knows nothing of what figures mean",
		"ringnbd/bench/profile": "measuring knows nothing of what figures mean",
		"ringnbd/bench/show":    "measuring knows nothing of what figures mean",
	},
	"bench/judge": {
		"ringnbd/bench/profile": "a verdict needs figures only",
		"ringnbd/bench/show":    "a verdict does not know how it is shown",
		"ringnbd/bench/load":    "a verdict needs a report, no server and no load",
		"os":                    "measure has the files",
	},
	"bench/profile": {
		"ringnbd/bench/judge": "a profile has no verdict",
		"ringnbd/bench/show":  "a profile does not know how it is shown",
	},
	"bench/show": {
		"ringnbd/bench/load": "what is shown comes out of a report",
		"os/exec":            "showing runs nothing",
		"net":                "showing runs nothing",
	},
}

func TestTree(t *testing.T) {
	set := token.NewFileSet()
	files := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() &&
			(d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return filepath.SkipDir
		}
		if d.IsDir() {
			checkMap(t, path)
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		files++
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		checkText(t, path, source)
		file, err := parser.ParseFile(set, path, source, parser.ParseComments)
		if err != nil {
			return err
		}
		checkLength(t, set, path, file)
		checkWidth(t, set, path, source, file)
		checkHeader(t, path, file)
		checkDocForm(t, set, path, file)
		checkWords(t, set, path, file)
		checkImports(t, path, file)
		checkFlags(t, set, path, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("only %d Go files were found: the test looks in the wrong place", files)
	}
}

// checkText checks the format and the length of a file, and looks for marks of unfinished work.
func checkText(t *testing.T, path string, source []byte) {
	t.Helper()
	if formatted, err := format.Source(source); err != nil || !bytes.Equal(formatted, source) {
		t.Errorf("%s: not as gofmt writes it", path)
	}
	if n := bytes.Count(source, []byte("\n")); n > maxFile {
		t.Errorf("%s: %d lines: more than one chapter", path, n)
	}
	for _, mark := range []string{"TO" + "DO", "FIX" + "ME", "not imple" + "mented"} {
		if bytes.Contains(source, []byte(mark)) {
			t.Errorf("%s: says %s", path, mark)
		}
	}
}

// checkLength checks that functions fit on a screen.
func checkLength(t *testing.T, set *token.FileSet, path string, file *ast.File) {
	t.Helper()
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		if n := set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1; n > maxFunction {
			t.Errorf("%s: %s has %d lines: more than a screen", path, f.Name.Name, n)
		}
	}
}

// checkImports checks the imports of a file against the rules of its folder.
func checkImports(t *testing.T, path string, file *ast.File) {
	t.Helper()
	if strings.HasSuffix(path, "_test.go") {
		return
	}
	folder, err := filepath.Rel("..", filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		testbed := strings.HasPrefix(name, "ringnbd/") &&
			(strings.HasSuffix(name, "/testbed") || strings.HasSuffix(name, "/layer/trial"))
		if testbed || name == "testing" && filepath.Base(folder) != "testbed" {
			t.Errorf("%s imports %s: that is for tests", path, name)
		}
		if name == "ringnbd/engine/units" && filepath.ToSlash(folder) == "engine/uring" {
			continue // sizes in its errors are printed as everywhere
		}
		for bad, why := range forbidden[filepath.ToSlash(folder)] {
			if name == bad || strings.HasPrefix(name, strings.TrimSuffix(bad, "/")+"/") {
				t.Errorf("%s imports %s: %s", path, name, why)
			}
		}
	}
}
