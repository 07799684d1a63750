// Fuzz targets. Their seeds are the conversations and the tables of the other tests; go test runs the seeds alone.

package proto

import (
	"encoding/binary"
	"math/bits"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// fuzzLongest keeps inputs short, in bytes: what is long is only more of the same, and slow.
const fuzzLongest = 6 << 10

// FuzzNegotiator feeds anything, cut anywhere: no panic, the same answer as uncut, bounded output, well-formed replies,
// no byte taken behind the end of the option that ended it, and nothing asked for that is not used.
func FuzzNegotiator(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		if s := readScript(&testing.T{}, file); len(s.client) <= fuzzLongest {
			f.Add(s.client, uint16(3))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint16) {
		if len(in) > fuzzLongest {
			return
		}
		s := &script{catalog: catalogs["two"], client: in}
		whole := s.pieces(0, 0)
		for how, r := range map[string]*run{"in pieces": s.pieces(int(size)+1, 0), "by need": s.exact(t)} {
			if string(r.out) != string(whole.out) || r.end(len(in)) != whole.end(len(in)) {
				t.Fatalf("%s: %s\n%v\nwhole: %s\n%v", how, r.end(len(in)), spell(r.out), whole.end(len(in)), spell(whole.out))
			}
		}
		if cap(whole.Negotiator.out) > 4*chunk+4*MaxString {
			t.Errorf("output buffer of %d bytes", cap(whole.Negotiator.out))
		}
		checkEnd(t, in, whole)
		checkReplies(t, in[:whole.used], whole)
	})
}

// checkEnd walks the options by their headers alone, and compares where the negotiation stopped reading.
func checkEnd(t *testing.T, in []byte, r *run) {
	event := r.Event()
	if event.Kind == EventNone {
		if r.used != len(in) {
			t.Errorf("open, but %d of %d bytes used", r.used, len(in))
		}
		return
	}
	at := ClientFlagsSize
	for at < r.used {
		at += OptionSize
		if at == r.used && event.Kind == EventClose {
			return // closed at a header
		}
		if at > r.used {
			break
		}
		at += int(binary.BigEndian.Uint32(in[at-4:]))
	}
	if at != r.used {
		t.Errorf("%+v after %d bytes, which is in the middle of what ends at %d", event, r.used, at)
	}
}

// checkReplies walks options and replies side by side: every option has one final reply, with its number.
func checkReplies(t *testing.T, in []byte, r *run) {
	if len(in) < ClientFlagsSize {
		return
	}
	in, out := in[ClientFlagsSize:], r.out[BannerSize:]
	for len(in) >= OptionSize && binary.BigEndian.Uint64(in) == OptionMagic {
		option, length := binary.BigEndian.Uint32(in[8:]), binary.BigEndian.Uint32(in[12:])
		if uint64(length) > uint64(len(in)-OptionSize) || option == OptExportName {
			break
		}
		in = in[OptionSize+length:]
		if len(out) == 0 && r.Event().Reason == CloseOptionCount {
			return
		}
		for final := false; !final; {
			reply, err := ParseOptionReply(out, option)
			if err != nil || int(reply.Length) > len(out)-OptionReplySize {
				t.Fatalf("option %#x: %+v %v", option, reply, err)
			}
			if text := string(out[OptionReplySize:][:reply.Length]); reply.Failed() && !ValidString(text) {
				t.Errorf("message %q", text)
			}
			out, final = out[OptionReplySize+reply.Length:], reply.Final()
		}
	}
	if n := len(out); n != 0 && n != ExportNameReplySize && n != ExportNameReplySize+ExportNamePadding {
		t.Errorf("%d bytes sent that no option asked for", n)
	}
}

