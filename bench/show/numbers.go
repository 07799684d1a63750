// Numbers as text, short in plots and exact in tables.

package show

import (
	"math"
	"strconv"
	"strings"

	"ringnbd/engine/units"
)

// finite reports whether a number can be drawn.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// digits prints three significant digits at least, and all of those before the decimal point, in
// groups.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case !finite(v):
		return "–"
	case v == 0:
		return "0"
	case a >= 99.95:
		return units.Count(v)
	case a >= 0.0995:
		return threeDigits(v)
	default:
		return strconv.FormatFloat(v, 'f', 4, 64)
	}
}

func threeDigits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// shortNumber prints three significant digits: 0.52, 4.7, 36, 118k, 1.42M.
func shortNumber(v float64) string {
	switch a := math.Abs(v); {
	case a >= 999.5e3:
		return threeDigits(v/1e6) + "M"
	case a >= 9999.5:
		return threeDigits(v/1e3) + "k"
	default:
		return threeDigits(v)
	}
}

// shortTime prints microseconds in the unit that suits them.
func shortTime(micros float64) string {
	switch {
	case micros >= 999.5e3:
		return threeDigits(micros/1e6) + " s"
	case micros >= 999.5:
		return threeDigits(micros/1e3) + " ms"
	default:
		return threeDigits(micros) + " µs"
	}
}

// plainNumber is a value that was chosen, not measured: 1, 256, 20k.
func plainNumber(v float64) string { return trimZeros(shortNumber(v)) }

// trimZeros shortens a label: "2.00 ms" to "2 ms".
func trimZeros(s string) string {
	number, unit, spaced := strings.Cut(s, " ")
	suffix := strings.TrimLeft(number, "-0123456789.")
	number = strings.TrimSuffix(number, suffix)
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	if spaced {
		return number + suffix + " " + unit
	}
	return number + suffix
}
