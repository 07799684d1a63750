// Fuzz targets. Their seeds are the conversations and the tables of the other tests; go test
// without -fuzz runs only the seeds.

package proto

import (
	"encoding/binary"
	"math/bits"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// maxFuzzInput limits inputs, in bytes: long inputs are slow and find nothing new.
const maxFuzzInput = 6 << 10

// FuzzNegotiator feeds any input, cut anywhere: no panic, the same answer as uncut, limited output,
// well-formed replies, no byte used after the end of the last option, and no byte of Need left
// unused.
func FuzzNegotiator(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		if s := readScript(&testing.T{}, file); len(s.client) <= maxFuzzInput {
			f.Add(s.client, uint16(3))
			f.Add(s.client, uint16(6))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint16) {
		if len(in) > maxFuzzInput {
			return
		}
		s := &script{catalog: catalogs[[]string{"two", "contexts"}[size%2]], client: in}
		whole := s.pieces(0, 0)
		for how, r := range map[string]*run{"in pieces": s.pieces(int(size)+1, 0),
			"by need": s.exact(t)} {
			if string(r.out) != string(whole.out) || r.end(len(in)) != whole.end(len(in)) {
				t.Fatalf("%s: %s\n%v\nwhole: %s\n%v", how, r.end(len(in)), spell(r.out),
					whole.end(len(in)), spell(whole.out))
			}
		}
		if cap(whole.Negotiator.out) > 4*listChunk+4*MaxString {
			t.Errorf("output buffer of %d bytes", cap(whole.Negotiator.out))
		}
		checkEnd(t, in, whole)
		checkSession(t, s.catalog, whole.Event())
		checkReplies(t, in[:whole.used], whole)
	})
}

// checkSession checks that only contexts of the export were selected, wide ones only with extended
// headers, and none without structured replies.
func checkSession(t *testing.T, catalog *Exports, e Event) {
	if e.Kind != EventTransmit {
		if e.Mode != (Mode{}) {
			t.Errorf("%+v", e)
		}
		return
	}
	s := e.Mode.Session
	if s.Framing > Extended || s.Framing == Simple && s.Contexts != 0 ||
		!e.Mode.FixedNewstyle && s != (Session{}) {
		t.Errorf("%+v", s)
	}
	contexts := e.Export.Contexts
	for i := range MaxContexts {
		if s.Contexts&(1<<i) != 0 &&
			(i >= len(contexts) || contexts[i].Wide && s.Framing != Extended) {
			t.Errorf("%+v on export %q", s, e.Export.Name)
		}
	}
}

// checkEnd walks the options by their headers only, and compares where the negotiation stopped
// reading.
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

// checkReplies walks options and replies side by side: every option has one final reply, with its
// number.
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
			if text := string(out[OptionReplySize:][:reply.Length]); reply.Failed() &&
				!ValidString(text) {
				t.Errorf("message %q", text)
			}
			out, final = out[OptionReplySize+reply.Length:], reply.Final()
		}
	}
	if n := len(out); n != 0 && n != ExportNameReplySize &&
		n != ExportNameReplySize+ExportNamePadding {
		t.Errorf("%d bytes sent that no option asked for", n)
	}
}

