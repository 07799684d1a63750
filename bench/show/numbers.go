// Numbers as text, short in plots and exact in tables.

package show

import (
	"math"
	"regexp"
	"strconv"

	"ringnbd/engine/units"
)

// finite reports whether a number can be drawn.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// digits prints three significant digits at least, and all of those before the decimal point, in
// groups.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case !finite(v):
		return none
	case v == 0:
		return "0"
	case a >= 99.95:
		return units.Count(v)
	case a >= 0.0995:
		return threeDigits(v)
	}
	return strconv.FormatFloat(v, 'f', 4, 64)
}

// threeDigits prints three significant digits, with two decimals at most.
func threeDigits(v float64) string {
	decimals := 2
	for _, limit := range []float64{9.995, 99.95} {
		if math.Abs(v) >= limit {
			decimals--
		}
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// shortNumber prints three significant digits: 0.52, 4.70, 36.0, 118k, 1.42M.
func shortNumber(v float64) string { return scaled(v, 9999.5, "", "k", "M") }

// shortTime prints microseconds in the unit that suits them.
func shortTime(micros float64) string { return scaled(micros, 999.5, " µs", " ms", " s") }

// scaled prints a number in its own unit, in thousands from some value on, or in millions.
func scaled(v, thousands float64, one, thousand, million string) string {
	switch {
	case v >= 999.5e3:
		return threeDigits(v/1e6) + million
	case v >= thousands:
		return threeDigits(v/1e3) + thousand
	}
	return threeDigits(v) + one
}

var zeros = regexp.MustCompile(`\.0+(\D|$)|(\.\d*?)0+(\D|$)`)

// trimZeros shortens a label: "2.00 ms" to "2 ms".
func trimZeros(s string) string { return zeros.ReplaceAllString(s, "$2$1$3") }
