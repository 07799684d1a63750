// House rule for errors and messages: what lies below the commands names no flag of theirs. The
// command that runs adds what its user can do about an error, in its own words.

package engine_test

import (
	"go/ast"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// flagless has the folders, with all folders below them, whose strings name no flag.
var flagless = []string{"engine", "proto", "bench/load"}

// foreignFlags are flags of other programs, which are named as the whole of an advice.
var foreignFlags = map[string]string{
	"--security-opt": "docker's",
	"--pids-limit":   "docker's",
	"--write_iolog":  "fio's",
}

var flagInText = regexp.MustCompile(`--[a-z][a-z_-]*`)

// checkFlags checks that the strings of a file outside of tests name no flag.
func checkFlags(t *testing.T, set *token.FileSet, path string, file *ast.File) {
	t.Helper()
	folder := strings.TrimPrefix(filepath.ToSlash(path), "../")
	if strings.HasSuffix(path, "_test.go") || !slices.ContainsFunc(flagless,
		func(f string) bool { return strings.HasPrefix(folder, f+"/") }) {
		return
	}
	ast.Inspect(file, func(n ast.Node) bool {
		text, ok := n.(*ast.BasicLit)
		if !ok || text.Kind != token.STRING {
			return true
		}
		for _, flag := range flagInText.FindAllString(text.Value, -1) {
			if foreignFlags[flag] == "" {
				t.Errorf("%v: names the flag %s: only a command knows its flags",
					set.Position(text.Pos()), flag)
			}
		}
		return true
	})
}
