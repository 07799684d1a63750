//go:build race

// Under the race detector the simulation, which is one goroutine and ten times slower there, runs
// fewer seeds.

package engine_test

const defaultSeeds = 30
