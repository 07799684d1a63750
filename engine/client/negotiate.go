// Negotiation, client's side: the newest that both sides know, down to EXPORT_NAME, and to the
// oldstyle handshake, in which there is nothing to negotiate.
//
// Invariant: an option is sent when the one before has its final answer; its answers are bounded in
// length and number; what a Session holds was checked.

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
	optionReplyMost = 64 << 10 // bytes of data: far above any name, description and text
	// to an option other than LIST: one for each context is the most that makes sense
	repliesMost = 1 << 10
	magicsSize  = 16 // bytes of a banner that tell which one it is
	// selected at the same time: a mask tells which have been answered for
	contextsMost = 64
)

// Context is a meta context that was selected.
type Context struct {
	ID   uint32 // as block status replies call it
	Name string
}

// Session is what a negotiation came to.
type Session struct {
	proto.Export
	Framing proto.Framing
	// by the oldstyle handshake: the server's only export here, which has no name; nothing was
	// learned beside size and flags
	Oldstyle bool
	// by EXPORT_NAME, as the server knows no GO: nothing was learned beside size and flags
	ExportName bool
	BlockSizes bool      // the server told its block sizes; otherwise the protocol's defaults count
	Contexts   []Context // selected
	Offered    []string  // all meta contexts of the export, if asked for
}

// Context finds a selected context by its name.
func (s *Session) Context(name string) (id uint32, ok bool) {
	i := slices.IndexFunc(s.Contexts, func(c Context) bool { return c.Name == name })
	if i < 0 {
		return 0, false
	}
	return s.Contexts[i].ID, true
}

// Protocol is how requests and replies look, in words.
func (s *Session) Protocol() string {
	return [...]string{proto.Simple: "simple replies", proto.Structured: "structured replies",
		proto.Extended: "extended headers"}[s.Framing]
}

// talk is a negotiation.
type talk struct {
	sock    net.Conn
	export  string
	session Session
	seen    bool // INFO_EXPORT has come
}

// negotiate asks for an export by name.
func negotiate(sock net.Conn, export string, o Options) (Session, error) {
	t := &talk{sock: sock, export: export}
	t.session.Name = export
	flags, err := t.greet()
	switch {
	case err != nil:
		return Session{}, err
	case t.session.Oldstyle && export != "" && !o.Nameless:
		return Session{}, fmt.Errorf("%w, and may have another export than %q here; leave the "+
			"name out of the URI to take whatever it is", errOldstyle, export)
	case t.session.Oldstyle:
		t.session.Name = ""
		return t.session, t.check(nil)
	}
	if flags&proto.FlagClientFixedNewstyle != 0 {
		done, err := t.options(o)
		if done || err != nil {
			return t.session, errors.Join(err, t.check(err))
		}
		if t.session.Framing == proto.Extended {
			return t.session, violated("it knows EXTENDED_HEADERS but not GO")
		}
	}
	t.session.Contexts, t.session.ExportName = nil, true
	err = t.exportName(flags&proto.FlagClientNoZeroes != 0)
	return t.session, errors.Join(err, t.check(err))
}

// Errors of a banner.
var (
	errNotNBD   = errors.New("no NBD server at this address")
	errOldstyle = errors.New("the server speaks the oldstyle handshake, which knows no names of " +
		"exports")
)

// greet reads the banner and answers it, unless it is the oldstyle one: that is all there is, and
// the session is complete.
func (t *talk) greet() (flags uint32, err error) {
	var b [proto.OldstyleBannerSize]byte
	read := func(from, to int) error {
		_, err := io.ReadFull(t.sock, b[from:to])
		return err
	}
	if err := read(0, magicsSize); err != nil {
		return 0, hungUp(err, "before it said what it is")
	}
	size := proto.BannerSize
	switch first, second := binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]); {
	case first == proto.Magic && second == proto.OldstyleMagic:
		size = proto.OldstyleBannerSize
	case first != proto.Magic || second != proto.OptionMagic:
		return 0, errNotNBD
	}
	if err := read(magicsSize, size); err != nil {
		return 0, hungUp(err, "during the negotiation")
	}
	if size == proto.OldstyleBannerSize {
		t.session.Oldstyle = true
		return 0, proto.ParseOldstyleBanner(b[:], &t.session.Export)
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
	return flags, t.send(proto.AppendClientFlags(nil, flags))
}

// options goes from the newest to the oldest; false if the server does not know GO.
func (t *talk) options(o Options) (done bool, err error) {
	if !o.Simple {
		if ok, err := t.agree(proto.OptExtendedHeaders); err != nil {
			return false, err
		} else if ok {
			t.session.Framing = proto.Extended
		}
	}
	if !o.Simple && t.session.Framing == proto.Simple {
		if ok, err := t.agree(proto.OptStructuredReply); err != nil {
			return false, err
		} else if ok {
			t.session.Framing = proto.Structured
		}
	}
	if t.session.Framing >= proto.Structured {
		if o.Offered {
			if err := t.offered(); err != nil {
				return false, err
			}
		}
		if len(o.Contexts) > 0 {
			if err := t.selectContexts(o.Contexts); err != nil {
				return false, err
			}
		}
	}
	return t.enter()
}

// agree asks for something that has no data; a refusal is no error.
func (t *talk) agree(option uint32) (bool, error) {
	final, _, err := t.exchange(option, proto.AppendOption(nil, option, ""), nil)
	return final.Type == proto.RepAck, err
}

