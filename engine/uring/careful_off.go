// Ordinary builds leave it to the kernel to notice a ring on the wrong thread; see Ring.

//go:build !race && !invariants

package uring

const checkThread = false
