// Servers that stop answering some requests while other requests may take as long as their disk
// does.
//
// Invariant: the silence about a request that need not wait is an error, and the silence about a
// request that may wait is not.

package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"ringnbd/proto"
)

// step is a request, and how long after its arrival it is answered.
type step struct {
	command uint16
	late    time.Duration
}

func TestWhatWaitsBehindASlowRequest(t *testing.T) {
	const timeout = time.Second // of the negotiation, too
	const late, never = 3 * timeout, time.Hour
	for name, c := range map[string]struct {
		steps   []step
		noticed bool
	}{
		"a WRITE before WRITE_ZEROES": {[]step{{proto.CmdWrite, never},
			{proto.CmdWriteZeroes, never}}, true},
		"a READ before FLUSH": {[]step{{proto.CmdRead, never},
			{proto.CmdFlush, never}}, true},
		"a WRITE after TRIM": {[]step{{proto.CmdTrim, late},
			{proto.CmdWrite, late}}, false},
		"a READ after FLUSH, overtaken by another": {[]step{{proto.CmdFlush, never},
			{proto.CmdRead, 0}, {proto.CmdRead, never}}, true},
		"a READ after FLUSH, not overtaken": {[]step{{proto.CmdFlush, late},
			{proto.CmdRead, 0}, {proto.CmdFlush, late}, {proto.CmdRead, late}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{size: 1 << 20, flags: changing,
				transmit: func(conn net.Conn) {
					for _, s := range c.steps {
						q, err := receive(conn, false)
						if err != nil {
							return
						}
						b := simple(q, 0)
						if q.command == proto.CmdRead {
							b = simple(q, 0, make([]byte, q.length))
						}
						time.AfterFunc(s.late, func() { _, _ = conn.Write(b) })
					}
					_, _ = receive(conn, false)
				}}
			conn, err := Dial(context.Background(), f.serve(t), Options{Timeout: timeout})
			if err != nil {
				t.Fatal(err)
			}
			requests := make([]Request, len(c.steps))
			for i, s := range c.steps {
				r := &requests[i]
				if r.Command, r.Length = s.command, 512; s.command == proto.CmdRead ||
					s.command == proto.CmdWrite {
					r.Data = make([]byte, 512)
				}
				if err := conn.Start(context.Background(), r); err != nil {
					t.Fatal(err)
				}
				if s.late == 0 {
					if err := conn.Wait(context.Background(), r); err != nil {
						t.Fatal(err)
					}
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 3*late)
			defer cancel()
			for i := range requests {
				if c.steps[i].late == 0 {
					continue
				}
				if err := conn.Wait(ctx, &requests[i]); (err != nil) != c.noticed ||
					err != nil && !strings.Contains(err.Error(), "did not answer for 1s") {
					t.Errorf("%s: %v", CommandName(c.steps[i].command), err)
				}
			}
		})
	}
}

// A request that waits for room returns the cause of its context, too.
func TestWhyARequestWasGivenUp(t *testing.T) {
	f := &fake{size: 1 << 20, flags: 1, answer: func(asked) []byte { return []byte{} }}
	c, err := Dial(context.Background(), f.serve(t), Options{Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	first, second := &Request{Command: proto.CmdRead,
		Data: make([]byte, 512)}, &Request{Command: proto.CmdRead, Data: make([]byte, 512)}
	if err := c.Start(ctx, first); err != nil {
		t.Fatal(err)
	}
	cancel(why)
	if err := c.Start(ctx, second); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	if err := c.Wait(ctx, first); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}
