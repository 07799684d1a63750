// Exports: what is refused when the configuration is read, and what clients are told.

package proto

import (
	"fmt"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	for _, row := range []struct {
		export Export
		want   string // part of the message, "" for a valid one
	}{
		{Export{}, ""},
		{Export{Name: strings.Repeat("n", MaxString)}, ""},
		{Export{Facts: Facts{Size: 1<<63 - 1}}, ""},
		{Export{Facts: Facts{Size: 65536, MinBlock: 65536}}, ""},
		{Export{Facts: Facts{MinBlock: 4096}, PreferredBlock: 1 << 20}, ""},
		{Export{Name: strings.Repeat("n", MaxString+1)}, "at most 4096 bytes"},
		{Export{Name: "a\x00b"}, "without NUL"},
		{Export{Name: "\xff"}, "UTF-8"},
		{Export{Description: "\x00"}, "description"},
		{Export{Facts: Facts{Size: 1 << 63}}, "2^63-1"},
		{Export{Facts: Facts{MinBlock: 3}}, "minimum block of 3"},
		{Export{Facts: Facts{MinBlock: 1 << 17}}, "minimum block of 131072"},
		{Export{Facts: Facts{Size: 513, MinBlock: 512}}, "not a multiple of the minimum block"},
		{Export{PreferredBlock: 256}, "preferred block of 256"},
		{Export{PreferredBlock: 5000}, "preferred block of 5000"},
		{Export{PreferredBlock: 512, Facts: Facts{MinBlock: 1024, Size: 1024}},
			"preferred block of 512"},
		{Export{Facts: Facts{MaxPayload: 1024}}, "maximum payload of 1024"},
		{Export{Facts: Facts{Flags: FlagSendDF}}, "only a negotiation"},
		{Export{Contexts: manyContexts(MaxContexts)}, ""},
		{Export{Contexts: manyContexts(MaxContexts + 1)}, "more than 32 meta contexts"},
		{Export{Contexts: []Context{{Name: "a:"}, {Name: "a:b"}}}, ""},
		{Export{Contexts: []Context{{Name: "a:b"}, {Name: "a:b", Wide: true}}},
			`meta context "a:b"`},
		{Export{Contexts: []Context{{Name: ":b"}}}, `meta context ":b"`},
		{Export{Contexts: []Context{{Name: "plain"}}}, `meta context "plain"`},
		{Export{Contexts: []Context{{Name: "a:\xff"}}}, "meta context"},
	} {
		err := row.export.Validate()
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%+v: %v", row.export.Facts, err)
		case row.want != "" &&
			(err == nil || !strings.Contains(err.Error(), row.want) ||
				strings.Contains(err.Error(), "\n")):
			t.Errorf("%+v: %v, want %q", row.export.Facts, err, row.want)
		}
	}
}

func TestNewExports(t *testing.T) {
	a, b := Export{Name: "a"}, Export{Name: "b"}
	if _, err := NewExports([]Export{a, b, a}, 0); err == nil ||
		!strings.Contains(err.Error(), `"a"`) {
		t.Errorf("two of one name: %v", err)
	}
	if _, err := NewExports([]Export{{Facts: Facts{MinBlock: 3}}}, 0); err == nil {
		t.Error("an export that is not valid was taken")
	}
	c := mustCatalog(1, a, b)
	for name, want := range map[string]int{"a": 0, "b": 1, "": 1} {
		if i, ok := c.Lookup(name); !ok || i != want {
			t.Errorf("%q: %d %v", name, i, ok)
		}
	}
	c = mustCatalog(0, a, Export{Name: ""})
	if i, ok := c.Lookup(""); !ok || i != 1 {
		t.Errorf("an export of the empty name is the default: %d %v", i, ok)
	}
	if _, ok := mustCatalog(-1, a, b).Lookup(""); ok {
		t.Error("a default export that was not chosen")
	}
}

func TestTransmissionFlagsAreHonest(t *testing.T) {
	for flags := range uint32(1 << 16) {
		e := Export{Facts: Facts{Flags: uint16(flags)}}
		for _, s := range []Session{{}, structured, mapped, extended, extMapped} {
			got := e.flags(s)
			if got&FlagSendDF != 0 != (s.Framing != Simple) || got&FlagSendResize != 0 ||
				got&FlagBlockStatusPayload != 0 != (s == extMapped) {
				t.Fatalf("%#x became %#x in %+v", flags, got, s)
			}
		}
		got := e.flags(Session{})
		if got&FlagHasFlags == 0 || got&negotiated != 0 {
			t.Fatalf("%#x became %#x", flags, got)
		}
		if got&FlagSendFastZero != 0 && got&FlagSendWriteZeroes == 0 {
			t.Fatalf("%#x became %#x: FAST_ZERO without WRITE_ZEROES", flags, got)
		}
	}
}

func TestBlockSizesAreLegal(t *testing.T) {
	for _, least := range []uint32{0, 1, 512, 4096, 8192, 65536} {
		e := Export{Facts: Facts{MinBlock: least}}
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
		low, preferred, payload := e.blockSizes()
		if low == 0 || preferred < max(low, 512) || payload != DefaultMaxPayload {
			t.Errorf("%d: %d %d %d", least, low, preferred, payload)
		}
	}
}

func TestClipKeepsCharactersWhole(t *testing.T) {
	for limit, want := range []string{"", "a", "a", "aß", "aß", "aß", "aß€", "aß€"} {
		if got := clip("aß€", limit); got != want {
			t.Errorf("%d: %q, want %q", limit, got, want)
		}
	}
}

func ExampleExport_Validate() {
	e := Export{Name: "disk", Facts: Facts{Size: 1000, MinBlock: 512}}
	what, advice, _ := strings.Cut(e.Validate().Error(), "; ")
	fmt.Printf("%s;\n%s\n", what, advice)
	// Output: export "disk": size of 1000 bytes is not a multiple of the minimum block of 512;
	// resize the image or choose a smaller block
}
