// What a program said last.
//
// Invariant: whatever it says, so much is kept and no more.

package activation

import (
	"bytes"
	"strings"
	"sync"
)

// Tail keeps the end of what was written to it.
type Tail struct {
	lock sync.Mutex
	text bytes.Buffer
}

const (
	tailMost  = 16 << 10 // bytes
	tailLines = 5        // of Words
)

func (t *Tail) Write(b []byte) (int, error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.text.Write(b)
	if extra := t.text.Len() - tailMost; extra > 0 {
		t.text.Next(extra)
	}
	return len(b), nil
}

// Words is the last lines in one, to be put behind what happened; "" if nothing was said.
func (t *Tail) Words() string {
	t.lock.Lock()
	defer t.lock.Unlock()
	text := strings.TrimSpace(t.text.String())
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	return "; its last words: " + strings.Join(lines[max(0, len(lines)-tailLines):], " | ")
}

// Reset forgets all of it.
func (t *Tail) Reset() {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.text.Reset()
}
