// Negotiation: by engine/client, and then the descriptor is taken from Go's runtime.
//
// Invariant: no byte after the negotiation is read, so the descriptor can go to a loop.

package load

import (
	"context"
	"fmt"
	"time"

	"ringnbd/engine/client"
	"ringnbd/proto"
)

// connect opens a connection to the target and negotiates its export, with simple replies, which
// every server has. The descriptor is in blocking mode, and no poller has it. note is the
// congestion control of a TCP connection.
func connect(ctx context.Context, t *client.Target,
	timeout time.Duration) (fd int, e proto.Export, note string, err error) {
	c, session, err := client.Socket(ctx, t, client.Options{Timeout: timeout, Simple: true})
	if err != nil {
		return -1, e, "", err
	}
	fd, note, err = detach(c)
	if err != nil {
		return -1, e, "", fmt.Errorf("%s: %w", t.Text, err)
	}
	return fd, session.Export, note, nil
}
