// Tests of ratios.

package judge

import (
	"testing"

	"ringnbd/bench/measure"
)

func TestRatioPairsSamplesOfTheSameRound(t *testing.T) {
	rate := func(s measure.Sample) float64 { return s.RequestsPerSecond }
	a := []measure.Sample{{Round: 1, RequestsPerSecond: 20}, {Round: 2, RequestsPerSecond: 2},
		{Round: 3, RequestsPerSecond: 7}}
	b := []measure.Sample{{Round: 2, RequestsPerSecond: 1}, {Round: 1, RequestsPerSecond: 10}}
	if x, ok := ratio(a, b, rate); !ok || x != 2 {
		t.Errorf("ratio = %v, %v, want 2", x, ok)
	}
	if _, ok := ratio(a, []measure.Sample{{Round: 9, RequestsPerSecond: 1}}, rate); ok {
		t.Error("a ratio without a common round")
	}
}
