// One export, as its server describes it.
//
// Invariant: the names in JSON are those of nbdinfo --json, so that scripts can read both.

package describe

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"

	"ringnbd/engine/client"
	"ringnbd/engine/units"
	"ringnbd/proto"
)

// exportInfo is what a server says about an export.
type exportInfo struct {
	Name        string   `json:"export-name"`
	Description string   `json:"description,omitempty"`
	URI         string   `json:"uri,omitempty"`
	Contexts    []string `json:"contexts"`
	Size        uint64   `json:"export-size"` // bytes
	SizeText    string   `json:"export-size-str"`

	ReadOnly   bool `json:"is_read_only"`
	Rotational bool `json:"is_rotational"`
	Flush      bool `json:"can_flush"`
	FUA        bool `json:"can_fua"`
	Trim       bool `json:"can_trim"`
	Zero       bool `json:"can_zero"`
	FastZero   bool `json:"can_fast_zero"`
	Cache      bool `json:"can_cache"`
	DF         bool `json:"can_df"`
	MultiConn  bool `json:"can_multi_conn"`
	Filter     bool `json:"can_block_status_payload"`

	MinBlock   uint32 `json:"block_size_minimum,omitempty"` // bytes; 0: not advertised
	Preferred  uint32 `json:"block_size_preferred,omitempty"`
	MaxPayload uint32 `json:"block_size_maximum,omitempty"`
}

// unopened is what is known of an export that could not be opened.
type unopened struct {
	Name        string `json:"export-name"`
	Description string `json:"description,omitempty"`
	Error       string `json:"error"`
}

// serverInfo is what was negotiated with a server, and its exports.
type serverInfo struct {
	// newstyle-fixed, newstyle when GO was not known, or oldstyle
	Protocol   string       `json:"protocol"`
	TLS        bool         `json:"TLS"`
	Structured bool         `json:"structured"`
	Extended   bool         `json:"extended"`
	Exports    []exportInfo `json:"exports"`
}

// newServer describes a server as one connection sees it.
func newServer(s *client.Negotiated) serverInfo {
	v := serverInfo{Protocol: "newstyle-fixed", Structured: s.Framing >= proto.Structured,
		Extended: s.Framing == proto.Extended}
	switch {
	case s.Oldstyle:
		v.Protocol = "oldstyle"
	case s.ExportName:
		v.Protocol = "newstyle"
	}
	return v
}

// exportOf describes the export of a session.
func exportOf(s *client.Negotiated, uri string) exportInfo {
	can := func(flag uint16) bool { return s.Flags&flag != 0 }
	f := exportInfo{
		Name: s.Name, Description: s.Description, URI: uri,
		Contexts: append([]string{}, s.Offered...), Size: s.Size, SizeText: sizeText(s.Size),
		ReadOnly: can(proto.FlagReadOnly), Rotational: can(proto.FlagRotational),
		Flush: can(proto.FlagSendFlush), FUA: can(proto.FlagSendFUA), Trim: can(proto.FlagSendTrim),
		Zero: can(proto.FlagSendWriteZeroes), FastZero: can(proto.FlagSendFastZero),
		Cache: can(proto.FlagSendCache), DF: can(proto.FlagSendDF),
		MultiConn: can(proto.FlagCanMultiConn), Filter: can(proto.FlagBlockStatusPayload),
	}
	if s.BlockSizes {
		f.MinBlock, f.Preferred, f.MaxPayload = s.MinBlock, s.PreferredBlock, s.MaxPayload
	}
	return f
}

// sizeText is a size as nbdinfo writes it in JSON: 1.5G, or a bare number of bytes.
func sizeText(n uint64) string {
	number, unit, _ := strings.Cut(units.Size(n), " ")
	if n < 1024 {
		return number
	}
	return number + unit[:1]
}

// words are the flags in words.
func (f *exportInfo) words() string {
	var all []string
	for _, w := range []struct {
		is   bool
		word string
	}{
		{f.ReadOnly, "read-only"}, {!f.ReadOnly, "writable"}, {f.Flush, "flush"}, {f.FUA,
			"FUA"}, {f.Trim, "trim"}, {f.Zero, "write zeroes"}, {f.FastZero, "fast zeroes"},
		{f.Cache, "cache"}, {f.DF, "unfragmented reads"}, {f.MultiConn, "several connections"},
		{f.Filter, "block status of chosen contexts"}, {f.Rotational, "rotational"},
	} {
		if w.is {
			all = append(all, w.word)
		}
	}
	return strings.Join(all, ", ")
}

// mode is the access to the export in two letters.
func (f *exportInfo) mode() string {
	if f.ReadOnly {
		return "ro"
	}
	return "rw"
}

// short are the other flags in a few letters.
func (f *exportInfo) short() string {
	var all []string
	for _, w := range []struct {
		is   bool
		word string
	}{
		{f.Flush, "flush"}, {f.FUA, "fua"}, {f.Trim, "trim"}, {f.Zero, "zero"},
		{f.FastZero, "fast"}, {f.Cache, "cache"},
		{f.DF, "df"}, {f.MultiConn, "multi"}, {f.Rotational, "rot"},
	} {
		if w.is {
			all = append(all, w.word)
		}
	}
	return strings.Join(all, " ")
}

// text prints the export as text; width is the width of the terminal in columns, or 0.
func (f *exportInfo) text(w io.Writer, protocol string, width int) {
	const indent = 15
	line := func(label, format string, values ...any) {
		value := fmt.Sprintf(format, values...)
		if room := width - indent; room >= 20 {
			value = text.WrapSoft(value, room)
		}
		for i, part := range strings.Split(value, "\n") {
			if i > 0 {
				label = ""
			}
			line := fmt.Sprintf("  %-12s %s", label, strings.TrimSpace(part))
			fmt.Fprintln(w, strings.TrimRight(line, " "))
		}
	}
	fmt.Fprintf(w, "export %s\n", strconv.QuoteToGraphic(f.Name))
	if f.Description != "" {
		line("description", "%s", strconv.QuoteToGraphic(f.Description))
	}
	line("size", "%d bytes (%s)", f.Size, units.Size(f.Size))
	line("flags", "%s", f.words())
	if f.MinBlock == 0 && f.MaxPayload == 0 {
		line("block sizes", "not advertised: any block, requests of up to 32 MiB")
	} else {
		limit := "no limit"
		if f.MaxPayload != 1<<32-1 {
			limit = fmt.Sprintf("at most %d", f.MaxPayload)
		}
		line("block sizes", "at least %d, best %d, %s", f.MinBlock, f.Preferred, limit)
	}
	contexts := "none"
	if len(f.Contexts) > 0 {
		quoted := make([]string, len(f.Contexts))
		for i, name := range f.Contexts {
			quoted[i] = strings.Trim(strconv.QuoteToGraphic(name), `"`)
		}
		contexts = strings.Join(quoted, ", ")
	}
	line("contexts", "%s", contexts)
	line("protocol", "%s", protocol)
}

// protocolText tells what was negotiated, and how; asked is the name in the URI.
func protocolText(s *client.Negotiated, asked string) string {
	switch {
	case s.Oldstyle:
		text := s.Protocol() +
			", by the oldstyle handshake: the server has no names, and only this export"
		if asked != "" {
			text += "; the name in the URI was not sent: " + strconv.QuoteToGraphic(asked)
		}
		return text
	case s.ExportName:
		return s.Protocol() + ", negotiated by EXPORT_NAME: the server supports nothing newer"
	}
	return s.Protocol()
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
