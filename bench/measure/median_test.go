// Tests of medians and ratios.

package measure

import (
	"reflect"
	"slices"
	"testing"
)

func TestMedianIgnoresOrderAndOutliers(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{1000, 2, 1}, 2}} {
		before := slices.Clone(c.in)
		if got := Median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
		if !slices.Equal(before, c.in) {
			t.Errorf("median changed its argument to %v", c.in)
		}
	}
}

// Every field of a sample must have its median: one that is forgotten stays 0.
func TestMedianSampleKnowsEveryField(t *testing.T) {
	var s Sample
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(i + 1))
		case reflect.Uint64:
			f.SetUint(uint64(i + 1))
		default:
			f.SetFloat(float64(i + 1))
		}
	}
	got := MedianSample([]Sample{s, s, s})
	got.Round = s.Round // of no single round
	if got != s {
		t.Errorf("the median of equal samples is %+v, not %+v", got, s)
	}
}
