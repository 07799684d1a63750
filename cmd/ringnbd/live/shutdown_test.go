// SIGTERM: requests are served for another moment, no request fails because of it, connections end
// between two requests as soon as they can, everything acknowledged is on the disk, and the exit
// status is 0. A client that comes back (the kernel's, or qemu's with reconnect-delay) sends again
// what was not answered.

package live_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// loadUntilShutdown writes stamped units at a depth until the connection ends, or, if it is modest,
// until the signal; then it takes the replies that are owed. It counts requests that got no reply.
type loadUntilShutdown struct {
	modest    bool // it stops sending when the signal comes, and is owed everything
	signalled atomic.Bool
	owing     atomic.Int32
	failed    atomic.Value // first unexpected error
}

func (l *loadUntilShutdown) run(book *ledger, p *peer, k, writers int) {
	const depth = 16
	unitOf := map[uint64]int{}
	next, ending := 0, false
	for !ending || len(unitOf) > 0 {
		ending = ending || l.modest && l.signalled.Load()
		for !ending && len(unitOf) < depth {
			u := (next*writers + k) % len(book.sent)
			next++
			cookie, err := p.send(cmdWrite, 0, uint64(u*book.unit), uint32(book.unit),
				book.content(u, book.sent[u].Add(1)))
			if err != nil {
				ending = true // it closed; replies may still be there to read
				break
			}
			unitOf[cookie] = u
		}
		if len(unitOf) == 0 {
			break
		}
		r, err := p.receive()
		if err != nil {
			break
		}
		u := unitOf[r.cookie]
		delete(unitOf, r.cookie)
		if r.errno != 0 {
			l.failed.Store(r.errno)
			break
		}
		book.acked[u].Store(book.sent[u].Load())
	}
	l.owing.Add(int32(len(unitOf)))
	p.disconnect()
}

func TestSIGTERMDuringLoadFailsNothing(t *testing.T) {
	onlyRingnbd(t)
	for _, transport := range transports {
		for _, modest := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s,modest=%v", transport, modest), func(t *testing.T) {
				const writers = 4
				image := sparseImage(t, 64<<20)
				s := serve(t, transport, image)
				// Every writer has at most 16 units in flight of 1024: no unit twice.
				book, load := newLedger(writers*1024, 4096), &loadUntilShutdown{modest: modest}
				var all sync.WaitGroup
				for k := range writers {
					p := s.dial(t)
					all.Go(func() { load.run(book, p, k, writers) })
				}
				time.Sleep(500 * time.Millisecond)
				load.signalled.Store(true)
				s.signal(syscall.SIGTERM)
				s.awaitExit(15 * time.Second)
				all.Wait()
				if e := load.failed.Load(); e != nil {
					t.Errorf("a request was answered with error %v", e)
				}
				if n := load.owing.Load(); modest && n > 0 {
					t.Errorf("%d requests got no reply from a server that had time for them", n)
				}
				checkImage(t, image, book)
			})
		}
	}
}

// checkImage reads the image past the server: every acknowledged write is there.
func checkImage(t *testing.T, image string, book *ledger) {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, book.unit)
	written := 0
	for u := range book.acked {
		v := book.acked[u].Load()
		if v == 0 || v != book.sent[u].Load() {
			continue // never written, or the last write is open
		}
		written++
		if _, err := f.ReadAt(got, int64(u*book.unit)); err != nil ||
			!bytes.Equal(got, book.content(u, v)) {
			t.Fatalf("unit %d is not what was acknowledged (%v)", u, err)
		}
	}
	if written == 0 {
		t.Error("nothing was written: nothing was tested")
	}
}

func TestSIGTERMWithIdleConnectionsEndsAtOnce(t *testing.T) {
	onlyRingnbd(t)
	s := serve(t, measure.TCP, sparseImage(t, 1<<20))
	p, q := s.dial(t), s.dial(t)
	if err := p.write(0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	started, err := dialRaw(s.address) // a handshake that does not go on
	if err != nil {
		t.Fatal(err)
	}
	defer started.Close()
	before := time.Now()
	s.stop()
	// half of what a client may take that is not idle
	if took := time.Since(before); took > 15*time.Second {
		t.Errorf("the end took %s", took)
	}
	for _, c := range []*peer{p, q} {
		c.conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) &&
			!errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("an idle connection sees %v, not its end", err)
		}
	}
}

