// nbdinfo: what the server says about its exports.

package live_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

// information is the part of nbdinfo --json that is checked.
type information struct {
	Protocol   string
	Structured bool
	Exports    []struct {
		Name         string `json:"export-name"`
		Description  string
		Size         uint64 `json:"export-size"`
		ReadOnly     bool   `json:"is_read_only"`
		CanFlush     bool   `json:"can_flush"`
		CanFUA       bool   `json:"can_fua"`
		CanTrim      bool   `json:"can_trim"`
		CanZero      bool   `json:"can_zero"`
		CanMultiConn bool   `json:"can_multi_conn"`
		CanCache     bool   `json:"can_cache"`
		Minimum      uint32 `json:"block_size_minimum"`
		Preferred    uint32 `json:"block_size_preferred"`
		Maximum      uint32 `json:"block_size_maximum"`
	}
}

func nbdinfo(t *testing.T, arguments ...string) information {
	t.Helper()
	var i information
	out := must(t, time.Minute, "nbdinfo",
		append([]string{"--json", "--no-content"}, arguments...)...)
	if err := json.Unmarshal([]byte(out), &i); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return i
}

func TestNbdinfoDescribesTheExport(t *testing.T) {
	need(t, "nbdinfo")
	onlyRingnbd(t)
	for _, transport := range transports {
		s := serve(t, transport, sparseImage(t, 1<<30))
		i := nbdinfo(t, s.uri(""))
		if i.Protocol != "newstyle-fixed" || !i.Structured || len(i.Exports) != 1 {
			t.Fatalf("%s: %+v", transport, i)
		}
		e := i.Exports[0]
		if e.Size != 1<<30 || e.ReadOnly || !e.CanFlush || !e.CanFUA || !e.CanTrim || !e.CanZero ||
			!e.CanMultiConn || e.CanCache {
			t.Errorf("%s: %+v", transport, e)
		}
		if e.Minimum != 1 || e.Preferred < 512 || e.Maximum != 64<<20 {
			t.Errorf("%s: block sizes %d, %d, %d; want 1, at least 512, 64 MiB", transport,
				e.Minimum, e.Preferred, e.Maximum)
		}
	}
}

func TestNbdinfoShowsTheSizeInBytes(t *testing.T) {
	need(t, "nbdinfo")
	for _, size := range []int64{4096, 1<<20 + 4096, 5 << 40} {
		s := serve(t, measure.Unix, sparseImage(t, size))
		if got := strings.TrimSpace(must(t, time.Minute, "nbdinfo", "--size",
			s.uri(""))); got != fmt.Sprint(size) {
			t.Errorf("--size printed %q for %d", got, size)
		}
	}
}

// answer runs nbdinfo --can or --is: exit status 0 is yes, 2 is no.
func answer(t *testing.T, question, what, uri string) bool {
	t.Helper()
	out, err := try(t, time.Minute, "nbdinfo", question, what, uri)
	if err == nil {
		return true
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 2 {
		return false
	}
	t.Fatalf("nbdinfo %s %s: %v\n%s", question, what, err, out)
	return false
}

func TestNbdinfoCanAndIsAnswerEveryFlag(t *testing.T) {
	need(t, "nbdinfo")
	onlyRingnbd(t)
	image := sparseImage(t, 64<<20)
	for _, c := range []struct {
		flags    []string
		question string
		want     map[string]bool
	}{
		{nil, "--can",
			map[string]bool{"connect": true, "read": true, "write": true, "flush": true,
				"fua": true, "trim": true, "zero": true,
				"fast-zero": true, "multi-conn": true, "cache": false, "df": true,
				"structured-reply": true}},
		{nil, "--is", map[string]bool{"read-only": false, "tls": false}},
		{[]string{"--read-only"}, "--can",
			map[string]bool{"connect": true, "read": true, "write": false, "multi-conn": true,
				"trim": false, "zero": false}},
		{[]string{"--read-only"}, "--is", map[string]bool{"read-only": true}},
	} {
		s := serve(t, measure.Unix, image, c.flags...)
		for what, want := range c.want {
			if got := answer(t, c.question, what, s.uri("")); got != want {
				t.Errorf("serve %v: nbdinfo %s %s answers %t, want %t", c.flags, c.question, what,
					got, want)
			}
		}
		s.stop()
	}
}

func TestNbdinfoListsEveryExport(t *testing.T) {
	need(t, "nbdinfo")
	s := serveRingnbd(t, measure.Unix,
		"--export", "one="+sparseImage(t, 1<<20)+",description=the first",
		"--export", "two="+sparseImage(t, 2<<20)+",ro",
		"--export", "drei und ümläute="+sparseImage(t, 3<<20))
	i := nbdinfo(t, "--list", s.uri(""))
	if len(i.Exports) != 3 {
		t.Fatalf("%+v", i)
	}
	for _, e := range i.Exports {
		want := map[string]uint64{"one": 1 << 20, "two": 2 << 20,
			"drei und ümläute": 3 << 20}[e.Name]
		if e.Size != want || e.ReadOnly != (e.Name == "two") {
			t.Errorf("%+v", e)
		}
		if e.Name == "one" && e.Description != "the first" {
			t.Errorf("description %q", e.Description)
		}
	}
}

func TestReadyURIsLeadToTheServer(t *testing.T) {
	need(t, "nbdinfo")
	unixAddress, tcpAddress := newAddress(t, measure.Unix), newAddress(t, measure.TCP)
	s := startRingnbd(t, "serve", "--listen", "unix:"+unixAddress.Path, "--listen",
		fmt.Sprintf("localhost:%d", tcpAddress.Port), sparseImage(t, 1<<20))
	if len(s.ready) != 2 {
		t.Errorf("ready %q, want two URIs", s.ready)
	}
	for _, uri := range s.ready {
		if got := strings.TrimSpace(must(t, time.Minute, "nbdinfo", "--size",
			uri)); got != "1048576" {
			t.Errorf("%s: size %s", uri, got)
		}
	}
}
