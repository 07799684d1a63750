// What serve takes without being told, on machines and in control groups of all sizes.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/engine"
	"ringnbd/engine/gate"
)

func TestDefaultsFit(t *testing.T) {
	for name, test := range map[string]struct {
		a           allowance
		connections int
		loops       int
		memory      uint64 // MiB
		refused     string // in part
	}{
		"two cores": {allowance{memory: 24 << 30, cpus: 2}, 1024, 2, 320, ""},
		"64 cores":  {allowance{memory: 1 << 40, cpus: 64}, 1024, 8, 1024, ""},
		"64 cores, 1 GiB": {allowance{memory: 1 << 30, group: true, cpus: 64}, 1024, 8, 500,
			""},
		"64 MiB": {allowance{memory: 64 << 20, group: true, cpus: 1}, 1024, 1, 20,
			""},
		"32 MiB": {allowance{memory: 32 << 20, group: true, cpus: 1}, 1024, 1, 17,
			""},
		"32 MiB, one client": {allowance{memory: 32 << 20, group: true, cpus: 1}, 1, 1, 7, ""},
		"16 MiB, one client": {allowance{memory: 16 << 20, group: true, cpus: 1}, 1, 1, 7,
			"the control group of this process allows 16 MiB"},
		"little address space": {allowance{memory: 24 << 30, cpus: 2, space: 160 << 20}, 1024, 2,
			80, ""},
		"none":              {allowance{memory: 24 << 30, cpus: 2, space: 1}, 1024, 2, 25, ""},
		"a million clients": {allowance{memory: 64 << 30, cpus: 1}, 1 << 20, 1, 8201, ""},
		"a million in too few": {allowance{memory: 4 << 30, cpus: 1}, 1 << 20, 1, 8201,
			"this machine has 4 GiB"},
	} {
		c := engine.Config{Loops: test.a.loops(), MaxConnections: test.connections}
		c.Memory = test.a.memoryFor(c)
		if mib := (c.Memory + 1<<20 - 1) >> 20; c.Loops != test.loops || mib != test.memory {
			t.Errorf("%s: %d loops and %d MiB, want %d and %d", name, c.Loops, mib, test.loops,
				test.memory)
		}
		err := test.a.check(c)
		if test.refused == "" && err != nil ||
			test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)) {
			t.Errorf("%s: %v, want %q", name, err, test.refused)
		}
	}
}

// TestMemoryThatCannotFitIsRefused is about what users ask for.
func TestMemoryThatCannotFitIsRefused(t *testing.T) {
	a := allowance{memory: 8 << 30, cpus: 4}
	c := engine.Config{Loops: 4, MaxConnections: 16, Memory: 8 << 30}
	if err := a.check(c); err == nil ||
		!strings.Contains(err.Error(), "this machine has 8 GiB of memory") {
		t.Errorf("all of the machine: %v", err)
	}
	c.Memory = 7 << 30
	if err := a.check(c); err != nil {
		t.Error(err)
	}
	c.Memory = engine.MinMemory(c) - 1
	if err := a.check(c); err == nil ||
		!strings.Contains(err.Error(), "is too small: 4 loops and 16 connections need") {
		t.Errorf("too little: %v", err)
	}
}

// TestConnectionsFit is about what the kernel holds for clients that take no replies, which counts
// against a control group.
func TestConnectionsFit(t *testing.T) {
	for _, test := range []struct {
		a           allowance
		connections int
	}{
		// no control group: the machine has swap, and others to take from
		{allowance{memory: 64 << 20, cpus: 1}, 1024},
		{allowance{memory: 1 << 30, group: true, cpus: 2}, 1024},
		{allowance{memory: 64 << 20, group: true, cpus: 2}, 150},
		{allowance{memory: 32 << 20, group: true, cpus: 1}, 30},
		{allowance{memory: 16 << 20, group: true, cpus: 1}, 16},
	} {
		c := engine.Config{Loops: test.a.loops(), MaxConnections: test.a.connections()}
		c.Memory = test.a.memoryFor(c)
		if c.MaxConnections != test.connections {
			t.Errorf("%+v: %d connections, want %d", test.a, c.MaxConnections, test.connections)
		}
		each := test.a.socketMemory(c)
		if !test.a.group {
			if each != gate.SocketMemory {
				t.Errorf("%+v: sockets of %d bytes", test.a, each)
			}
		} else if sum := c.Memory + processMemory +
			uint64(each*c.MaxConnections); test.a.memory >= 64<<20 && sum > test.a.memory {
			t.Errorf("%+v: %d MiB altogether", test.a, sum>>20)
		}
	}
}

// TestConfigCheckAsksForTheMemoryOfServe compares what a file is refused for with what serve needs.
func TestConfigCheckAsksForTheMemoryOfServe(t *testing.T) {
	const export = "[export.a]\npath = \"/dev/zero\"\n"
	least := map[string]uint64{}
	for name, rest := range map[string]string{
		"plain":   export,
		"control": export + "[control]\nsocket = \"/run/c\"\n",
		"overlay": "[export.a]\npath = \"overlay(/a, /b)\"\n",
		"table":   "[export.a]\noverlay = { origin = \"/a\", discard = \"on-disconnect\" }\n",
	} {
		check := func(memory uint64) (engine.Config, []config.Mistake) {
			path := filepath.Join(t.TempDir(), "main.toml")
			text := fmt.Sprintf("loops = 4\nmax-connections = 1000\nmemory = \"%d\"\n%s", memory,
				rest)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, wrong := config.Load(path)
			var o options
			if _, err := o.configure(c); err != nil {
				t.Fatal(err)
			}
			return o.engine(), wrong
		}
		c, _ := check(1 << 30)
		least[name] = engine.MinMemory(c)
		if _, wrong := check(least[name]); len(wrong) > 0 {
			t.Errorf("%s: %v, and serve takes it", name, wrong)
		}
		c, wrong := check(least[name] - 1)
		err := (allowance{memory: 1 << 40}).check(c)
		why := strings.Contains(fmt.Sprint(wrong), "all clients of an overlay are in one loop")
		if len(wrong) != 1 || err == nil || !why {
			t.Errorf("%s, a byte less: %v, and serve says: %v", name, wrong, err)
		}
	}
	// A reload can add an overlay to each of them.
	for name, n := range least {
		if n != least["plain"] {
			t.Errorf("%s needs another size: %v", name, least)
		}
	}
}
