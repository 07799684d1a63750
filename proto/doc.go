/*
Package proto is the NBD protocol without a network: bytes in, bytes and decisions out. It owns no
socket, reads no clock, starts no goroutine and blocks on nothing, so that every rule can be tested
by a table or by a text file.

The source is doc/proto.md of https://github.com/NetworkBlockDevice/nbd; names in quotes are its
sections. Extended headers are not in its main text yet: their source is its branch
extension-ext-header, which qemu 8.2 and libnbd 1.18 follow.

# Map

What both sides share:

	wire.go       "Values": magics, options, replies, commands, flags, sizes
	session.go    what a connection agreed on: framing, contexts, mode
	export.go     what is known and told about an export; the catalog of exports;
	              "Block size constraints", "String values"
	errno.go      "Error values", and the one table from Linux errno to them
	request.go    "Request message", "Request types", "Command flags": what may be asked
	oldstyle.go   "Oldstyle negotiation"

The server's side:

	negotiate.go           "Newstyle negotiation", "Fixed newstyle negotiation": client flags,
	                       option headers, the order of answers
	option_export_name.go  NBD_OPT_EXPORT_NAME
	option_abort.go        NBD_OPT_ABORT
	option_list.go         NBD_OPT_LIST
	option_info.go         NBD_OPT_INFO, NBD_OPT_GO
	option_framing.go      NBD_OPT_STRUCTURED_REPLY, NBD_OPT_EXTENDED_HEADERS
	option_meta.go         NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT; "Metadata querying"
	close.go               why a negotiation was closed
	reply.go               "Simple reply message", "Structured reply chunk message",
	                       "Extended reply chunk message"
	complaint.go           the text of an error

The client's side:

	client.go        the banner, options and their replies
	client_meta.go   meta contexts
	client_reply.go  simple replies, and chunks of structured replies and extended headers

A server's connection goes through them like this:

	NewNegotiator -> banner -> client flags -> options ... -> EventTransmit
	                                                       -> EventClose with a CloseReason
	ParseRequest -> Check -> (disk) -> PutSimpleReply, or chunks

A Negotiator says with Need how much may be read without touching the bytes that follow the
negotiation, and with Out what to send; its caller needs to know nothing about NBD. What a
connection agreed on is in Event.Mode, of which the Session is what the transmission phase needs:
the framing, and the meta contexts that were selected. TLS adds a case to Negotiator.header and a
file option_*.go; until then STARTTLS is answered like any other unknown option. A new meta context
(qemu:dirty-bitmap:NAME, qemu:allocation-depth) is an entry in Export.Contexts, and a source of
statuses in the engine.

wire.go names every number of the spec, and so exports some that nothing of ours uses yet: a set of
wire constants with gaps would be harder to check against the spec.

# What the spec leaves open, and our choice

Negotiation:

  - Options before client flags with FIXED_NEWSTYLE: EXPORT_NAME and ABORT are served, all others
    are ERR_INVALID, and the negotiation goes on.
  - An unknown client flag closes the connection, as the spec demands; so do an option without its
    magic and an option with more than 32 MiB of data. Any other mistake is answered, after all of
    the option's data has been read.
  - Options sent without waiting for the answer to the option before are answered in their order.
  - INFO_BLOCK_SIZE is sent without being requested; NAME and DESCRIPTION only when requested, the
    latter if there is one. A client never has to ask for block sizes. Repeated and unknown
    information types are not errors.
  - The empty name finds the default export; NAME then tells its real name.
  - A name of more than 4096 bytes is ERR_TOO_BIG; a name with a NUL or that is not UTF-8 is
    ERR_INVALID; both close the connection with EXPORT_NAME. Names are compared byte by byte.
  - INFO and GO on the same export agree because exports do not change.
  - ABORT is acknowledged whatever data it has, and while the server shuts down.
  - STRUCTURED_REPLY and EXTENDED_HEADERS are acknowledged however often they are sent; the first
    after the second is ERR_EXT_HEADER_REQD. EXPORT_NAME after extended headers closes the
    connection.
  - Meta contexts without structured replies are ERR_INVALID, with LIST too. So is a query without a
    colon. A query that ends in a colon lists all contexts with that prefix ("base:",
    "qemu:dirty-bitmap:"), and selects nothing. At most 4096 queries.
  - A context is selected for the export of exactly the name that SET gave, byte by byte: "" and the
    default export's own name are two names.
  - A handshake has at most 64 options, and 8 more for each export.

Transmission:

  - Order of errors: not known, flags, payload (EINVAL), read-only (EPERM), not advertised, no
    context (EINVAL), range (the command's), alignment (EINVAL), size (the command's), a
    BLOCK_STATUS of nothing (EINVAL).
  - A request of length zero does nothing and succeeds, if its offset is at most the size and
    aligned; but BLOCK_STATUS is EINVAL, because an answer has at least one extent.
  - With structured replies, a success without data is a simple reply (4 bytes shorter), except for
    READ; an error is an error chunk with a text, always the last and only chunk of its reply. With
    extended headers every reply consists of chunks.
  - Extents of BLOCK_STATUS stay inside the requested range. A reply has at most about 8,000 of them
    in the compact form, 4,000 in the extended form; a client asks again for the rest.
  - The payload of a BLOCK_STATUS that names no context, a context that was not selected, or a
    context twice, is EINVAL. A WRITE has its data with PAYLOAD_LEN and without, because QEMU since
    8.2 never sets the flag. The payload of any other command is drained and the command is EINVAL,
    but a payload beyond the maximum closes the connection.
  - FLUSH with an offset or a length is EINVAL. On a read-only export it succeeds, if advertised.
  - CACHE that was not advertised is EINVAL, beyond the end too.
  - A READ longer than the maximum payload is EOVERFLOW, a WRITE that long EINVAL; its data is
    drained up to MaxDrain. Commands without data may be as long as the export.
  - FUA is accepted with every command if advertised, and EINVAL if not.
  - DISC is obeyed whatever its flags.
  - An unknown command is EINVAL, and its length is not taken for that of a payload.
  - ENOMEM is never sent; a device's own EOVERFLOW, ENOTSUP or ESHUTDOWN is EIO.
*/
package proto
