// Why other servers differ or fail in checks of the transmission phase, from their source or their
// documents.
//
// Invariant: a line says where in the server it comes from, so that it can be looked up; it is
// about the versions that the table of results names.

package conform

const (
	nbdServerZeroes = "a bug of nbd-server: expwrite_zeroes in nbd-server.c zeroes the first 64 " +
		"MiB of a longer range again and again, and leaves the rest as it was"
	nbdkitSilent = "nbdkit sends errors as simple replies except for READ and BLOCK_STATUS, " +
		"and none with a text (send_structured_reply_error in server/protocol.c says so)"
	nbdkitAborts = "a bug of nbdkit up to 1.33.9, fixed by its commit 9d82aa4f: when a " +
		"client is gone, one thread closes the socket and the assertion in raw_send_socket " +
		"(server/connections.c) ends the whole server in the next; whether it strikes is a " +
		"matter of timing"
	qemuEINVAL = "qemu answers every request that its checks refuse with EINVAL, whatever its " +
		"own check said (nbd_trip in nbd/server.c)"
	unwritten = "it asks the file system for holes (SEEK_HOLE), which calls blocks that are " +
		"allocated and never written holes"
)

// explainedTransmission is keyed by server and check.
var explainedTransmission = map[string]string{
	"nbdkit RP-03":  nbdkitSilent,
	"nbdkit CB-08d": unwritten,
	"nbdkit CZ-05": "a bug of nbdkit: protocol.c does not look whether FAST_ZERO was " +
		"advertised, and the assertion can_fast_zero == 1 in server/backend.c (backend_zero) ends " +
		"the whole server",
	"nbdkit ER-03": "a READ of more than 64 MiB (MAX_REQUEST_SIZE) is ENOMEM in " +
		"validate_request of server/protocol.c",
	"nbdkit CR-04": "a READ of more than 64 MiB (MAX_REQUEST_SIZE) is ENOMEM in " +
		"validate_request of server/protocol.c",
	"nbdkit CD-01b": "after DISC nbdkit answers what it has read and not begun with ESHUTDOWN " +
		"(protocol_recv_request_send_reply in server/protocol.c); how much that is, is a matter " +
		"of timing",
	"nbdkit MO-07": nbdkitAborts,
	"nbdkit SD-04": nbdkitAborts,
	"nbdkit DS-07": nbdkitAborts,
	"nbdkit DS-08": nbdkitAborts,
	"nbdkit DS-10": nbdkitAborts,
	"nbdkit DS-16": nbdkitAborts,

	"qemu-nbd RQ-01": "qemu answers EINVAL, with the cookie 0, before it hangs up " +
		"(nbd_receive_request and nbd_trip in nbd/server.c)",
	"qemu-nbd RQ-11":  qemuEINVAL,
	"qemu-nbd RQ-12":  qemuEINVAL,
	"qemu-nbd CW-02":  qemuEINVAL,
	"qemu-nbd CW-03":  qemuEINVAL,
	"qemu-nbd CT-02b": qemuEINVAL,
	"qemu-nbd CZ-06a": qemuEINVAL,
	"qemu-nbd CZ-06b": qemuEINVAL,
	"qemu-nbd CC-03b": "qemu reads what it caches into a buffer, and so refuses more than 32 " +
		"MiB (nbd_co_receive_request in nbd/server.c)",
	"qemu-nbd CB-08d": unwritten,

	"nbd-server K-02":  nbdServerZeroes,
	"nbd-server CZ-07": nbdServerZeroes,
	"nbd-server RQ-06": "nbd-server looks for flags other than FUA and NO_HOLE only, whatever " +
		"the command (handle_request in nbd-server.c)",
	"nbd-server CD-01c": "nbd-server compares the command with its flags to DISC, so that DISC " +
		"with a flag is an unknown command, which is answered (mainloop_threaded in " +
		"nbd-server.c)",
	"nbd-server TF-02b": "nbd-server sets SEND_WRITE_ZEROES on every export (its 3.24 release)",
}
