// Negotiation, client's side: engine/client's, then the descriptor is taken out of Go's hands.
//
// Invariant: not one byte behind the negotiation is read, so the descriptor can go to a loop.

package load

import (
	"context"
	"fmt"
	"time"

	nbd "ringnbd/engine/client"
	"ringnbd/proto"
)

// connect opens one connection to the target and negotiates its export, with simple replies, which
// every server has. The descriptor is in blocking mode and in nobody's poller.
func connect(ctx context.Context, t *Target,
	timeout time.Duration) (fd int, e proto.Export, note string, err error) {
	c, session, err := nbd.Socket(ctx, t, nbd.Options{Timeout: timeout, Simple: true})
	if err != nil {
		return -1, e, "", err
	}
	fd, note, err = detach(c)
	if err != nil {
		return -1, e, "", fmt.Errorf("%s: %w", t.Text, err)
	}
	return fd, session.Export, note, nil
}
