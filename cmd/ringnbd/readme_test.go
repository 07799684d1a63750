// The front page followed to the letter: each of its commands is run, in order, in a directory of
// its own; and the links and flags of all READMEs.
//
// Invariant: a command of the front page is run unless it stands in notFollowed, with the reason.

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

const (
	top            = "../.."
	maxFrontPage   = 9 << 10 // bytes
	maxFirstServe  = 30      // lines above the first `ringnbd serve`
	maxReadmeWidth = 100
)

// notFollowed are the commands of the front page that are not run, and why.
var notFollowed = map[string]string{
	"make test": "these are the tests",
	"sudo install -m 755 bin/ringnbd /usr/local/bin/": "needs root, and changes the machine",
	"sudo nbd-client localhost /dev/nbd0":             "needs root and the kernel's nbd module",
}

// commands returns the commands in the code blocks of a page: blocks without a language, without
// comments, and with lines that end in a backslash joined.
func commands(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	fence, joined := "", ""
	for line := range strings.SplitSeq(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "```") && fence == "":
			fence = line
			continue
		case strings.HasPrefix(line, "```"):
			fence = ""
			continue
		case fence != "```":
			continue
		}
		line, _, _ = strings.Cut(line, " # ")
		joined += strings.TrimSpace(line)
		if start, ok := strings.CutSuffix(joined, `\`); ok {
			joined = start
			continue
		}
		if joined != "" {
			all = append(all, joined)
		}
		joined = ""
	}
	return all
}

// follower is a person who follows the front page.
type follower struct {
	dir    string // where the person is
	root   string // the checkout
	port   string
	first  string // the first `ringnbd serve`, which the clients mean
	server *background
}

// local turns a command into what works here: a free port, and files instead of devices.
func (r *follower) local(command string) string {
	command = strings.NewReplacer("nbd://localhost", "nbd://localhost:"+r.port,
		"0.0.0.0:10809", "localhost:"+r.port, "/dev/vg0/data", "data.img", "10G", "64M",
		"go build ", "go build -o "+r.dir+"/without-make ").Replace(command)
	if rest, ok := strings.CutPrefix(command, "ringnbd serve "); ok &&
		!strings.Contains(command, "--listen") && !strings.Contains(command, "--config") {
		command = "ringnbd serve --listen localhost:" + r.port + " " + rest
	}
	return command
}

func TestFrontPageIsFollowed(t *testing.T) {
	root, err := filepath.Abs(top)
	if err != nil {
		t.Fatal(err)
	}
	r := &follower{dir: t.TempDir(), root: root, port: freePort(t)}
	for _, name := range []string{"boot.img", "data.img"} {
		if err := os.WriteFile(filepath.Join(r.dir, name), make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := fmt.Sprintf("[[listen]]\naddress = \"localhost:%s\"\n[export.\"\"]\n"+
		"path = \"boot.img\"\n", r.port)
	if err := os.WriteFile(filepath.Join(r.dir, "ringnbd.toml"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	page := commands(t, filepath.Join(root, "README.md"))
	if len(page) < 10 {
		t.Fatalf("only %d commands on the front page", len(page))
	}
	missing := map[string]bool{}
	for command := range notFollowed {
		missing[command] = true
	}
	for _, command := range page {
		delete(missing, command)
		t.Run(command, func(t *testing.T) { r.follow(t, command) })
	}
	r.stop(t)
	for command := range missing {
		t.Errorf("the front page does not have %q, which is not followed", command)
	}
}

// follow runs one command.
func (r *follower) follow(t *testing.T, command string) {
	if why := notFollowed[command]; why != "" {
		t.Skip(why)
	}
	program, _, _ := strings.Cut(command, " ")
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(program + " is not installed")
	}
	switch {
	case command == "make run":
		r.stop(t)
		if _, err := os.Stat(filepath.Join(r.root, "bin/ringnbd")); err != nil {
			t.Skip("nothing is built in bin")
		}
		// Without building: other tests use the program.
		run := "make -s -o build run ARGS='--listen unix:" + r.dir + "/demo'"
		r.start(t, r.root, run, "is served at")
		r.stop(t)
		if _, err := os.Lstat(filepath.Join(r.dir, "demo")); err == nil {
			t.Error("the server left its socket")
		}
	case command == "make build":
		r.run(t, r.root, "make -n build")
	case program == "make" || program == "go":
		r.run(t, r.root, r.local(command))
	case strings.HasPrefix(command, "ringnbd serve "):
		r.stop(t)
		r.start(t, r.dir, r.local(command), "ready nbd")
		if r.first == "" {
			r.first = command
		} else {
			r.stop(t)
		}
	case strings.Contains(command, "nbd://localhost") && r.server == nil:
		r.start(t, r.dir, r.local(r.first), "ready nbd")
		r.run(t, r.dir, r.local(command))
	default:
		if strings.Contains(command, "disk.img") {
			r.stop(t)
		}
		r.run(t, r.dir, r.local(command))
	}
}

// environment is that of a person who has set nothing for Go or make.
func (r *follower) environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "GOFLAGS" || strings.HasPrefix(name, "MAKE")
	})
}

// run runs a command to its end, which must be a success.
func (r *follower) run(t *testing.T, dir, command string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-c", command)
	c.Dir, c.Env = dir, r.environment()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// background is a command that runs until it is told to end.
type background struct {
	command *exec.Cmd
	text    string
	output  chan string // what it printed, when it has ended
}

// start runs a command in the background and waits until it prints a line that has a text.
func (r *follower) start(t *testing.T, dir, command, text string) {
	t.Helper()
	c := exec.Command("bash", "-c", "exec "+command)
	c.Dir, c.Env, c.SysProcAttr = dir, r.environment(), &syscall.SysProcAttr{Setpgid: true}
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	end := time.AfterFunc(patience, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
	lines := bufio.NewReader(out)
	all := ""
	for {
		line, err := lines.ReadString('\n')
		all += line
		if strings.Contains(line, text) {
			break
		}
		if err != nil {
			_ = c.Wait()
			t.Fatalf("%s printed no line with %q:\n%s%s", command, text, all, errs.String())
		}
	}
	end.Stop()
	r.server = &background{command: c, text: command, output: make(chan string, 1)}
	go func(s *background) {
		rest, _ := lines.ReadString(0)
		s.output <- rest
	}(r.server)
}

// stop ends the server that runs, as Ctrl-C does. It must end without an error.
func (r *follower) stop(t *testing.T) {
	t.Helper()
	if r.server == nil {
		return
	}
	s := r.server
	r.server = nil
	_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGINT)
	end := time.AfterFunc(patience, func() {
		_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL)
	})
	defer end.Stop()
	rest := <-s.output
	// make says of itself that it was interrupted, after the server has ended.
	if err := s.command.Wait(); err != nil &&
		!(strings.HasPrefix(s.text, "make ") && err.Error() == "signal: interrupt") {
		t.Errorf("%s: %v\n%s", s.text, err, rest)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// pages calls for every Markdown file of the checkout.
func pages(t *testing.T, each func(path, text string)) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git" || d.Name() == "bin"):
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		found++
		text, err := os.ReadFile(path)
		each(path, string(text))
		return err
	})
	if err != nil || found < 5 {
		t.Fatalf("%d pages, %v", found, err)
	}
}

// withoutTables leaves out what bench/suite writes.
func withoutTables(text string) string {
	before, rest, _ := strings.Cut(text, "<!-- bench: begin")
	_, after, _ := strings.Cut(rest, "<!-- bench: end")
	return before + after
}

func TestFrontPageIsShort(t *testing.T) {
	text := readPage(t, "README.md")
	if len(text) > maxFrontPage {
		t.Errorf("README.md has %d bytes: more than %d", len(text), maxFrontPage)
	}
	before, _, ok := strings.Cut(text, "ringnbd serve")
	if n := strings.Count(before, "\n") + 1; !ok || n > maxFirstServe {
		t.Errorf("the first `ringnbd serve` is in line %d", n)
	}
}

// TestPagesHaveTheTotalsOfTheTable compares what the front page and conform's say of the four
// servers with the table.
func TestPagesHaveTheTotalsOfTheTable(t *testing.T) {
	table := readPage(t, "cmd/ringnbd/conform/TABLE.md")
	front := strings.Join(strings.Fields(readPage(t, "README.md")), " ")
	conform := readPage(t, "cmd/ringnbd/conform/README.md")
	totals := regexp.MustCompile(`(?m)^- \*\*([\w-]+)\*\*.*?(\d+) checks: ` +
		`(\d+) pass, (\d+) fail, (\d+) differs, (\d+) skip`)
	found := totals.FindAllStringSubmatch(table, -1)
	if len(found) != 4 {
		t.Fatalf("%d servers in the table", len(found))
	}
	for _, m := range found {
		name, fails := m[1], m[4]
		if fails == "0" {
			name, fails = name+" fails", "none"
		}
		if !strings.Contains(front, m[2]+" checks") || !strings.Contains(front, name+" "+fails) {
			t.Errorf("the front page does not say: %s checks, %s %s", m[2], name, fails)
		}
		row := "| " + m[1] + " | " + strings.Join(m[3:], " | ") + " |"
		if !strings.Contains(conform, row) {
			t.Errorf("the page of conform has no row %s", row)
		}
	}
}

// readPage reads a page of the checkout.
func readPage(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPagesAreNarrow(t *testing.T) {
	pages(t, func(path, text string) {
		if filepath.Base(path) != "README.md" {
			return // generated tables
		}
		for line := range strings.SplitSeq(withoutTables(text), "\n") {
			if utf8.RuneCountInString(line) > maxReadmeWidth && !strings.HasPrefix(line, "|") {
				t.Errorf("%s: a line of %d columns: %s", path, utf8.RuneCountInString(line), line)
			}
		}
	})
}

func TestLinksOfPagesLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	pages(t, func(path, text string) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(file, "://") {
				continue
			}
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			b, err := os.ReadFile(target)
			if errors.Is(err, syscall.EISDIR) && anchor == "" {
				continue
			}
			if err != nil || anchor != "" && !anchors(string(b))[anchor] {
				t.Errorf("%s: the link %s leads nowhere", path, m[1])
			}
		}
	})
}

// anchors are the names that the headings of a page can be reached by, as GitHub makes them.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}\s_-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(name, " ", "-")] = true
	}
	return all
}

// TestPagesNameFlagsThatExist looks up the flags of every ringnbd command in a code block.
func TestPagesNameFlagsThatExist(t *testing.T) {
	pages(t, func(path, _ string) {
		for _, line := range commands(t, path) {
			_, line, ok := strings.Cut(line, "ringnbd ")
			words := strings.Fields(line)
			if !ok || len(words) == 0 || strings.Contains(line, "' ") && words[0] == "conform" {
				continue
			}
			c, _, err := newRoot().Find(words[:1])
			if err != nil {
				continue // ringnbd is an argument
			}
			for _, word := range words {
				name, ok := strings.CutPrefix(strings.Trim(word, "]'"), "--")
				if name, _, _ = strings.Cut(name, "="); ok && name != "" && !hasFlag(c, name) {
					t.Errorf("%s: %s has no flag --%s", path, c.CommandPath(), name)
				}
			}
		}
	})
}
