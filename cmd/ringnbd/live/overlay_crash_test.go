// kill -9 of a server whose export is a persistent overlay, again and again on the same top: what
// was acknowledged before a FLUSH reply, or written with FUA, is there afterwards, no byte is from
// anywhere else, and the origin has not changed.

package live_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

var overlayKills = flag.Int("overlay-kills", 4, "how often a server with an overlay is killed")

// The units of a layered ledger lie in clusters, each in another page of the top's map.
const (
	clusterUnits  = 64
	clusters      = 5
	clusterLength = 66 << 20
	layeredLength = clusters * clusterLength
)

// layered is what may be on an overlay: for each unit the versions since it was looked at last.
type layered struct {
	unit    int
	base    [][]byte        // version 0: what was there when the server started
	sent    []atomic.Uint32 // newest version handed to the server
	durable []atomic.Uint32 // newest version that a crash may not lose
	acked   []atomic.Uint32
	flushes atomic.Uint32
	seed    uint64
}

// newLayered begins a ledger of an overlay that shows what base has in its units.
func newLayered(unit int, seed uint64, base [][]byte) *layered {
	n := clusterUnits * clusters
	return &layered{unit: unit, base: base, sent: make([]atomic.Uint32, n),
		durable: make([]atomic.Uint32, n), acked: make([]atomic.Uint32, n), seed: seed}
}

// layeredOn begins a ledger of an overlay that has nothing of its own yet.
func layeredOn(t *testing.T, origin string, unit int, seed uint64) *layered {
	t.Helper()
	l := newLayered(unit, seed, make([][]byte, clusterUnits*clusters))
	for u := range l.base {
		l.base[u] = partOf(t, origin, l.at(u), unit)
	}
	return l
}

// partOf reads a part of a file.
func partOf(t *testing.T, path string, at uint64, n int) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := make([]byte, n)
	if _, err := f.ReadAt(part, int64(at)); err != nil {
		t.Fatal(err)
	}
	return part
}

// checkAround compares what lies behind the units of each cluster with the origin.
func (l *layered) checkAround(t *testing.T, p *peer, origin string) {
	t.Helper()
	const length = 512 << 10
	for c := range clusters {
		at := l.at(c*clusterUnits) + uint64(clusterUnits*l.unit)
		got, err := p.read(at, length)
		if err != nil || !bytes.Equal(got, partOf(t, origin, at, length)) {
			t.Errorf("at %d, where nothing was written, the overlay does not show its origin: %v",
				at, err)
		}
	}
}

func (l *layered) at(u int) uint64 {
	return uint64(u/clusterUnits)*clusterLength + uint64(u%clusterUnits*l.unit)
}

// what is how version v is made: the command and its flags.
func (l *layered) what(v uint32) (command, flags uint16) {
	switch v % 11 {
	case 3:
		return cmdZeroes, 0
	case 5:
		return cmdZeroes, flagNoHole
	case 7:
		if l.unit%4096 == 0 {
			return cmdTrim, 0 // of whole blocks, which read as zeroes
		}
		return cmdZeroes, flagFUA
	case 9:
		return cmdWrite, flagFUA
	}
	return cmdWrite, 0
}

func (l *layered) content(u int, v uint32) []byte {
	if v == 0 {
		return l.base[u]
	}
	if command, _ := l.what(v); command != cmdWrite {
		return make([]byte, l.unit)
	}
	return pattern(l.unit, l.seed<<48|uint64(u)<<32|uint64(v))
}

// writer changes the units that belong to it until the connection dies (bounded).
func (l *layered) writer(p *peer, k, writers int) {
	random := rand.New(rand.NewPCG(uint64(k), l.seed))
	p.changeUnits(func() int { return random.IntN(len(l.sent)/writers)*writers + k },
		func(u int) (uint64, error) {
			v := l.sent[u].Add(1)
			command, flags := l.what(v)
			data := []byte(nil)
			if command == cmdWrite {
				data = l.content(u, v)
			}
			return p.send(command, flags, l.at(u), uint32(l.unit), data)
		},
		func(u int) {
			v := l.sent[u].Load()
			l.acked[u].Store(v)
			if _, flags := l.what(v); flags&flagFUA != 0 {
				l.harden(u, v)
			}
		})
}

// harden notes that a version is durable.
func (l *layered) harden(u int, v uint32) {
	for {
		old := l.durable[u].Load()
		if old >= v || l.durable[u].CompareAndSwap(old, v) {
			return
		}
	}
}

// flusher flushes on a connection of its own until it dies.
func (l *layered) flusher(p *peer) { p.keepFlushing(l.acked, &l.flushes, l.harden) }

// check compares the export with the ledger, and returns what is there.
func (l *layered) check(p *peer) ([][]byte, error) {
	found := make([][]byte, len(l.base))
	for u := range l.base {
		got, err := p.read(l.at(u), l.unit)
		if err != nil {
			return nil, err
		}
		found[u] = got
		if err := l.explain(u, got); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// explain returns an error if a byte of a unit is in none of the versions that may be there.
func (l *layered) explain(u int, got []byte) error {
	first, last := l.durable[u].Load(), l.sent[u].Load()
	i := unexplained(got, first, last, func(v uint32) []byte { return l.content(u, v) })
	if i >= 0 {
		return fmt.Errorf("unit %d at %d, byte %d: %#x is in none of versions %d (durable) to %d "+
			"(sent), %d was acknowledged", u, l.at(u), i, got[i], first, last, l.acked[u].Load())
	}
	return nil
}

// load changes an export over several connections, until its server is killed.
func (l *layered) load(t *testing.T, s *server) (wait func()) {
	t.Helper()
	return loadUntilKilled(t, s, l.writer, l.flusher)
}

// layeredOrigin makes an origin with data where units are.
func layeredOrigin(t *testing.T) string {
	t.Helper()
	path := sparseImage(t, layeredLength)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for c := range clusters {
		if _, err := f.WriteAt(pattern(1<<20, uint64(c)+1), int64(c)*clusterLength); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestKillMinusNineOfAnOverlayLosesNothingThatWasFlushed(t *testing.T) {
	onlyRingnbd(t)
	for _, unit := range []int{4096, 512, 1000, 16384, 65536} {
		t.Run(fmt.Sprintf("%dBytes", unit), func(t *testing.T) {
			origin := layeredOrigin(t)
			before := checksum(t, origin)
			top := filepath.Join(filepath.Dir(origin), "top.cow")
			tree := fmt.Sprintf("overlay(%s, %s, create=if-missing)", origin, top)
			l, flushes := layeredOn(t, origin, unit, 1), uint32(0)
			for round := range *overlayKills + 1 {
				s := serve(t, measure.Unix, tree)
				p := s.dial(t)
				found, err := l.check(p)
				if err != nil {
					t.Fatalf("round %d, after %d flushes: %v", round, l.flushes.Load(), err)
				}
				l.checkAround(t, p, origin)
				flushes += l.flushes.Load()
				if round == *overlayKills {
					s.stop()
					break
				}
				l = newLayered(unit, uint64(round)+2, found)
				wait := l.load(t, s)
				time.Sleep(time.Duration(50+rand.IntN(400)) * time.Millisecond)
				s.kill()
				wait()
			}
			if checksum(t, origin) != before {
				t.Error("the origin has changed")
			}
			if flushes == 0 {
				t.Error("no FLUSH was answered: nothing was tested")
			}
			t.Logf("%d kills, %d flushes", *overlayKills, flushes)
		})
	}
}