// FuzzInfoRoundTrip lets the client's side ask the server's side about an export of any name: the
// answers must be true.
func FuzzInfoRoundTrip(f *testing.F) {
	f.Add("", "", uint64(0), uint16(0), uint32(0), []byte{})
	f.Add("disk", "the first", uint64(1)<<40, uint16(allFlags), uint32(512),
		[]byte{0, 1, 0, 2, 0, 3})
	f.Add("größe", "€", uint64(1)<<63-4096, uint16(3), uint32(4096),
		[]byte{0, 1, 0, 1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, name, description string, size uint64, flags uint16, block uint32,
		asked []byte) {
		e := Export{Name: name, Description: description,
			Facts: Facts{Size: size, Flags: flags, MinBlock: block}}
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

// FuzzRequest takes any header and any export: writing what was parsed gives the same bytes, and
// what passes Check is inside the export, aligned, short enough and allowed.
func FuzzRequest(f *testing.F) {
	for command := range CmdBlockStatus + 2 {
		f.Add(uint32(RequestMagic), uint16(0), command, uint64(1), uint64(4096), uint32(512),
			uint64(1)<<30, uint8(9), uint32(32*mib), uint16(full))
		f.Add(uint32(RequestMagic), uint16(1), command, ^uint64(0), ^uint64(0), uint32(1),
			^uint64(0), uint8(0), uint32(0), uint16(3))
	}
	f.Fuzz(func(t *testing.T, magic uint32, flags, command uint16, cookie, offset uint64,
		length uint32, size uint64, shift uint8, payload uint32, advertised uint16) {
		in := Request{Cookie: cookie, Offset: offset, Length: uint64(length), Command: command,
			Flags: flags}
		var b [RequestSize]byte
		PutRequest(b[:], &in)
		binary.BigEndian.PutUint32(b[:], magic)
		r, ok := ParseRequest(b[:])
		if ok != (magic == RequestMagic) || r != in {
			t.Fatalf("wrote %+v, read %+v %v", in, r, ok)
		}
		facts := Facts{Size: size, MinBlock: 1 << (shift % 17), MaxPayload: payload,
			Flags: advertised}
		e := Check(&r, &facts, Session{})
		if !e.inSpec() || e == ENOMEM || e == EIO || e == ESHUTDOWN || e == ENOTSUP {
			t.Fatalf("%+v: %v", r, e)
		}
		if e != Success || command == CmdDisc {
			return
		}
		end, carry := bits.Add64(r.Offset, r.Length, 0)
		if command != CmdFlush &&
			(carry != 0 || end > size || (r.Offset|r.Length)%uint64(facts.MinBlock) != 0) {
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

// FuzzExtendedRequest takes any header of a session with extended headers: what passes Check is
// inside the export, aligned, short enough and has a payload only where it may; and every error has
// a text.
func FuzzExtendedRequest(f *testing.F) {
	for command := range CmdBlockStatus + 2 {
		for _, flags := range []uint16{0, CmdFlagPayloadLen, CmdFlagReqOne | CmdFlagFUA} {
			f.Add(ExtRequestMagic, flags, command, uint64(4096), uint64(512), uint64(1)<<30,
				uint8(9), uint32(32*mib), uint16(full), uint32(5), "disk")
			f.Add(ExtRequestMagic, flags, command, ^uint64(0), uint64(20), ^uint64(0), uint8(0),
				uint32(0), uint16(3), uint32(0), "größe")
		}
	}
	f.Fuzz(func(t *testing.T, magic uint32, flags, command uint16, offset, length, size uint64,
		shift uint8, payload uint32, advertised uint16, contexts uint32, name string) {
		in := Request{Cookie: offset ^ size, Offset: offset, Length: length, Command: command,
			Flags: flags, Extended: true}
		var b [ExtRequestSize]byte
		PutExtRequest(b[:], &in)
		binary.BigEndian.PutUint32(b[:], magic)
		r, ok := Extended.ParseRequest(b[:])
		if ok != (magic == ExtRequestMagic) || r != in {
			t.Fatalf("wrote %+v, read %+v %v", in, r, ok)
		}
		s := Session{Framing: Extended, Contexts: ContextSet(contexts)}
		facts := Facts{Size: size, MinBlock: 1 << (shift % 17), MaxPayload: payload,
			Flags: advertised &^ negotiated}
		e, cause := Judge(&r, &facts, s)
		if !e.inSpec() || e == ENOMEM || e == EIO || e == ESHUTDOWN || e == ENOTSUP ||
			(e == Success) != (cause == CauseNone) {
			t.Fatalf("%+v: %v, cause %d", r, e, cause)
		}
		if e != Success {
			checkComplaint(t,
				&Complaint{Request: &r, Export: name, Facts: &facts, Session: s, Errno: e})
		} else if command != CmdDisc {
			checkAccepted(t, &r, &facts, s)
		}
	})
}

// checkAccepted compares a request that passed with the rules, one by one.
func checkAccepted(t *testing.T, r *Request, f *Facts, s Session) {
	has := r.Flags&CmdFlagPayloadLen != 0
	if has && r.Command != CmdWrite && !(r.Command == CmdBlockStatus && s.Contexts != 0) {
		t.Errorf("%+v: payload", r)
	}
	if r.Command == CmdBlockStatus && s.Contexts == 0 ||
		rules[r.Command].changes && f.Flags&FlagReadOnly != 0 {
		t.Errorf("%+v passed in %+v on %+v", r, s, f)
	}
	if r.Filtered() {
		if r.Length < 8 || r.Length > FilterSize(MaxContexts) || r.Length%4 != 0 {
			t.Errorf("%+v: the payload cannot be that long", r)
		}
		return
	}
	end, carry := bits.Add64(r.Offset, r.Length, 0)
	if r.Command != CmdFlush &&
		(carry != 0 || end > f.Size || (r.Offset|r.Length)%uint64(f.MinBlock) != 0) {
		t.Errorf("%+v passed on %+v", r, f)
	}
	if (r.Command == CmdRead || r.Command == CmdWrite) && r.Length > f.payloadLimit() ||
		r.Payload() > f.payloadLimit() {
		t.Errorf("%+v is too long for %+v", r, f)
	}
}

// FuzzFilter takes any payload of a BLOCK_STATUS of a valid length: what is parsed from it was in
// it, and was selected.
func FuzzFilter(f *testing.F) {
	for _, words := range []string{"u64:4096", "u64:4096 u32:1 u32:3", "u64:0 u32:0",
		"u64:0xffffffffffffffff u32:33", "u64:1 u32:3 u32:3", "u64:1 u32:32"} {
		b, err := parse(words)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint32(0b101))
		f.Add(b, ^uint32(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, selected uint32) {
		r := Request{Command: CmdBlockStatus, Flags: CmdFlagPayloadLen, Length: uint64(len(b)),
			Extended: true}
		if Check(&r, &disk, Session{Framing: Extended, Contexts: ContextSet(selected)}) != Success {
			return
		}
		length, filter, e := ParseFilter(b, ContextSet(selected))
		good := true
		want := ContextSet(0)
		for ids := b[8:]; len(ids) > 0; ids = ids[4:] {
			id := binary.BigEndian.Uint32(ids)
			good = good && id >= 1 && id <= 32 && selected>>(id-1)&1 == 1 && want>>(id-1)&1 == 0
			want |= 1 << (id - 1)
		}
		switch {
		case good != (e == Success), !good && (e != EINVAL || filter != 0):
			t.Errorf("% x of %#x: %d %#x %v", b, selected, length, filter, e)
		case length != binary.BigEndian.Uint64(b) || good && filter != want:
			t.Errorf("% x of %#x: %d %#x", b, selected, length, filter)
		}
	})
}

// FuzzReplies lets the client's side parse what the server's side writes, in both forms.
func FuzzReplies(f *testing.F) {
	f.Add(uint64(1), uint64(4096), uint64(4096), uint64(512), uint64(3), uint32(28),
		[]byte("no space left"), true)
	f.Add(^uint64(0), ^uint64(0), uint64(1)<<40, uint64(1), ^uint64(0), uint32(1), []byte{}, false)
	f.Fuzz(func(t *testing.T, cookie, offset, length, part, status uint64, context uint32,
		text []byte, done bool) {
		r := &Request{Cookie: cookie, Offset: offset, Length: length, Command: CmdRead}
		text = text[:min(len(text), maxComplaint)]
		errno := []Errno{EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN}[context%7]
		for _, form := range []Framing{Structured, Extended} {
			var b [MaxError]byte
			read := func(kind uint16, payload uint64, last bool) []byte {
				parse := ParseReplyChunk
				if form == Extended {
					parse = ParseExtReplyChunk
				}
				k, err := parse(b[:])
				if err != nil || k.Type != kind || k.Cookie != cookie || k.Length != payload ||
					k.Done() != last ||
					k.Offset != map[bool]uint64{true: offset}[form == Extended] {
					t.Fatalf("framing %d: %+v, %v", form, k, err)
				}
				return b[form.ChunkHeaderSize():][:min(payload,
					uint64(len(b)-form.ChunkHeaderSize()))]
			}
			if size := min(max(length, 1), 1<<31); form.PutData(b[:], r, part, size, done) > 0 &&
				ParseDataOffset(read(ChunkOffsetData, 8+size, done)) != part {
				t.Error("data")
			}
			form.PutHole(b[:], r, part, uint64(uint32(length)|1), done)
			if at, n, err := ParseHoleChunk(read(ChunkOffsetHole, HoleSize, done)); at != part ||
				n != uint32(length)|1 || err != nil {
				t.Error("hole", at, n, err)
			}
			form.PutNone(b[:], r)
			read(ChunkNone, 0, true)
			n := form.PutError(b[:], r, errno, text)
			e, got, _, err := ParseErrorChunk(ChunkError,
				read(ChunkError, uint64(6+len(text)), true))
			if e != errno || string(got) != string(text) || err != nil ||
				n != form.ChunkHeaderSize()+6+len(text) {
				t.Error("error", e, got, err)
			}
			if form == Structured {
				part, status = uint64(uint32(part)), uint64(uint32(status))
			}
			checkStatusRoundTrip(t, form, r, context, StatusExtent{max(part, 1), status})
		}
	})
}

// checkStatusRoundTrip writes one context's chunk of three extents, and reads it.
func checkStatusRoundTrip(t *testing.T, form Framing, r *Request, context uint32, x StatusExtent) {
	var b [128]byte
	n := form.PutChunk(b[:], r, form.StatusKind(),
		uint64(form.StatusHeadSize()+3*form.ExtentSize()), false)
	form.PutStatusHead(b[n:], context, 3)
	k := ReplyChunk{Type: form.StatusKind(),
		Length: uint64(form.StatusHeadSize() + 3*form.ExtentSize())}
	if id, count, err := ParseStatusHead(&k, b[n:]); id != context || count != 3 || err != nil {
		t.Error("head", id, count, err)
	}
	for n += form.StatusHeadSize(); n+form.ExtentSize() < len(b); n += form.ExtentSize() {
		form.PutExtent(b[n:], x.Length, x.Flags)
		if got, err := ParseStatusExtent(form.StatusKind(), b[n:]); got != x || err != nil {
			t.Error("extent", got, err)
		}
	}
}

// FuzzComplaint checks that the text of any error of any export can be sent.
func FuzzComplaint(f *testing.F) {
	f.Add(uint16(1), uint16(0), uint64(512), uint64(0), "größe", uint64(1)<<30, uint32(22),
		int32(0), false, uint8(0))
	f.Add(uint16(0xffff), uint16(0xffff), ^uint64(0), ^uint64(0), strings.Repeat("\xff", 64),
		^uint64(0), uint32(5), int32(-1<<31), true, uint8(2))
	f.Fuzz(func(t *testing.T, command, flags uint16, length, offset uint64, name string,
		size uint64, errno uint32, system int32, filter bool, framing uint8) {
		s := Session{Framing: Framing(framing % 3), Contexts: ContextSet(framing >> 2)}
		r := Request{Command: command, Flags: flags, Length: length, Offset: offset,
			Extended: s.Framing == Extended}
		facts := Facts{Size: size, MinBlock: 1 << (framing % 17), Flags: flags &^ negotiated}
		checkComplaint(t,
			&Complaint{Request: &r, Export: name, Facts: &facts, Session: s, Errno: Errno(errno),
				System: system, Filter: filter})
	})
}

// FuzzClientParsers gives the client's parsers any input: they must not panic, and names must come
// from the input.
func FuzzClientParsers(f *testing.F) {
	for _, line := range []string{"NBDMAGIC IHAVEOPT u16:3", "reply(LIST,ACK)", `str:"disk" "text"`,
		"info:EXPORT u64:1 u16:1", "info:BLOCK_SIZE u32:1 u32:1 u32:1",
		"u32:0x67446698 u32:0 u64:1"} {
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
		if name, description, err := ParseServer(b); err == nil &&
			!strings.HasSuffix(string(b), name+description) {
			t.Errorf("%q %q out of %q", name, description, b)
		}
		if len(b) >= SimpleReplySize {
			ParseSimpleReply(b)
		}
	})
}
