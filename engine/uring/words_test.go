// Tables of words: zeroes, only what is written takes memory, and they go with their owner.

package uring

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// statm is a column of /proc/self/statm, in bytes: 0 is address space, 1 is memory.
func statm(t *testing.T, column int) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(text))[column])
	if err != nil {
		t.Fatal(err)
	}
	return n * os.Getpagesize()
}

func TestWords(t *testing.T) {
	const n = 1 << 31 // 16 GiB
	type owner struct{ words []uint64 }
	before := statm(t, 0)
	w, err := NewWords(n)
	if err != nil {
		t.Fatal(err)
	}
	o := &owner{w.Slice()}
	Owned(w, o)
	w = nil
	if len(o.words) != n {
		t.Fatalf("%d words", len(o.words))
	}
	memory := statm(t, 1)
	for i := 0; i < n; i += n / 8 {
		if o.words[i] != 0 {
			t.Fatalf("word %d is not zero", i)
		}
		o.words[i] = 1
	}
	if grown := statm(t, 1) - memory; grown > 4<<20 {
		t.Errorf("8 words that were written took %d bytes", grown)
	}
	if grown := statm(t, 0) - before; grown < n*8 {
		t.Errorf("the address space grew by %d bytes only", grown)
	}
	runtime.KeepAlive(o)
	for deadline := time.Now().Add(10 * time.Second); statm(t, 0)-before >= n*8; {
		if time.Now().After(deadline) {
			t.Fatal("the words are still mapped although their owner is gone")
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
}

func TestWordsRefused(t *testing.T) {
	for _, n := range []int{0, -1, 1<<44 + 1, 1 << 44} {
		if _, err := NewWords(n); err == nil {
			t.Errorf("%d words were mapped", n)
		}
	}
}
