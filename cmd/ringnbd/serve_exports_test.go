// How words of the command line become exports.

package main

import (
	"reflect"
	"strings"
	"testing"

	"ringnbd/engine/backing"
)

func TestParseExport(t *testing.T) {
	for text, want := range map[string]backing.Spec{
		"a=disk.img":                          {Name: "a", Path: "disk.img"},
		"=disk.img":                           {Path: "disk.img"},
		"a=b=c":                               {Name: "a", Path: "b=c"},
		"a=disk.img,ro":                       {Name: "a", Path: "disk.img", ReadOnly: true},
		"a=disk.img,description=two, words=x": {},
		"a=disk.img,description=one,,two,ro": {Name: "a", Path: "disk.img",
			Description: "one,two", ReadOnly: true},
		"a=disk,,1.img,ro,description=": {Name: "a", Path: "disk,1.img", ReadOnly: true},
		"a=memory:1G,description=x=y": {Name: "a", Path: "memory:1G",
			Description: "x=y"},
		"a=,,":                                   {Name: "a", Path: ","},
		"a=disk.img,":                            {},
		"a=disk.img,RO":                          {},
		"a=,ro":                                  {},
		"a":                                      {},
		"":                                       {},
		"a=disk.img,description":                 {},
		"a=disk.img,create=1G":                   {},
		"a=disk.img,ro,description=x,,,,y,,,zzz": {},
		"a==b=disk.img":                          {Name: "a=b", Path: "disk.img"},
		"=====disk.img":                          {Name: "==", Path: "disk.img"},
		"a===disk.img":                           {Name: "a=", Path: "disk.img"},
		"a=./=disk.img":                          {Name: "a", Path: "./=disk.img"},
		"a==disk.img":                            {},
		"==":                                     {},
		"a,b,,c/ d=disk.img":                     {Name: "a,b,,c/ d", Path: "disk.img"},
		"ディスク، 👩‍💾 é=disk.img,description=१=२": {
			Name: "ディスク، 👩‍💾 é", Path: "disk.img", Description: "१=२"},
	} {
		got, err := parseExport(text)
		if want.Path == "" {
			if err == nil {
				t.Errorf("parseExport(%q) = %+v, want an error", text, got)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("parseExport(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestSplitPort(t *testing.T) {
	for _, c := range []struct {
		args  string
		port  string
		paths string
		words string // of the error
	}{
		{"1234 /dev/sdb1", "1234", "/dev/sdb1", ""},
		{"1234 a b", "1234", "a b", ""},
		{"0010809 a", "10809", "a", ""},
		{"1234", "", "1234", ""},
		{"a 1234", "", "a 1234", ""},
		{"./1234 a", "", "./1234 a", ""},
		{"+12 a", "", "+12 a", ""},
		{"0 a", "", "", "from 1 to 65535"},
		{"65536 a", "", "", "from 1 to 65535"},
		{"99999999999999999999 a", "", "", "from 1 to 65535"},
	} {
		port, paths, err := splitPort(strings.Fields(c.args))
		if c.words != "" {
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%q: error %v, want one with %q", c.args, err, c.words)
			}
			continue
		}
		if err != nil || port != c.port || strings.Join(paths, " ") != c.paths {
			t.Errorf("%q: port %q, paths %q, %v", c.args, port, paths, err)
		}
	}
}

func TestExportURI(t *testing.T) {
	for _, c := range [][3]string{
		{"nbd://localhost:10809", "", "nbd://localhost:10809"},
		{"nbd://localhost:10809", "disk", "nbd://localhost:10809/disk"},
		{"nbd://[::1]:10809", "/disk", "nbd://[::1]:10809//disk"},
		{"nbd+unix:///?socket=/run/a.sock", "a b%?#",
			"nbd+unix:///a%20b%25%3F%23?socket=/run/a.sock"},
		{"nbd+unix:///?socket=/run/a.sock", "", "nbd+unix:///?socket=/run/a.sock"},
		{"nbd+unix:///?socket=/run/a.sock", "/x", "nbd+unix:////x?socket=/run/a.sock"},
	} {
		if got := exportURI(c[0], c[1]); got != c[2] {
			t.Errorf("exportURI(%q, %q) = %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestSpecs(t *testing.T) {
	o := options{create: 1 << 20,
		exports: []backing.Spec{{Name: "ro", Path: "base.img", ReadOnly: true},
			{Name: "m", Path: "memory:1M"}}, direct: backing.DirectOff}
	list, err := o.specs([]string{"dir/one.img", "two.img"})
	if err != nil {
		t.Fatal(err)
	}
	want := []backing.Spec{
		{Name: "one.img", Path: "dir/one.img", Create: 1 << 20, Direct: backing.DirectOff},
		{Name: "two.img", Path: "two.img", Create: 1 << 20, Direct: backing.DirectOff},
		{Name: "ro", Path: "base.img", ReadOnly: true, Direct: backing.DirectOff},
		{Name: "m", Path: "memory:1M", Direct: backing.DirectOff},
	}
	if !reflect.DeepEqual(list, want) {
		t.Errorf("specs:\n%+v\nwant\n%+v", list, want)
	}
}
