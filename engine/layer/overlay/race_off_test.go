//go:build !race

// Whether the race detector watches: the pure world, in which nothing runs beside anything, is then
// run briefly.

package overlay

const raced = false
