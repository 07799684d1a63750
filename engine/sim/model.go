// The model knows, for every byte of a disk, which requests may have written what is there. It
// never says what a byte is, only what it may be: requests in flight may or may not have happened,
// failed requests may have happened in part, and of two requests that overlap the protocol's
// promises say which is the last.
//
// The disk is cut into stretches with the same candidates. A candidate is dead once a later write
// to the same bytes was answered: no read sent after that may see it. A candidate is gone once such
// a write is durable: not even a power cut may bring it back.
//
// Invariant: the stretches cover the disk without gap or overlap, in order; no stretch is without a
// candidate that is not gone.

package sim

import (
	"bytes"
	"fmt"

	"ringnbd/proto"
)

// candidate is a request whose bytes may be on the disk.
type candidate struct {
	w    *request
	dead uint64 // tick; 0 = may be seen
	gone bool
}

// stretch is a range of the disk with the same candidates.
type stretch struct {
	lo, hi     uint64
	candidates []candidate
}

// model is what one disk may hold.
type model struct {
	world     *World
	size      uint64
	disk      *disk
	stretches []stretch
	volatile  []*request // changes that were answered with success and are not known to be durable
}

// newModel makes the model of a disk with its initial content.
func (w *World) newModel(d *disk) *model {
	m := &model{world: w, size: d.plan.Size, disk: d}
	data := d.plan.Size - d.plan.sparse
	m.stretches = append(m.stretches,
		stretch{lo: 0, hi: data, candidates: []candidate{{w: &request{durable: true}}}})
	if data < m.size {
		m.stretches = append(m.stretches,
			stretch{lo: data, hi: m.size,
				candidates: []candidate{{w: &request{durable: true, zero: true}}}})
	}
	return m
}

