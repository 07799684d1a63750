// Servers that stop in the middle: their errors are told once, and those that say nothing are not
// waited for longer than was asked.

package describe

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"ringnbd/engine/client"
	"ringnbd/engine/testbed"
	"ringnbd/proto"
)

// unix is the default export of the server that listens at a path.
func unix(path string) client.Target {
	return client.Target{Text: "nbd+unix:///?socket=" + path, Network: "unix", Address: path}
}

func TestSilentServersTimeOut(t *testing.T) {
	target := unix(testbed.Listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
	for name, o := range map[string]Options{"one": {}, "list": {List: true},
		"map": {Map: "totals", Context: proto.ContextAllocation}} {
		o.Target, o.Timeout = target, 200*time.Millisecond
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if err := Show(ctx, &o, io.Discard); err == nil ||
			!strings.HasSuffix(err.Error(), "within 200ms") {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// An export that cannot be opened is told of by name and reason, without made-up facts, and is a
// reason for an exit status.
func TestExportsThatCannotBeOpened(t *testing.T) {
	const timeout = 300 * time.Millisecond
	for _, opened := range []int{2, 0} {
		o := Options{Target: (&listing{names: 3, opened: opened}).serve(t), List: true, JSON: true,
			Timeout: timeout}
		var out bytes.Buffer
		err := Show(context.Background(), &o, &out)
		words := map[int]string{2: "an export of the server could not be opened; the list says why",
			0: "3 of the server's 3 exports could not be opened; the list says why"}[opened]
		if err == nil || err.Error() != words {
			t.Errorf("%v; want %s", err, words)
		}
		var server map[string]any
		if err := json.Unmarshal(out.Bytes(), &server); err != nil {
			t.Fatalf("%v: %s", err, out.Bytes())
		}
		if _, ok := server["protocol"]; ok != (opened > 0) {
			t.Errorf("%d opened: %v", opened, server)
		}
		for i, export := range server["exports"].([]any) {
			facts := export.(map[string]any)
			if reason, _ := facts["error"].(string); (i < opened) != (len(facts) > 5) ||
				i >= opened && (len(facts) != 2 || !strings.Contains(reason, "did not finish")) {
				t.Errorf("export %d: %v", i, facts)
			}
		}
		o.JSON = false
		out.Reset()
		if err := Show(context.Background(), &o, &out); err == nil ||
			strings.Count(out.String(), "did not finish the negotiation") != 3-opened {
			t.Errorf("%v: %s", err, out.String())
		}
	}
}

func TestALostConnectionIsReportedOnce(t *testing.T) {
	target := unix(testbed.Listen(t, func(c net.Conn) {
		_, _ = c.Write([]byte("NBDMAGICIHAVEOPT\x00\x03"))
		_, _ = io.CopyN(io.Discard, c, 4)
		for option := uint32(0); option != 7; { // GO
			var head [16]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return
			}
			option = binary.BigEndian.Uint32(head[8:])
			_, _ = io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[12:])))
			rep := func(kind uint32, data string) {
				b := binary.BigEndian.AppendUint64(nil, 0x3e889045565a9)
				for _, n := range []uint32{option, kind, uint32(len(data))} {
					b = binary.BigEndian.AppendUint32(b, n)
				}
				_, _ = c.Write(append(b, data...))
			}
			switch option {
			case 7:
				rep(3, "\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x01")
			case 10: // SET_META_CONTEXT
				rep(4, "\x00\x00\x00\x07base:allocation")
			case 11: // EXTENDED_HEADERS
				rep(1<<31+1, "")
				continue
			}
			rep(1, "")
		}
		_, _ = io.CopyN(io.Discard, c, 28) // BLOCK_STATUS, and that is all
	}))
	err := Show(context.Background(),
		&Options{Target: target, Map: "extents", Context: proto.ContextAllocation}, io.Discard)
	if err == nil || strings.Count(err.Error(), "closed the connection in the middle") != 1 {
		t.Errorf("%v", err)
	}
}
