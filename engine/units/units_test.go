// Spellings, and readings, at the places where units and digits change.

package units

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 bytes", 1: "1 byte", 512: "512 bytes", 1000: "1000 bytes", 1024: "1 KiB",
		1536: "1.5 KiB", 4096: "4 KiB",
		1<<20 - 1: "1 MiB", 1<<30 - 1: "1 GiB", 1<<60 - 1: "1 EiB", 1023 << 10: "1023 KiB",
		1 << 20: "1 MiB", 82854982: "79.02 MiB", 1 << 30: "1 GiB", 10 << 40: "10 TiB",
		1000 << 30: "1000 GiB", 1 << 50: "1 PiB",
		1 << 60: "1 EiB", maxSize: "8 EiB", 100 << 20: "100 MiB", 1 << 62: "4 EiB",
	} {
		if got := Size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for power := range 7 {
		if n := uint64(1) << (10 * power); Size(n) != Exact(n) {
			t.Errorf("%d: %q and %q", n, Size(n), Exact(n))
		}
	}
}

func TestExact(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 bytes", 1: "1 byte", 1000: "1000 bytes", 1025: "1025 bytes", 1024: "1 KiB",
		1536: "1536 bytes", 32 << 20: "32 MiB",
		32<<20 - 4096: "32764 KiB", 1 << 60: "1 EiB", math.MaxUint64: "18446744073709551615 bytes",
	} {
		if got := Exact(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0", 512: "512", 4096: "4k", 1536: "1536", 1 << 20: "1M", 5 << 40: "5T", 1 << 60: "1E",
	} {
		got := Short(n)
		if got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
		if back, err := ParseSize(got); err != nil || back != n {
			t.Errorf("%q is read as %d, %v", got, back, err)
		}
	}
}

func TestRateAndCount(t *testing.T) {
	for _, v := range [][2]string{
		{Rate(1<<30, time.Second), "1 GiB/s"}, {Rate(1<<20, 2*time.Second), "512 KiB/s"},
		{Rate(1, 0), "-"}, {Rate(0, time.Second), "0 bytes/s"},
		{Count(1234567.4), "1,234,567"}, {Count(999.6), "1,000"}, {Count(0), "0"},
		{Plural(1, "loop"), "1 loop"}, {Plural(1000, "loop"), "1,000 loops"},
	} {
		if v[0] != v[1] {
			t.Errorf("%q, want %q", v[0], v[1])
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "-", 600 * time.Nanosecond: "0.60 µs", 9994 * time.Nanosecond: "9.99 µs",
		9996 * time.Nanosecond:  "10.0 µs",
		99960 * time.Nanosecond: "100 µs", 999400 * time.Nanosecond: "999 µs",
		999600 * time.Nanosecond: "1.00 ms", 181 * time.Millisecond: "181 ms",
		10 * time.Second: "10.0 s", 99 * time.Second: "99.0 s", 100 * time.Second: "1 min 40 s",
		600 * time.Second:          "10 min",
		time.Hour + 59*time.Second: "1 h", 26*time.Hour + time.Minute: "1 d 2 h",
		125 * time.Minute: "2 h 5 min",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{-1: "0 s", 0: "0 s",
		1600 * time.Millisecond: "2 s", 59500 * time.Millisecond: "1 min",
		90 * time.Second: "1 min 30 s",
		25 * time.Hour:   "1 d 1 h"} {
		if got := Seconds(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "1": 1, "4k": 4096, "4K": 4096, "4KB": 4096, "4KiB": 4096, "4 KiB": 4096,
		"4Ki": 4096, "512 bytes": 512, "512B": 512, "1.5T": 3 << 39,
		"10G": 10 << 30, "1P": 1 << 50, "7E": 7 << 60, "7.5EiB": 15 << 59,
		"9223372036854775296": maxSize, ".5k": 512,
		"9007199254740993": 1<<53 + 1, "1.0001k": 1024, "1e": 1 << 60, "10g": 10 << 30,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
	for text, words := range map[string]string{
		"": "not understood", "G": "not understood", "ten": "not understood",
		"10X": "not understood", "0x10": "not understood",
		"-1": "negative", "-10G": "negative", "8E": "too large", "100E": "too large",
		"9223372036854775297":  "too large",
		"18446744073709551616": "too large", "9000P": "too large",
		"99999999999999999999999G": "too large",
		"1e400":                    "not understood", "1e3": "not understood",
		"nan": "not understood",
		"inf": "not understood", "1/2": "not understood",
		"1.2.3": "not understood", ".": "not understood", "10GiBs": "not understood",
		"1,000": "not understood", "1kk": "not understood",
		"10 G B": "not understood", "1" + strings.Repeat("0", 1000): "not understood",
	} {
		if got, err := ParseSize(text); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("ParseSize(%q) = %d, %v; want an error with %q", text, got, err, words)
		}
	}
	for _, n := range []uint64{0, 1, 1023, 1024, 1 << 20, 3 << 30, 1<<40 + 1, 7 << 60, maxSize} {
		if got, err := ParseSize(Exact(n)); err != nil || got != n {
			t.Errorf("%s is read as %d, %v", Exact(n), got, err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0": 0, "0.5": 500 * time.Millisecond, "5s": 5 * time.Second,
		"1m": time.Minute, "2h30m": 150 * time.Minute, "20ms": 20 * time.Millisecond,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "soon", "-5", "-5s", "5 s", "5x", ".", "-",
		"99999999999999999999"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
