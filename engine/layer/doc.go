// Package layer is the seam between the event loop and devices that are made of other devices: an
// overlay over its origin today; mirrors, journals and remote disks are to follow on the same seam.
//
//	layer.go  says what a plan is asked, and what it asks of the devices below it
//
// A planned device is a Plan over devices. The engine asks it for one Row at a time: a request from
// above, or a row of the plan's own. The plan answers with a Wave of segments for the devices below
// it, and is asked again when all of them are back. It never sees a client's bytes: rows and
// segments name places in the loop's pool, so that what a client wrote is written from where it was
// received. It sees the memory of its own rows, for what it keeps about itself.
//
// What a plan may rely on:
//   - One loop calls it, never inside itself. It needs no locks.
//   - A Read or Write is never longer than Most, is in one place of the pool, and begins and ends
//     on Needs.Block. Long requests are split, and unaligned writes are completed (the blocks at
//     their ends are read through the plan and merged), before the plan hears of them.
//   - Writes of any kind that overlap are never asked for at the same time: the engine's guard
//     orders them. A read may run beside a write of the same bytes, and may see either.
//   - A Zero or Trim is of any length, begins and ends on Needs.Block too, and is not bound to the
//     pool.
//   - A Zero or Trim of a client comes without FUA: a Flush follows it. A Write comes with it.
//   - At most one Flush is asked for at a time. It covers every row that was Done before.
//   - Every row that may go on is stepped before Next is asked, so that what one round of the
//     plan's own work can do for many rows, it does for all of a turn.
//   - Cancel is asked for rows that wait for a client that was cut, not for rows that a plan above
//     has asked for, nor for Flush. A row whose client was cut before its first Step is never seen.
//
// What a plan must keep:
//   - It has no clock, no socket, no descriptor and starts nothing: that is why a seed replays what
//     it did (layer/trial). It does not allocate after Owner.Owns.
//   - Segments of one wave do not overlap where one of them is a write of any kind, nor in the
//     memory that they read into. Between rows, overlapping writes to a device are the plan's to
//     order; a leaf does not.
//   - It ends every row that it was given, also after errors; a row that waits is named by Next as
//     soon as it can go on.
package layer