// readsNothing is a client that asks for far more than a socket holds and takes none of it; when it
// returns the server is stuck with its replies.
func readsNothing(t *testing.T, s *server) {
	t.Helper()
	p := s.dial(t)
	for range 8 {
		if _, err := p.send(cmdRead, 0, 0, 32<<20, nil); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond)
}

func TestSIGTERMIsBoundedWhenAClientDoesNotReadItsReplies(t *testing.T) {
	onlyRingnbd(t)
	s := serve(t, measure.Unix, randomImage(t, 64<<20, 1), "--shutdown-timeout", "2s")
	readsNothing(t, s)
	s.signal(syscall.SIGTERM)
	select {
	case <-s.exit: // with which status is not said when time runs out
		s.ended = true
	case <-time.After(20 * time.Second):
		t.Error("not ended 20 s after SIGTERM with --shutdown-timeout 2s")
		s.kill()
	}
}

func TestSecondSIGTERMEndsAtOnceWithStatusOne(t *testing.T) {
	onlyRingnbd(t)
	s := serve(t, measure.Unix, randomImage(t, 64<<20, 1), "--shutdown-timeout", "30s")
	readsNothing(t, s)
	s.signal(syscall.SIGTERM)
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(s.log.String(),
		"shutting down") && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond) // the server takes two at once for one
	s.signal(syscall.SIGINT)
	select {
	case <-s.exit:
		s.ended = true
		if code := s.cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("exit status %d, want 1", code)
		}
	case <-time.After(15 * time.Second):
		t.Error("not ended 15 s after the second signal")
		s.kill()
	}
}

// Storage that hangs: it is named, the other exports are flushed, and the process ends, which it
// does not do by itself with a file of FUSE that hangs.
func TestShutdownWhileStorageHangs(t *testing.T) {
	onlyRingnbd(t)
	for _, row := range []struct {
		name, timeout string
		again         bool // a second signal
		want          string
	}{
		{"SIGTERM", "2s", false,
			`export "hung" was not flushed (its storage did not answer in time)`},
		{"twice", "60s", true, "ended at once by a second signal"},
	} {
		t.Run(row.name, func(t *testing.T) {
			image, hang, heal := fuseFile(t)
			s := serveRingnbd(t, measure.Unix, "--shutdown-timeout", row.timeout, "--export",
				"hung="+image, "--export", "well="+sparseImage(t, 1<<20))
			for _, export := range []string{"hung", "well"} {
				p, err := connect(s.address, export)
				if err == nil {
					err = p.write(0, make([]byte, 4096))
				}
				if err != nil {
					t.Fatal(err)
				}
				p.disconnect()
			}
			p, err := connect(s.address, "hung")
			if err != nil {
				t.Fatal(err)
			}
			defer p.conn.Close()
			hang()
			t.Cleanup(heal)
			// a request that the daemon has still taken cannot be given up by anybody
			time.Sleep(time.Second)
			if _, err := p.send(cmdRead, 0, 1<<20, 4096, nil); err != nil {
				t.Fatal(err)
			}
			s.signal(syscall.SIGTERM)
			if row.again {
				if !eventually(patience, func() bool {
					return strings.Contains(s.log.String(), "shutting down")
				}) {
					t.Fatal("the first signal is not seen")
				}
				time.Sleep(300 * time.Millisecond) // the server takes two at once for one
				s.signal(syscall.SIGTERM)
			}
			select {
			case <-s.exit:
				s.ended = true
				if code := s.cmd.ProcessState.ExitCode(); code != 1 {
					t.Errorf("exit status %d, want 1", code)
				}
			case <-time.After(30 * time.Second):
				heal() // else it cannot be ended
				t.Fatal("the process is still there after 30 s")
			}
			if log := s.log.String(); !strings.Contains(log, row.want) ||
				strings.Contains(log, `"well" was`) {
				t.Errorf("log, want %s:\n%s", row.want, log)
			}
		})
	}
}
