// What a command line says, and the file that is made of it, are the same.

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"ringnbd/cmd/ringnbd/config"
)

// serveLines are the command lines of serve in the texts of this project: scripts, help, pages, and
// the tests that start servers.
func serveLines(t *testing.T) (list [][]string) {
	t.Helper()
	for _, pattern := range []string{"testdata/script/*.txtar", "help/*.txt", "*.md", "../../*.md",
		"../../bench/*.md", "*/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			whole := strings.ReplaceAll(string(text), "\\\n", " ")
			for line := range strings.Lines(whole) {
				line = strings.TrimSuffix(line, "\n")
				if _, rest, found := strings.Cut(line, "ringnbd serve "); found {
					list = append(list, shellWords(rest))
				}
			}
		}
	}
	for _, folder := range []string{"live", "kernel", "."} {
		files, err := filepath.Glob(folder + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			list = append(list, linesOfTest(t, file)...)
		}
	}
	return list
}

// shellWords splits a command line as a shell does, up to what is not a word of the command.
func shellWords(text string) (words []string) {
	var word strings.Builder
	started, quote := false, rune(0)
	end := func() {
		if started {
			words = append(words, word.String())
		}
		word.Reset()
		started = false
	}
	for _, r := range text {
		switch {
		case quote == 0 && strings.ContainsRune("><|&;#`)", r), quote == 0 && r == ']' && !started:
			end()
			return words
		case quote == 0 && (r == '\'' || r == '"'):
			quote, started = r, true
		case r == quote && quote != 0:
			quote = 0
		case quote == 0 && r == ' ':
			end()
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if quote == 0 || word.Len() > 0 {
		end()
	}
	return words
}

// linesOfTest are the command lines in a test: calls of the functions that start servers, with
// their words where these are written out, and an image in the place of every other word.
func linesOfTest(t *testing.T, path string) (list [][]string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		name, ok := call.Fun.(*ast.Ident)
		if !ok || !slices.Contains([]string{"serve", "serveRingnbd", "startRingnbd"}, name.Name) {
			return true
		}
		var words []string
		for i, arg := range call.Args[min(1, len(call.Args)):] {
			_, written := arg.(*ast.BasicLit)
			if i == 0 && !written && name.Name != "startRingnbd" {
				continue // the transport
			}
			words = append(words, wordOf(arg, "disk"+strconv.Itoa(i)+".img"))
		}
		list = append(list, words)
		return true
	})
	return list
}

// wordOf is the word that an expression stands for; what is not written out is an image.
func wordOf(e ast.Expr, image string) string {
	switch x := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(x.Value); err == nil && x.Kind == token.STRING {
			return text
		}
	case *ast.BinaryExpr:
		return wordOf(x.X, image) + wordOf(x.Y, image)
	}
	return image
}

// placeholders are parts of a text that tests replace.
var placeholders = strings.NewReplacer("$PORT", "12345", "{port}", "12345", "{socket}", "s",
	"{img}", "disk.img", "PORT", "12345", "$dir", "/tmp")

// refusedByFile are mistakes of lines which serve refuses as well, but only when it listens, opens
// the stores or takes memory.
var refusedByFile = regexp.MustCompile(`is not a port|exported twice|is used by export|` +
	`is listened on already|not an address|is too small`)

