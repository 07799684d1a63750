// --verify: both ends are read again and compared, after the flush, and from the disk as far as
// that is possible.
//
// Invariant: pieces are handed out in order, and each is finished, so the smallest offset that
// differs is the first difference.

package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
)

// mismatch is where the ends differ.
type mismatch struct {
	mu    sync.Mutex
	found bool
	at    uint64
}

func (m *mismatch) note(at uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.found || at < m.at {
		m.found, m.at = true, at
	}
}

// errDiffers stops the slots; verify returns the mismatch instead.
var errDiffers = errors.New("differs")

// verify compares the source with the destination. Zeroes by both maps are not read.
func (j *job) verify(ctx, hard context.Context) error {
	j.source.dropCache()
	j.destination.dropCache()
	j.progress.Store(0)
	defer j.show(verifying)()
	var differs mismatch
	scratch := sync.Pool{New: func() any { b := make([]byte, j.request); return &b }}
	err := j.work(ctx, func(give func(piece) error) error {
		return j.both(hard, give)
	}, func(s *slot, p piece) error {
		if p.zero {
			return nil
		}
		theirs := scratch.Get().(*[]byte)
		defer scratch.Put(theirs)
		return s.compare(hard, p, s.buffer[:p.length], (*theirs)[:p.length], &differs)
	})
	if differs.found && errors.Is(err, errDiffers) {
		return fmt.Errorf("%s differs from %s at offset %d", j.destination.name(), j.source.name(),
			differs.at)
	}
	return err
}

// compare reads a piece of both ends, and compares them.
func (s *slot) compare(ctx context.Context, p piece, ours, theirs []byte, differs *mismatch) error {
	j := s.job
	if err := j.source.read(ctx, s.lane, &s.from, ours, p.offset); err != nil {
		return err
	}
	if err := j.destination.read(ctx, s.lane, &s.to, theirs, p.offset); err != nil {
		return err
	}
	if bytes.Equal(ours, theirs) {
		j.compared.Add(p.length)
		return nil
	}
	for i := range ours {
		if ours[i] != theirs[i] {
			differs.note(p.offset + uint64(i))
			break
		}
	}
	return errDiffers
}

// both plans by the source's map. Its zeroes are read and compared unless the destination's map
// also has zeroes there.
func (j *job) both(ctx context.Context, give func(piece) error) error {
	var failed error
	next, stop := iter.Pull(func(yield func(extent) bool) {
		failed = j.destination.extents(ctx, j.source.size(), func(e extent) error {
			if !yield(e) {
				return errStopped
			}
			return nil
		})
	})
	defer stop()
	theirs := follower{next: next}
	p := &plan{size: j.source.size(), block: max(j.source.block(), j.destination.block()),
		request: j.request, stretch: max(j.request, maxZero)}
	p.give = func(q piece) error {
		if q.zero && !theirs.zero(q.offset, q.offset+q.length) {
			again := plan{request: j.request, give: give}
			return again.cut(q.offset, q.offset+q.length, j.request, false)
		}
		return give(q)
	}
	if err := j.source.extents(ctx, p.size, p.addExtent); err != nil {
		return err
	}
	if err := p.finish(); err != nil {
		return err
	}
	if errors.Is(failed, errStopped) {
		failed = nil
	}
	return failed
}

// follower answers questions about ranges of a map, asked in order.
type follower struct {
	next  func() (extent, bool)
	now   extent
	ended bool
}

// zero reports whether the map has only zeroes in a range.
func (f *follower) zero(start, end uint64) bool {
	for start < end {
		for !f.ended && f.now.offset+f.now.length <= start {
			e, ok := f.next()
			f.now, f.ended = e, !ok
		}
		if f.ended || !f.now.zero {
			return false
		}
		start = f.now.offset + f.now.length
	}
	return true
}
