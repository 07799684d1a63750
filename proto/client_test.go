// The client's side against the server's side, and against a server that lies.

package proto

import (
	"errors"
	"reflect"
	"testing"
)

// ask sends an option and returns types and data of its replies, in order.
func ask(t *testing.T, r *run, option uint32, message []byte) (kinds []uint32, data [][]byte) {
	t.Helper()
	r.out = nil
	r.feed(message)
	for b := r.out; ; {
		reply, err := ParseOptionReply(b, option)
		if err != nil {
			t.Fatal(err)
		}
		end := OptionReplySize + reply.Length
		kinds, data, b = append(kinds, reply.Type), append(data, b[OptionReplySize:end]), b[end:]
		if reply.Final() {
			if len(b) != 0 {
				t.Fatalf("%d bytes after the final reply", len(b))
			}
			return kinds, data
		}
	}
}

func TestClientLearnsTheWholeExport(t *testing.T) {
	for _, option := range []uint32{OptInfo, OptGo} {
		r := begun(catalogs["two"], Policy{})
		kinds, data := ask(t, r, option,
			AppendInfo(nil, option, "", InfoName, InfoDescription, InfoBlockSize))
		var got Export
		for i := range kinds {
			if kinds[i] != RepInfo {
				continue
			}
			if err := ParseInfo(data[i], &got); err != nil {
				t.Fatal(err)
			}
		}
		if want := catalogs["two"].At(0); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if transmit := r.Event().Kind == EventTransmit; transmit != (option == OptGo) {
			t.Errorf("option %d: %+v", option, r.Event())
		}
	}
}

func TestClientExportName(t *testing.T) {
	r := begun(catalogs["two"], Policy{})
	r.feed(AppendOption(nil, OptExportName, "disk"))
	var got Export
	if err := ParseExport(r.out, &got); err != nil || got.Size != 1<<40 || got.Flags != allFlags {
		t.Errorf("%+v %v", got, err)
	}
}

func TestClientBanner(t *testing.T) {
	n := NewNegotiator(catalogs["one"], Policy{})
	if flags, err := ParseBanner(n.Out()); err != nil || flags != FlagFixedNewstyle|FlagNoZeroes {
		t.Errorf("%#x %v", flags, err)
	}
	oldstyle, _ := parse("NBDMAGIC u64:0x0000420281861253 u64:512")
	for _, b := range [][]byte{nil, n.Out()[:BannerSize-1], oldstyle,
		[]byte("HTTP/1.1 400 Bad Request\r\n")} {
		if _, err := ParseBanner(b); !errors.Is(err, errBanner) {
			t.Errorf("%q: %v", b, err)
		}
	}
}

func TestClientDoesNotBelieveLies(t *testing.T) {
	for _, line := range []string{"", "reply(GO,ACK)", "option(LIST)",
		"REPLYMAGIC opt:LIST rep:ACK"} {
		b, err := parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseOptionReply(b, OptList); !errors.Is(err, errOptionReply) {
			t.Errorf("%q: %v", line, err)
		}
	}
	for _, line := range []string{"", "hex:000000", "u32:1", `u32:5 "disk"`,
		`u32:0xffffffff "disk"`, `u32:0x80000000 "disk"`} {
		b, _ := parse(line)
		if _, _, err := ParseServer(b); !errors.Is(err, errOptionReply) {
			t.Errorf("%q: %v", line, err)
		}
	}
	for _, line := range []string{"", "hex:00", "info:EXPORT", "info:EXPORT u64:0",
		"info:EXPORT u64:0 u16:0 u8:0", "info:BLOCK_SIZE u32:1",
		"info:BLOCK_SIZE u32:1 u32:1 u32:1 u8:0"} {
		b, _ := parse(line)
		if err := ParseInfo(b, &Export{}); !errors.Is(err, errOptionReply) {
			t.Errorf("%q: %v", line, err)
		}
	}
	if err := ParseInfo([]byte{0x12, 0x34, 1, 2, 3}, &Export{}); err != nil {
		t.Errorf("information of an unknown type: %v", err)
	}
	var b [SimpleReplySize]byte
	if _, _, err := ParseSimpleReply(b[:]); !errors.Is(err, errSimpleReply) {
		t.Errorf("no magic: %v", err)
	}
	PutSimpleReply(b[:], 1, 2)
	if _, e, err := ParseSimpleReply(b[:]); e != EINVAL || err != nil {
		t.Errorf("an error value that is not in the spec: %v %v", e, err)
	}
}
