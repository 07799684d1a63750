// The oldstyle banner byte by byte, and how a client parses other banners.

package proto

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

func TestOldstyleBanner(t *testing.T) {
	for _, c := range []struct {
		export Export
		line   string // as far as it is not zero
	}{
		{Export{Facts: Facts{Size: 1 << 40, Flags: FlagHasFlags | FlagSendFlush | FlagSendTrim}},
			"NBDMAGIC u64:0x0000420281861253 u64:0x10000000000 u32:0x25"},
		{Export{Facts: Facts{Size: 512}}, "NBDMAGIC u64:0x0000420281861253 u64:512 u32:1"},
		{Export{Facts: Facts{Size: 512, Flags: FlagReadOnly | FlagSendFastZero}},
			"NBDMAGIC u64:0x0000420281861253 u64:512 u32:3"},
		{Export{Name: "name", Description: "text",
			Facts: Facts{Flags: negotiated, MaxPayload: 1 << 20}},
			"NBDMAGIC u64:0x0000420281861253 u64:0 u32:1"},
	} {
		want, err := parse(c.line)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, make([]byte, OldstyleBannerSize-len(want))...)
		got := bytes.Repeat([]byte{0xee}, OldstyleBannerSize+1)
		PutOldstyleBanner(got, &c.export)
		if !bytes.Equal(got[:OldstyleBannerSize], want) || got[OldstyleBannerSize] != 0xee {
			t.Errorf("%+v:\n%x, want\n%x", c.export, got, want)
		}
	}
	if len("NBDMAGIC")+8+8+4+124 != OldstyleBannerSize {
		t.Error("the banner's size is not the spec's")
	}
}

func TestOldstyleBannerThereAndBack(t *testing.T) {
	for _, e := range []Export{{Facts: Facts{Size: 1<<63 - 1,
		Flags: FlagHasFlags | FlagReadOnly | FlagRotational | FlagCanMultiConn}},
		{Facts: Facts{Flags: FlagHasFlags}}} {
		b := make([]byte, OldstyleBannerSize)
		PutOldstyleBanner(b, &e)
		var got Export
		if err := ParseOldstyleBanner(b, &got); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v %v, want %+v", got, err, e)
		}
		for n := range b {
			if err := ParseOldstyleBanner(b[:n], &got); !errors.Is(err, errOldstyleBanner) {
				t.Fatalf("%d bytes are taken for a banner: %v", n, err)
			}
		}
	}
}

func TestOldstyleBannerOfOtherServers(t *testing.T) {
	filled := func(line string, fill byte) []byte {
		b, err := parse(line)
		if err != nil {
			t.Fatal(err)
		}
		return append(b, bytes.Repeat([]byte{fill}, OldstyleBannerSize-len(b))...)
	}
	for _, b := range [][]byte{
		filled("NBDMAGIC IHAVEOPT u16:3", 0),
		filled("IHAVEOPT u64:0x0000420281861253 u64:512 u32:1", 0),
		filled("", 'x'),
	} {
		var e Export
		if err := ParseOldstyleBanner(b, &e); !errors.Is(err, errOldstyleBanner) ||
			!reflect.DeepEqual(e, Export{}) {
			t.Errorf("%q: %+v %v", b, e, err)
		}
	}
	for line, flags := range map[string]uint16{
		"NBDMAGIC u64:0x0000420281861253 u64:512 u32:0":          0, // before there were flags
		"NBDMAGIC u64:0x0000420281861253 u64:512 u32:2":          0,
		"NBDMAGIC u64:0x0000420281861253 u64:512 u32:0xffff0003": FlagHasFlags | FlagReadOnly,
	} {
		var e Export
		if err := ParseOldstyleBanner(filled(line, 0xff), &e); err != nil || e.Flags != flags ||
			e.Size != 512 {
			t.Errorf("%s: %+v %v", line, e, err)
		}
	}
}
