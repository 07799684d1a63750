// Why other servers fail or differ, from their sources and documents: qemu-nbd 7.2, nbdkit 1.32,
// nbd-server 3.24.
//
// Invariant: one line for each server and check, and none for what is the check's own fault.

package conform

// explainedHandshake has "server ID" of the checks of the handshake.
var explainedHandshake = map[string]string{
	"qemu-nbd T-01": "It does not set TCP_NODELAY on the sockets that it accepts (strace); " +
		"the remedy came after 7.2: \"nbd/server: push pending frames after sending reply\", " +
		"qemu-devel, 2023-03-24.",
	"qemu-nbd T-04b": "nbd/server.c nbd_sanitize_name shortens the name that it puts into the " +
		"error's text, and does not look at its characters.",
	"qemu-nbd H-07": "nbd/server.c nbd_negotiate_options: \"If broken new-style we should " +
		"drop the connection for anything except NBD_OPT_EXPORT_NAME\".",
	"qemu-nbd MC-02b": "nbd/server.c nbd_negotiate_meta_queries does not look at what is left " +
		"of the option's data, which is then read as the next option.",

	"nbdkit H-13": "server/protocol-handshake-newstyle.c sends error replies without text.",
	"nbdkit LI-01b": "server/protocol-handshake-newstyle.c: \"export list already advertised\": " +
		"LIST is answered once per connection.",
	"nbdkit G-12": "Block sizes are the plugin's to tell, and the file plugin has none to " +
		"tell (nbdkit-file-plugin).",
	"nbdkit MC-02b": "server/protocol-handshake-newstyle.c reads all of the option's data, and " +
		"does not look behind the last query.",
	"nbdkit MC-12": "server/protocol-handshake-newstyle.c answers each query by itself, so the " +
		"same context comes twice with the same id.",
	"nbdkit MC-14": "server/protocol-handshake-newstyle.c keeps the name for later and does " +
		"not ask the plugin or filter about it until GO.",

	"nbd-server T-04a": "nbd-server.c handle_info compares names by strcmp, which ends at the NUL.",
	"nbd-server H-03a": "nbd-server.c negotiate looks at NO_ZEROES and ignores every other " +
		"client flag.",
	"nbd-server H-03b": "nbd-server.c negotiate looks at NO_ZEROES and ignores every other " +
		"client flag.",
	"nbd-server H-13": "nbd-server.c handle_info reads a name's length and a count without " +
		"asking whether the data is that long; it waits for bytes that do not come.",
	"nbd-server H-15": "nbd-server.c handle_info reads a name's length and a count without " +
		"asking whether the data is that long; it waits for bytes that do not come.",
	"nbd-server H-16": "As A-01: the connection is closed with ABORT's length unread, and the " +
		"reset takes earlier replies with it.",
	"nbd-server A-01": "nbd-server.c negotiate: \"Session terminated by client\": closes at " +
		"once, without an ACK, and without reading ABORT's length, so that TCP sends a reset.",
	"nbd-server A-02": "As A-01.",
	"nbd-server LI-03": "nbd-server.c handle_list sends ERR_INVALID, does not read the data and " +
		"does not return: it sends the list and an ACK as well.",
	"nbd-server G-01a": "nbd-server.c handle_info computes the data's length - 6 without a " +
		"sign, and waits for bytes that do not come.",
	"nbd-server G-01b": "nbd-server.c handle_info sends ERR_INVALID, does not return, and goes " +
		"on to parse the same option.",
	"nbd-server G-01c": "nbd-server.c handle_info does not compare the count of requests with " +
		"the data's length.",
	"nbd-server G-06": "nbd-server.c handle_info opens the file (commit_client) for GO only; " +
		"INFO tells the size 0. Known since 2024 on the list of the project.",
	"nbd-server G-12": "nbd-server.c handle_info knows INFO_EXPORT only.",
	"nbd-server G-15b": "nbd-server.c handle_info sends ERR_INVALID, does not return, and goes " +
		"on to parse the same option.",

	"nbd-server K-02": "A bug of nbd-server: expwrite_zeroes in nbd-server.c does not move on: " +
		"of more than 64 MiB it writes the first 64 MiB again and again.",
}
