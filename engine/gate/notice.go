// Warnings that cannot flood the log.
//
// Invariant: of each kind at most one line is written in noticeInterval, and each line says how
// many were left out since the line before.

package gate

import (
	"log/slog"
	"sync"
	"time"
)

// noticeInterval is long enough that a port scan writes a handful of lines, and short enough to see
// that the scan goes on.
const noticeInterval = 10 * time.Second

// notices is a log that remembers when each kind of warning was written.
type notices struct {
	log  *slog.Logger
	mu   sync.Mutex
	said map[string]*said
}

// said is the state of a kind of warning.
type said struct {
	at      time.Time
	leftOut int
}

// warn writes a warning unless a warning of the same text was written shortly before. The text is
// the kind: it must come from a fixed set.
func (n *notices) warn(now time.Time, text string, attributes ...any) {
	n.mu.Lock()
	s := n.said[text]
	if s == nil {
		s = &said{}
		n.said[text] = s
	}
	if !s.at.IsZero() && now.Sub(s.at) < noticeInterval {
		s.leftOut++
		n.mu.Unlock()
		return
	}
	leftOut := s.leftOut
	s.at, s.leftOut = now, 0
	n.mu.Unlock()
	if leftOut > 0 {
		attributes = append(attributes, "left_out", leftOut)
	}
	n.log.Warn(text, attributes...)
}
