// The client's side of the negotiation: the newest form that both sides know, down to EXPORT_NAME
// and to the oldstyle handshake, in which there is nothing to negotiate.
//
// Invariant: an option is sent when the option before it has its final answer; its answers are
// limited in length and number; what is in Negotiated was checked.

package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"ringnbd/proto"
)

const (
	maxOptionReply = 64 << 10 // bytes of data: far above any name, description and text
	maxReplies     = 1 << 10  // to an option other than LIST: at most one for each context
	maxContexts    = 64       // selected at the same time: the bits of Request.contextsDone
	magicsSize     = 16       // bytes of a banner that tell which handshake it is
)

// selectedContext is a meta context that was selected.
type selectedContext struct {
	id   uint32 // its number in block status replies
	name string
}

// Negotiated is the result of a negotiation.
type Negotiated struct {
	proto.Export
	Framing proto.Framing

	// Oldstyle says that the server has the oldstyle handshake: one export without a name, of which
	// only size and flags are known.
	Oldstyle bool

	// ExportName says that the server does not know GO and was asked with EXPORT_NAME: only size
	// and flags of the export are known.
	ExportName bool

	BlockSizes bool     // the server told its block sizes; otherwise the protocol's defaults count
	Offered    []string // all meta contexts of the export, if requested
	contexts   []selectedContext
}

// Context returns the number of a selected context.
func (s *Negotiated) Context(name string) (id uint32, ok bool) {
	i := slices.IndexFunc(s.contexts, func(c selectedContext) bool { return c.name == name })
	if i < 0 {
		return 0, false
	}
	return s.contexts[i].id, true
}

// Protocol returns the form of requests and replies, in words.
func (s *Negotiated) Protocol() string {
	return [...]string{proto.Simple: "simple replies", proto.Structured: "structured replies",
		proto.Extended: "extended headers"}[s.Framing]
}

// handshake is a negotiation.
type handshake struct {
	sock      net.Conn
	export    string
	agreed    Negotiated
	sizeKnown bool // INFO_EXPORT was received
}

// negotiate negotiates for an export by name.
func negotiate(sock net.Conn, export string, o Options) (Negotiated, error) {
	h := &handshake{sock: sock, export: export}
	h.agreed.Name = export
	flags, err := h.readBanner()
	switch {
	case err != nil:
		return Negotiated{}, err
	case h.agreed.Oldstyle && export != "" && !o.Nameless:
		return Negotiated{}, fmt.Errorf("%w, and may have another export than %q here; leave the "+
			"name out of the URI to use that export", errOldstyle, export)
	case h.agreed.Oldstyle:
		h.agreed.Name = ""
		return h.agreed, h.checkExport(nil)
	}
	if flags&proto.FlagClientFixedNewstyle != 0 {
		done, err := h.options(o)
		if done || err != nil {
			return h.agreed, errors.Join(err, h.checkExport(err))
		}
		if h.agreed.Framing == proto.Extended {
			return h.agreed, violated("it knows EXTENDED_HEADERS but not GO")
		}
	}
	h.agreed.contexts, h.agreed.ExportName = nil, true
	err = h.sendExportName(flags&proto.FlagClientNoZeroes != 0)
	return h.agreed, errors.Join(err, h.checkExport(err))
}

// Errors about a banner.
var (
	errNotNBD   = errors.New("no NBD server at this address")
	errOldstyle = errors.New("the server speaks the oldstyle handshake, which knows no names of " +
		"exports")
)

// readBanner reads the banner and answers it, unless it is the banner of an oldstyle server: that
// is the whole handshake.
func (h *handshake) readBanner() (flags uint32, err error) {
	var b [proto.OldstyleBannerSize]byte
	read := func(from, to int) error {
		_, err := io.ReadFull(h.sock, b[from:to])
		return err
	}
	if err := read(0, magicsSize); err != nil {
		return 0, streamEnd(err, "before it said what it is")
	}
	size := proto.BannerSize
	switch first, second := binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]); {
	case first == proto.Magic && second == proto.OldstyleMagic:
		size = proto.OldstyleBannerSize
	case first != proto.Magic || second != proto.OptionMagic:
		return 0, errNotNBD
	}
	if err := read(magicsSize, size); err != nil {
		return 0, streamEnd(err, "during the negotiation")
	}
	if size == proto.OldstyleBannerSize {
		h.agreed.Oldstyle = true
		return 0, proto.ParseOldstyleBanner(b[:], &h.agreed.Export)
	}
	offered, err := proto.ParseBanner(b[:])
	if err != nil {
		return 0, err
	}
	if offered&proto.FlagFixedNewstyle != 0 {
		flags |= proto.FlagClientFixedNewstyle
	}
	if offered&proto.FlagNoZeroes != 0 {
		flags |= proto.FlagClientNoZeroes
	}
	return flags, h.send(proto.AppendClientFlags(nil, flags))
}

