// Negotiation, client's side, over an ordinary net.Conn: fixed newstyle with GO, or EXPORT_NAME for servers that know nothing newer.
//
// Invariant: not one byte behind the negotiation is read, so the descriptor can go to a loop.

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"ringnbd/proto"
)

// replyMost bounds the data of one option reply, in bytes: far above any name and description.
const replyMost = 64 << 10

var errInterrupted = errors.New("interrupted while connecting")

// connect opens one connection to the target and negotiates its export. The descriptor is in blocking mode and in nobody's poller.
func connect(ctx context.Context, t *Target, timeout time.Duration) (fd int, e proto.Export, note string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, t.Network, t.Address)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			err = errInterrupted
		}
		return -1, e, "", dialError(t, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	e, err = negotiate(c, t.Export)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		var late net.Error
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			err = errInterrupted
		case errors.As(err, &late) && late.Timeout():
			err = fmt.Errorf("the server did not finish the negotiation within %v (--timeout)", timeout)
		}
		return -1, e, "", fmt.Errorf("%s: %w", t.Text, err)
	}
	fd, note, err = detach(c)
	if err != nil {
		return -1, e, "", fmt.Errorf("%s: %w", t.Text, err)
	}
	return fd, e, note, nil
}

// dialError says in one line what to do about the usual reasons.
func dialError(t *Target, err error) error {
	advice := ""
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		advice = "; is the server running?"
	case errors.Is(err, syscall.ENOENT) && t.Network == "unix":
		advice = "; there is no such socket: is the server running?"
	case errors.Is(err, syscall.EMFILE):
		advice = "; raise the limit of open files (ulimit -n)"
	}
	return fmt.Errorf("%s: %w%s", t.Text, err, advice)
}

// negotiate asks for an export by name.
func negotiate(c net.Conn, name string) (proto.Export, error) {
	var e proto.Export
	var b [proto.BannerSize]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return e, closed(err)
	}
	offered, err := proto.ParseBanner(b[:])
	if err != nil {
		return e, err
	}
	flags := proto.FlagClientFixedNewstyle
	if offered&proto.FlagFixedNewstyle == 0 {
		flags = 0
	}
	if offered&proto.FlagNoZeroes != 0 {
		flags |= proto.FlagClientNoZeroes
	}
	hello := proto.AppendClientFlags(nil, flags)
	if flags&proto.FlagClientFixedNewstyle != 0 {
		hello = proto.AppendInfo(hello, proto.OptGo, name, proto.InfoBlockSize)
		if _, err := c.Write(hello); err != nil {
			return e, closed(err)
		}
		known, err := goReplies(c, &e, name)
		if known || err != nil {
			return e, err
		}
		hello = hello[:0]
	}
	return e, exportName(c, &e, name, hello, flags&proto.FlagClientNoZeroes != 0)
}

// goReplies reads what the server has to say about GO; false if it does not know that option.
func goReplies(c net.Conn, e *proto.Export, name string) (known bool, err error) {
	seen := false
	for {
		var head [proto.OptionReplySize]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return true, closed(err)
		}
		r, err := proto.ParseOptionReply(head[:], proto.OptGo)
		if err != nil {
			return true, err
		}
		if r.Length > replyMost {
			return true, fmt.Errorf("an option reply of %d bytes: this is no NBD server", r.Length)
		}
		data := make([]byte, r.Length)
		if _, err := io.ReadFull(c, data); err != nil {
			return true, closed(err)
		}
		switch {
		case r.Type == proto.RepErrUnsup:
			return false, nil
		case r.Failed():
			return true, refusal(r.Type, name, string(data))
		case r.Type == proto.RepInfo:
			if err := proto.ParseInfo(data, e); err != nil {
				return true, err
			}
			seen = seen || len(data) >= 2 && binary.BigEndian.Uint16(data) == proto.InfoExport
		case r.Final() && !seen:
			return true, errors.New("the server did not say how large the export is")
		case r.Final() && (e.MinBlock&(e.MinBlock-1) != 0 || e.MinBlock > 64<<10):
			return true, fmt.Errorf("the server says that its smallest block has %d bytes, which the protocol does not allow: not a power of two up to 65536", e.MinBlock)
		case r.Final():
			return true, nil
		}
	}
}

// exportName is the option that every server knows, and that has no way to refuse but closing.
func exportName(c net.Conn, e *proto.Export, name string, hello []byte, noZeroes bool) error {
	if _, err := c.Write(proto.AppendOption(hello, proto.OptExportName, name)); err != nil {
		return closed(err)
	}
	n := proto.ExportNameReplySize
	if !noZeroes {
		n += proto.ExportNamePadding
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		return fmt.Errorf("the server closed the connection when asked for export %q: it may have none of that name", name)
	}
	return proto.ParseExport(b[:proto.ExportNameReplySize], e)
}

// refusal is an option reply that says no.
func refusal(kind uint32, name, text string) error {
	what := map[uint32]string{
		proto.RepErrPolicy:        "the server refuses it by policy",
		proto.RepErrTLSReqd:       "the server demands TLS, which is not spoken",
		proto.RepErrUnknown:       "the server has no such export",
		proto.RepErrShutdown:      "the server is shutting down",
		proto.RepErrBlockSizeReqd: "the server demands that its block sizes are honoured",
		proto.RepErrExtHeaderReqd: "the server demands extended headers, which are not spoken",
	}[kind]
	if what == "" {
		what = fmt.Sprintf("the server refuses it (error %d)", kind&^proto.RepErrorBit)
	}
	if text != "" {
		what += fmt.Sprintf(": %q", text)
	}
	return fmt.Errorf("export %q: %s", name, what)
}

// closed puts the end of the stream into words.
func closed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return errors.New("the server closed the connection during the negotiation")
	}
	return err
}
