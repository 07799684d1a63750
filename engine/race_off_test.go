//go:build !race

// Without the race detector the simulation runs its full number of seeds.

package engine_test

const defaultSeeds = 400
