// Building revisions.
//
// Invariant: a worktree made here is gone when build returns, and the cache holds finished
// binaries only, each under the name of what went into it.

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ringnbd/bench/judge"
)

// built is what there is to measure.
type built struct {
	Dir       string // temporary; holds the binaries
	Generator string
	Base, New program
}

// program is the binary of one side.
type program struct {
	Path string
	Side judge.Side
}

// buildFlags are the Makefile's, which builds without cgo and without HTTP/2. The version is the
// same for all, so that equal sources give equal binaries.
var buildFlags = []string{"-trimpath", "-buildvcs=false", "-tags=nethttpomithttp2",
	"-ldflags=-checklinkname=0 -X ringnbd/cmd/ringnbd/version.revision=compare " +
		"-X main.version=compare"} // the name before 0.9.0

// maxCached is how many binaries the cache keeps, of about ten megabytes each.
const maxCached = 20

// builder builds revisions of the repository that holds the module in root.
type builder struct {
	root  string // folder of go.mod
	cache string // folder of finished binaries; empty: none
	tmp   string // private folder
	log   io.Writer
}

// buildSides builds the working tree, which is the generator, and both sides.
func buildSides(ctx context.Context, o options, log io.Writer) (b *built, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	root := filepath.Dir(strings.TrimSpace(string(out)))
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "go.mod") {
		return nil, errors.New("run this inside the repository of ringnbd, with go in PATH")
	}
	b = new(built)
	if b.Dir, err = os.MkdirTemp("", "ringnbd-compare-"); err != nil {
		return nil, err
	}
	dir := b.Dir // b is nil after a return with an error
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	maker := builder{root: root, tmp: b.Dir, log: log}
	if cache, err := os.UserCacheDir(); err == nil {
		maker.cache = filepath.Join(cache, "ringnbd-compare")
	}
	for _, revision := range []string{o.base, o.new} {
		if revision == workingTree {
			continue
		}
		if _, err = maker.resolve(revision); err != nil {
			return nil, err // before anything is built
		}
	}
	tree, err := maker.side(ctx, workingTree, nil)
	if err != nil {
		return nil, err
	}
	b.Generator = tree.Path
	if b.Base, err = maker.side(ctx, o.base, o.baseFlags); err == nil {
		b.New, err = maker.side(ctx, o.new, o.newFlags)
	}
	return b, err
}

// side builds a revision or the working tree and describes it.
func (m builder) side(ctx context.Context, revision string, flags []string) (p program, err error) {
	defer func() {
		if err != nil && ctx.Err() != nil && !errors.Is(err, errInterrupted) {
			err = errInterrupted // whichever call noticed it first
		}
	}()
	p.Side = judge.Side{Name: revision, Flags: flags}
	if revision == workingTree {
		p.Side.Name = "working tree"
		p.Side.Commit, _ = m.resolve("HEAD") // without git, or a commit, there is nothing to name
		status, err := m.git("status", "--porcelain")
		p.Side.Dirty = err == nil && status != ""
		p.Path = filepath.Join(m.tmp, "tree")
		if _, made := os.Stat(p.Path); made != nil {
			err = m.compile(ctx, m.root, p.Path)
		}
		if err != nil {
			return p, fmt.Errorf("the working tree: %w", err)
		}
	} else {
		if p.Side.Commit, err = m.resolve(revision); err != nil {
			return p, err
		}
		if p.Path, err = m.build(ctx, p.Side.Commit); err != nil {
			return p, fmt.Errorf("revision %s: %w", revision, err)
		}
	}
	info, err := buildinfo.ReadFile(p.Path)
	if err != nil {
		return p, err
	}
	p.Side.Go = info.GoVersion
	content, err := os.ReadFile(p.Path)
	sum := sha256.Sum256(content)
	p.Side.SHA256 = hex.EncodeToString(sum[:])
	return p, err
}

// git runs git in the repository. Ctrl-C does not reach it: what it does here takes moments, and a
// worktree half made is hard to remove.
func (m builder) git(arguments ...string) (string, error) {
	// Hooks are meant for commits, not for builds.
	cmd := exec.Command("git",
		append([]string{"-C", m.root, "-c", "core.hooksPath=/dev/null"}, arguments...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", errors.New("git is not installed (Debian package git)")
	}
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", arguments[0], err, firstLines(stderr.String(), 3))
	}
	return strings.TrimSpace(string(out)), nil
}

