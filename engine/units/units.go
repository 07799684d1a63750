// Package units prints sizes, rates, counts and times in one spelling for all of ringnbd's
// programs, and reads the sizes and times that people type.
//
//	1 GiB   82.5 MiB   512 bytes   1.775 GiB/s   1,234,567   181 ms   2 min 5 s
//
// A bare number is bytes; units are binary however they are spelled (10G, 10GB and 10GiB are the
// same), because a disk whose size depends on an "i" is a trap. A bare time is seconds, as for curl
// and fio.
//
// Invariant: ParseSize reads what Exact, Size and Short print; a size that was read is exactly what
// was written, and at most maxSize.
package units

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// maxSize is the largest size: the last multiple of 512 bytes that is an offset in Linux.
const maxSize = 1<<63 - 512

// letters are the units in order, each 1024 times the unit before; a number without a letter is
// bytes.
const letters = "kmgtpe"

// Size prints bytes, rounded to four digits.
func Size(n uint64) string {
	if n < 1024 {
		return Exact(n)
	}
	number, unit, _ := strings.Cut(humanize.IBytesN(n, 4), " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	if i := strings.IndexByte(letters, unit[0]|0x20) + 1; number == "1024" && i < len(letters) {
		return "1 " + strings.ToUpper(letters[i:i+1]) + "iB" // rounded up to the next unit
	}
	return number + " " + unit
}

// Exact prints bytes in the largest unit that divides them, for messages in which a rounded size
// would be wrong.
func Exact(n uint64) string {
	n, i := scaled(n)
	switch {
	case i > 0:
		return strconv.FormatUint(n, 10) + " " + strings.ToUpper(letters[i-1:i]) + "iB"
	case n == 1:
		return "1 byte"
	}
	return strconv.FormatUint(n, 10) + " bytes"
}

// Short prints bytes exactly, as people type them: 512, 4k, 1M.
func Short(n uint64) string {
	n, i := scaled(n)
	return strconv.FormatUint(n, 10) + [...]string{"", "k", "M", "G", "T", "P", "E"}[i]
}

// scaled divides bytes by 1024 as often as that is exact, and returns how often.
func scaled(n uint64) (uint64, int) {
	i := 0
	for i < len(letters) && n != 0 && n%1024 == 0 {
		n /= 1024
		i++
	}
	return n, i
}

// Rate prints bytes per second.
func Rate(n uint64, d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return Size(uint64(math.Round(float64(n)/d.Seconds()))) + "/s"
}

// number is a type of counts and measurements.
type number interface {
	~int | ~int64 | ~uint32 | ~uint64 | ~float64
}

// Count prints a number without a fraction, its digits in groups.
func Count[N number](n N) string { return humanize.Comma(int64(math.Round(float64(n)))) }

// Plural prints a number of things.
func Plural[N number](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return Count(n) + " " + noun + "s"
}

// Duration rounds a time to three digits, or to its two largest units. A time of 0 or less is "-".
func Duration(d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	if d >= 100*time.Second {
		return long(d.Round(time.Second))
	}
	f := float64(d) / 1e3
	unit := 0
	for f >= 999.5 {
		f /= 1000
		unit++
	}
	digits := 0
	switch {
	case f < 9.995:
		digits = 2
	case f < 99.95:
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, f, [...]string{"µs", "ms", "s"}[unit])
}

// Seconds rounds a time to whole seconds, for the remaining time of a copy or measurement.
func Seconds(d time.Duration) string {
	if d = d.Round(time.Second); d < time.Minute {
		return fmt.Sprintf("%d s", max(d, 0)/time.Second)
	}
	return long(d)
}

// long prints whole seconds in the two largest units, without the smaller unit if it is 0.
func long(d time.Duration) string {
	const day = 24 * time.Hour
	for _, u := range []struct {
		large, small time.Duration
		names        [2]string
	}{
		{day, time.Hour, [2]string{"d", "h"}},
		{time.Hour, time.Minute, [2]string{"h", "min"}},
		{time.Minute, time.Second, [2]string{"min", "s"}},
	} {
		if d < u.large {
			continue
		}
		text := fmt.Sprintf("%d %s", d/u.large, u.names[0])
		if rest := d % u.large / u.small; rest > 0 {
			text += fmt.Sprintf(" %d %s", rest, u.names[1])
		}
		return text
	}
	return ""
}

// ParseSize reads a size in bytes: 1048576, 512MiB, 10G, 1.5T, 7E. Zero is a size; the caller knows
// whether it makes sense. A part of a byte is dropped.
func ParseSize(text string) (uint64, error) {
	if strings.HasPrefix(text, "-") {
		return 0, fmt.Errorf("size %q is negative", text)
	}
	end := len(strings.TrimLeft(text, "0123456789."))
	number, unit := text[:len(text)-end], strings.ToLower(strings.TrimSpace(text[len(text)-end:]))
	power := 0
	switch unit {
	case "", "b", "byte", "bytes":
	default:
		power = strings.IndexByte(letters, unit[0]) + 1
		if rest := unit[1:]; power == 0 || rest != "" && rest != "b" && rest != "ib" &&
			rest != "i" {
			return 0, notSize(text)
		}
	}
	n, ok := new(big.Rat).SetString(number)
	if !ok || len(number) > 40 {
		return 0, notSize(text)
	}
	n.Mul(n, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(10*power))))
	whole := new(big.Int).Quo(n.Num(), n.Denom())
	if !whole.IsUint64() || whole.Uint64() > maxSize {
		return 0, fmt.Errorf("size %q is too large; the maximum is %d, which is 8 EiB less "+
			"512 bytes", text, uint64(maxSize))
	}
	return whole.Uint64(), nil
}

// notSize is the error for a text that ParseSize cannot read.
func notSize(text string) error {
	return fmt.Errorf("size %q is not understood; write bytes or a number with a unit, like 10G "+
		"or 512MiB (K, M, G, T, P, E)", text)
}

// ParseDuration reads a time: seconds if it is a bare number, else a number with a unit, as in Go
// (10s, 1.5m, 2h30m, 20ms).
func ParseDuration(text string) (time.Duration, error) {
	seconds := text
	if last := strings.TrimRight(text, "0123456789."); last == "" || last == "-" {
		seconds += "s"
	}
	d, err := time.ParseDuration(seconds)
	switch {
	case err != nil:
		return 0, fmt.Errorf("time %q is not understood; write seconds, or a number with a unit, "+
			"like 10s, 2m or 500ms", text)
	case d < 0:
		return 0, fmt.Errorf("time %q is negative", text)
	}
	return d, nil
}
