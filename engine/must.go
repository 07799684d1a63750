// Must: the check that stays on in production. A state that only a mistake of ours can bring about
// stops the process, because going on could write a wrong block. The panic carries the last
// completions of the loop (trace.go), which show how the state came about.

package engine

// must panics when the engine has broken one of its own invariants.
func must(ok bool, what string) {
	if !ok {
		panic("ringnbd: engine invariant broken: " + what)
	}
}
