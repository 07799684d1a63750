// A course is one loop's thread: a coroutine that turns the loop for ever. It gives the world the
// turn when the loop waits inside Enter, and between two turns. So the loop waits where the real
// one waits, while there is still only one goroutine at work at any time and nothing depends on a
// scheduler.

package sim

import (
	"iter"
	"runtime/debug"
	"slices"
	"strings"
)

type coroutine struct {
	next func() (struct{}, bool)
	stop func()
}

// ended unwinds a loop that is stopped inside Enter.
type unwinding struct{}

func newCoroutine(k *Kernel, l Loop) *coroutine {
	c := &coroutine{}
	c.next, c.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			p := recover()
			if _, ok := p.(unwinding); p != nil && !ok {
				k.world.stack = stackOfPanic()
				panic(p) // iter.Pull hands it on to resume
			}
		}()
		k.pause = func() {
			if !yield(struct{}{}) {
				panic(unwinding{})
			}
		}
		for {
			l.Turn()
			k.pause()
		}
	})
	return c
}

// resume lets the loop go on until it gives the turn back.
func (c *coroutine) resume() { c.next() }

// stackOfPanic is the stack of the panic that is being recovered from, innermost call first.
func stackOfPanic() string {
	lines := strings.Split(string(debug.Stack()), "\n")
	if i := slices.IndexFunc(lines, func(s string) bool {
		return strings.HasPrefix(s, "panic(")
	}); i >= 0 {
		lines = lines[i:]
	}
	return strings.Join(lines[:min(len(lines), 40)], "\n")
}
