// The notation of the conversations in testdata: text to bytes and back.
//
// Invariant: what spell writes, parse reads back to the same bytes.
//
// A line is a row of words; a word is one of
//
// 	NBDMAGIC IHAVEOPT REPLYMAGIC    the 64-bit magics
// 	u8:1 u16:0x2 u32:3 u64:4        an integer of that width, big-endian
// 	opt:GO rep:ACK info:NAME        a named integer (32, 32 and 16 bits)
// 	"text"                          bytes, quoted as in Go
// 	str:"text"                      the length of the bytes in 32 bits, then the bytes
// 	hex:00ff                        bytes
// 	"a"*300 hex:00*124              repeated
// 	option(GO) ...                  header of an option, with the length of the rest of the line
// 	reply(GO,ACK) ...               header of a reply, likewise

package proto

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

var magicNames = map[string]uint64{
	"NBDMAGIC": Magic, "IHAVEOPT": OptionMagic, "REPLYMAGIC": OptionReplyMagic,
}

var optionNames = map[string]uint32{
	"EXPORT_NAME":       OptExportName,
	"ABORT":             OptAbort,
	"LIST":              OptList,
	"PEEK_EXPORT":       OptPeekExport,
	"STARTTLS":          OptStartTLS,
	"INFO":              OptInfo,
	"GO":                OptGo,
	"STRUCTURED_REPLY":  OptStructuredReply,
	"LIST_META_CONTEXT": OptListMetaContext,
	"SET_META_CONTEXT":  OptSetMetaContext,
	"EXTENDED_HEADERS":  OptExtendedHeaders,
}

var replyNames = map[string]uint32{
	"ACK":                 RepAck,
	"SERVER":              RepServer,
	"INFO":                RepInfo,
	"META_CONTEXT":        RepMetaContext,
	"ERR_UNSUP":           RepErrUnsup,
	"ERR_POLICY":          RepErrPolicy,
	"ERR_INVALID":         RepErrInvalid,
	"ERR_PLATFORM":        RepErrPlatform,
	"ERR_TLS_REQD":        RepErrTLSReqd,
	"ERR_UNKNOWN":         RepErrUnknown,
	"ERR_SHUTDOWN":        RepErrShutdown,
	"ERR_BLOCK_SIZE_REQD": RepErrBlockSizeReqd,
	"ERR_TOO_BIG":         RepErrTooBig,
	"ERR_EXT_HEADER_REQD": RepErrExtHeaderReqd,
}

var infoNames = map[string]uint16{
	"EXPORT": InfoExport, "NAME": InfoName,
	"DESCRIPTION": InfoDescription, "BLOCK_SIZE": InfoBlockSize,
}

// parse returns the bytes of a line.
func parse(line string) ([]byte, error) {
	words, err := words(line)
	if err != nil || len(words) == 0 {
		return nil, err
	}
	head, arguments := composite(words[0])
	if head != "" {
		words = words[1:]
	}
	var body []byte
	for _, w := range words {
		if body, err = word(body, w); err != nil {
			return nil, fmt.Errorf("%q: %w", w, err)
		}
	}
	if head == "" {
		return body, nil
	}
	return frame(head, arguments, body)
}

// words splits a line at spaces outside of quotes.
func words(line string) (list []string, err error) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		end := 0
		for end < len(line) && line[end] != ' ' {
			if line[end] != '"' {
				end++
				continue
			}
			quoted, err := strconv.QuotedPrefix(line[end:])
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line[end:], err)
			}
			end += len(quoted)
		}
		list, line = append(list, line[:end]), line[end:]
	}
	return list, nil
}

// composite parses a word like option(GO).
func composite(w string) (head string, arguments []string) {
	for _, head := range []string{"option", "reply"} {
		if inner, ok := strings.CutPrefix(w, head+"("); ok && strings.HasSuffix(inner, ")") {
			return head, strings.Split(strings.TrimSuffix(inner, ")"), ",")
		}
	}
	return "", nil
}

// frame puts the header before the body.
func frame(head string, arguments []string, body []byte) (b []byte, err error) {
	var numbers []uint32
	for i, a := range arguments {
		names := optionNames
		if i == 1 {
			names = replyNames
		}
		n, err := named(names, a)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, uint32(n))
	}
	magic := OptionMagic
	if head == "reply" {
		magic = OptionReplyMagic
	}
	b = binary.BigEndian.AppendUint64(b, magic)
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...), nil
}

// named returns the number of a name, or the number itself.
func named[N uint16 | uint32](names map[string]N, s string) (uint64, error) {
	if n, ok := names[s]; ok {
		return uint64(n), nil
	}
	return strconv.ParseUint(s, 0, 32)
}

// word appends the bytes of one word.
func word(b []byte, w string) ([]byte, error) {
	if m, ok := magicNames[w]; ok {
		return binary.BigEndian.AppendUint64(b, m), nil
	}
	if at := strings.LastIndexByte(w, '*'); at > strings.LastIndexByte(w, '"') {
		times, err := strconv.Atoi(w[at+1:])
		if err != nil {
			return nil, err
		}
		one, err := word(nil, w[:at])
		for range times {
			b = append(b, one...)
		}
		return b, err
	}
	if strings.HasPrefix(w, `"`) {
		text, err := strconv.Unquote(w)
		return append(b, text...), err
	}
	kind, value, _ := strings.Cut(w, ":")
	switch kind {
	case "str":
		text, err := strconv.Unquote(value)
		return append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...), err
	case "hex":
		raw, err := hex.DecodeString(value)
		return append(b, raw...), err
	}
	return integer(b, kind, value)
}

