// A small NBD server of the tests: honest memory, unless a test tells it to lie, stall, refuse or
// die.

package load

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ringnbd/engine/client"
	"ringnbd/proto"
)

type peer struct {
	export proto.Export
	names  []string // exports that there are; nil: any
	old    bool     // knows no option but EXPORT_NAME
	plain  bool     // not even the fixed newstyle

	// Lies, called with the lock held. read may change what goes out; write may change what is
	// kept; answer replaces the error, or closes (true).
	read   func(p *peer, r *proto.Request, b []byte)
	write  func(p *peer, r *proto.Request, b []byte)
	answer func(p *peer, r *proto.Request) (proto.Errno, bool)
	zero   func(p *peer, r *proto.Request) bool // false: a WRITE_ZEROES that is forgotten
	stall  func(n int) time.Duration            // before the n-th request of all is answered
	// after the n-th negotiation: it may say something, or close (false)
	greet func(n int, out *bufio.Writer) bool
	offer func(n int) (flags uint16, known bool) // the answer to the n-th GO

	mu       sync.Mutex
	data     []byte
	previous []byte // what was there before the last write to each place
	n        int
	seen     [kinds]int
	met      int // negotiations that ended well
	gos      int // asked for, where it matters
	goodbyes int
	fua      int
	listener net.Listener
	serving  sync.WaitGroup
}

const everyFlag = proto.FlagHasFlags | proto.FlagSendFlush | proto.FlagSendFUA |
	proto.FlagSendTrim | proto.FlagCanMultiConn | proto.FlagSendWriteZeroes | proto.FlagSendFastZero

// serve starts a peer on a Unix socket; its URI is returned.
func serve(t *testing.T, p *peer) string {
	t.Helper()
	if p.export.Size == 0 {
		p.export.Size = 1 << 20
	}
	if p.export.Flags == 0 {
		p.export.Flags = everyFlag
	}
	p.data, p.previous = make([]byte, p.export.Size), make([]byte, p.export.Size)
	path := filepath.Join(t.TempDir(), "s")
	var err error
	if p.listener, err = net.Listen("unix", path); err != nil {
		t.Fatal(err)
	}
	p.serving.Add(1)
	go func() {
		defer p.serving.Done()
		for {
			c, err := p.listener.Accept()
			if err != nil {
				return
			}
			p.serving.Add(1)
			go func() {
				defer p.serving.Done()
				defer c.Close()
				p.converse(c)
			}()
		}
	}()
	t.Cleanup(p.end)
	return "nbd+unix:///?socket=" + url.PathEscape(path)
}

// end waits for what is still being served, such as the goodbyes; what the peer counted may be
// looked at then.
func (p *peer) end() {
	_ = p.listener.Close()
	p.serving.Wait()
}

