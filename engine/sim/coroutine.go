// A coroutine stands for one loop's thread: it turns the loop for ever. It returns control to the
// world when the loop waits inside Enter, and between two turns. So the loop waits where a real
// loop waits.
//
// Invariant: only one goroutine runs at any time, and nothing depends on a scheduler.

package sim

import (
	"iter"
	"runtime/debug"
	"slices"
	"strings"
)

// coroutine runs a loop: next lets it go on, stop ends it.
type coroutine struct {
	next func() (struct{}, bool)
	stop func()
}

// unwinding is the panic that unwinds a loop which is stopped inside Enter.
type unwinding struct{}

// newCoroutine makes the coroutine of a loop; it does not run yet.
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

// resume lets the loop go on until it returns control.
func (c *coroutine) resume() { c.next() }

// stackOfPanic returns the stack of the panic that is being recovered from, innermost call first.
func stackOfPanic() string {
	lines := strings.Split(string(debug.Stack()), "\n")
	if i := slices.IndexFunc(lines, func(s string) bool {
		return strings.HasPrefix(s, "panic(")
	}); i >= 0 {
		lines = lines[i:]
	}
	return strings.Join(lines[:min(len(lines), 40)], "\n")
}
