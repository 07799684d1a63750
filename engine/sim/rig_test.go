// A rig is a ring with an arena, sockets and a disk on which a script of operations can run, of the
// real kernel or of the simulated kernel. Both must log the same: a simulation that answers
// differently from Linux teaches the engine the wrong habits.

package sim

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
)

const (
	rigArena = 1 << 20
	rigDisk  = 256 << 10
)

// farEnd is the far end of a rig's socket.
type farEnd interface {
	write(n int)    // n bytes of a pattern
	read(n int) int // up to n bytes; what came
	closeWrite()    // half-close
	close()         // as close(2)
	reset()         // as with SO_LINGER 0
	settle()        // whatever is on its way arrives
	buffers(n int)  // about that much fits in each direction
	drain() int     // reads all there is
}

// ring is what scripts submit to.
type ring interface {
	SQE() *uring.SQE
	Enter(wait uint32, timeout time.Duration) error
	Reap(out []uring.CQE) int
	Shutdown(fd int32)
}

type rig struct {
	t     *testing.T
	ring  ring
	arena *uring.Arena
	log   []string
	pair  func() (int32, farEnd)
	event func() (int32, func())
	disk  struct {
		truncate func(n int64)
		content  func() []byte
	}
	pending func() // simulated: let operations go on
}

func (r *rig) note(format string, args ...any) {
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

// show returns bytes of the arena at off as a sum.
func (r *rig) show(off uint64, n int) string {
	b := r.arena.Bytes(off, n)
	sum := uint32(0)
	for _, x := range b {
		sum = sum*31 + uint32(x)
	}
	return fmt.Sprintf("%d bytes %08x", n, sum)
}

// submit enters what was queued and waits for that many completions, in order of user_data.
func (r *rig) submit(completions int) {
	r.t.Helper()
	var got []uring.CQE
	for tries := 0; len(got) < completions && tries < 2000; tries++ {
		if err := r.ring.Enter(uint32(completions-len(got)), 2*time.Millisecond); err != nil {
			r.t.Fatal(err)
		}
		if r.pending != nil {
			r.pending()
		}
		var out [16]uring.CQE
		got = append(got, out[:r.ring.Reap(out[:])]...)
	}
	for data := uint64(0); data < 100; data++ {
		for _, c := range got {
			if c.UserData == data {
				r.note("%d -> %d", c.UserData, c.Res)
			}
		}
	}
	if len(got) != completions {
		r.note("%d completions", len(got))
	}
}

// quiet checks that nothing completes.
func (r *rig) quiet() {
	var out [16]uring.CQE
	for range 3 {
		_ = r.ring.Enter(1, time.Millisecond)
		if r.pending != nil {
			r.pending()
		}
		if n := r.ring.Reap(out[:]); n > 0 {
			r.note("%d unexpected completions, the first: %+v", n, out[0])
		}
	}
}

func (r *rig) message(off uint64, pieces ...[2]uint64) uint64 {
	v := r.arena.Iovecs(off+64, len(pieces))
	for i, p := range pieces {
		v[i] = uring.Iovec{Base: r.arena.Addr(p[0]), Len: p[1]}
	}
	*r.arena.Msghdr(off) = uring.Msghdr{Iov: r.arena.Addr(off + 64), IovLen: uint64(len(pieces))}
	return r.arena.Addr(off)
}

// realEnd is a socket of the real kernel.
type realEnd struct {
	t    *testing.T
	conn interface {
		net.Conn
		CloseWrite() error
	}
	server int
	n      byte
}

func (p *realEnd) write(n int) {
	b := make([]byte, n)
	for i := range b {
		p.n++
		b[i] = p.n
	}
	_, _ = p.conn.Write(b)
}

func (p *realEnd) read(n int) int {
	b := make([]byte, n)
	_ = p.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	k, err := io.ReadFull(p.conn, b)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && k == 0 {
		return -1
	}
	return k
}

func (p *realEnd) drain() int {
	_ = p.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, _ := io.Copy(io.Discard, p.conn)
	return int(n)
}

func (p *realEnd) closeWrite() { _ = p.conn.CloseWrite() }
func (p *realEnd) close()      { _ = p.conn.Close() }
func (p *realEnd) settle()     { time.Sleep(3 * time.Millisecond) }

func (p *realEnd) reset() {
	if c, ok := p.conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = p.conn.Close()
}

func (p *realEnd) buffers(n int) {
	_ = unix.SetsockoptInt(p.server, unix.SOL_SOCKET, unix.SO_SNDBUF, n)
	_ = p.conn.(interface{ SetReadBuffer(int) error }).SetReadBuffer(n)
}

// realRig opens a ring on this thread. tcp: sockets are loopback TCP, else a Unix socketpair.
func realRig(t *testing.T, tcp bool) *rig {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	ring, err := uring.Open(uring.Config{Entries: 32, Completions: 64})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ring: ring, arena: newArena(t)}
	path := filepath.Join(t.TempDir(), "disk")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EINVAL) {
		t.Skip("the temporary directory's file system has no O_DIRECT (tmpfs?)")
	}
	if err == nil {
		err = errors.Join(unix.Ftruncate(fd, rigDisk), ring.RegisterBuffers(r.arena),
			ring.RegisterFiles([]int32{int32(fd)}))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ring.Close(); _ = unix.Close(fd) })
	r.disk.truncate = func(n int64) { _ = unix.Ftruncate(fd, n) }
	r.disk.content = func() []byte { b, _ := os.ReadFile(path); return b }
	r.pair = func() (int32, farEnd) { return realPair(t, tcp) }
	r.event = func() (int32, func()) {
		fd, err := uring.Eventfd()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return int32(fd), func() { uring.Notify(fd) }
	}
	return r
}