// offered asks which meta contexts there are. A refusal leaves the list empty: GO tells what is
// wrong with the export.
func (t *talk) offered() error {
	_, _, err := t.exchange(proto.OptListMetaContext,
		proto.AppendMetaContext(nil, proto.OptListMetaContext, t.export),
		func(r proto.OptionReply, data []byte) error {
			if r.Type != proto.RepMetaContext {
				return nil
			}
			_, name, err := proto.ParseMetaContext(data)
			t.session.Offered = append(t.session.Offered, name)
			return err
		})
	return err
}

// selectContexts asks for these; what the server does not have is not selected.
func (t *talk) selectContexts(names []string) error {
	names = names[:min(len(names), contextsMost)]
	_, _, err := t.exchange(proto.OptSetMetaContext,
		proto.AppendMetaContext(nil, proto.OptSetMetaContext, t.export, names...),
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
			case len(t.session.Contexts) == contextsMost:
				return violated("it selects more than %d meta contexts", contextsMost)
			case slices.ContainsFunc(t.session.Contexts, func(c Context) bool {
				return c.ID == id || c.Name == name
			}):
				return violated("it selects the meta context %.80q twice, or under a number "+
					"that is "+
					"taken", name)
			}
			t.session.Contexts = append(t.session.Contexts, Context{ID: id, Name: name})
			return nil
		})
	return err
}

// enter is GO; false if the server does not know it.
func (t *talk) enter() (known bool, err error) {
	message := proto.AppendInfo(nil, proto.OptGo, t.export, proto.InfoName, proto.InfoDescription,
		proto.InfoBlockSize)
	final, text, err := t.exchange(proto.OptGo, message,
		func(r proto.OptionReply, data []byte) error {
			if r.Type != proto.RepInfo {
				return nil
			}
			if err := proto.ParseInfo(data, &t.session.Export); err != nil {
				return err
			}
			kind := binary.BigEndian.Uint16(data)
			t.seen = t.seen || kind == proto.InfoExport
			t.session.BlockSizes = t.session.BlockSizes || kind == proto.InfoBlockSize
			return nil
		})
	switch {
	case err != nil:
		return true, err
	case final.Type == proto.RepErrUnsup:
		return false, nil
	case final.Failed():
		return true, refusal(final.Type, t.export, text)
	case !t.seen:
		return true, violated("it did not say how large the export is")
	}
	return true, nil
}

// exportName is the option that every server knows, and that has no way to refuse but closing.
func (t *talk) exportName(noZeroes bool) error {
	if err := t.send(proto.AppendOption(nil, proto.OptExportName, t.export)); err != nil {
		return err
	}
	b := make([]byte, proto.ExportNameReplySize+proto.ExportNamePadding)
	if noZeroes {
		b = b[:proto.ExportNameReplySize]
	}
	if _, err := io.ReadFull(t.sock, b); err != nil {
		return absent{hungUp(err, fmt.Sprintf("when asked for export %q: it may have none of that "+
			"name", t.export))}
	}
	return proto.ParseExport(b[:proto.ExportNameReplySize], &t.session.Export)
}

// check judges what the server says about the export.
func (t *talk) check(before error) error {
	e := &t.session.Export
	switch {
	case before != nil:
		return nil
	case e.Size > 1<<63-1:
		return violated("the export has %d bytes, more than 2^63-1", e.Size)
	case e.MinBlock&(e.MinBlock-1) != 0 || e.MinBlock > 64<<10:
		return violated("its smallest block has %d bytes, which is no power of two up to 65536",
			e.MinBlock)
	case t.session.BlockSizes && e.MaxPayload < max(e.MinBlock, 512):
		return violated("its largest payload has %d bytes, less than a block", e.MaxPayload)
	case !proto.ValidString(e.Name) || !proto.ValidString(e.Description):
		return violated("the name or description of the export is not text of at most %d bytes",
			proto.MaxString)
	}
	return nil
}

// exchange sends an option and reads its answers up to the final one. each sees those before; text
// is what a refusal says.
func (t *talk) exchange(option uint32, message []byte,
	each func(proto.OptionReply, []byte) error) (final proto.OptionReply, text string, err error) {
	if err := t.send(message); err != nil {
		return final, "", err
	}
	most := repliesMost
	if option == proto.OptList {
		most = exportsMost
	}
	for range most {
		var head [proto.OptionReplySize]byte
		if _, err := io.ReadFull(t.sock, head[:]); err != nil {
			return final, "", hungUp(err, "during the negotiation")
		}
		r, err := proto.ParseOptionReply(head[:], option)
		if err != nil {
			return final, "", err
		}
		if r.Length > optionReplyMost {
			return final, "", violated("an option's answer of %d bytes", r.Length)
		}
		data := make([]byte, r.Length)
		if _, err := io.ReadFull(t.sock, data); err != nil {
			return final, "", hungUp(err, "during the negotiation")
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
	return final, "", violated("more than %d answers to one option", most)
}

func (t *talk) send(b []byte) error {
	if _, err := t.sock.Write(b); err != nil {
		return hungUp(err, "during the negotiation")
	}
	return nil
}

// refusal is an option's answer that says no.
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
	err := fmt.Errorf("export %q: %s%s", export, what, said(text))
	if kind == proto.RepErrUnknown {
		return absent{err}
	}
	return err
}
