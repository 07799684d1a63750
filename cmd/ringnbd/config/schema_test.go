// The schema and the example: both have every key, and neither refuses what is right.

package config

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/pelletier/go-toml/v2"
)

// resolved is the schema as another program reads it.
func resolved(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	text, err := json.Marshal(Schema())
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// values are the values of a file, as other programs have them.
func values(t *testing.T, text string) any {
	t.Helper()
	var v map[string]any
	if err := toml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var again any
	if err := json.Unmarshal(plain, &again); err != nil {
		t.Fatal(err)
	}
	return again
}

// commentedKey is a key of the example that stands there as a comment.
var commentedKey = regexp.MustCompile(`(?m)^#([a-z.-]+ = )`)

func TestExampleIsRightAndWhole(t *testing.T) {
	example := Example()
	for _, text := range []string{example, whole(example)} {
		c, wrong := load(t, map[string]string{"main.toml": text})
		if len(wrong) > 0 {
			t.Errorf("%s\n%s", strings.Join(wrong, "\n"), text)
		}
		if len(c.Exports) != 2 || len(c.Listen) != 2 || c.Control == nil {
			t.Errorf("%d exports, %d addresses", len(c.Exports), len(c.Listen))
		}
		if err := resolved(t).Validate(values(t, text)); err != nil {
			t.Error(err)
		}
	}
	for _, key := range Keys() {
		last := key[strings.LastIndexByte(key, '.')+1:]
		if !regexp.MustCompile(`(?m)^(#?([a-z]+\.)?`+last+` = |\[+([a-z0-9]+\.)*`+last+`[\].])`).
			MatchString(example) && last != "keepalive" && key != "export.overlay.origin.overlay" {
			t.Errorf("the example lacks %s", key)
		}
		if texts[key].about == "" {
			t.Errorf("%s has no text", key)
		}
	}
	for key := range texts {
		if !slices.Contains(Keys(), key) {
			t.Errorf("there is a text for %s, and no such key", key)
		}
	}
	for line := range strings.Lines(example) {
		if n := len([]rune(line)); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// whole is the example with all keys in force that go together.
func whole(example string) string {
	text := commentedKey.ReplaceAllString(example, "$1")
	for _, instead := range []string{`oldstyle = "vm1"`, `discard = "on-disconnect"`, `dir = "/var/tmp"`} {
		text = strings.Replace(text, instead+"\n", "", 1)
	}
	return text
}

func TestSchemaHasWhatIsRead(t *testing.T) {
	r := resolved(t)
	for _, text := range []string{issueFile, "[export.x.overlay]\n" +
		"origin.overlay.origin = \"/a\"\n" +
		"origin.overlay.top = \"/b\"\ndiscard = \"on-disconnect\"\n[export.\"\"]\npath = \"/c\"\n",
		"memory = 1000000\nshutdown-timeout = 1.5\npoll = 50\n"} {
		if err := r.Validate(values(t, text)); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
	for _, text := range []string{"lops = 3", "loops = 0", "loops = \"3\"", "memory = -1",
		"memory = \"10 parsecs\"", "[log]\nlevel = \"loud\"", "[[listen]]\nmode = \"0660\"",
		"[[listen]]\naddress = \"a\"\nmode = \"0999\"", "[export.a]\n", "[export.a]\npath = 3\n",
		"[export.a]\npath = \"/a\"\noverlay.origin = \"/b\"", "poll = 10001", "include = \"x\"",
		"[control]\nadmins = [\"uid:0\"]", "shutdown-timeout = 0", "tls = true",
		"[export.a.overlay]\norigin.lower = \"/b\""} {
		if err := r.Validate(values(t, text)); err == nil {
			t.Errorf("is not refused: %s", text)
		}
		if _, wrong := load(t, map[string]string{"main.toml": text}); len(wrong) == 0 {
			t.Errorf("is not a mistake: %s", text)
		}
	}
}

// TestEffectsOfAllKeys checks that a change of any key is seen by Diff.
func TestEffectsOfAllKeys(t *testing.T) {
	var look func(typ reflect.Type, path string)
	look = func(typ reflect.Type, path string) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := f.Tag.Get("key")
			if key == "" || f.Type == reflect.TypeFor[*Overlay]() {
				continue
			}
			of := f.Type
			for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
				of = of.Elem()
			}
			if _, isValue := of.FieldByName("V"); !isValue {
				look(of, join(path, key))
				continue
			}
			_, known := effects[f.Tag.Get("when")]
			if identity := key == "include" || key == "address"; known == identity {
				t.Errorf("%s: the effect is %q", join(path, key), f.Tag.Get("when"))
			}
		}
	}
	look(reflect.TypeFor[Config](), "")
}