func TestConvertSaysTheSame(t *testing.T) {
	lines := serveLines(t)
	t.Chdir(t.TempDir())
	same, refused := 0, 0
	for _, words := range lines {
		for i := range words {
			words[i] = placeholders.Replace(words[i])
		}
		file, want, specs, err := configOf(words)
		if err != nil {
			continue // a mistake that serve refuses is not converted
		}
		text, err := file.Text()
		if err != nil {
			t.Errorf("%q: %v", words, err)
			continue
		}
		if err := os.WriteFile("ringnbd.toml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		again, mistakes := config.Load("ringnbd.toml")
		if len(mistakes) > 0 {
			if refused++; !refusedByFile.MatchString(mistakes[0].Text) {
				t.Errorf("%q: %v\n%s", words, mistakes, text)
			}
			continue
		}
		got := new(options)
		got.register(pflag.NewFlagSet("serve", pflag.ContinueOnError))
		gotSpecs, err := got.configure(again)
		if err != nil {
			t.Errorf("%q: %v", words, err)
			continue
		}
		same++
		for i := range specs {
			specs[i].SetPath(wholeStore(specs[i].Text()))
		}
		if !reflect.DeepEqual(specs, gotSpecs) {
			t.Errorf("%q: %+v, want %+v\n%s", words, gotSpecs, specs, text)
		}
		if a, b := comparable(*got), comparable(*want); !reflect.DeepEqual(a, b) {
			t.Errorf("%q: %+v, want %+v\n%s", words, a, b, text)
		}
	}
	t.Logf("%d command lines, %d say the same as their files, %d are refused as files", len(lines),
		same, refused)
	if same < 150 || refused > 20 {
		t.Errorf("of %d command lines %d say the same, and %d are refused", len(lines), same,
			refused)
	}
}

// comparable leaves out of options what has been put into specs, and makes paths whole.
func comparable(o options) options {
	o.exports, o.create, o.readOnly, o.partitions, o.force, o.raw, o.direct = nil, 0, false, false,
		false, false, 0
	o.config, o.file, o.flagged, o.manner = "", nil, nil, nil
	o.homed = false // a server with a file has room for overlays that a reload adds
	if o.logFormat == "" {
		o.logFormat = "text"
	}
	o.listen = slices.Clone(o.listen)
	for i := range o.listen {
		o.listen[i] = wholeAddress(o.listen[i])
	}
	o.oldstyle = slices.Clone(o.oldstyle)
	for i := range o.oldstyle {
		o.oldstyle[i].address = wholeAddress(o.oldstyle[i].address)
	}
	o.debug = debugFlag(wholeAddress(string(o.debug)))
	o.control = controlFlag(wholeAddress(string(o.control)))
	if len(o.listen) == 0 {
		o.listen = nil
	}
	if len(o.viewers) == 0 {
		o.viewers = nil
	}
	return o
}

// TestEveryFlagHasAKey checks that a file can say whatever a flag of serve says.
func TestEveryFlagHasAKey(t *testing.T) {
	all := config.Keys()
	serve := newServe()
	serve.Flags().VisitAll(func(f *pflag.Flag) {
		key, found := flagKeys[f.Name]
		if slices.Contains(besideConfig, f.Name) && f.Name != "verbose" {
			if found {
				t.Errorf("--%s stands beside a file, and has the key %s", f.Name, key)
			}
			return
		}
		plain := strings.Replace(key, "export.NAME", "export", 1)
		if !found || !slices.Contains(all, plain) && !slices.Contains(all, "export."+plain) {
			t.Errorf("--%s has no key in a file: %q", f.Name, key)
		}
	})
	for name := range flagKeys {
		if serve.Flags().Lookup(name) == nil {
			t.Errorf("there is no flag --%s", name)
		}
	}
}

// TestEveryFlagIsConverted checks each flag by itself: with it, the file says something else.
func TestEveryFlagIsConverted(t *testing.T) {
	values := map[string]string{"export": "a=b.img", "create": "1M", "format": "raw",
		"listen": "localhost:1", "port": "2", "oldstyle": "localhost:3", "max-connections": "7",
		"memory": "100M", "handshake-timeout": "3", "shutdown-timeout": "4", "loops": "3",
		"direct": "off", "register": "off", "poll": "auto", "log-format": "json",
		"debug": "localhost:0", "control": "unix:c"}
	plain, err := convertLine([]string{"disk.img"})
	if err != nil {
		t.Fatal(err)
	}
	newServe().Flags().VisitAll(func(f *pflag.Flag) {
		if flagKeys[f.Name] == "" {
			return
		}
		word := "--" + f.Name
		if value := values[f.Name]; value != "" {
			word += "=" + value
		} else if f.Value.Type() != "bool" {
			t.Errorf("the test has no value for --%s", f.Name)
		}
		text, err := convertLine([]string{word, "disk.img"})
		if err != nil || text == plain {
			t.Errorf("%s: %v\n%s", word, err, text)
		}
	})
}

func TestConvertRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"":                    "nothing to serve",
		"--config x.toml":     "names a configuration already",
		"--lops 3 disk.img":   "did you mean --loops?",
		"--export a=b\xff":    "not UTF-8",
		"serve ringnbd serve": "",
	} {
		_, err := convertLine(strings.Fields(line))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}

// TestAdviceForFilesNamesKeys checks that advice about a configuration names no flag.
func TestAdviceForFilesNamesKeys(t *testing.T) {
	for _, c := range belowErrors {
		text := adviser(configAdvice).about(c.err).Error()
		flag := regexp.MustCompile(`--[a-z]+`).FindString(
			strings.ReplaceAll(text, "ringnbd info --list", ""))
		if flag != "" || c.serve != "" && !strings.Contains(text, "; ") {
			t.Errorf("%s names %q", text, flag)
		}
	}
}