// integer appends a number, named or not.
func integer(b []byte, kind, value string) ([]byte, error) {
	var n uint64
	var err error
	bits := 32
	switch kind {
	case "opt":
		n, err = named(optionNames, value)
	case "rep":
		n, err = named(replyNames, value)
	case "info":
		bits = 16
		n, err = named(infoNames, value)
	case "u8", "u16", "u32", "u64":
		bits, _ = strconv.Atoi(kind[1:])
		n, err = strconv.ParseUint(value, 0, bits)
	default:
		err = fmt.Errorf("no such word")
	}
	for shift := bits - 8; shift >= 0; shift -= 8 {
		b = append(b, byte(n>>shift))
	}
	return b, err
}

// spell returns the lines of what a server sent.
func spell(b []byte) (lines []string) {
	for len(b) > 0 {
		line, n := spellFrame(b)
		lines, b = append(lines, line), b[n:]
	}
	return lines
}

// spellFrame returns the line of the frame at the beginning of b, and the frame's length.
func spellFrame(b []byte) (line string, n int) {
	if len(b) >= BannerSize && binary.BigEndian.Uint64(b) == Magic {
		return fmt.Sprintf("NBDMAGIC IHAVEOPT u16:%d", binary.BigEndian.Uint16(b[16:])), BannerSize
	}
	if len(b) >= OptionReplySize && binary.BigEndian.Uint64(b) == OptionReplyMagic {
		option, kind, length := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]),
			int(binary.BigEndian.Uint32(b[16:]))
		if length <= len(b)-OptionReplySize {
			end := OptionReplySize + length
			body := spellReply(kind, b[OptionReplySize:end])
			return strings.TrimSpace(fmt.Sprintf("reply(%s,%s) %s", nameOf(optionNames, option),
				nameOf(replyNames, kind), body)), end
		}
	}
	if len(b) == ExportNameReplySize || len(b) == ExportNameReplySize+ExportNamePadding {
		line = fmt.Sprintf("u64:%d u16:%#x", binary.BigEndian.Uint64(b),
			binary.BigEndian.Uint16(b[8:]))
		switch tail := string(b[ExportNameReplySize:]); tail {
		case "":
			return line, len(b)
		case strings.Repeat("\x00", ExportNamePadding):
			return line + " hex:00*124", len(b)
		}
	}
	return "hex:" + hex.EncodeToString(b), len(b)
}

// spellReply returns the words of a reply's data.
func spellReply(kind uint32, data []byte) string {
	switch {
	case len(data) == 0:
		return ""
	case kind&RepErrorBit != 0:
		return text(data)
	case kind == RepServer && len(data) >= 4 && int(binary.BigEndian.Uint32(data)) <= len(data)-4:
		end := 4 + binary.BigEndian.Uint32(data)
		line := spellString(data[4:end])
		if int(end) < len(data) {
			line += " " + text(data[end:])
		}
		return line
	case kind == RepMetaContext && len(data) >= 4:
		return fmt.Sprintf("u32:%d %s", binary.BigEndian.Uint32(data), text(data[4:]))
	case kind == RepInfo && len(data) >= 2:
		return spellInfo(binary.BigEndian.Uint16(data), data[2:])
	}
	return "hex:" + hex.EncodeToString(data)
}

// spellInfo returns the words of a piece of information.
func spellInfo(kind uint16, data []byte) string {
	line := "info:" + nameOf(infoNames, kind)
	switch {
	case kind == InfoExport && len(data) == ExportNameReplySize:
		return fmt.Sprintf("%s u64:%d u16:%#x", line, binary.BigEndian.Uint64(data),
			binary.BigEndian.Uint16(data[8:]))
	case kind == InfoBlockSize && len(data) == 12:
		return fmt.Sprintf("%s u32:%d u32:%d u32:%d", line, binary.BigEndian.Uint32(data),
			binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:]))
	case kind == InfoName, kind == InfoDescription:
		return line + " " + text(data)
	}
	return line + " hex:" + hex.EncodeToString(data)
}

// text returns the word of bytes that are mostly text.
func text(b []byte) string {
	if len(b) > 64 && strings.Count(string(b), string(b[:1])) == len(b) {
		return fmt.Sprintf("%s*%d", strconv.Quote(string(b[:1])), len(b))
	}
	return strconv.Quote(string(b))
}

// spellString returns the words of a string with its length before it.
func spellString(b []byte) string {
	if w := text(b); !strings.HasSuffix(w, `"`) {
		return fmt.Sprintf("u32:%d %s", len(b), w)
	}
	return "str:" + text(b)
}

// nameOf returns the name of a number, or the number.
func nameOf[N uint16 | uint32](names map[string]N, n N) string {
	for name, m := range names {
		if m == n {
			return name
		}
	}
	return fmt.Sprintf("%#x", n)
}

func TestNotationReadsWhatItWrites(t *testing.T) {
	n := NewNegotiator(catalogs["two"], Policy{})
	var out []byte
	drain := func() {
		for b := n.Out(); len(b) > 0; b = n.Out() {
			out = append(out, b...)
			n.Sent(len(b))
		}
	}
	drain()
	in := AppendClientFlags(nil, 3)
	in = AppendOption(in, OptList, "")
	in = AppendOption(in, 0x1234, "x")
	in = AppendInfo(in, OptInfo, "disk", InfoName, InfoDescription)
	for len(in) > 0 {
		in = in[n.Feed(in):]
		drain()
	}
	var back []byte
	for _, line := range spell(out) {
		b, err := parse(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		back = append(back, b...)
	}
	if string(back) != string(out) {
		t.Errorf("sent %x\nread back %x", out, back)
	}
}
