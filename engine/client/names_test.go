// An export that the server does not have: the error names the exports that it has, within limits,
// however the server refuses.

package client

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"ringnbd/engine/testbed"
)

// shop returns a server that lists these exports and refuses every client.
func shop(names []string, list func() []byte) *fake {
	return &fake{size: 1 << 20, flags: 1, options: func(option uint32, _ []byte) ([]byte, bool) {
		switch {
		case option == 3 && list != nil:
			return list(), true
		case option == 3:
			var b []byte
			for _, name := range names {
				b = append(b, rep(3, 2, uint32(len(name)), name)...)
			}
			return append(b, rep(3, 1)...), true
		case option == 7:
			return rep(7, 1<<31+6, "never heard of it"), true
		}
		return rep(option, 1<<31+1), true
	}}
}

func TestAbsentExports(t *testing.T) {
	var many []string
	for i := range 3000 { // more than the memory for names has room for
		many = append(many, fmt.Sprintf("export%d", i))
	}
	refused := func() []byte { return rep(3, 1<<31+2, "none of your business") }
	endless := func() []byte { return rep(3, 2, uint32(1), "x") } // the next never comes
	for _, c := range []struct {
		name        string
		server      *fake
		words, last string // what the error holds, and ends with
	}{
		{"two", shop([]string{"boot", "da\x1bta"}, nil),
			`no such export: "never heard of it"; it has "boot"`, `, "da\x1bta"`},
		{"default", shop([]string{""}, nil), "no such export", `; it has ""`},
		{"none", shop(nil, nil), "no such export", "; it lists none"},
		{"many", shop(many, nil), `it has "export0", "export1",`,
			`"export4" and 2995 more`},
		{"long", shop([]string{strings.Repeat("n", 4000)}, nil), "it has",
			strings.Repeat("n", maxNameShown) + `"`},
		{"not told", shop(nil, refused), "no such export", `"never heard of it"`},
		{"without end", shop(nil, endless), "no such export", `"never heard of it"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Dial(context.Background(), c.server.serve(t), Options{Timeout: time.Second})
			if err == nil || !strings.Contains(err.Error(), c.words) ||
				!strings.HasSuffix(err.Error(), c.last) || len(err.Error()) > 600 {
				t.Errorf("%v\nwant %q, and at the end %q", err, c.words, c.last)
			}
		})
	}
}

// TestAbsentExportsOfOldServers checks a server that knows only EXPORT_NAME, and refuses by hanging
// up.
func TestAbsentExportsOfOldServers(t *testing.T) {
	server := target(testbed.Listen(t, func(c net.Conn) {
		f := shop([]string{"boot"}, nil)
		lists := f.options
		f.options = func(option uint32, data []byte) ([]byte, bool) {
			switch option {
			case 1:
				_ = c.Close()
			case 3:
				return lists(option, data)
			}
			return rep(option, 1<<31+1), true
		}
		f.connection(c)
	}))
	_, err := Dial(context.Background(), server, Options{Timeout: 5 * time.Second})
	if err == nil || !strings.HasSuffix(err.Error(),
		`it may have none of that name; it has "boot"`) {
		t.Error(err)
	}
}
