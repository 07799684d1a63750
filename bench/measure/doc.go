// Package measure runs servers under loads and accounts for what they cost.
//
// A run (Suite) is a list of loads: pattern, block size, depth, connections, transport, and what
// stands behind the export. Loads come in sections, each of which answers one question. In every
// round each load meets each server that takes part in its section. Loads that differ in their
// transport only are neighbours: their order, and that of the servers within each, is shuffled
// anew in every round, and the raw limit, which knows no transport, is measured once at any
// place among them. So no server always runs after the same other server, and a slow minute of
// the machine is spread over all of them. The shuffle follows from round and load alone: a run
// can be repeated.
//
// For every meeting the server is started anew, warmed up, driven for a second or so, and
// stopped. The load generator is `ringnbd bench` (package load), one binary for all servers,
// also when another build of ringnbd is measured.
//
// The files:
//
//	suite.go       a run: loads times servers times rounds, interleaved
//	sections.go    which loads there are, the question of each section, who takes part
//	load.go        Load, Sample and Result: what is asked of a server, and what came of it
//	report.go      Report: everything a run measured, and its file
//	median.go      medians over the rounds
//	meeting.go     one meeting: evict, start the server, warm up, drive, stop
//	pair.go        a pair of meetings, for comparisons
//	progress.go    a line for each meeting, with the time that is left
//	program.go     the server programs and how each is told what to serve
//	server.go      a running server: started, waited for, stopped
//	generator.go   the load generator as a child process
//	account.go     CPU time, memory and context switches, read from /proc
//	watch.go       the same, read while a load runs
//	storage.go     what all servers share: the file, the loop device, further files
//	disk.go        the file
//	loopdevice.go  the loop device
//	loopback.go    what the loopback itself carries
//	netns.go       a network of its own, without pacing
//	machine.go     facts about the machine
//
// # Back ends
//
// A file on a file system of the user's choice, opened O_DIRECT by the servers that can; a loop
// device on that file, itself with direct I/O; a null export, which shows what the server costs
// without storage; an export kept in memory. The loop device's own work is done by kernel
// threads and is in no server's CPU time.
//
// # What is counted
//
// Requests per second, bandwidth and latency come from the generator. Of a load with reads and
// writes the percentiles of the slower kind count. In an open loop, which has a rate, latency
// counts from when a request was due, and requests that were never started by the end are shown.
//
// Server CPU per request is user plus system time of the server divided by the requests it did
// in that time:
//
// - In a closed loop, over the whole of a run without warm-up, whose every request is reported;
// the warm-up was a run of its own. Connecting up to a few dozen clients is in it, some 10 µs
// for each. - In an open loop, over the inner part of the measuring time (watch.go), when all
// connections are up and requests come at the known rate: what connecting a thousand clients
// costs is not charged to their requests. - The clock is the process's own
// (clock_getcpuclockid), exact to the nanosecond. It has all threads, also those that have
// exited; workers of io_uring (iou-wrk-*) are threads of the process. How the total divides into
// user and system time is known in ticks of 10 ms only. - For servers that fork, every live
// descendant is added, and so are the children that were waited for (cutime, cstime of each
// member of the tree). - Not in it, for any server: block device interrupts (charged to whatever
// they interrupt) and kernel threads, above all the write-back of the page cache. A server that
// answers writes out of the page cache is not charged for them and therefore looks cheaper and
// faster than it is; the time that the file needs to reach the disk after the load is shown as
// its write-back. - On loopback the kernel runs the receiving half of a transfer in the sender's
// time. The server pays for delivering its replies, the generator for delivering its requests,
// alike for all servers.
//
// Context switches are the process's own total at exit (getrusage of the waited for process:
// every thread, every waited for child), less those before the load.
//
// Peak resident memory is the larger of the server's VmHWM and the highest sum of VmRSS over its
// process tree, sampled five times a second; pages shared between processes count once for each.
// What the kernel holds for its sockets is not in it.
//
// Start is from starting the process until it has greeted a client.
//
// Steal is the share of all CPU time that the hypervisor gave to other guests during the load.
// It is the first thing to look at when two runs disagree.
//
// Others is the share that neither server nor generator nor the suite used, and that was neither
// idle nor stolen: other programs, the kernel's own threads (also those that write back the page
// cache or carry a loop device) and interrupts that are charged to no process. The kernel
// samples busy time in ticks, so a short load shows it roughly. Where it is more than 5 % in the
// median over all measurements, the report has a warning.
//
// The raw limit is the generator itself on the file or device: io_uring, O_DIRECT, registered
// buffers and files, at the same depth and number of connections. It has no server, so its CPU
// column is empty.
//
// # Fairness
//
// Before every measurement the file is written back and evicted from the page cache: servers
// that use the page cache start cold, and their leftovers do not slow down the direct writes of
// the next server. Over TCP all parties run in a network namespace of their own with a
// congestion control that does not pace (cubic, by an attribute of the loopback's routes): bbr,
// a common default, paces even the loopback. The report says which congestion control both ends
// of a connection had.
package measure
