// must is the check that stays on in production: a state that only our own mistake can bring about
// stops the process, because going on could write a wrong block. The panic carries the last
// completions of the loop (loop.trace), which is what one needs to see how it came to be.

package engine

// must panics when the engine has broken one of its own invariants.
func must(ok bool, what string) {
	if !ok {
		panic("ringnbd: engine invariant broken: " + what)
	}
}
