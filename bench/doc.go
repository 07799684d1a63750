// Package bench measures NBD servers side by side: the same file, the same load
// generator, interleaved rounds, one run.
//
// A run is a list of loads (pattern, block size, depth, connections, transport).
// In every round each load meets each server, and the raw limit, in an order
// that moves by one from round to round, so that a slow minute of the machine
// hits nobody more than the others. For every meeting the server is started anew,
// the load generator (fio) drives it for a few seconds, and the server is stopped.
//
// # What is counted
//
// Requests per second and latency come from fio's JSON output: latency is fio's
// completion latency, from handing the request to libnbd to its reply.
//
// Server CPU per request is user plus system time of the server from just before
// the load until its clients have gone, divided by the requests fio counted:
//
//   - /proc/PID/stat of the server sums all its threads, also those that have
//     exited. Workers of io_uring (iou-wrk-*) are threads of the process and are
//     in it. The clock is precise to 10 ms, which is 0.2 % of a busy 5 s run.
//   - For servers that fork, every live descendant is added, and so are the
//     children that were waited for (cutime, cstime of each member of the tree).
//   - Not in it, for any server: block device interrupts (charged to whatever
//     they interrupt) and kernel threads, above all the write-back of the page
//     cache. A server that answers writes out of the page cache therefore looks
//     cheaper and faster than it is; the time that the file needs to reach the
//     disk after the load is shown as its write-back.
//   - On loopback the kernel runs the receiving half of a transfer in the
//     sender's time. The server pays for delivering its replies, the generator
//     for delivering its requests, alike for all servers.
//
// Context switches are the process's own total at exit (getrusage of the waited
// for process: every thread, every waited for child), less those before the load.
//
// Peak resident memory is the larger of the server's VmHWM and the highest sum of
// VmRSS over its process tree, sampled five times a second; pages shared between
// processes count once for each.
//
// Steal is the share of all CPU time that the hypervisor gave to somebody else
// during the load. It is the first thing to look at when two runs disagree.
//
// The raw limit is fio itself on the file: io_uring, O_DIRECT, registered buffers
// and files, at the same depth and number of jobs. It has no server, so its CPU
// column is empty.
//
// # Fairness
//
// Before every measurement the file is written back and evicted from the page
// cache: servers that use the page cache start cold, and their leftovers do not
// slow down the direct writes of the next one. Over TCP all parties run in a
// network namespace of their own with a congestion control that does not pace
// (cubic, else reno): bbr, a common default, paces even the loopback.
//
// # Results
//
// A Report holds every sample and is written as JSON. All tables, also the one in
// the README, are made from such a file and from nothing else.
package bench