func realPair(t *testing.T, tcp bool) (int32, farEnd) {
	p := &realEnd{t: t}
	if tcp {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		conn, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p.conn = conn.(*net.TCPConn)
		file, err := far.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		p.server, _ = unix.Dup(int(file.Fd()))
		_, _ = file.Close(), far.Close()
	} else {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fds[1]), "peer")
		conn, err := net.FileConn(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		p.conn, p.server = conn.(*net.UnixConn), fds[0]
	}
	_ = unix.SetNonblock(p.server, false)
	t.Cleanup(func() { _ = p.conn.Close(); _ = unix.Close(p.server) })
	return int32(p.server), p
}

// simEnd is a client of the simulation reduced to its socket.
type simEnd struct {
	w *World
	s *socket
	n byte
}

func (p *simEnd) write(n int) {
	b := make([]byte, n)
	for i := range b {
		p.n++
		b[i] = p.n
	}
	p.s.in.send(p.w, b)
}

func (p *simEnd) read(n int) int {
	got := 0
	for range 100 {
		p.settle()
		k := min(n-got, p.s.out.arrived)
		p.s.out.take(k)
		if got += k; got == n {
			return n
		}
		for _, k := range p.w.kernels {
			k.advance()
		}
	}
	if got == 0 && (p.s.dead || p.s.out.atEnd()) {
		return -1
	}
	return got
}

func (p *simEnd) drain() int    { return p.read(1 << 30) }
func (p *simEnd) closeWrite()   { p.s.in.ended = true }
func (p *simEnd) close()        { p.s.clientClose() }
func (p *simEnd) reset()        { p.s.breakOff(eCONNRESET) }
func (p *simEnd) buffers(n int) { p.s.in.limit, p.s.out.limit = n, n }
func (p *simEnd) settle()       { settleWires(p.w) }

func settleWires(w *World) {
	for w.deliverSome() {
		continue
	}
}

// plainWorld is a world in which nothing goes wrong and one disk.
func plainWorld(t testing.TB, e ExportPlan) *World {
	t.Helper()
	w := &World{rng: rand.New(rand.NewPCG(1, 2)), clock: 1, crashAt: 1 << 60, cutAt: -1,
		drainAt: -1}
	w.Plan.Exports, w.places = []ExportPlan{e}, map[int]bool{}
	w.mix = mix{inline: 1000}
	w.serve(w.open(w.addDisk(&w.Plan.Exports[0])), e, 0)
	return w
}

func simRig(t *testing.T) *rig {
	t.Helper()
	e := ExportPlan{Block: 512, Punch: true, ZeroRange: true, sparse: rigDisk}
	e.Size = rigDisk
	w := plainWorld(t, e)
	k := w.NewKernel(32, 64)
	r := &rig{t: t, ring: k, arena: newArena(t)}
	k.registerBuffers(r.arena)
	k.RegisterFiles([]int32{w.exports[0].opening.fds[0]})
	r.pair = func() (int32, farEnd) {
		s := w.newSocket(&client{world: w, x: w.exports[0]})
		s.in.limit, s.out.limit, s.pending = 64<<10, 64<<10, 0
		return s.fd, &simEnd{w: w, s: s}
	}
	r.event = w.Eventfd
	r.disk.truncate = func(n int64) { w.disks[0].truncate(uint64(n)) }
	r.disk.content = func() []byte { return w.disks[0].cache[:w.disks[0].length] }
	r.pending = func() {
		for k.advance() {
			continue
		}
	}
	k.pause = func() {
		r.pending()
		w.clock += 100e3
	}
	return r
}

func newArena(t testing.TB) *uring.Arena {
	t.Helper()
	a, err := uring.NewArena(rigArena, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// sameLogs fails when two rigs answered differently.
func sameLogs(t *testing.T, sim, real *rig) {
	t.Helper()
	a, b := strings.Join(sim.log, "\n"), strings.Join(real.log, "\n")
	if a != b {
		t.Errorf("the simulated kernel says:\n%s\nand Linux says:\n%s", a, b)
	}
}
