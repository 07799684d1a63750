// Who the clients are, as the log says it.

package gate

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"ringnbd/proto"
)

func TestPeersAreNamed(t *testing.T) {
	kinds(t, func(t *testing.T, spec string) {
		s := serve(t, spec, nil)
		c := s.hello(t)
		want := c.LocalAddr().String()
		if strings.HasPrefix(spec, "unix:") {
			want = fmt.Sprintf("pid %d uid %d", os.Getpid(), os.Getuid())
		}
		c.go_("disk")
		s.adopted(t)
		if len(s.engine.peers) != 1 || s.engine.peers[0] != want {
			t.Errorf("%q, want %q", s.engine.peers, want)
		}
		if strings.HasPrefix(spec, "unix:") {
			want = `peer="` + want + `"`
		} else {
			want = "peer=127.0.0.1:"
		}
		// of one that is not served, too, though it has gone
		s.dial(t).send([]byte("no client flags"))
		s.wait(t, reason(proto.CloseClientFlags), 1)
		if line := s.log.String(); !strings.Contains(line, want) {
			t.Errorf("the log does not say who: %s", line)
		}
	})
}
