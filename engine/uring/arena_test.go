// Tests of the arena: alignment, addresses, bounds.

package uring

import (
	"errors"
	"math"
	"strings"
	"syscall"
	"testing"
)

func TestArenaIsAlignedAndZero(t *testing.T) {
	for _, c := range []struct {
		size int
		huge bool
		want uint64
	}{{1, false, 4096}, {4096, false, 4096}, {10000, false, 12288}, {1, true, 2 << 20}, {5 << 20,
		true, 6 << 20}} {
		a := newArena(t, c.size, c.huge)
		unit := uint64(4096)
		if c.huge {
			unit = 2 << 20
		}
		if a.Size() != c.want || a.Addr(0)%unit != 0 {
			t.Errorf("size %d, huge %v: %d bytes at %#x", c.size, c.huge, a.Size(), a.Addr(0))
		}
		all := a.Bytes(0, int(a.Size()))
		for i := 0; i < len(all); i += 512 {
			if all[i] != 0 {
				t.Fatalf("byte %d is %d", i, all[i])
			}
			all[i] = 1
		}
		all[len(all)-1] = 1
	}
}

func TestArenaSizesThatCannotBe(t *testing.T) {
	for _, size := range []int{0, -1, math.MinInt, 1<<47 + 1} {
		_, err := NewArena(size, false)
		var memory *memoryError
		if !errors.As(err, &memory) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	_, err := NewArena(1<<47, true) // all of the address space
	if !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), "128 TiB") {
		t.Errorf("128 TiB: %v", err)
	}
}

func TestAddressesGoBothWays(t *testing.T) {
	a := newArena(t, 8192, false)
	for _, off := range []uint64{0, 1, 4095, 8191} {
		if got, ok := a.Find(a.Addr(off)); !ok || got != off {
			t.Errorf("Find(Addr(%d)) = %d, %v", off, got, ok)
		}
	}
	for _, addr := range []uint64{0, a.Addr(0) - 1, a.Addr(8192), math.MaxUint64} {
		if _, ok := a.Find(addr); ok {
			t.Errorf("%#x was found", addr)
		}
	}
}

func TestArenaViewsShareMemory(t *testing.T) {
	a := newArena(t, 4096, false)
	b := a.Bytes(96, 16)
	if len(b) != 16 || cap(b) != 16 {
		t.Fatalf("len %d, cap %d", len(b), cap(b))
	}
	a.Iovecs(80, 2)[1] = Iovec{Base: 0x0807060504030201, Len: 0xff}
	if b[0] != 1 || b[7] != 8 || b[8] != 0xff {
		t.Errorf("the second iovec at 80 reads as % x at 96", b)
	}
	a.Msghdr(200).Flags = 0x04030201
	if got := a.Bytes(248, 4); got[0] != 1 || got[3] != 4 {
		t.Errorf("msghdr flags at 48 read as % x", got)
	}
	if len(a.Bytes(4096, 0)) != 0 || len(a.Iovecs(4096, 0)) != 0 {
		t.Error("an empty range at the end is fine")
	}
}

func TestArenaBounds(t *testing.T) {
	a, err := NewArena(4096, false)
	if err != nil {
		t.Fatal(err)
	}
	outside := map[string]func(){
		"bytes past the end":  func() { a.Bytes(4090, 7) },
		"bytes beyond":        func() { a.Bytes(4097, 0) },
		"bytes that wrap":     func() { a.Bytes(math.MaxUint64, 2) },
		"negative bytes":      func() { a.Bytes(100, -1) },
		"very negative bytes": func() { a.Bytes(0, math.MinInt) },
		"negative, wrapping":  func() { a.Bytes(10, -20) },
		"too many bytes":      func() { a.Bytes(0, 4097) },
		"address beyond":      func() { a.Addr(4097) },
		"iovecs past the end": func() { a.Iovecs(4088, 1) },
		"negative iovecs":     func() { a.Iovecs(0, -1) },
		"iovecs that wrap":    func() { a.Iovecs(math.MaxUint64-7, 1) },
		"too many iovecs":     func() { a.Iovecs(0, math.MaxInt) },
		"iovecs not aligned":  func() { a.Iovecs(4, 1) },
		"msghdr past the end": func() { a.Msghdr(4048) },
		"msghdr that wraps":   func() { a.Msghdr(math.MaxUint64 - 7) },
		"msghdr not aligned":  func() { a.Msghdr(4) },
	}
	try := func(name string, f func()) {
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	for name, f := range outside {
		try(name, f)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	try("bytes of a closed arena", func() { a.Bytes(0, 1) })
	try("msghdr of a closed arena", func() { a.Msghdr(0) })
	if _, ok := a.Find(1); ok {
		t.Error("found something in a closed arena")
	}
}
