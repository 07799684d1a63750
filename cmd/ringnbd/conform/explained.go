// Why other servers fail or differ, from their sources and documents: qemu-nbd 7.2, nbdkit 1.32,
// nbd-server 3.24.
//
// Invariant: one entry for each server and check, which names the place in the server's source, for
// the versions that TABLE.md names. If the check itself is at fault, the check is mended and there
// is no entry.

package conform

const (
	nbdServerZeroes = "A bug of nbd-server: expwrite_zeroes in nbd-server.c zeroes the first 64 " +
		"MiB of a longer range again and again, and leaves the rest as it was."
	nbdkitSilent = "nbdkit sends errors as simple replies except for READ and BLOCK_STATUS, " +
		"and none with a text (send_structured_reply_error in server/protocol.c says so)."
	nbdkitAborts = "A bug of nbdkit up to 1.33.9, fixed by its commit 9d82aa4f: when a client is " +
		"gone, one thread closes the socket and the assertion in raw_send_socket " +
		"(server/connections.c) ends the whole server in another thread; whether this happens " +
		"is a matter of timing."
	qemuEINVAL = "qemu answers EINVAL to every request that it refuses, whatever error its own " +
		"check found (nbd_trip in nbd/server.c)."
	unwritten = "It asks the file system for holes (SEEK_HOLE), and those include blocks that " +
		"are allocated and were never written."
)

