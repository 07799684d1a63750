// Reading a file, and all files that it includes.
//
// Invariant: each file is read once, in the order of the list of patterns, and for a pattern in the
// order of names.

package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// maxLength bounds all files of a configuration together, in bytes: some 20,000 exports, more than
// a server has room for. What is read takes up to sixty times as much memory for a while.
const maxLength = 4 << 20

// Load reads a file with all that it includes, and returns every mistake. The configuration has
// what could be read; with mistakes it is not for use.
func Load(path string) (*Config, []Mistake) {
	l := loader{config: &Config{Path: path}, seen: map[string]bool{},
		root: &node{kind: kindTable, from: headed, at: Pos{path, 1, 1}}}
	setDefaults(l.config)
	l.file(path, Pos{}, nil)
	b := binder{bad: map[Pos]bool{}}
	b.table(l.root, reflect.ValueOf(l.config).Elem(), "", "")
	l.config.Include, l.config.bad = l.include, b.bad
	if len(l.mistakes) > 0 {
		b.bad[Pos{path, 1, 1}] = true
	}
	l.mistakes = append(l.mistakes, b.mistakes...)
	l.config.settle()
	l.mistakes = append(l.mistakes, l.config.check()...)
	SortMistakes(l.mistakes, l.config.Files)
	return l.config, l.mistakes
}

type loader struct {
	config   *Config
	seen     map[string]bool // real paths of the files that were read
	length   int             // of them together, in bytes
	root     *node
	include  Value[Strings] // of the first file
	mistakes []Mistake
}

func (l *loader) wrong(at Pos, field, text string) {
	l.mistakes = append(l.mistakes, Mistake{at, field, text})
}

// file reads a file. at is the pattern that includes it, and above are the files that include each
// other down to it.
func (l *loader) file(path string, at Pos, above []string) {
	whole := realPath(path)
	if slices.Contains(above, whole) {
		l.wrong(at, "include", fmt.Sprintf("%s includes itself, through %s; remove it from one of "+
			"the lists", path, filepath.Base(above[len(above)-1])))
		return
	}
	if l.seen[whole] {
		return // two patterns match it, or two names lead to it
	}
	l.seen[whole] = true
	text, err := readFile(path, len(above) > 0, maxLength-l.length)
	l.length += len(text)
	if err != nil {
		if !at.IsSet() {
			at = Pos{File: path}
			l.config.Files = append(l.config.Files, path)
		}
		l.wrong(at, "include", err.Error())
		return
	}
	l.config.Files = append(l.config.Files, path)
	tree, wrong := parse(path, text)
	l.mistakes = append(l.mistakes, wrong...)
	l.mistakes = append(l.mistakes, merge(l.root, tree, "")...)
	l.includes(tree.named["include"], path, append(slices.Clone(above), whole))
}

// realPath is the path of a file without links, by which it is known wherever a link leads: links
// to folders above would otherwise make ever longer names of the same files.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	return path
}

// readFile reads a file. One that is included is a regular file; the first may be a pipe.
func readFile(path string, regular bool, most int) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w; check the path, and who may read it", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && regular && !info.Mode().IsRegular() ||
		err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is not a file; include the files in a directory as DIR/*.toml",
			path)
	}
	text, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > most:
		return nil, fmt.Errorf("%s: this is too long: all files of a configuration have %d MiB at "+
			"most", path, maxLength>>20)
	}
	return text, nil
}

// includes reads the files that a file includes.
func (l *loader) includes(n *node, path string, above []string) {
	if n == nil {
		return
	}
	v := Value[Strings]{At: n.at}
	if err := v.V.read(n, nil); err != nil {
		at := n.at
		if part, ok := err.(placed); ok {
			at = part.at
		}
		l.wrong(at, "include", "include: "+err.Error())
		return
	}
	if len(above) == 1 {
		l.include = v
	}
	for _, pattern := range v.V {
		full := pattern.V
		if !filepath.IsAbs(full) {
			full = filepath.Join(filepath.Dir(path), full)
		}
		found, err := filepath.Glob(full)
		switch {
		case err != nil || pattern.V == "":
			l.wrong(pattern.At, "include", fmt.Sprintf("%q is not a pattern of paths; close its "+
				"brackets", pattern.V))
		case len(found) == 0 && strings.ContainsAny(full, `*?[`):
			l.config.Notes = append(l.config.Notes, Mistake{pattern.At, "include",
				fmt.Sprintf("no file matches %q", pattern.V)})
		case len(found) == 0:
			found = []string{full}
		}
		for _, file := range found {
			if !strings.HasPrefix(filepath.Base(file), ".") || file == full {
				l.file(file, pattern.At, above)
			}
		}
	}
}