func (p *peer) converse(c net.Conn) {
	in, out := bufio.NewReaderSize(c, 1<<16), bufio.NewWriterSize(c, 1<<16)
	if !p.negotiate(in, out) || out.Flush() != nil {
		return
	}
	p.mu.Lock()
	p.met++
	n := p.met
	p.mu.Unlock()
	if p.greet != nil && (!p.greet(n, out) || out.Flush() != nil) {
		return
	}
	head := make([]byte, proto.RequestSize)
	for {
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		r, ok := proto.ParseRequest(head)
		if !ok || !p.request(in, out, &r) {
			return
		}
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

// negotiate answers options until one of them ends the negotiation.
func (p *peer) negotiate(in *bufio.Reader, out *bufio.Writer) bool {
	order := binary.BigEndian
	banner := order.AppendUint64(order.AppendUint64(nil, proto.Magic), proto.OptionMagic)
	flags := proto.FlagFixedNewstyle | proto.FlagNoZeroes
	if p.plain {
		flags = 0
	}
	_, _ = out.Write(order.AppendUint16(banner, flags))
	var b [16]byte
	if out.Flush() != nil {
		return false
	}
	if _, err := io.ReadFull(in, b[:4]); err != nil {
		return false
	}
	for {
		if _, err := io.ReadFull(in, b[:]); err != nil {
			return false
		}
		option, data := order.Uint32(b[8:]), make([]byte, order.Uint32(b[12:]))
		if _, err := io.ReadFull(in, data); err != nil {
			return false
		}
		reply := func(kind uint32, data []byte) {
			head := order.AppendUint32(order.AppendUint64(nil, proto.OptionReplyMagic), option)
			_,
				_ = out.Write(append(order.AppendUint32(order.AppendUint32(head, kind),
				uint32(len(data))), data...))
		}
		flags, known := p.offers(option)
		subject := order.AppendUint16(order.AppendUint64(nil, p.export.Size), flags)
		switch {
		case option == proto.OptExportName && !p.has(string(data)):
			return false
		case option == proto.OptExportName:
			_, _ = out.Write(subject)
			if p.plain {
				_, _ = out.Write(make([]byte, proto.ExportNamePadding))
			}
			return true
		case option != proto.OptGo || p.old:
			reply(proto.RepErrUnsup, nil)
		case !known || !p.has(string(data[4:4+order.Uint32(data)])):
			reply(proto.RepErrUnknown, []byte("never heard of it"))
		default:
			reply(proto.RepInfo, append([]byte{0, byte(proto.InfoExport)}, subject...))
			if p.export.MinBlock > 0 {
				sizes := order.AppendUint32(order.AppendUint32(order.AppendUint32([]byte{0,
					byte(proto.InfoBlockSize)}, p.export.MinBlock), 4096),
					cmp.Or(p.export.MaxPayload, proto.DefaultMaxPayload))
				reply(proto.RepInfo, sizes)
			}
			reply(proto.RepAck, nil)
			return true
		}
		if out.Flush() != nil {
			return false
		}
	}
}

// offers is the export's flags in the answer to this GO, and whether the export is there at all.
func (p *peer) offers(option uint32) (flags uint16, known bool) {
	if option != proto.OptGo || p.offer == nil {
		return p.export.Flags, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gos++
	return p.offer(p.gos)
}

func (p *peer) has(name string) bool {
	for _, n := range p.names {
		if n == name {
			return true
		}
	}
	return p.names == nil
}

// request serves one; false closes the connection.
func (p *peer) request(in *bufio.Reader, out *bufio.Writer, r *proto.Request) bool {
	payload := make([]byte, r.Payload())
	if _, err := io.ReadFull(in, payload); err != nil {
		return false
	}
	p.mu.Lock()
	p.n++
	n := p.n
	if r.Flags&proto.CmdFlagFUA != 0 {
		p.fua++
	}
	p.mu.Unlock()
	if p.stall != nil {
		if pause := p.stall(n); pause > 0 {
			time.Sleep(pause)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	head := make([]byte, proto.SimpleReplySize)
	errno := proto.Success
	if p.answer != nil {
		var quit bool
		if errno, quit = p.answer(p, r); quit {
			return false
		}
	}
	if r.Offset > p.export.Size || r.Length > p.export.Size-r.Offset {
		errno = proto.EINVAL
	}
	var answer []byte
	if errno == proto.Success {
		switch r.Command {
		case proto.CmdRead:
			p.seen[kindRead]++
			answer = append(answer, p.data[r.Offset:r.Offset+r.Length]...)
			if p.read != nil {
				p.read(p, r, answer)
			}
		case proto.CmdWrite:
			p.seen[kindWrite]++
			copy(p.previous[r.Offset:], p.data[r.Offset:r.Offset+r.Length])
			if p.write != nil {
				p.write(p, r, payload)
			}
			copy(p.data[r.Offset:], payload)
		case proto.CmdTrim:
			p.seen[kindTrim]++
			clear(p.data[r.Offset : r.Offset+r.Length])
		case proto.CmdWriteZeroes:
			p.seen[kindZero]++
			copy(p.previous[r.Offset:], p.data[r.Offset:r.Offset+r.Length])
			if p.zero == nil || p.zero(p, r) {
				clear(p.data[r.Offset : r.Offset+r.Length])
			}
		case proto.CmdFlush:
			p.seen[kindFlush]++
		case proto.CmdDisc:
			p.goodbyes++
			return false
		}
	}
	proto.PutSimpleReply(head, r.Cookie, errno)
	_, _ = out.Write(head)
	_, _ = out.Write(answer)
	return true
}

// options is a run of a moment on a URI: change what the test is about.
func options(t *testing.T, uri, pattern, bs string) Options {
	t.Helper()
	target, err := client.ParseTarget(uri)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePattern(pattern)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseMix(bs)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Prefix: "--", Target: target, Pattern: p, ReadPercent: 50, Sizes: m,
		Connections: 2, Depth: 8, Threads: 1, Seed: 1, Count: 2000, Timeout: 10 * time.Second}
}

// runs does what must succeed.
func runs(t *testing.T, o Options) *Report {
	t.Helper()
	r, err := Run(t.Context(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fails does what must fail, in words that are one line and contain all of these.
func fails(t *testing.T, o Options, words ...string) *Report {
	t.Helper()
	r, err := Run(t.Context(), o, nil)
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	if strings.Contains(err.Error(), "\n") && r == nil {
		t.Errorf("more than one line: %v", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
	return r
}