// resolve is the commit that a revision names.
func (m builder) resolve(revision string) (string, error) {
	if _, err := m.git("rev-parse", "--git-dir"); err != nil {
		return "", err
	}
	commit, err := m.git("rev-parse", "--verify", "--quiet", "--end-of-options",
		revision+"^{commit}")
	if err != nil {
		return "",
			fmt.Errorf("there is no revision %q in this repository; git log and git tag list "+
				"what there is", revision)
	}
	return commit, nil
}

// build makes the binary of a commit, or takes it from the cache.
func (m builder) build(ctx context.Context, commit string) (path string, err error) {
	path = filepath.Join(m.tmp, commit)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cached, err := m.cacheName(commit)
	if err != nil {
		return "", err
	}
	if cached != "" && copyFile(cached, path) == nil {
		now := time.Now()
		_ = os.Chtimes(cached, now, now) // at worst it is thrown out too early
		return path, nil
	}
	fmt.Fprintf(m.log, "building %s\n", commit[:min(len(commit), 9)])
	prefix, err := m.git("rev-parse", "--show-prefix")
	if err != nil {
		return "", err
	}
	tree := filepath.Join(m.tmp, "worktree-"+commit)
	defer func() { err = errors.Join(err, m.removeWorktree(tree)) }()
	if _, err := m.git("worktree", "add", "--detach", "--quiet", tree, commit); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := m.compile(ctx, filepath.Join(tree, prefix), path); err != nil {
		return "", err
	}
	if cached != "" {
		m.keep(path, cached)
	}
	return path, nil
}

// removeWorktree takes a worktree away, with what git knows of it, whether or not it was finished.
func (m builder) removeWorktree(tree string) error {
	// Twice --force: also one that is locked because it was left half made.
	_, first := m.git("worktree", "remove", "--force", "--force", tree)
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	if _, err := m.git("worktree", "prune"); err != nil {
		return errors.Join(first, err)
	}
	return nil
}

// compile builds the server of a source tree. What the compiler writes meanwhile is in the private
// folder, so that it can be removed when it was interrupted.
func (m builder) compile(ctx context.Context, source, path string) error {
	if _, err := os.Stat(filepath.Join(source, "cmd", "ringnbd")); err != nil {
		return errors.New("has no cmd/ringnbd to build")
	}
	work, err := os.MkdirTemp(m.tmp, "go-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	cmd := exec.CommandContext(ctx, "go",
		append(append([]string{"build"}, buildFlags...), "-o", path, "./cmd/ringnbd")...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOTMPDIR="+work, "GOWORK=off", "CGO_ENABLED=0", "PWD="+source)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return fmt.Errorf("does not build:\n%s", firstLines(string(out), 8))
	}
	return nil
}

// cacheName is where the binary of a commit is kept: what else goes into it, the compiler and its
// settings, is in the name too.
func (m builder) cacheName(commit string) (string, error) {
	if m.cache == "" {
		return "", nil
	}
	cmd := exec.Command("go", "env", "GOVERSION", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT",
		"GOFLAGS")
	cmd.Dir = m.root
	settings, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	sum := sha256.Sum256(append(settings, strings.Join(buildFlags, "\n")+" without cgo"...))
	return filepath.Join(m.cache, commit+"-"+hex.EncodeToString(sum[:6])), nil
}

// keep puts a binary into the cache, and removes the binaries unused for longest. A cache that
// cannot be written costs time, nothing else.
func (m builder) keep(path, cached string) {
	if err := os.MkdirAll(m.cache, 0o755); err != nil {
		return
	}
	if copyFile(path, cached) != nil {
		return
	}
	entries, err := os.ReadDir(m.cache)
	if err != nil {
		return
	}
	age := func(e os.DirEntry) time.Duration {
		info, err := e.Info()
		if err != nil {
			return 0
		}
		return time.Since(info.ModTime())
	}
	slices.SortStableFunc(entries, func(a, b os.DirEntry) int {
		return int(age(a).Seconds() - age(b).Seconds())
	})
	for _, e := range entries[min(len(entries), maxCached):] {
		_ = os.Remove(filepath.Join(m.cache, e.Name()))
	}
}

// copyFile makes an executable copy, which appears as a whole.
func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	part, err := os.CreateTemp(filepath.Dir(to), ".part-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(part.Name())
		}
	}()
	_, err = io.Copy(part, source)
	if err = errors.Join(err, part.Chmod(0o755), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), to)
}

// firstLines are the first n lines of a program's output.
func firstLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > n {
		lines = append(lines[:n], fmt.Sprintf("(and %d more lines)", len(lines)-n))
	}
	return strings.Join(lines, "\n")
}
