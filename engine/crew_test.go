// What hangs costs its own time and no more: results by count, with jobs that wait for the end of
// the test.

package engine

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func TestCrewGoesOnWithoutWhatHangs(t *testing.T) {
	forever := make(chan struct{})
	defer close(forever)
	hangs := func(i int) bool { return i < 3 || i == 50 }
	trouble := errors.New("trouble")
	var begun atomic.Int32
	results := crew{threads: 2, lost: 8, each: 50 * time.Millisecond}.do(100, func(i int) error {
		begun.Add(1)
		if hangs(i) {
			<-forever
		}
		if i == 99 {
			return trouble
		}
		return nil
	})
	for i, err := range results {
		want := error(nil)
		if hangs(i) {
			want = errLate
		} else if i == 99 {
			want = trouble
		}
		if err != want {
			t.Errorf("job %d: %v, want %v", i, err, want)
		}
	}
	if n := begun.Load(); n != 100 {
		t.Errorf("%d of 100 were begun", n)
	}
}

func TestCrewLosesNoMoreThreadsThanItMay(t *testing.T) {
	forever := make(chan struct{})
	defer close(forever)
	var begun atomic.Int32
	results := crew{threads: 4, lost: 2, each: 20 * time.Millisecond}.do(100, func(int) error {
		begun.Add(1)
		<-forever
		return nil
	})
	for i, err := range results {
		if err != errLate {
			t.Errorf("job %d: %v", i, err)
		}
	}
	if n := begun.Load(); n != 6 {
		t.Errorf("%d threads hang, want 4 at work and 2 in their stead", n)
	}
	if got := (crew{threads: 4, lost: 2, each: time.Second}).do(0, nil); len(got) != 0 {
		t.Errorf("%v of nothing", got)
	}
}
