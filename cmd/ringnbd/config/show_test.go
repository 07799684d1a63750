// What is in force, and where it comes from.

package config

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestShow(t *testing.T) {
	c, wrong := load(t, map[string]string{"main.toml": "include = [\"b.toml\"]\nloops = 2\n" +
		"[[listen]]\naddress = \"localhost:0\"\nkeepalive.idle = \"7s\"\n" +
		"[[listen]]\naddress = \"unix:/s\"\n",
		"b.toml": "[export.a]\npath = \"/a\"\n  create = \"1GiB\"\n"})
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	c.Fill(Defaults{Loops: 9, MaxConnections: 77, Memory: 30 << 20, Listen: "localhost:1"})
	text, rows, err := c.Show()
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSuffix(c.Path, "main.toml")
	text = strings.ReplaceAll(text, dir, "")
	want := `include = ["b.toml"]                     # main.toml:1
memory = "30MiB"                         # default
loops = 2                                # main.toml:2
max-connections = 77                     # default
handshake-timeout = "10s"                # default
shutdown-timeout = "10s"                 # default
register = "auto"                        # default
poll = "0s"                              # default
log.level = "info"                       # default
log.format = "text"                      # default

[[listen]]                               # main.toml:3
address = "localhost:0"                  # main.toml:4
freebind = false                         # default
keepalive.idle = "7s"                    # main.toml:5
keepalive.interval = "15s"               # default
keepalive.user-timeout = "5m"            # default

[[listen]]                               # main.toml:6
address = "unix:/s"                      # main.toml:7

[export.a]                               # b.toml:1
path = "/a"                              # b.toml:2
read-only = false                        # default
format = "auto"                          # default
create = "1GiB"                          # b.toml:3
direct = "auto"                          # default
force = false                            # default
partitions = false                       # default
`
	compare(t, strings.Split(text, "\n"), strings.Split(want, "\n"))
	again, wrong := load(t, map[string]string{"main.toml": text, "b.toml": ""})
	if len(wrong) > 0 {
		t.Error(wrong)
	}
	for _, d := range Diff(c, again, nil) {
		if d.Name != "" {
			t.Error(d.String())
		}
	}
	checkRows(t, rows, dir)
	if len(rows) != strings.Count(want, " = ") {
		t.Errorf("%d rows", len(rows))
	}
}

// checkRows checks some rows of TestShow.
func checkRows(t *testing.T, rows []Row, dir string) {
	t.Helper()
	for key, want := range map[string]string{
		"listen[0].keepalive.idle": `{"key":"listen[0].keepalive.idle","value":7,"file":"main.toml","line":5,"column":18}`,
		"export.a.create":          `{"key":"export.a.create","value":1073741824,"file":"b.toml","line":3,"column":12}`,
		"max-connections":          `{"key":"max-connections","value":77,"default":true}`,
		"include":                  `{"key":"include","value":["b.toml"],"file":"main.toml","line":1,"column":11}`,
	} {
		found := false
		for _, r := range rows {
			if r.Key != key {
				continue
			}
			found = true
			if got, err := json.Marshal(r); err != nil ||
				strings.ReplaceAll(string(got), dir, "") != want {
				t.Errorf("%s %v, want %s", got, err, want)
			}
		}
		if !found {
			t.Errorf("%s is not shown", key)
		}
	}
}
