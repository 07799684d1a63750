// URIs: their meaning, refusals, and fuzzing.

package client

import (
	"strings"
	"testing"

	"ringnbd/proto"
)

func TestTargets(t *testing.T) {
	for text, want := range map[string]Target{
		"nbd://host":  {Network: "tcp", Address: "host:10809"},
		"NBD://host/": {Network: "tcp", Address: "host:10809"},
		"nbd://host:99/a%20b+c": {Network: "tcp", Address: "host:99",
			Export: "a b+c"},
		"nbd://host//slash": {Network: "tcp", Address: "host:10809",
			Export: "/slash"},
		"nbd://[::1]/x": {Network: "tcp", Address: "[::1]:10809",
			Export: "x"},
		"nbd+unix:///%C3%A4?socket=/a+b%20c": {Network: "unix", Address: "/a+b c", Export: "ä"},
		"nbd+unix:///?socket=%00hidden":      {Network: "unix", Address: "@hidden"},
		"nbd+unix:///?socket=@plain":         {Network: "unix", Address: "./@plain"},
		"nbd+unix:///x%3Fy?socket=a%26socket=b": {Network: "unix", Address: "a&socket=b",
			Export: "x?y"},
		"nbd:host:99": {Network: "tcp", Address: "host:99"},
		"nbd:[::1]:99:exportname=a:b%20/c": {Network: "tcp", Address: "[::1]:99",
			Export: "a:b%20/c"},
		"nbd:localhost:10809:exportname=": {Network: "tcp", Address: "localhost:10809"},
		"nbd:unix:/a b:exportname=x":      {Network: "unix", Address: "/a b", Export: "x"},
		"nbd:unix:@plain":                 {Network: "unix", Address: "./@plain"},
		"file:/a%20b":                     {Network: "file", Address: "/a%20b"},
	} {
		got, err := ParseTarget(text)
		want.Text = text
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, words := range map[string]string{
		"nbds://host":                         "TLS is not spoken",
		"nbd://host?tls-type=psk":             "TLS is not spoken",
		"nbd+unix:///?socket=%00":             "needs a path",
		"nbd+unix:///?socket=a%00b":           "needs a path",
		"nbd+unix:///?socket=":                "needs a path",
		"nbd+unix:///x":                       "?socket=PATH",
		"nbd+unix:///?socket=a&x-sparse=true": `unknown parameter "x-sparse"`,
		"nbd://host/a%FF":                     "UTF-8",
		"nbd:localhost":                       "write nbd:HOST:PORT",
		"nbd:":                                "write nbd:HOST:PORT",
		"nbd:unix:":                           "needs the path of a socket",
		"nbd:host:0":                          "must be from 1 to 65535",
		"nbd:host:1:x":                        "write nbd:HOST:PORT",
		"nbd:host:1:exportname=\xff":          "UTF-8",
		"nbd:/host":                           "needs two slashes",
	} {
		if got, err := ParseTarget(text); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%.40s: %+v, %v; want %q", text, got, err, words)
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, text := range []string{"nbd://h:1/x", "nbd+unix:///?socket=%00a", "file:x",
		"nbd://[::1]", "nbd+unix:///a?socket=b&c", "nbd:////", "nbd://%", "nbd+unix:///?socket=%"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := ParseTarget(text)
		if err != nil {
			return
		}
		if target.Address == "" || target.Text != text || !proto.ValidString(target.Export) {
			t.Errorf("%q: %+v", text, target)
		}
	})
}

// TestOtherSpellings checks that addresses as other programs write them are answered with the URI
// that is meant, and that this is a URI.
func TestOtherSpellings(t *testing.T) {
	for text, want := range map[string]string{
		"localhost:10809":     "nbd://localhost:10809",
		"server:1234/disk":    "nbd://server:1234/disk",
		"10.0.0.1:1234":       "nbd://10.0.0.1:1234",
		":1234":               "nbd://localhost:1234",
		"[::1]:1234":          "nbd://[::1]:1234",
		"unix:x.sock":         "nbd+unix:///?socket=x.sock",
		"unix:/run/n bd.sock": "nbd+unix:///?socket=/run/n%20bd.sock",
		"unix:///run/a":       "nbd+unix:///?socket=/run/a",
		"unix:it's+":          "nbd+unix:///?socket=it%27s%2B",
		"unix:a?b&c":          "nbd+unix:///?socket=a%3Fb%26c",
	} {
		_, err := ParseTarget(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", text, err, want)
			continue
		}
		if _, err := ParseTarget(want); err != nil {
			t.Errorf("%s, which was advised for %s: %v", want, text, err)
		}
	}
	for _, text := range []string{"http://x", "localhost:99999", "localhost:http", "unix:",
		"nbd:localhost", "::1"} {
		_, err := ParseTarget(text)
		if err == nil || strings.Contains(err.Error(), "is not an NBD URI") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestURIsAreReadBack checks that the URI of an export leads to it again, whatever its name and its
// server's.
func TestURIsAreReadBack(t *testing.T) {
	for _, text := range []string{"nbd://localhost", "nbd://10.0.0.1:1234/x", "nbd://[::1]:10809",
		"nbd://[fe80::1%25eth0]", "nbd+unix:///?socket=s",
		"nbd+unix:///x?socket=/run/a%20b%26c%2B%27", "nbd+unix:///?socket=%00abstract",
		"nbd+unix:///?socket=@file"} {
		from, err := ParseTarget(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, export := range []string{"", "disk", "a b", "/rooted", "//twice", "a/b", "50%",
			"q?x=1", "a#b", "ディスク", "\x1b[2J", ".", "..", "a:b"} {
			uri := from.URI(export)
			to, err := ParseTarget(uri)
			if err != nil || to.Network != from.Network || to.Address != from.Address ||
				to.Export != export {
				t.Errorf("%q of %s: %s is %+v, %v", export, text, uri, to, err)
			}
		}
	}
	for text, want := range map[string]string{"nbd://localhost": "nbd://localhost/a%20b",
		"nbd://h:1": "nbd://h:1/a%20b", "nbd+unix:///?socket=/s": "nbd+unix:///a%20b?socket=/s"} {
		from, _ := ParseTarget(text)
		if got := from.URI("a b"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
