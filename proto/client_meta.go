// The client's side of meta contexts: it selects contexts and learns their numbers.
//
// Invariant: as in client.go, nothing of the server is believed before it was checked.

package proto

import "encoding/binary"

// AppendMetaContext appends LIST_META_CONTEXT or SET_META_CONTEXT with queries about an export
// ("NBD_OPT_LIST_META_CONTEXT").
func AppendMetaContext(b []byte, option uint32, name string, queries ...string) []byte {
	length := 4 + len(name) + 4
	for _, q := range queries {
		length += 4 + len(q)
	}
	b = appendOptionHead(b, option, length)
	b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = binary.BigEndian.AppendUint32(b, uint32(len(q)))
		b = append(b, q...)
	}
	return b
}

// ParseMetaContext parses the data of a reply of type RepMetaContext: the number of the context in
// block status replies, meaningless in the replies to LIST_META_CONTEXT, and its name. A name that
// is empty or not a string of the protocol is an error.
func ParseMetaContext(data []byte) (id uint32, name string, err error) {
	if len(data) < 5 || len(data) > 4+MaxString {
		return 0, "", errOptionReply
	}
	id, name = binary.BigEndian.Uint32(data), string(data[4:])
	if !ValidString(name) {
		return 0, "", errOptionReply
	}
	return id, name, nil
}