// FuzzInfoRoundTrip has the client's side ask the server's side about an export of any name: what is told is what is.
func FuzzInfoRoundTrip(f *testing.F) {
	f.Add("", "", uint64(0), uint16(0), uint32(0), []byte{})
	f.Add("disk", "the first", uint64(1)<<40, uint16(allFlags), uint32(512), []byte{0, 1, 0, 2, 0, 3})
	f.Add("größe", "€", uint64(1)<<63-4096, uint16(3), uint32(4096), []byte{0, 1, 0, 1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, name, description string, size uint64, flags uint16, block uint32, asked []byte) {
		e := Export{Name: name, Description: description, Facts: Facts{Size: size, Flags: flags, MinBlock: block}}
		if e.Validate() != nil {
			return
		}
		var types []uint16
		var both uint16
		for ; len(asked) >= 2; asked = asked[2:] {
			kind := binary.BigEndian.Uint16(asked)
			if types = append(types, kind); kind < 16 {
				both |= 1 << kind
			}
		}
		if len(types) > 0xffff {
			return
		}
		r := begun(mustCatalog(-1, e), Policy{})
		kinds, data := ask(t, r, OptGo, AppendInfo(nil, OptGo, name, types...))
		got := Export{Name: "?", Description: "?"}
		for i := range kinds[:len(kinds)-1] {
			if err := ParseInfo(data[i], &got); err != nil {
				t.Fatal(err)
			}
		}
		want := e
		want.MinBlock, want.PreferredBlock, want.MaxPayload = e.blockSizes()
		want.Flags = e.flags(Session{})
		if both&(1<<InfoName) == 0 {
			want.Name = "?"
		}
		if both&(1<<InfoDescription) == 0 || description == "" {
			want.Description = "?"
		}
		if !reflect.DeepEqual(got, want) || r.Event().Kind != EventTransmit {
			t.Errorf("got %+v, want %+v, then %+v", got, want, r.Event())
		}
	})
}

// FuzzRequest takes any header and any export: writing what was read gives the same bytes, and what Check lets through
// is inside the export, aligned, short enough and allowed.
func FuzzRequest(f *testing.F) {
	for command := range CmdBlockStatus + 2 {
		f.Add(uint32(RequestMagic), uint16(0), command, uint64(1), uint64(4096), uint32(512), uint64(1)<<30, uint8(9), uint32(32*mib), uint16(full))
		f.Add(uint32(RequestMagic), uint16(1), command, ^uint64(0), ^uint64(0), uint32(1), ^uint64(0), uint8(0), uint32(0), uint16(3))
	}
	f.Fuzz(func(t *testing.T, magic uint32, flags, command uint16, cookie, offset uint64, length uint32, size uint64, shift uint8, payload uint32, advertised uint16) {
		in := Request{Cookie: cookie, Offset: offset, Length: uint64(length), Command: command, Flags: flags}
		var b [RequestSize]byte
		PutRequest(b[:], &in)
		binary.BigEndian.PutUint32(b[:], magic)
		r, ok := ParseRequest(b[:])
		if ok != (magic == RequestMagic) || r != in {
			t.Fatalf("wrote %+v, read %+v %v", in, r, ok)
		}
		facts := Facts{Size: size, MinBlock: 1 << (shift % 17), MaxPayload: payload, Flags: advertised}
		e := Check(&r, &facts, Session{})
		if !e.valid() || e == ENOMEM || e == EIO || e == ESHUTDOWN || e == ENOTSUP {
			t.Fatalf("%+v: %v", r, e)
		}
		if e != Success || command == CmdDisc {
			return
		}
		end, carry := bits.Add64(r.Offset, r.Length, 0)
		if command != CmdFlush && (carry != 0 || end > size || (r.Offset|r.Length)%uint64(facts.MinBlock) != 0) {
			t.Errorf("%+v passed on %+v", r, facts)
		}
		if (command == CmdRead || command == CmdWrite) && r.Length > facts.payloadLimit() {
			t.Errorf("%+v is too long for %+v", r, facts)
		}
		if rules[command].changes && advertised&FlagReadOnly != 0 {
			t.Errorf("%+v passed on a read-only export", r)
		}
	})
}

// FuzzPeer gives the client's parsers anything: they must not panic, and names must come out of what was there.
func FuzzPeer(f *testing.F) {
	for _, line := range []string{"NBDMAGIC IHAVEOPT u16:3", "reply(LIST,ACK)", `str:"disk" "text"`, "info:EXPORT u64:1 u16:1", "info:BLOCK_SIZE u32:1 u32:1 u32:1", "u32:0x67446698 u32:0 u64:1"} {
		b, err := parse(line)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseBanner(b)
		ParseOptionReply(b, OptList)
		ParseInfo(b, &Export{})
		if name, description, err := ParseServer(b); err == nil && !strings.HasSuffix(string(b), name+description) {
			t.Errorf("%q %q out of %q", name, description, b)
		}
		if len(b) >= SimpleReplySize {
			ParseSimpleReply(b)
		}
	})
}
