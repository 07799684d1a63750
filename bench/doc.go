// Package bench measures NBD servers side by side: the same load generator, the
// same file, interleaved rounds, one run.
//
// A run is a list of loads: pattern, block size, depth, connections, transport, and
// what stands behind the export. Loads come in sections, each of which answers one
// question (sections.go). In every round each load meets each server that takes
// part in its section. Loads that differ in their transport only are neighbours:
// their order, and that of the servers within each, is shuffled anew in every round,
// and the raw limit, which knows no transport, is measured once at any place among
// them. So nobody always follows the same other one, and a slow minute of the machine
// hits nobody more than the others. The shuffle follows from round and load alone: a
// run can be repeated.
// For every meeting the server is started anew, warmed up, driven for a second or
// so, and stopped. The load generator is `ringnbd bench` (package load), one binary
// for all servers, also when another build of ringnbd is measured.
//
// # Back ends
//
// A file on a file system of the user's choice, opened O_DIRECT by the servers that
// can; a loop device on that file, itself with direct I/O; a null export, which
// shows what the server costs without storage; an export kept in memory.
// The loop device's own work is done by kernel threads and is nobody's CPU time.
//
// # What is counted
//
// Requests per second, bandwidth and latency come from the generator. Of a load with
// reads and writes the slower kind's percentiles count. In an open loop, which has
// a rate, latency counts from when a request was due, and requests that were never
// started by the end are shown.
//
// Server CPU per request is user plus system time of the server divided by the
// requests it did in that time:
//
//   - In a closed loop, over the whole of a run without warm-up, whose every request
//     is reported; the warm-up was a run of its own. Connecting up to a few dozen
//     clients is in it, some 10 µs for each.
//   - In an open loop, over the inner part of the measuring time (watch.go), when all
//     connections are up and requests come at the known rate: what connecting a
//     thousand clients costs is not charged to their requests.
//   - The clock is the process's own (clock_getcpuclockid), exact to the nanosecond.
//     It has all threads, also those that have exited; workers of io_uring
//     (iou-wrk-*) are threads of the process. How the total divides into user and
//     system time is known in ticks of 10 ms only.
//   - For servers that fork, every live descendant is added, and so are the
//     children that were waited for (cutime, cstime of each member of the tree).
//   - Not in it, for any server: block device interrupts (charged to whatever
//     they interrupt) and kernel threads, above all the write-back of the page
//     cache. A server that answers writes out of the page cache is not charged for
//     them and therefore looks cheaper and faster than it is; the time that the
//     file needs to reach the disk after the load is shown as its write-back.
//   - On loopback the kernel runs the receiving half of a transfer in the
//     sender's time. The server pays for delivering its replies, the generator
//     for delivering its requests, alike for all servers.
//
// Context switches are the process's own total at exit (getrusage of the waited
// for process: every thread, every waited for child), less those before the load.
//
// Peak resident memory is the larger of the server's VmHWM and the highest sum of
// VmRSS over its process tree, sampled five times a second; pages shared between
// processes count once for each. What the kernel holds for its sockets is not in it.
//
// Start is from starting the process until it has greeted a client.
//
// Steal is the share of all CPU time that the hypervisor gave to somebody else
// during the load. It is the first thing to look at when two runs disagree.
//
// Others is the share that neither server nor generator nor the suite used, nor was
// it idle or stolen: other programs, the kernel's own threads (also those that write
// back the page cache or carry a loop device) and interrupts that are charged to
// nobody. The kernel samples busy time in ticks, so a short load shows it roughly.
// Where it is more than 5 % in the median over all measurements, the report has a
// warning.
//
// The raw limit is the generator itself on the file or device: io_uring, O_DIRECT,
// registered buffers and files, at the same depth and number of connections. It has no
// server, so its CPU column is empty.
//
// # Ratios
//
// A ratio is the median over the rounds of the ratios within each round. The best
// peer is the one that is hardest to beat among those that reach the storage the
// same way: by O_DIRECT, where a write is answered when the disk has it, or through
// the page cache.
//
// The targets (targets.go) are judged by these, with one exception: server CPU is
// held against the cheapest of all peers, though what the kernel spends on writing
// back the page cache is charged to nobody; the ratio to the cheapest on O_DIRECT is
// told beside it. A verdict needs two rounds. When some rounds meet the bound and
// others do not, the target is neither met nor missed but close, and the lowest and
// the highest round are shown.
//
// # Fairness
//
// Before every measurement the file is written back and evicted from the page
// cache: servers that use the page cache start cold, and their leftovers do not
// slow down the direct writes of the next one. Over TCP all parties run in a
// network namespace of their own with a congestion control that does not pace
// (cubic, by an attribute of the loopback's routes): bbr, a common default, paces
// even the loopback. The report says which one both ends of a connection had.
//
// # Results
//
// A Report holds every sample and is written as JSON. All tables, also those in
// the README, and the HTML page are made from such a file and from nothing else.
package bench
