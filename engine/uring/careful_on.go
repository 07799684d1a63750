// With -race or -tags invariants every Enter asks the kernel which thread it is on (180 ns).

//go:build race || invariants

package uring

const checkThread = true
