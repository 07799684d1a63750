// Tests of building revisions, in a repository made for each test.

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// repository is a throwaway git repository with a module in a folder of it.
type repository struct {
	builder
	t   *testing.T
	top string
	out bytes.Buffer // what the builder says
}

func newRepository(t *testing.T, folder string) *repository {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed (Debian package git)")
	}
	// The user who runs the test may have settings of their own, or be inside a hook.
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "GIT_") {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	r := &repository{t: t, top: t.TempDir()}
	r.builder = builder{root: filepath.Join(r.top, folder),
		cache: filepath.Join(t.TempDir(), "cache"), tmp: t.TempDir(), log: &r.out}
	r.run("init", "--quiet", "--initial-branch=main")
	r.write("go.mod", "module ringnbd\n\ngo 1.26\n")
	return r
}

func (r *repository) run(arguments ...string) {
	r.t.Helper()
	cmd := exec.Command("git",
		append([]string{"-C", r.top, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c",
			"commit.gpgsign=false"}, arguments...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("git %v: %v: %s", arguments, err, out)
	}
}

func (r *repository) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// commit records a main package with this body and tags it.
func (r *repository) commit(tag, body string) {
	r.t.Helper()
	r.write("cmd/ringnbd/main.go",
		"package main\n\nvar version string\n\nfunc main() { "+body+" }\n")
	r.run("add", "--all")
	r.run("commit", "--quiet", "--message", tag)
	r.run("tag", tag)
}

// says runs a binary and returns what it prints.
func (r *repository) says(path string) string {
	r.t.Helper()
	out, err := exec.Command(path).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v: %s", path, err, out)
	}
	return string(out)
}

// clean asserts that git knows of one worktree and the private folder holds binaries only.
func (r *repository) clean() {
	r.t.Helper()
	list, err := r.git("worktree", "list", "--porcelain")
	if err != nil || strings.Count(list, "worktree ") != 1 {
		r.t.Errorf("worktrees: %v: %s", err, list)
	}
	entries, err := os.ReadDir(r.tmp)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			r.t.Errorf("left behind: %s", e.Name())
		}
	}
	parts, _ := filepath.Glob(filepath.Join(r.cache, ".*"))
	if len(parts) > 0 {
		r.t.Errorf("left in the cache: %v", parts)
	}
}

func TestRevisionsAndTheTreeAreBuilt(t *testing.T) {
	for _, folder := range []string{".", "below/here"} {
		r := newRepository(t, folder)
		r.commit("first", `print("first ", version)`)
		r.commit("second", `print("second ", version)`)
		for name, want := range map[string]string{"first": "first compare",
			"HEAD": "second compare", ".": "second compare"} {
			p, err := r.side(t.Context(), name, []string{"-x"})
			if err != nil {
				t.Fatal(err)
			}
			if got := r.says(p.Path); got != want {
				t.Errorf("%s says %s", name, got)
			}
			if len(p.Side.Commit) != 40 || p.Side.Dirty || !strings.HasPrefix(p.Side.Go, "go1.") ||
				len(p.Side.SHA256) != 64 || p.Side.Flags[0] != "-x" {
				t.Errorf("%s: %+v", name, p.Side)
			}
		}
		r.clean()
		if got := r.out.String(); strings.Count(got, "building ") != 2 {
			t.Errorf("it said: %s", got)
		}
	}
}

