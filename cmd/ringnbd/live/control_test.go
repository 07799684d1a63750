// A server that is changed while it serves: users of the control socket, changes at the same time,
// exports that come and go under load, and reloads.

package live_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ringnbd/cmd/ringnbd/control"
)

// steered is a server with a control socket and a configuration.
type steered struct {
	*server
	dir    string
	client *control.Client
}

// serveSteered starts a server from a configuration, in a directory that other users may enter.
// exports are tables of the configuration.
func serveSteered(t *testing.T, access, exports string) *steered {
	t.Helper()
	onlyRingnbd(t)
	dir, err := os.MkdirTemp("", "ringnbd-control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &steered{dir: dir, client: control.NewClient(dir + "/control")}
	t.Cleanup(s.client.Close)
	s.configure(t, access, exports)
	s.server = startRingnbd(t, "serve", "--config", dir+"/ringnbd.toml")
	return s
}

// configure writes the configuration.
func (s *steered) configure(t *testing.T, access, exports string) {
	t.Helper()
	text := fmt.Sprintf("memory = \"128MiB\"\nloops = 2\n[[listen]]\naddress = \"unix:nbd\"\n"+
		"[control]\nsocket = \"control\"\n%s\n%s", access, exports)
	if err := os.WriteFile(s.dir+"/ringnbd.toml", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// uriOf is the URI of an export.
func (s *steered) uriOf(export string) string {
	return "nbd+unix:///" + export + "?socket=" + s.dir + "/nbd"
}

// image makes an image in the server's directory.
func (s *steered) image(t testing.TB, name string, size int64) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// ask sends a request over the control socket, and returns the status.
func (s *steered) ask(t testing.TB, method, path string, query url.Values, body any) (int, string) {
	t.Helper()
	var raw json.RawMessage
	err := s.client.Do(t.Context(), method, path, query, body, &raw)
	var refused *control.Error
	switch {
	case errors.As(err, &refused):
		return refused.Status, refused.Text
	case err != nil:
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return http.StatusOK, string(raw)
}

func name(export string) url.Values { return url.Values{"name": {export}} }

// exports returns the names of what is served.
func (s *steered) exports(t testing.TB) (names []string) {
	t.Helper()
	var all control.Exports
	if err := s.client.Do(t.Context(), "GET", "/v1/exports", nil, nil, &all); err != nil {
		t.Fatal(err)
	}
	for _, e := range all.Exports {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	return names
}

// connected returns the numbers of the connections of an export.
func (s *steered) connected(t testing.TB, export string) (ids []uint64) {
	t.Helper()
	var all control.Connections
	if err := s.client.Do(t.Context(), "GET", "/v1/connections", nil, nil, &all); err != nil {
		t.Fatal(err)
	}
	for _, c := range all.Connections {
		if c.Export == export {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// TestControlByUser checks what root, a viewer by group, an admin by name and a stranger may do,
// with processes of these users.
func TestControlByUser(t *testing.T) {
	needRoot(t, "it starts processes of other users")
	s := serveSteered(t, `admins = ["uid:0", "uid:60001"]`+"\n"+`viewers = ["gid:60009"]`,
		"[export.a]\npath = \"null:1G\"\n")
	program := s.dir + "/ringnbd"
	text, err := os.ReadFile(ringnbd)
	if err == nil {
		err = os.WriteFile(program, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	as := func(uid uint32, groups []uint32, arguments ...string) (int, string) {
		c := exec.Command(program, append([]string{"ctl", "--control",
			"unix:" + s.dir + "/control"}, arguments...)...)
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid,
			Groups: groups}}
		out, err := c.CombinedOutput()
		var ended *exec.ExitError
		if err != nil && !errors.As(err, &ended) {
			t.Fatal(err)
		}
		return c.ProcessState.ExitCode(), string(out)
	}
	many := make([]uint32, 100) // more than fit into the first question for the groups
	for i := range many {
		many[i] = 61000 + uint32(i)
	}
	for _, u := range []struct {
		who    string
		uid    uint32
		groups []uint32
		looks  bool
		writes bool
	}{
		{"root", 0, nil, true, true},
		{"an admin", 60001, nil, true, true},
		{"a viewer by its group", 60009, nil, true, false},
		{"a viewer by a further group", 60002, append(many, 60009), true, false},
		{"a stranger", 60003, many, false, false},
	} {
		for _, call := range []struct {
			arguments []string
			may       bool
			refusal   string
		}{
			{[]string{"status"}, u.looks, "may not use this control socket"},
			{[]string{"diff"}, u.looks, "may not use this control socket"},
			{[]string{"add", "b=null:2G"}, u.writes, "may "},
			{[]string{"remove", "b"}, u.writes, "may "},
			{[]string{"reload"}, u.writes, "may "},
		} {
			status, out := as(u.uid, u.groups, call.arguments...)
			if call.may != (status == 0) || !call.may && (status != 1 ||
				!strings.Contains(out, call.refusal) || !strings.Contains(out,
				fmt.Sprintf("uid %d", u.uid))) {
				t.Errorf("%s, %q: status %d: %s", u.who, call.arguments, status, out)
			}
		}
	}
}

// TestTwoClientsChangeOneExport checks that each change of two clients is made as a whole, in some
// order, or refused.
func TestTwoClientsChangeOneExport(t *testing.T) {
	s := serveSteered(t, "", "")
	paths := []string{s.image(t, "one.img", 1<<20), s.image(t, "two.img", 2<<20)}
	size := map[string]int{paths[0]: 1 << 20, paths[1]: 2 << 20}
	var wait sync.WaitGroup
	for who := range paths {
		wait.Go(func() {
			for i := range 60 {
				want := control.Wanted{Path: paths[who], ReadOnly: i%3 == 0}
				query := name("x")
				query.Set("replace", "true")
				status, text := s.ask(t, "PUT", "/v1/export", query, want)
				if status != 200 && status != 409 {
					t.Errorf("PUT: %d %s", status, text)
				}
				if i%5 == 4 {
					status, text := s.ask(t, "DELETE", "/v1/export", name("x"), nil)
					if status != 200 && status != 404 && status != 409 {
						t.Errorf("DELETE: %d %s", status, text)
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	looks := 0
	for alive := true; alive; looks++ {
		select {
		case <-done:
			alive = false
		default:
		}
		var e control.Export
		if s.client.Do(t.Context(), "GET", "/v1/export", name("x"), nil, &e) == nil &&
			(int(e.Size) != size[e.Path] || e.Asked.Path != e.Path ||
				e.Asked.ReadOnly != e.ReadOnly) {
			t.Fatalf("a mixture: %+v", e)
		}
	}
	t.Logf("looked %d times", looks)
	if status, text := s.ask(t, "DELETE", "/v1/export", name("x"), nil); status != 200 &&
		status != 404 {
		t.Errorf("%d %s", status, text)
	}
	for _, path := range paths {
		must(t, 10*time.Second, "flock", "-n", path, "true")
	}
}

// TestExportIsRemovedUnderLoad checks that the clients of an export that is removed are answered or
// refused, that what they flushed is on the disk, that its lock is free when the command ends, and
// that it can be added again at once.
func TestExportIsRemovedUnderLoad(t *testing.T) {
	need(t, "fio", "qemu-io")
	s := serveSteered(t, "", "")
	image := s.image(t, "x.img", 64<<20)
	for round := range 4 {
		force := strconv.FormatBool(round%2 == 1)
		if status, text := s.ask(t, "PUT", "/v1/export", name("x"),
			control.Wanted{Path: image}); status != 200 {
			t.Fatalf("round %d: %d %s", round, status, text)
		}
		must(t, time.Minute, "qemu-io", "-f", "raw", "-c",
			fmt.Sprintf("write -P %d 0 64k", 65+round), "-c", "flush", s.uriOf("x"))
		load := exec.Command("fio", "--name=load", "--ioengine=nbd", "--uri="+s.uriOf("x"),
			"--rw=randwrite", "--offset=1m", "--bs=4k", "--iodepth=16", "--numjobs=2",
			"--time_based", "--runtime=30", "--eta=never")
		if err := load.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); len(s.connected(t, "x")) < 2; {
			if time.Now().After(end) {
				t.Fatal("fio did not connect")
			}
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		query := name("x")
		query.Set("force", force)
		began := time.Now()
		if status, text := s.ask(t, "DELETE", "/v1/export", query, nil); status != 200 {
			t.Errorf("round %d: %d %s", round, status, text)
		}
		t.Logf("removed under load in %v (force=%s)", time.Since(began).Round(time.Millisecond),
			force)
		must(t, 10*time.Second, "flock", "-n", image, "true")
		if ids := s.connected(t, "x"); len(ids) > 0 {
			t.Errorf("connections %v are left", ids)
		}
		if err := load.Wait(); err == nil {
			t.Error("fio did not notice that its export is gone")
		}
		f, err := os.Open(image)
		if err != nil {
			t.Fatal(err)
		}
		block := make([]byte, 64<<10)
		if _, err := io.ReadFull(f, block); err != nil || block[0] != byte(65+round) ||
			block[len(block)-1] != byte(65+round) {
			t.Errorf("round %d: what was flushed is not there: %d, %v", round, block[0], err)
		}
		f.Close()
	}
}

// churn is how many exports come and go while others are served: all of the with
// RINGNBD_LIVE_CHURN=1000.
func churn(t *testing.T) (exports, reloads int) {
	if text := os.Getenv("RINGNBD_LIVE_CHURN"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 10 {
			t.Fatalf("RINGNBD_LIVE_CHURN=%s: must be a number of 10 or more", text)
		}
		return n, 100
	}
	return 100, 20
}

// TestExportsComeAndGoUnderLoad verifies one export over eight connections while others are added,
// resized, made read-only and back, and removed, one by one and by reloads.
func TestExportsComeAndGoUnderLoad(t *testing.T) {
	need(t, "fio")
	exports, reloads := churn(t)
	const jobs, region = 8, 16 << 20
	s := serveSteered(t, "", "")
	s.image(t, "steady.img", jobs*region)
	steady := "[export.steady]\npath = \"steady.img\"\n"
	s.configure(t, "", steady)
	if status, text := s.ask(t, "POST", "/v1/reload", nil, nil); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	for i := range exports {
		s.image(t, fmt.Sprintf("x%d.img", i), 1<<20)
	}
	result := make(chan string, 1)
	load := exec.Command("fio", "--name=verify", "--ioengine=nbd", "--uri="+s.uriOf("steady"),
		"--rw=randrw", "--bssplit=4k/70:16k/20:64k/10", "--iodepth=8",
		fmt.Sprintf("--numjobs=%d", jobs), fmt.Sprintf("--size=%d", region),
		fmt.Sprintf("--offset_increment=%d", region), "--verify=crc32c", "--verify_backlog=256",
		"--verify_fatal=1", "--verify_state_save=0", "--time_based", "--runtime=3600",
		"--group_reporting", "--eta=never")
	go func() {
		out, err := load.CombinedOutput()
		result <- fmt.Sprintf("%v\n%s", err, out)
	}()
	var before []uint64
	for end := time.Now().Add(time.Minute); len(before) < jobs; before = s.connected(t, "steady") {
		if time.Now().After(end) {
			t.Fatal("fio did not connect")
		}
		time.Sleep(50 * time.Millisecond)
	}
	c := &churner{steered: s, random: rand.New(rand.NewPCG(7, 11)), exports: exports,
		there: map[int]bool{}}
	c.round(t, steady) // grows what grows once
	files, memory, began := s.descriptors(), int64(0), time.Now()
	for i := range reloads {
		c.round(t, steady)
		if i == reloads/2 { // the load has touched by now what memory it needs
			memory = s.status("VmRSS")
		}
	}
	s.configure(t, "", steady)
	if status, text := s.ask(t, "POST", "/v1/reload", nil, nil); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	if after := s.connected(t, "steady"); !slices.Equal(before, after) {
		t.Errorf("connections were %v, are %v", before, after)
	}
	_ = load.Process.Signal(syscall.SIGINT)
	out := <-result
	if strings.Contains(out, "verify") && strings.Contains(out, "failed") ||
		strings.Contains(out, "error=") || !regexp.MustCompile(`err= *0`).MatchString(out) {
		t.Error(out)
	}
	figures := regexp.MustCompile(`(?s)99.00th=\[ *\d+\]|lat \(\w+\): .*?avg=[ \d.]+`)
	t.Logf("%d changes and %d reloads in %v; fio: %s", c.changes, reloads,
		time.Since(began).Round(time.Millisecond), figures.FindAllString(out, 4))
	settled(t, "descriptors", files, 2, s.descriptors)
	settled(t, "kilobytes of memory", int(memory>>10), 24<<10,
		func() int { return int(s.status("VmRSS") >> 10) })
}

// settled expects that a number comes back to where it was.
func settled(t *testing.T, what string, before, slack int, now func() int) {
	t.Helper()
	n := now()
	for end := time.Now().Add(10 * time.Second); n > before+slack; n = now() {
		if time.Now().After(end) {
			t.Errorf("%s: %d, were %d", what, n, before)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%s: %d before, %d after", what, before, n)
}

// churner changes exports in random order.
type churner struct {
	*steered
	random  *rand.Rand
	exports int
	there   map[int]bool
	changes int
}

// round makes changes one by one, and then a reload, which makes the file the truth.
func (c *churner) round(t *testing.T, steady string) {
	t.Helper()
	for range c.exports/10 + 10 {
		c.change(t, c.random.IntN(c.exports))
	}
	text, want := steady, []string{"steady"}
	clear(c.there)
	for i := range c.exports {
		if c.random.IntN(3) == 0 {
			text += fmt.Sprintf("[export.x%d]\npath = \"x%d.img\"\nread-only = %t\n", i, i,
				c.random.IntN(2) == 0)
			c.there[i] = true
			want = append(want, fmt.Sprintf("x%d", i))
		}
	}
	c.configure(t, "", text)
	if status, text := c.ask(t, "POST", "/v1/reload", nil, nil); status != 200 {
		t.Fatalf("reload: %d %s", status, text)
	}
	slices.Sort(want)
	if got := c.steered.exports(t); !slices.Equal(got, want) {
		t.Fatalf("after a reload %q is served, not %q", got, want)
	}
}

// change adds an export, or changes or removes one.
func (c *churner) change(t *testing.T, i int) {
	t.Helper()
	export := fmt.Sprintf("x%d", i)
	want := control.Wanted{Path: fmt.Sprintf("%s/x%d.img", c.dir, i)}
	query := name(export)
	query.Set("replace", "true")
	method, path, body := "PUT", "/v1/export", any(want)
	if c.there[i] {
		switch c.random.IntN(4) {
		case 0:
			method, body, query = "DELETE", nil, name(export)
			delete(c.there, i)
		case 1:
			want.ReadOnly = true
			body = want
		case 2:
			query = name(export)
			method, path, body = "POST", "/v1/export/resize",
				control.Resize{Size: control.Size(1+c.random.IntN(4)) << 20}
		}
	} else {
		c.there[i] = true
	}
	status, text := c.ask(t, method, path, query, body)
	if status != 200 && (path != "/v1/export/resize" || !strings.Contains(text, "for writing")) {
		t.Fatalf("%s %s %s: %d %s", method, path, export, status, text)
	}
	c.changes++
}
