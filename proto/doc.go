/*
Package proto is the NBD protocol without a network: bytes in, bytes and decisions out. It owns no socket, reads no clock,
starts no goroutine and blocks on nothing, so that every rule can be tested by a table or by a text file.

The source is doc/proto.md of https://github.com/NetworkBlockDevice/nbd; names in quotes are its sections.

# Map

	wire.go                "Values": magics, options, replies, commands, flags, sizes
	export.go              what is told and known about an export; the catalog of them; "Block size constraints", "String values"
	errno.go               "Error values", and the one table from Linux errno to them
	negotiate.go           "Newstyle negotiation", "Fixed newstyle negotiation": client flags, option headers, order of answers
	option_export_name.go  NBD_OPT_EXPORT_NAME
	option_abort.go        NBD_OPT_ABORT
	option_list.go         NBD_OPT_LIST
	option_info.go         NBD_OPT_INFO, NBD_OPT_GO
	option_framing.go      NBD_OPT_STRUCTURED_REPLY, NBD_OPT_EXTENDED_HEADERS
	option_meta.go         NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT; "Metadata querying"
	close.go               why a negotiation was closed
	request.go             "Request message", "Request types", "Command flags": what may be asked
	reply.go               "Simple reply message", "Structured reply chunk message", "Extended reply chunk message"
	complaint.go           the text of an error
	oldstyle.go            "Oldstyle negotiation"
	peer*.go               the client's side of all that

A server's connection goes through them like this:

	NewNegotiator -> banner -> client flags -> options ... -> EventTransmit
	                                                       -> EventClose with a CloseReason
	ParseRequest -> Check -> (disk) -> PutSimpleReply, or chunks

A Negotiator says with Need how much may be read without touching what comes behind the negotiation, and with Out what
to send; who drives it needs to know nothing about NBD. What a connection agreed on travels in Event.Mode, of which the
Session is what the transmission phase needs: the framing, and the meta contexts that were selected. TLS adds a case to
Negotiator.header and a file option_*.go; until then STARTTLS is answered like any other option that is not known. A new
meta context (qemu:dirty-bitmap:NAME, qemu:allocation-depth) is an entry in Export.Contexts, and a source of statuses
beside it in the engine.

Extended headers are not in the spec's main text yet; the source is its branch extension-ext-header, which qemu 8.2 and libnbd 1.18 follow.

# What the spec leaves open, and our choice

Negotiation:

  - Options before client flags with FIXED_NEWSTYLE: EXPORT_NAME and ABORT are served, all others are ERR_INVALID, and
    the negotiation goes on.
  - An unknown client flag closes the connection, as the spec wants it; so do an option without its magic and one with
    more than 32 MiB of data. Any other mistake is answered, after all of the option's data has been read.
  - Options sent without waiting for the answer to the one before are answered in their order.
  - INFO_BLOCK_SIZE is sent unrequested; NAME and DESCRIPTION when asked for, the latter if there is one. We never
    require that a client asks for block sizes. Repeated and unknown information types are no error.
  - The empty name finds the default export; NAME then tells its real one.
  - A name of more than 4096 bytes is ERR_TOO_BIG; one with a NUL or that is no UTF-8, ERR_INVALID; both close the
    connection with EXPORT_NAME. Names are compared byte by byte.
  - INFO and GO on the same export agree because exports do not change.
  - ABORT is acknowledged whatever data it has, and while shutting down.
  - STRUCTURED_REPLY and EXTENDED_HEADERS are acknowledged however often they come; the first after the second is
    ERR_EXT_HEADER_REQD. EXPORT_NAME after extended headers closes the connection.
  - Meta contexts without structured replies are ERR_INVALID, with LIST too. So is a query without a colon. A query that
    ends in one lists all that begins so ("base:", "qemu:dirty-bitmap:"), and selects nothing. At most 4096 queries.
  - A context is selected for the export of exactly the name that SET gave, byte by byte: "" and the default export's own
    name are two.
  - A handshake has at most 64 options, and 8 more for each export.

Transmission:

  - Order of errors: not known, flags, payload (EINVAL), read-only (EPERM), not advertised, no context (EINVAL), range (the
    command's), alignment (EINVAL), size (the command's), a BLOCK_STATUS of nothing (EINVAL).
  - A request of length zero does nothing and succeeds, if its offset is at most the size and aligned; but BLOCK_STATUS is
    EINVAL, for an answer has one extent at least.
  - With structured replies, what succeeds without data gets a simple reply (4 bytes shorter), but READ never does; an
    error gets an error chunk with a text, always the last and only chunk of its reply. With extended headers all are chunks.
  - Extents of BLOCK_STATUS stay inside the range asked about. There are at most some 8,000 of them in the compact form,
    4,000 in the extended one; a client asks again for the rest.
  - The payload of a BLOCK_STATUS that names no context, one that was not selected, or one twice, is EINVAL. A WRITE has
    its data with PAYLOAD_LEN and without, for QEMU since 8.2 never sets the flag. Other commands that have it are
    drained and EINVAL, but beyond the maximum payload the connection is closed.
  - FLUSH with an offset or a length is EINVAL. On a read-only export it succeeds, if advertised.
  - CACHE that was not advertised is EINVAL, beyond the end too.
  - A READ longer than the maximum payload is EOVERFLOW, a WRITE that long EINVAL; its data is drained up to DrainLimit.
    Commands without data may be as long as the export.
  - FUA is accepted with every command if advertised, and EINVAL if not.
  - DISC is obeyed whatever its flags.
  - An unknown command is EINVAL, and its length is not taken for a payload.
  - ENOMEM is never sent; a device's own EOVERFLOW, ENOTSUP or ESHUTDOWN is EIO.
*/
package proto