// options sends the options from the newest form to the oldest. It reports whether the server knows
// GO.
func (h *handshake) options(o Options) (done bool, err error) {
	if !o.Simple {
		if ok, err := h.tryOption(proto.OptExtendedHeaders); err != nil {
			return false, err
		} else if ok {
			h.agreed.Framing = proto.Extended
		}
	}
	if !o.Simple && h.agreed.Framing == proto.Simple {
		if ok, err := h.tryOption(proto.OptStructuredReply); err != nil {
			return false, err
		} else if ok {
			h.agreed.Framing = proto.Structured
		}
	}
	if h.agreed.Framing >= proto.Structured {
		if o.Offered {
			if err := h.listContexts(); err != nil {
				return false, err
			}
		}
		if len(o.Contexts) > 0 {
			if err := h.selectContexts(o.Contexts); err != nil {
				return false, err
			}
		}
	}
	return h.sendGo()
}

// tryOption sends an option without data, and reports whether the server agreed. A refusal is not
// an error.
func (h *handshake) tryOption(option uint32) (bool, error) {
	final, _, err := h.exchange(option, proto.AppendOption(nil, option, ""), nil)
	return final.Type == proto.RepAck, err
}

// listContexts asks which meta contexts there are. A refusal leaves the list empty: GO will tell
// what is wrong with the export.
func (h *handshake) listContexts() error {
	_, _, err := h.exchange(proto.OptListMetaContext,
		proto.AppendMetaContext(nil, proto.OptListMetaContext, h.export),
		func(r proto.OptionReply, data []byte) error {
			if r.Type != proto.RepMetaContext {
				return nil
			}
			_, name, err := proto.ParseMetaContext(data)
			h.agreed.Offered = append(h.agreed.Offered, name)
			return err
		})
	return err
}

// selectContexts selects contexts by name; those that the server does not have are not selected.
func (h *handshake) selectContexts(names []string) error {
	names = names[:min(len(names), maxContexts)]
	_, _, err := h.exchange(proto.OptSetMetaContext,
		proto.AppendMetaContext(nil, proto.OptSetMetaContext, h.export, names...),
		func(r proto.OptionReply, data []byte) error {
			if r.Type != proto.RepMetaContext {
				return nil
			}
			id, name, err := proto.ParseMetaContext(data)
			switch {
			case err != nil:
				return err
			case !slices.ContainsFunc(names, func(query string) bool {
				return query == name ||
					strings.HasSuffix(query, ":") && strings.HasPrefix(name, query)
			}):
				return violated("it selects the meta context %.80q, which was not asked for", name)
			case len(h.agreed.contexts) == maxContexts:
				return violated("it selects more than %d meta contexts", maxContexts)
			case slices.ContainsFunc(h.agreed.contexts, func(c selectedContext) bool {
				return c.id == id || c.name == name
			}):
				return violated("it selects the meta context %.80q twice, or under a number "+
					"that is taken", name)
			}
			h.agreed.contexts = append(h.agreed.contexts, selectedContext{id: id, name: name})
			return nil
		})
	return err
}

// sendGo sends GO, and reports whether the server knows it.
func (h *handshake) sendGo() (known bool, err error) {
	message := proto.AppendInfo(nil, proto.OptGo, h.export, proto.InfoName, proto.InfoDescription,
		proto.InfoBlockSize)
	final, text, err := h.exchange(proto.OptGo, message,
		func(r proto.OptionReply, data []byte) error {
			if r.Type != proto.RepInfo {
				return nil
			}
			if err := proto.ParseInfo(data, &h.agreed.Export); err != nil {
				return err
			}
			kind := binary.BigEndian.Uint16(data)
			h.sizeKnown = h.sizeKnown || kind == proto.InfoExport
			h.agreed.BlockSizes = h.agreed.BlockSizes || kind == proto.InfoBlockSize
			return nil
		})
	switch {
	case err != nil:
		return true, err
	case final.Type == proto.RepErrUnsup:
		return false, nil
	case final.Failed():
		return true, refusal(final.Type, h.export, text)
	case !h.sizeKnown:
		return true, violated("it did not say how large the export is")
	}
	return true, nil
}

