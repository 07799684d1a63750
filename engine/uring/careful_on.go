// Builds with -race or -tags invariants ask the kernel in every Enter for the thread (180 ns).

//go:build race || invariants

package uring

const checkThread = true
