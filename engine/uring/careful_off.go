// In an ordinary build only the kernel notices a ring on the wrong thread; see Ring.

//go:build !race && !invariants

package uring

const checkThread = false
