// The client's side: what a load generator, a test or a remote backend needs to speak to an NBD
// server. Like the rest of the package it writes and reads bytes of the caller, and the socket is
// the caller's.
//
// Invariant: everything that comes from the server is checked before it is believed, and no parser
// reads past the slice that it was given.

package proto

import (
	"encoding/binary"
	"errors"
)

// Errors of a server that does not speak the protocol. After any of them the connection must be
// closed.
var (
	errBanner      = errors.New("no NBD server of the newstyle handshake at this address")
	errOptionReply = errors.New("the server's option reply is malformed: the connection is out " +
		"of step")
)

// ParseBanner parses the first BannerSize bytes of a server and returns its handshake flags.
func ParseBanner(b []byte) (flags uint16, err error) {
	if len(b) < BannerSize || binary.BigEndian.Uint64(b) != Magic ||
		binary.BigEndian.Uint64(b[8:]) != OptionMagic {
		return 0, errBanner
	}
	return binary.BigEndian.Uint16(b[16:]), nil
}

// AppendClientFlags appends the client's first bytes: flags are those that begin with FlagClient.
func AppendClientFlags(b []byte, flags uint32) []byte {
	return binary.BigEndian.AppendUint32(b, flags)
}

// AppendOption appends an option with its data. The data of EXPORT_NAME is the name.
func AppendOption(b []byte, option uint32, data string) []byte {
	b = appendOptionHead(b, option, len(data))
	return append(b, data...)
}

// AppendInfo appends INFO or GO for an export, asking for these information types.
func AppendInfo(b []byte, option uint32, name string, types ...uint16) []byte {
	b = appendOptionHead(b, option, 4+len(name)+2+2*len(types))
	b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(types)))
	for _, t := range types {
		b = binary.BigEndian.AppendUint16(b, t)
	}
	return b
}

// appendOptionHead appends the header of an option; length bytes of data follow.
func appendOptionHead(b []byte, option uint32, length int) []byte {
	b = binary.BigEndian.AppendUint64(b, OptionMagic)
	b = binary.BigEndian.AppendUint32(b, option)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

// OptionReply is the header of a reply to an option; Length bytes of data follow it.
type OptionReply struct {
	Option uint32
	Type   uint32 // Rep...
	Length uint32 // bytes
}

// ParseOptionReply parses the first OptionReplySize bytes of b, the header of a reply to this
// option. It is an error if b is shorter, has the wrong magic, or is a reply to another option.
func ParseOptionReply(b []byte, option uint32) (OptionReply, error) {
	if len(b) < OptionReplySize || binary.BigEndian.Uint64(b) != OptionReplyMagic {
		return OptionReply{}, errOptionReply
	}
	r := OptionReply{
		Option: binary.BigEndian.Uint32(b[8:]),
		Type:   binary.BigEndian.Uint32(b[12:]),
		Length: binary.BigEndian.Uint32(b[16:]),
	}
	if r.Option != option {
		return OptionReply{}, errOptionReply
	}
	return r, nil
}

// Final reports whether this reply is the last to its option.
func (r OptionReply) Final() bool { return r.Type == RepAck || r.Failed() }

// Failed reports whether this reply is an error; its data is then a text for people.
func (r OptionReply) Failed() bool { return r.Type&RepErrorBit != 0 }

// ParseServer parses the data of a reply of type RepServer: one export of a LIST.
func ParseServer(data []byte) (name, description string, err error) {
	if len(data) < 4 || uint64(binary.BigEndian.Uint32(data)) > uint64(len(data)-4) {
		return "", "", errOptionReply
	}
	end := 4 + binary.BigEndian.Uint32(data)
	return string(data[4:end]), string(data[end:]), nil
}

// ParseInfo parses the data of a reply of type RepInfo into e; unknown types are ignored, as the
// spec demands of clients. The flags are those of this connection.
func ParseInfo(data []byte, e *Export) error {
	if len(data) < 2 {
		return errOptionReply
	}
	kind, data := binary.BigEndian.Uint16(data), data[2:]
	switch kind {
	case InfoExport:
		return ParseExport(data, e)
	case InfoName:
		e.Name = string(data)
	case InfoDescription:
		e.Description = string(data)
	case InfoBlockSize:
		if len(data) != 3*4 {
			return errOptionReply
		}
		e.MinBlock = binary.BigEndian.Uint32(data)
		e.PreferredBlock = binary.BigEndian.Uint32(data[4:])
		e.MaxPayload = binary.BigEndian.Uint32(data[8:])
	}
	return nil
}

// ParseExport parses size and transmission flags, the ExportNameReplySize bytes that answer
// EXPORT_NAME and that INFO_EXPORT consists of.
func ParseExport(data []byte, e *Export) error {
	if len(data) != ExportNameReplySize {
		return errOptionReply
	}
	e.Size = binary.BigEndian.Uint64(data)
	e.Flags = binary.BigEndian.Uint16(data[8:])
	return nil
}