// explained has the reasons by server and check.
var explained = map[string]string{
	"qemu-nbd T-01": "It does not set TCP_NODELAY on the sockets that it accepts (strace); " +
		"mended after 7.2: \"nbd/server: push pending frames after sending reply\", qemu-devel, " +
		"2023-03-24.",
	"qemu-nbd T-04b": "nbd/server.c nbd_sanitize_name shortens the name that it puts into the " +
		"error's text, and does not look at its characters.",
	"qemu-nbd H-07": "nbd/server.c nbd_negotiate_options: \"If broken new-style we should " +
		"drop the connection for anything except NBD_OPT_EXPORT_NAME\".",
	"qemu-nbd MC-02b": "nbd/server.c nbd_negotiate_meta_queries does not look at what is left " +
		"of the option's data, which is then read as the next option.",
	"qemu-nbd RQ-01": "qemu answers EINVAL, with the cookie 0, before it hangs up " +
		"(nbd_receive_request and nbd_trip in nbd/server.c).",
	"qemu-nbd RQ-11":  qemuEINVAL,
	"qemu-nbd RQ-12":  qemuEINVAL,
	"qemu-nbd CW-02":  qemuEINVAL,
	"qemu-nbd CW-03":  qemuEINVAL,
	"qemu-nbd CT-02b": qemuEINVAL,
	"qemu-nbd CZ-06a": qemuEINVAL,
	"qemu-nbd CZ-06b": qemuEINVAL,
	"qemu-nbd CC-03b": "qemu reads what it caches into a buffer, and so refuses more than 32 " +
		"MiB (nbd_co_receive_request in nbd/server.c).",
	"qemu-nbd CB-08d": unwritten,

	"nbdkit H-13": "server/protocol-handshake-newstyle.c sends error replies without text.",
	"nbdkit LI-01b": "server/protocol-handshake-newstyle.c: \"export list already advertised\": " +
		"LIST is answered once per connection.",
	"nbdkit G-12": "Block sizes come from the plugin, and the file plugin has none " +
		"(nbdkit-file-plugin).",
	"nbdkit MC-02b": "server/protocol-handshake-newstyle.c reads all of the option's data, and " +
		"does not look at what follows the last query.",
	"nbdkit MC-12": "server/protocol-handshake-newstyle.c answers each query by itself, so the " +
		"same context comes twice with the same id.",
	"nbdkit MC-14": "server/protocol-handshake-newstyle.c keeps the name for later and does " +
		"not ask the plugin or filter about it until GO.",
	"nbdkit RP-03":  nbdkitSilent,
	"nbdkit CB-08d": unwritten,
	"nbdkit CZ-05": "A bug of nbdkit: protocol.c does not check that FAST_ZERO was advertised, " +
		"and the assertion can_fast_zero == 1 in server/backend.c (backend_zero) ends the whole " +
		"server.",
	"nbdkit ER-03": "A READ of more than 64 MiB (MAX_REQUEST_SIZE) is ENOMEM in " +
		"validate_request of server/protocol.c.",
	"nbdkit CR-04": "A READ of more than 64 MiB (MAX_REQUEST_SIZE) is ENOMEM in " +
		"validate_request of server/protocol.c.",
	"nbdkit CD-01b": "After DISC nbdkit answers ESHUTDOWN to requests that it has read and not " +
		"begun (protocol_recv_request_send_reply in server/protocol.c); how many is a matter of " +
		"timing.",
	"nbdkit MO-07": nbdkitAborts,
	"nbdkit SD-04": nbdkitAborts,
	"nbdkit DS-07": nbdkitAborts,
	"nbdkit DS-08": nbdkitAborts,
	"nbdkit DS-10": nbdkitAborts,
	"nbdkit DS-16": nbdkitAborts,

	"nbd-server T-04a": "nbd-server.c handle_info compares names by strcmp, which ends at the NUL.",
	"nbd-server H-03a": "nbd-server.c negotiate looks at NO_ZEROES and ignores every other " +
		"client flag.",
	"nbd-server H-03b": "nbd-server.c negotiate looks at NO_ZEROES and ignores every other " +
		"client flag.",
	"nbd-server H-13": "nbd-server.c handle_info reads a name's length and a count without a " +
		"check that the data is that long; it waits for bytes that do not come.",
	"nbd-server H-15": "nbd-server.c handle_info reads a name's length and a count without a " +
		"check that the data is that long; it waits for bytes that do not come.",
	"nbd-server H-16": "As A-01: the connection is closed with ABORT's length unread, and the " +
		"reset takes earlier replies with it.",
	"nbd-server A-01": "nbd-server.c negotiate: \"Session terminated by client\": it closes at " +
		"once, without an ACK, and without reading ABORT's length, so that TCP sends a reset.",
	"nbd-server A-02": "As A-01.",
	"nbd-server LI-03": "nbd-server.c handle_list sends ERR_INVALID, does not read the data and " +
		"does not return: it sends the list and an ACK as well.",
	"nbd-server G-01a": "nbd-server.c handle_info computes the length of the data less 6 as an " +
		"unsigned number, and waits for bytes that do not come.",
	"nbd-server G-01b": "nbd-server.c handle_info sends ERR_INVALID, does not return, and goes " +
		"on to parse the same option.",
	"nbd-server G-01c": "nbd-server.c handle_info does not compare the count of requests with " +
		"the data's length.",
	"nbd-server G-06": "nbd-server.c handle_info opens the file (commit_client) for GO only; " +
		"INFO says that the size is 0. Known on the project's mailing list since 2024.",
	"nbd-server G-12": "nbd-server.c handle_info knows INFO_EXPORT only.",
	"nbd-server G-15b": "nbd-server.c handle_info sends ERR_INVALID, does not return, and goes " +
		"on to parse the same option.",
	"nbd-server K-02":  nbdServerZeroes,
	"nbd-server CZ-07": nbdServerZeroes,
	"nbd-server RQ-06": "nbd-server refuses flags other than FUA and NO_HOLE, and takes those " +
		"two with any command (handle_request in nbd-server.c).",
	"nbd-server CD-01c": "nbd-server compares the command with its flags to DISC, so that DISC " +
		"with a flag is an unknown command, which is answered (mainloop_threaded in " +
		"nbd-server.c).",
	"nbd-server TF-02b": "nbd-server sets SEND_WRITE_ZEROES on every export (its 3.24 release).",
}
