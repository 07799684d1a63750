// The comparison of two configurations, as lines.

package config

import (
	"strings"
	"testing"
)

// lines are the differences of two files.
func lines(t *testing.T, from, to string) []string {
	t.Helper()
	var pair [2]*Config
	for i, text := range []string{from, to} {
		c, wrong := load(t, map[string]string{"main.toml": text})
		if len(wrong) > 0 {
			t.Fatal(strings.Join(wrong, "\n"))
		}
		pair[i] = c
	}
	var list []string
	for _, d := range Diff(pair[0], pair[1], func(string) int { return 3 }) {
		list = append(list, d.String())
	}
	return list
}

func TestDiff(t *testing.T) {
	compare(t, lines(t, issueFile, issueFile), nil)
	got := lines(t, `loops = 4
log = { level = "info" }
[[listen]]
address = "localhost:1"
[[listen]]
address = "localhost:2"
[[listen]]
address = "localhost:4"
keepalive.idle = "60s"
[export.old]
path = "/dev/old"
[export.vm1]
path = "/dev/vm1"
[export.moved]
path = "/dev/a"
description = "a disk"
[export.same]
path = "overlay(/a, /b)"
[control]
socket = "/run/c"
`, `loops = 8
memory = "1GiB"
shutdown-timeout = 20
log = { level = "debug" }
[[listen]]
address = "localhost:1"
[[listen]]
address = "localhost:3"
[[listen]]
address = "localhost:4"
keepalive.idle = "1m"
keepalive.interval = 5
[export.vm1]
path = "/dev/vm1"
read-only = true
[export.moved]
path = "/dev/b"
[export."new disk"]
path = "/dev/c"
[export.same]
overlay = { origin = "/a", top = "/b" }
[control]
socket = "/run/c"
viewers = ["gid:adm"]
`)
	compare(t, got, []string{
		`~ export vm1: read-only off -> on (at once)`,
		`~ export moved: path /dev/a -> /dev/b (3 connections will end), description "a disk" -> none (at once)`,
		`+ export "new disk"`,
		`- export old: 3 connections will end`,
		`+ listen localhost:3`,
		`~ listen localhost:4: keepalive.interval 15s -> 5s (for new connections)`,
		`- listen localhost:2: its connections stay`,
		`! memory: default -> 1GiB (needs a restart)`,
		`! loops: 4 -> 8 (needs a restart)`,
		`~ shutdown-timeout: 10s -> 20s (at once)`,
		`~ log.level: info -> debug (at once)`,
		`~ control.viewers: [] -> [gid:adm] (at once)`,
	})
}

func TestWhatNeedsARestartStaysInForce(t *testing.T) {
	const one = "[export.a]\npath = \"/a\"\n"
	running, _ := load(t, map[string]string{"main.toml": "loops = 4\nlog.format = \"json\"\n" +
		one + "[control]\nsocket = \"/c\"\nadmins = [\"uid:1\"]\n"})
	for text, want := range map[string][]string{
		"loops = 8\nshutdown-timeout = 1\nlog.level = \"debug\"\n" + one: {
			"! loops: 4 -> 8 (needs a restart)", "! log.format: json -> text (needs a restart)",
			"! control.socket: /c -> none (needs a restart)"},
		"loops = 4\nlog.format = \"json\"\n" + one + "[control]\nsocket = \"/d\"\n" +
			"admins = [\"uid:2\"]\n": {"! control.socket: /c -> /d (needs a restart)"},
		"loops = 4\nlog.format = \"json\"\n" + one + "[control]\nsocket = \"/c\"\n": nil,
	} {
		next, wrong := load(t, map[string]string{"main.toml": text})
		if len(wrong) > 0 {
			t.Fatal(wrong)
		}
		var got []string
		for _, d := range Diff(InForce(running, next), next, nil) {
			got = append(got, d.String())
		}
		compare(t, got, want)
		if next.Loops.V == 4 != (len(want) < 3) {
			t.Error("the next configuration was changed")
		}
	}
	without, _ := load(t, map[string]string{"main.toml": one})
	if c := InForce(without, running); c.Control != nil || running.Control == nil {
		t.Errorf("a control socket is in force before the restart: %v", c.Control)
	}
}