// find returns the index of the stretch that has the byte at off.
func (m *model) find(off uint64) int {
	lo, hi := 0, len(m.stretches)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; m.stretches[mid].lo <= off {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// split makes off a boundary between stretches.
func (m *model) split(off uint64) {
	if off == 0 || off >= m.size {
		return
	}
	i := m.find(off)
	if s := m.stretches[i]; s.lo != off {
		m.stretches = append(m.stretches, stretch{})
		copy(m.stretches[i+1:], m.stretches[i:])
		m.stretches[i].hi = off
		m.stretches[i+1].lo = off
		m.stretches[i+1].candidates = append([]candidate(nil), s.candidates...)
	}
}

// each calls visit for the stretches of [lo, hi), at whose ends there are boundaries.
func (m *model) each(lo, hi uint64, visit func(*stretch)) {
	if lo >= hi {
		return
	}
	for i := m.find(lo); i < len(m.stretches) && m.stretches[i].lo < hi; i++ {
		visit(&m.stretches[i])
	}
}

// mayHappen records that from now on the disk may hold what r writes.
func (m *model) mayHappen(r *request) {
	m.split(r.lo())
	m.split(r.hi())
	m.each(r.lo(), r.hi(), func(s *stretch) {
		s.candidates = append(s.candidates, candidate{w: r})
	})
}

// succeeded records that r was answered with success: what came before r on the same bytes cannot
// be read any more, unless r is a TRIM.
func (m *model) succeeded(r *request) {
	if r.Command != proto.CmdTrim {
		m.each(r.lo(), r.hi(), func(s *stretch) { m.markDead(s, r) })
	}
	if r.Flags&proto.CmdFlagFUA != 0 {
		m.world.mark(markFuaCovered)
		m.markDurable(r)
	} else if o := r.opening; o == nil || !o.closed {
		m.volatile = append(m.volatile, r)
	} else if !o.unflushed { // the reply was under way while the disk was put away
		m.markDurable(r)
	}
}

// markDead marks the candidates that w has certainly overwritten, and removes those that no request
// can see any more.
func (m *model) markDead(s *stretch, w *request) {
	keep := s.candidates[:0]
	oldest := m.world.oldestRead()
	for _, c := range s.candidates {
		if c.w != w && c.dead == 0 && before(c.w, w) {
			c.dead = m.world.tick
		}
		if c.dead == 0 || !c.gone || c.dead >= oldest {
			keep = append(keep, c)
		}
	}
	s.candidates = keep
}

// markDurable records that r is on stable storage: nothing that came before r on the same bytes may
// come back.
func (m *model) markDurable(r *request) {
	if r.durable {
		return
	}
	r.durable = true
	if r.Command == proto.CmdTrim {
		return
	}
	m.each(r.lo(), r.hi(), func(s *stretch) {
		for i := range s.candidates {
			if c := &s.candidates[i]; c.w != r && before(c.w, r) {
				c.gone = true
			}
		}
	})
}

// flushSucceeded records that a FLUSH sent at the given tick succeeded: every change answered
// before that tick is durable.
func (m *model) flushSucceeded(sent uint64) {
	keep := m.volatile[:0]
	for _, r := range m.volatile {
		if r.answered < sent {
			m.world.mark(markFlushCovered)
			m.markDurable(r)
		} else {
			keep = append(keep, r)
		}
	}
	m.volatile = keep
}

// withdraw records that r was refused: nothing of it is on the disk.
func (m *model) withdraw(r *request) {
	m.each(r.lo(), r.hi(), func(s *stretch) {
		keep := s.candidates[:0]
		for _, c := range s.candidates {
			if c.w != r {
				keep = append(keep, c)
			}
		}
		s.candidates = keep
	})
}

// putAway records that the engine has let go of the disk: what it was told to write is durable,
// unless it said that it is not.
func (m *model) putAway(o *opening, tick uint64) {
	switch {
	case !o.unflushed && o.failed != 0:
		m.world.fail("disk %d has gone as if all were well, although a flush had failed at %d",
			m.disk.index, o.failed)
	case !o.unflushed:
		m.flushSucceeded(tick)
		if m.world.rng.Uint64N(1+m.size>>20) == 0 {
			m.world.checkCrash(m)
		}
	default:
		m.world.mark(markUnflushed)
		m.volatile = nil // it may never become durable
	}
}

// truncate records that the file was cut off at length. The rest reads as zeroes once a write has
// made the file longer again; later writes come after the cut.
func (m *model) truncate(length uint64) {
	m.world.conns++
	cut := &request{Request: proto.Request{Offset: length, Length: m.size - length}, zero: true,
		conn: m.world.conns, sent: m.world.tick, answered: m.world.tick}
	m.mayHappen(cut)
}

// content returns what a request writes to the bytes at off, in scratch.
func (r *request) content(scratch []byte, off uint64) []byte {
	if r.zero {
		clear(scratch)
	} else {
		fill(scratch, r.id, off)
	}
	return scratch
}

// observation is what a check learnt: the bytes of [lo, hi) are those of w and of no other request.
type observation struct {
	lo, hi uint64
	w      *request
}

// check compares bytes found at off with the allowed candidates, sector by sector: a disk does not
// mix within a sector. It returns the place of the first sector that no candidate can have written,
// and calls learn with what it learns from the others.
func (m *model) check(off uint64, found []byte, allowed func(*candidate) bool,
	learn func(observation)) (bad uint64, ok bool) {
	var scratch [sectorSize]byte
	for i := m.find(off); len(found) > 0; i++ {
		s := &m.stretches[i]
		for off < s.hi && len(found) > 0 {
			n := min(s.hi-off, sectorSize-off%sectorSize, uint64(len(found)))
			matches, who := 0, 0
			for j := range s.candidates {
				if c := &s.candidates[j]; allowed(c) &&
					bytes.Equal(c.w.content(scratch[:n], off), found[:n]) {
					matches, who = matches+1, j
				}
			}
			if matches == 0 && !m.mayMix(s, off, found[:n], allowed) {
				return off, false
			}
			if matches == 1 && learn != nil && !s.maybeTrimmed() {
				learn(observation{off, off + n, s.candidates[who].w})
			}
			off, found = off+n, found[n:]
		}
	}
	return 0, true
}

// mayMix reports whether the bytes are a mixture that this export may show.
func (m *model) mayMix(s *stretch, off uint64, found []byte, allowed func(*candidate) bool) bool {
	switch p := m.disk.plan; {
	case p.Backing == Memory: // is sent as it is, while other requests write to it
		return s.scattered(off, found, allowed)
	case p.Block == 1:
		return s.spliced(off, found, allowed)
	}
	return false
}

// scattered reports whether every byte is from some candidate.
func (s *stretch) scattered(off uint64, found []byte, allowed func(*candidate) bool) bool {
	var scratch, known [sectorSize]byte
	for i := range s.candidates {
		if c := &s.candidates[i]; allowed(c) {
			for j, b := range c.w.content(scratch[:len(found)], off) {
				if b == found[j] {
					known[j] = 1
				}
			}
		}
	}
	return bytes.IndexByte(known[:len(found)], 0) < 0
}

// spliced reports whether the first bytes are from one candidate and the rest from another. A
// buffered file may show that: the engine cuts long requests into pieces at any byte.
func (s *stretch) spliced(off uint64, found []byte, allowed func(*candidate) bool) bool {
	var scratch [sectorSize]byte
	front, back := 0, 0
	for i := range s.candidates {
		if c := &s.candidates[i]; allowed(c) {
			b := c.w.content(scratch[:len(found)], off)
			n := 0
			for n < len(b) && b[n] == found[n] {
				n++
			}
			front = max(front, n)
			for n = 0; n < len(b) && b[len(b)-1-n] == found[len(b)-1-n]; {
				n++
			}
			back = max(back, n)
		}
	}
	return front+back >= len(found)
}

// checkRead compares the data of a READ with what it may have seen: the candidates that were alive
// at some moment between its last byte and its reply. No later read may see older data than this
// one.
func (m *model) checkRead(r *request, data []byte) {
	var seen []observation
	end := r.answered
	// Data that is sent from where it is, or read while its beginning is being sent, shows what is
	// written meanwhile.
	if m.disk.plan.Backing == Memory || m.world.Plan.Scanty && r.Length > pieceSize {
		end = m.world.tick
	}
	bad, ok := m.check(r.lo(), data,
		func(c *candidate) bool { return (c.dead == 0 || c.dead > r.sent) && c.w.sent <= end },
		func(s observation) {
			if n := len(seen); n > 0 && seen[n-1].w == s.w && seen[n-1].hi == s.lo {
				seen[n-1].hi = s.hi
			} else {
				seen = append(seen, s)
			}
		})
	if !ok {
		at := bad - r.lo()
		m.failWrong("a read saw", r, bad, data[at:min(at+sectorSize, uint64(len(data)))])
	}
	for i, s := range seen {
		if s.w.answered != 0 || s.w.conn == 0 {
			continue // what this request overwrote is dead already
		}
		if i > 0 && seen[i-1].hi == s.lo || i+1 < len(seen) && seen[i+1].lo == s.hi {
			m.world.mark(markReadMixed)
		}
		m.split(s.lo)
		m.split(s.hi)
		m.each(s.lo, s.hi, func(t *stretch) { m.markDead(t, s.w) })
	}
}

// maybeTrimmed reports whether a TRIM may have been here, so that two reads may differ.
func (s *stretch) maybeTrimmed() bool {
	for i := range s.candidates {
		if s.candidates[i].w.Command == proto.CmdTrim {
			return true
		}
	}
	return false
}

// compare checks the whole disk as it is now, or, if crashed, as a power cut left it.
func (m *model) compare(image []byte, crashed bool) {
	what, allowed := "the disk holds", func(c *candidate) bool { return c.dead == 0 }
	if crashed {
		what, allowed = "after a crash the disk holds", func(c *candidate) bool { return !c.gone }
	}
	if bad, ok := m.check(0, image, allowed, nil); !ok {
		m.failWrong(what, nil, bad, image[bad:min(bad+sectorSize, uint64(len(image)))])
	}
}

// failWrong ends the run and tells whose bytes were found, and whose were allowed.
func (m *model) failWrong(what string, r *request, off uint64, found []byte) {
	w := m.world
	s := &m.stretches[m.find(off)]
	found = found[:min(uint64(len(found)), s.hi-off)]
	text := what
	if r != nil {
		text += " (" + r.String() + ")"
	}
	text += " wrong bytes: " + m.describeOrigin(off, found) + "; allowed were:"
	for i := range s.candidates {
		c := &s.candidates[i]
		text += "\n  " + c.w.String() + map[bool]string{true: " [zeroes]"}[c.w.zero]
		if c.dead != 0 {
			text += fmt.Sprintf(" [overwritten at %d]", c.dead)
		}
		if c.gone {
			text += " [durably overwritten]"
		}
	}
	w.fail("export %d, bytes [%d, %d): %s", m.disk.index, off, off+uint64(len(found)), text)
}
