// Package bench has no code of its own: it is the map of its rooms. Together they measure NBD
// servers side by side: the same load generator, the same file, interleaved rounds, one run.
//
//	load      the load generator, `ringnbd bench`: an independent client with a ring of its own
//	measure   starts servers, drives them, accounts for their CPU time and memory: a Report
//	judge     ratios, targets and comparisons of two revisions, out of a Report
//	profile   CPU profiles of ringnbd, by stage of a request, and the profile for the compiler
//	show      tables for a terminal, Markdown, and the HTML page with its plots
//	flags     the command lines of the programs
//	suite     the program of `make bench`
//	compare   the program of `make compare`
//	pgo       the program of `make pgo`
//
// Imports run one way: measure knows none of the others but the words of load; judge and profile
// know measure; show knows all three; only the programs know show. How to run it, what is counted
// and how to read it is in README.md here; the doc.go of each room has the rules of its own.
//
// # Results
//
// A measure.Report holds every sample and is written as JSON. All tables, those of RESULTS.md and
// of the README included, and the HTML page are made from such a file and from nothing else.
package bench