// sendExportName sends the option that every server knows, and that a server can refuse only by
// closing the connection.
func (h *handshake) sendExportName(noZeroes bool) error {
	if err := h.send(proto.AppendOption(nil, proto.OptExportName, h.export)); err != nil {
		return err
	}
	b := make([]byte, proto.ExportNameReplySize+proto.ExportNamePadding)
	if noZeroes {
		b = b[:proto.ExportNameReplySize]
	}
	if _, err := io.ReadFull(h.sock, b); err != nil {
		return &AbsentError{Export: h.export, Err: streamEnd(err, fmt.Sprintf("when asked for "+
			"export %q: it may have none of that name", h.export))}
	}
	return proto.ParseExport(b[:proto.ExportNameReplySize], &h.agreed.Export)
}

// checkExport checks what the server says about the export, unless there was an error before.
func (h *handshake) checkExport(before error) error {
	e := &h.agreed.Export
	switch {
	case before != nil:
		return nil
	case e.Size > 1<<63-1:
		return violated("the export has %d bytes, more than 2^63-1", e.Size)
	case e.MinBlock&(e.MinBlock-1) != 0 || e.MinBlock > 64<<10:
		return violated("its minimum block has %d bytes, which is not a power of two up to 65536",
			e.MinBlock)
	case h.agreed.BlockSizes && e.MaxPayload < max(e.MinBlock, 512):
		return violated("its maximum payload has %d bytes, less than a block", e.MaxPayload)
	case !proto.ValidString(e.Name) || !proto.ValidString(e.Description):
		return violated("the name or description of the export is not text of at most %d bytes",
			proto.MaxString)
	}
	return nil
}

// exchange sends an option and reads its answers up to the final one, which it returns with its
// text. It calls each for the answers before.
func (h *handshake) exchange(option uint32, message []byte,
	each func(proto.OptionReply, []byte) error) (final proto.OptionReply, text string, err error) {
	if err := h.send(message); err != nil {
		return final, "", err
	}
	limit := maxReplies
	if option == proto.OptList {
		limit = maxExports
	}
	for range limit {
		var head [proto.OptionReplySize]byte
		if _, err := io.ReadFull(h.sock, head[:]); err != nil {
			return final, "", streamEnd(err, "during the negotiation")
		}
		r, err := proto.ParseOptionReply(head[:], option)
		if err != nil {
			return final, "", err
		}
		if r.Length > maxOptionReply {
			return final, "", violated("an option's answer of %d bytes", r.Length)
		}
		data := make([]byte, r.Length)
		if _, err := io.ReadFull(h.sock, data); err != nil {
			return final, "", streamEnd(err, "during the negotiation")
		}
		if r.Final() {
			return r, string(data), nil
		}
		if each != nil {
			if err := each(r, data); err != nil {
				return final, "", err
			}
		}
	}
	return final, "", violated("more than %d answers to one option", limit)
}

// send sends bytes to the server.
func (h *handshake) send(b []byte) error {
	if _, err := h.sock.Write(b); err != nil {
		return streamEnd(err, "during the negotiation")
	}
	return nil
}

// refusal returns the error of an option that was refused.
func refusal(kind uint32, export, text string) error {
	what := map[uint32]string{
		proto.RepErrPolicy:   "the server refuses it by policy",
		proto.RepErrTLSReqd:  "the server demands TLS, which is not spoken",
		proto.RepErrUnknown:  "the server has no such export",
		proto.RepErrShutdown: "the server is shutting down",
		proto.RepErrBlockSizeReqd: "the server demands that its block sizes are honoured, but " +
			"did not tell them",
		proto.RepErrExtHeaderReqd: "the server demands extended headers, but did not agree to them",
	}[kind]
	if what == "" {
		what = fmt.Sprintf("the server refuses it (error %d)", kind&^proto.RepErrorBit)
	}
	err := fmt.Errorf("export %q: %s%s", export, what, quoteReason(text))
	if kind == proto.RepErrUnknown {
		return &AbsentError{Export: export, Err: err}
	}
	return err
}
