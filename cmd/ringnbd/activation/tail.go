// The end of what a program printed.
//
// Invariant: at most maxTail bytes are kept, however much the program prints.

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
	maxTail   = 16 << 10 // bytes
	wordLines = 5        // lines of Words
)

func (t *Tail) Write(b []byte) (int, error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.text.Write(b)
	if extra := t.text.Len() - maxTail; extra > 0 {
		t.text.Next(extra)
	}
	return len(b), nil
}

// Words is the last lines in one line, to be appended to an error; "" if nothing was printed.
func (t *Tail) Words() string {
	t.lock.Lock()
	defer t.lock.Unlock()
	text := strings.TrimSpace(t.text.String())
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	return "; its last words: " + strings.Join(lines[max(0, len(lines)-wordLines):], " | ")
}

// Reset forgets the text.
func (t *Tail) Reset() {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.text.Reset()
}
