// House rules for text: the width of lines, the header of a file, the form of doc comments, words
// that comments avoid, and the map of a package in its doc.go.

package engine_test

import (
	"go/ast"
	"go/build/constraint"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	maxColumns = 100 // of a line; a tab reaches the next multiple of tabColumns
	tabColumns = 4
)

// columns is the width of a line.
func columns(line string) int {
	if !strings.Contains(line, "\t") {
		return utf8.RuneCountInString(line)
	}
	n := 0
	for _, r := range line {
		n++
		if r == '\t' {
			n += tabColumns - 1 - (n-1)%tabColumns
		}
	}
	return n
}

// checkWidth checks the width of lines. Raw strings of tests are exempt: they quote output.
func checkWidth(t *testing.T, set *token.FileSet, path string, source []byte, file *ast.File) {
	t.Helper()
	quoted := map[int]bool{} // lines of which the end is in a raw string
	if strings.HasSuffix(path, "_test.go") {
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.BasicLit); ok && s.Kind == token.STRING && s.Value[0] == '`' {
				for line := set.Position(s.Pos()).Line; line < set.Position(s.End()).Line; line++ {
					quoted[line] = true
				}
				end := set.Position(s.End())
				quoted[end.Line] = end.Column > maxColumns-3*tabColumns
			}
			return true
		})
	}
	number := 0
	for line := range strings.Lines(string(source)) {
		number++
		if n := columns(strings.TrimSuffix(line, "\n")); n > maxColumns && !quoted[number] {
			t.Errorf("%s:%d: %d columns", path, number, n)
		}
	}
}

// TestTreeBuildFiles checks the width of what builds and tests the tree.
func TestTreeBuildFiles(t *testing.T) {
	for _, path := range []string{"../Makefile", "../.ci/run", "../.ci/minimal"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			if n := columns(strings.TrimSuffix(line, "\n")); n > maxColumns {
				t.Errorf("%s:%d: %d columns", path, number, n)
			}
		}
	}
}

// checkHeader checks that a file opens, above its package clause, with a comment of whole
// sentences, and that an invariant has a paragraph of its own.
func checkHeader(t *testing.T, path string, file *ast.File) {
	t.Helper()
	var header *ast.CommentGroup
	for _, c := range file.Comments {
		if c.Pos() < file.Package && !constraint.IsGoBuild(c.List[0].Text) {
			header = c
			break
		}
	}
	if header == nil {
		t.Errorf("%s: no header above the package clause", path)
		return
	}
	first, _, _ := strings.Cut(strings.TrimSpace(header.Text()), "\n\n")
	if !regexp.MustCompile(`[.:]\)?$`).MatchString(first) {
		t.Errorf("%s: the first paragraph of the header is not a sentence: %q", path, first)
	}
	if i := strings.Index(first, "Invariant"); i > 0 {
		t.Errorf("%s: the invariant has no paragraph of its own", path)
	}
}

// avoided are words that comments outside of tests avoid, and the words to write instead. "There is
// no file" and "is no longer" are not meant.
var avoided = []struct {
	words   *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(\w+) (is|are|was|were) no (\w+)`), "is not a"},
	{regexp.MustCompile(`\bto be had\b`), "available"},
	{regexp.MustCompile(`\b(?i:nobody|somebody)\b`), "who is meant: the client, the caller, ..."},
}

// allowed matches those of the first avoided words that are meant literally.
var allowed = regexp.MustCompile(`^([Tt]here .*|.* no (more|less|worse|\w+er))$`)

// checkWords checks the words of comments outside of tests.
func checkWords(t *testing.T, set *token.FileSet, path string, file *ast.File) {
	t.Helper()
	if strings.HasSuffix(path, "_test.go") {
		return
	}
	for _, group := range file.Comments {
		text := strings.ReplaceAll(group.Text(), "\n", " ")
		for _, a := range avoided {
			for _, found := range a.words.FindAllString(text, -1) {
				if !allowed.MatchString(found) {
					t.Errorf("%s: a comment has %q: write %q", set.Position(group.Pos()), found,
						a.instead)
				}
			}
		}
	}
}

// checkDocForm checks that a doc comment outside of tests is a sentence that begins with the name.
func checkDocForm(t *testing.T, set *token.FileSet, path string, file *ast.File) {
	t.Helper()
	if strings.HasSuffix(path, "_test.go") {
		return
	}
	check := func(doc *ast.CommentGroup, names ...*ast.Ident) {
		for _, name := range names {
			if doc != nil && strings.HasPrefix(doc.Text(), name.Name+": ") {
				t.Errorf("%s: the comment of %s is not a sentence that begins with it",
					set.Position(doc.Pos()), name.Name)
			}
		}
	}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			check(d.Doc, d.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					check(s.Doc, s.Name)
					check(d.Doc, s.Name)
				case *ast.ValueSpec:
					check(s.Doc, s.Names...)
					check(d.Doc, s.Names...)
				}
			}
		}
	}
}

// checkMap checks that a package with several files names each of them: in its doc.go, or, where it
// is small, in main.go or in the file that has the package's name.
func checkMap(t *testing.T, folder string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		return strings.HasSuffix(f, "_test.go")
	})
	if len(files) < 2 {
		return
	}
	place, text := "", []byte(nil)
	for _, place = range []string{"doc.go", "main.go", filepath.Base(folder) + ".go"} {
		if text, err = os.ReadFile(filepath.Join(folder, place)); err == nil {
			break
		}
	}
	for _, f := range files {
		name := filepath.Base(f)
		named := regexp.MustCompile(`(^|[^\w/])` + regexp.QuoteMeta(name) + `\b`)
		if name != place && !named.Match(text) {
			t.Errorf("%s: doc.go does not name %s", folder, name)
		}
	}
}
