// Saving the map: an own row brings the changed pages to the top, in rounds. All rows that joined
// before a round began share it.
//
// Invariant: a page is copied before the flush that comes before its write, so that the data of
// every bit in the copy is durable when the copy is written. The own row's memory is not changed
// while a write of it is out. A page is in due until its round is over.

package overlay

import (
	"math/bits"

	"ringnbd/engine/layer"
	"ringnbd/proto"
)

// batchPages is how many pages are saved at most between two flushes: memory of the own row.
const batchPages = 64

// Phases of a round: what is out.
const (
	idle     uint8 = iota
	settling       // a flush, for the data of the bits that were copied
	storing        // writes of copies
	ending         // the last flush
)

// saver is the rounds of saving.
type saver struct {
	counters
	own    layer.Own
	joined rowSet // rows that wait for the next round
	saving rowSet // rows that wait for the round that is under way
	lost   rowSet // rows whose round failed, until they were told
	reason proto.Errno

	dirty pages // changed since they were copied last
	due   pages // of the round that is under way

	phase  uint8
	named  bool     // Next has named the own row
	single bool     // the round is one write, which is durable by itself
	cursor uint64   // pages of due before it are in this batch or an earlier one
	batch  []uint32 // pages whose copies are in memory, in order
	stored int      // pages of the batch that were written, or are being written
}

// make makes the tables.
func (s *saver) make(m *Map) {
	n := m.layout.MapLen / pageLen
	s.dirty, s.due = newPages(n), newPages(n)
	s.batch = make([]uint32, 0, min(n, batchPages))
}

// changed notes that a page of the map has changed.
func (s *saver) changed(page uint64) { s.dirty.add(page) }

// busy reports whether anything is left to save or a round is under way.
func (s *saver) busy() bool { return s.phase != idle || s.named || s.dirty.n > 0 }

// pending reports whether any of these pages is not yet on the device as it is in memory.
func (s *saver) pending(first, last uint64) bool {
	for page := first; page <= last; page++ {
		if s.dirty.has(page) || s.due.has(page) {
			return true
		}
	}
	return false
}

// next names the own row when a round is to begin.
func (s *saver) next() (id uint32, ok bool) {
	if s.phase != idle || s.named || s.joined.n == 0 {
		return 0, false
	}
	s.named = true
	return s.own.ID, true
}

// outcome is what a row that was named ends with.
func (s *saver) outcome(id uint32) proto.Errno {
	if !s.lost.has(id) {
		return proto.Success
	}
	s.lost.remove(id)
	return s.reason
}

// saveMap goes on with the own row.
func (o *Overlay) saveMap(r *layer.Row, w *layer.Wave) layer.Then {
	s := &o.save
	if s.phase != idle && r.Bad != 0 {
		return o.fail(s.phase == storing && r.Cause == proto.ENOSPC, r.Cause)
	}
	switch s.phase {
	case idle:
		s.named = false
		s.saving, s.joined = s.joined, s.saving
		s.dirty, s.due = s.due, s.dirty
		s.cursor = s.due.from * 64
		if s.failed.Load() {
			return o.fail(false, proto.EIO)
		}
		return o.copyPages(w)
	case settling:
		if len(s.batch) == 0 {
			return o.saved()
		}
	case ending:
		return o.saved()
	}
	if s.stored < len(s.batch) {
		return o.store(r, w)
	}
	if s.single {
		return o.saved()
	}
	if _, more := s.due.after(s.cursor); more {
		return o.copyPages(w) // its flush is also that of the pages before
	}
	s.phase = ending
	add(w, layer.Segment{Dev: Top, Op: layer.Flush})
	return layer.Go
}

