// Package debian gets programs and kernels of Debian that are not installed on this machine: apt
// downloads them, dpkg-deb unpacks them beside the machine's own, and nothing of the machine's is
// changed.
//
//	suite.go    programs of another release, with every library that they need
//	starter.go  the scripts that start them
//	command.go  apt, its errors, and the folder that keeps its results
//
// Only tests use it. It needs no root, and no network once the cache is full.
//
// Invariant: a folder of the cache gets its name when it is complete.
package debian
