// Idle connections: there, silent, and missed when they go.

package load

import (
	"bufio"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ringnbd/engine/client"
	"ringnbd/proto"
)

func TestIdleConnections(t *testing.T) {
	p := &peer{}
	o := options(t, serve(t, p), "randread", "4k")
	o.Idle = 50
	r := runs(t, o)
	p.end()
	if p.met != o.Connections+o.Idle || p.goodbyes != p.met || p.n != int(o.Count)+p.met {
		t.Errorf("%d connections, %d said goodbye, %d requests", p.met, p.goodbyes, p.n)
	}
	if r.Idle != o.Idle || r.IdleDropped != 0 || r.RequestsTotal != o.Count {
		t.Errorf("%+v", r)
	}
	var table strings.Builder
	if err := r.Table(&table, 0); err != nil || !strings.Contains(table.String(),
		"\nidle: 50 further connections, silent\n") {
		t.Errorf("%v: %s", err, table.String())
	}
}

func TestIdleConnectionsThatDoNotLast(t *testing.T) {
	for words, greet := range map[string]func(n int, out *bufio.Writer) bool{
		"3 of 5 idle connections did not last; the first: closed by the server": func(n int,
			_ *bufio.Writer) bool {
			return n < 4 || n > 6
		},
		"1 of 5 idle connections did not last; the first: the server sent something " +
			"without a request": func(n int, out *bufio.Writer) bool {
			if n == 5 {
				_, _ = out.WriteString("hello?")
			}
			return true
		},
	} {
		o := options(t, serve(t, &peer{greet: greet}), "randread", "4k")
		o.Idle = 5
		r := fails(t, o, words)
		if r == nil || r.IdleDropped == 0 || r.Requests != o.Count || len(r.Trouble) != 1 {
			t.Fatalf("%+v", r)
		}
		var table strings.Builder
		if err := r.Table(&table, 0); err != nil || !strings.Contains(table.String(),
			"of them did not last") {
			t.Errorf("%v: %s", err, table.String())
		}
	}
}

func TestIdleConnectionsThatCannotBe(t *testing.T) {
	p := &peer{offer: func(n int) (uint16, bool) { return everyFlag, n <= 6 }}
	o := options(t, serve(t, p), "randread", "4k")
	o.Idle = 10
	if r := fails(t, o, "idle connection 5 of 10", "never heard of it"); r != nil {
		t.Error("a report although nothing was started")
	}
	p.end()
	if p.n != 0 && p.goodbyes != p.n {
		t.Errorf("%d requests, %d of them goodbyes", p.n, p.goodbyes)
	}
	changes := &peer{offer: func(n int) (uint16, bool) {
		if n < 5 {
			return everyFlag, true
		}
		return everyFlag &^ proto.FlagCanMultiConn, true
	}}
	o.Target, _ = client.ParseTarget(serve(t, changes))
	fails(t, o, "idle connection 3 sees another export than the first connection")
	o = options(t, "file:x", "randread", "4k")
	o.Idle = 1
	fails(t, o, "--idle is only for servers")
	o.Idle = -1
	fails(t, o, "--idle -1")
}

// The soft limit is raised as far as it goes, and no run starts that
// would hit the hard one.
func TestDescriptorsAreMadeRoomFor(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
	}()
	if old.Max < 500 {
		t.Skipf("RLIMIT_NOFILE is %d, too small to make smaller", old.Max)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	o := options(t, serve(t, &peer{}), "randread", "4k")
	o.Idle = int(min(old.Max, 1<<16)) // with what else there is, one too many
	if old.Max < 1<<16 {
		fails(t, o, "raise it (ulimit -n")
	}
	o.Idle = 200
	if err := fitDescriptors(&o); err != nil {
		t.Error(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur != old.Max {
		t.Errorf("%+v, %v", limit, err)
	}
}
