// Package profile takes CPU profiles of ringnbd under loads and divides them by the stage of a
// request's way through the server.
//
//	stages.go  the stages, and which function belongs to which
//	loads.go   which loads are profiled
//	server.go  one profile: a server with its debug endpoint, driven and asked
//	kernel.go  what the kernel did meanwhile, by perf
//	merge.go   one profile out of many, for the compiler
package profile