// copyPages copies the next pages of the round, and flushes the data that they speak of.
func (o *Overlay) copyPages(w *layer.Wave) layer.Then {
	s := &o.save
	first := s.phase == idle
	s.batch = s.batch[:0]
	s.stored = 0
	for len(s.batch) < cap(s.batch) {
		page, ok := s.due.after(s.cursor)
		if !ok {
			break
		}
		o.m.copyPage(s.own.Memory[len(s.batch)*pageLen:], page)
		s.batch = append(s.batch, uint32(page))
		s.cursor = page + 1
	}
	_, more := s.due.after(s.cursor)
	n := len(s.batch)
	s.single = first && !more && n > 0 && int(s.batch[n-1]-s.batch[0]) == n-1
	s.phase = settling
	add(w, layer.Segment{Dev: Top, Op: layer.Flush})
	return layer.Go
}

// store writes the next copies, a segment for each run of pages.
func (o *Overlay) store(r *layer.Row, w *layer.Wave) layer.Then {
	s := &o.save
	s.phase = storing
	flags := uint8(0)
	if s.single {
		flags = layer.FUA
	}
	for s.stored < len(s.batch) && w.N < layer.WaveMost {
		from := s.stored
		for s.stored++; s.stored < len(s.batch) &&
			s.batch[s.stored] == s.batch[s.stored-1]+1; s.stored++ {
		}
		add(w, layer.Segment{Dev: Top, Op: layer.Write, Flags: flags,
			Len: uint32(s.stored-from) * pageLen,
			Off: o.m.layout.MapAt + uint64(s.batch[from])*pageLen,
			At:  r.At + uint64(from)*pageLen})
		s.counters.pages.Add(uint64(s.stored - from))
	}
	return layer.Go
}

// saved ends a round.
func (o *Overlay) saved() layer.Then {
	s := &o.save
	s.due.clear()
	s.rounds.Add(1)
	return o.over()
}

// over lets the rows of a round go on.
func (o *Overlay) over() layer.Then {
	s := &o.save
	s.phase = idle
	s.single = false
	o.ready.addAll(&s.saving)
	s.saving.clear()
	return layer.Done
}

// fail ends a round that failed. Its pages stay changed. If only space was missing, the next round
// may succeed; else no round will.
func (o *Overlay) fail(again bool, reason proto.Errno) layer.Then {
	s := &o.save
	if !again {
		s.failed.Store(true)
	}
	s.dirty.addAll(&s.due)
	s.due.clear()
	s.reason = reason
	s.lost.addAll(&s.saving)
	return o.over()
}

// pages is a set of pages of the map, a bit each.
type pages struct {
	words    []uint64
	n        int
	from, to uint64 // no bit is set outside of these words
}

func newPages(n uint64) pages { return pages{words: make([]uint64, (n+63)/64)} }

func (p *pages) has(page uint64) bool { return p.words[page/64]>>(page%64)&1 != 0 }

func (p *pages) add(page uint64) {
	if p.has(page) {
		return
	}
	word := page / 64
	p.words[word] |= 1 << (page % 64)
	if p.n == 0 {
		p.from, p.to = word, word+1
	}
	p.n++
	p.from, p.to = min(p.from, word), max(p.to, word+1)
}

// after returns the first page of the set that is not before a page.
func (p *pages) after(page uint64) (uint64, bool) {
	for word := page / 64; word < p.to; word++ {
		w := p.words[word]
		if word == page/64 {
			w = w >> (page % 64) << (page % 64)
		}
		if w != 0 {
			return word*64 + uint64(bits.TrailingZeros64(w)), true
		}
	}
	return 0, false
}

// addAll adds all pages of another set.
func (p *pages) addAll(other *pages) {
	if other.n == 0 {
		return
	}
	if p.n == 0 {
		p.from, p.to = other.from, other.to
	}
	p.from, p.to = min(p.from, other.from), max(p.to, other.to)
	p.n = 0
	for word := p.from; word < p.to; word++ {
		p.words[word] |= other.words[word]
		p.n += bits.OnesCount64(p.words[word])
	}
}

// clear empties the set.
func (p *pages) clear() {
	if p.n > 0 {
		clear(p.words[p.from:p.to])
	}
	p.n, p.from, p.to = 0, 0, 0
}