func TestTheSameSourceGivesTheSameBinary(t *testing.T) {
	r := newRepository(t, ".")
	r.commit("first", `print(1)`)
	tree, err := r.side(t.Context(), ".", nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.side(t.Context(), "first", nil)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Side.SHA256 != first.Side.SHA256 {
		t.Error("a revision and an unchanged tree differ")
	}
	r.write("cmd/ringnbd/main.go", "package main\n\nfunc main() { print(2) }\n")
	r.tmp = t.TempDir()
	changed, err := r.side(t.Context(), ".", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !changed.Side.Dirty || changed.Side.SHA256 == tree.Side.SHA256 ||
		changed.Side.Commit != tree.Side.Commit || r.says(changed.Path) != "2" {
		t.Errorf("a changed tree: %+v", changed.Side)
	}
}

func TestASecondRunTakesTheBinaryFromTheCache(t *testing.T) {
	r := newRepository(t, ".")
	r.commit("first", `print(1)`)
	for range 2 {
		r.tmp = t.TempDir()
		p, err := r.side(t.Context(), "first", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.says(p.Path) != "1" || filepath.Dir(p.Path) != r.tmp {
			t.Errorf("%s", p.Path)
		}
		r.clean()
	}
	if got := r.out.String(); strings.Count(got, "building ") != 1 {
		t.Errorf("built more than once: %s", got)
	}
	t.Setenv("GOFLAGS", "-tags=other")
	r.tmp = t.TempDir()
	if _, err := r.side(t.Context(), "first", nil); err != nil ||
		strings.Count(r.out.String(), "building ") != 2 {
		t.Errorf("other settings of the compiler were not told apart: %v, %s", err, &r.out)
	}
}

func TestTheCacheKeepsTheNewest(t *testing.T) {
	r := newRepository(t, ".")
	r.commit("first", `print(1)`)
	if err := os.MkdirAll(r.cache, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range maxCached + 3 {
		path := filepath.Join(r.cache, string(rune('a'+i)))
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-time.Duration(i+1) * time.Hour)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.side(t.Context(), "first", nil); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(r.cache)
	var oldest bool
	for _, e := range entries {
		oldest = oldest || e.Name() == string(rune('a'+maxCached-1))
	}
	if len(entries) != maxCached || oldest {
		t.Errorf("%d are left: %v", len(entries), entries)
	}
}

func TestWhatDoesNotBuildIsShown(t *testing.T) {
	r := newRepository(t, ".")
	r.commit("good", `print(1)`)
	r.commit("broken", `undefinedThing(); another()`)
	_, err := r.side(t.Context(), "broken", nil)
	if err == nil || !strings.Contains(err.Error(), "revision broken: does not build:\n") ||
		!strings.Contains(err.Error(), "main.go:5:15: undefined: undefinedThing") {
		t.Errorf("%v", err)
	}
	if _, err := r.side(t.Context(), ".", nil); err == nil ||
		!strings.Contains(err.Error(), "the working tree: does not build:\n") {
		t.Errorf("%v", err)
	}
	r.clean()
	for revision, want := range map[string]string{"nowhere": `there is no revision "nowhere"`,
		"HEAD~9": "there is no revision", "HEAD:go.mod": "there is no revision"} {
		if _, err := r.side(t.Context(), revision, nil); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", revision, err)
		}
	}
	r.run("rm", "-r", "--quiet", "cmd")
	r.run("commit", "--quiet", "--message", "empty")
	if _, err := r.side(t.Context(), "HEAD", nil); err == nil ||
		!strings.Contains(err.Error(), "revision HEAD: has no cmd/ringnbd to build") {
		t.Errorf("%v", err)
	}
	r.clean()
	if kept, _ := os.ReadDir(r.cache); len(kept) != 0 {
		t.Errorf("kept in the cache: %v", kept)
	}
}

func TestHooksOfTheRepositoryDoNotRun(t *testing.T) {
	r := newRepository(t, ".")
	r.commit("first", `print(1)`)
	hook := filepath.Join(r.top, ".git", "hooks", "post-checkout")
	mark := filepath.Join(t.TempDir(), "mark")
	if err := os.MkdirAll(filepath.Dir(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hook, []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := r.side(t.Context(), "first", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a hook ran")
	}
}

func TestInterruptedBuildsLeaveNothing(t *testing.T) {
	r := newRepository(t, ".")
	// A constant that keeps the compiler busy for longer than the test waits.
	r.write("cmd/ringnbd/slow.go",
		"package main\n\nvar _ = [...]int{"+strings.Repeat("len(version), ", 300000)+"}\n")
	r.commit("slow", `print(1)`)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := r.side(ctx, "slow", nil); err == nil ||
		!strings.Contains(err.Error(), "interrupted") {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("took %v to stop", took)
	}
	r.clean()
}
