// How the words of --oldstyle become addresses and exports.

package main

import (
	"strings"
	"testing"

	"ringnbd/engine/backing"
)

func TestParseOldstyle(t *testing.T) {
	for text, want := range map[string]oldstyle{
		"localhost:2000=data": {address: "localhost:2000", export: "data"},
		"0.0.0.0:2000=":       {address: "0.0.0.0:2000"},
		"0.0.0.0:2000":        {address: "0.0.0.0:2000"},
		"[::1]:0=a=b,c==d":    {address: "[::1]:0", export: "a=b,c==d"},
		"unix:/run/a==b=ディスク": {address: "unix:/run/a=b", export: "ディスク"},
		"unix:/run/a==b":      {address: "unix:/run/a=b"},
		"unix:old":            {address: "unix:old"},
		// which is not a port, as listening will say
		"localhost:1==x":          {address: "localhost:1=x"},
		"localhost:108090=beyond": {address: "localhost:108090", export: "beyond"},
	} {
		if got, err := parseOldstyle(text); err != nil || got != want {
			t.Errorf("%q: %+v %v, want %+v", text, got, err, want)
		}
	}
	for text, words := range map[string]string{
		"": "write HOST:PORT", "2000": "write HOST:PORT", "localhost": "write HOST:PORT",
		"localhost=data": "write HOST:PORT", "localhost:=data": "write HOST:PORT",
		"=data": "write HOST:PORT", "::1:2000=x": "write HOST:PORT",
		"localhost:10809=data": "port 10809 is for clients that negotiate",
		"localhost:010809":     "port 10809 is for clients that negotiate",
	} {
		if got, err := parseOldstyle(text); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %+v %v, want an error with %q", text, got, err, words)
		}
	}
}

func TestFindOldstyle(t *testing.T) {
	specs := []backing.Spec{{Name: "a"}, {Name: "b"}, {Name: "\u202ec"}}
	o := options{oldstyle: []oldstyle{{address: "x:1", export: "b"}, {address: "x:2", export: "a"},
		{address: "x:3", export: "b"}}}
	if err := o.findOldstyle(specs); err != nil {
		t.Errorf("%+v %v", o.oldstyle, err)
	}
	o = options{oldstyle: []oldstyle{{address: "x:1"}}}
	if err := o.findOldstyle(specs); err == nil ||
		!strings.Contains(err.Error(),
			`no default export; write x:1=EXPORT, with one of "a", "b", "\u202ec"`) {
		t.Error(err)
	}
	if err := o.findOldstyle(append(specs, backing.Spec{})); err != nil {
		t.Errorf("%+v %v", o.oldstyle, err)
	}
	o = options{oldstyle: []oldstyle{{address: "x:1", export: "A"}}}
	if err := o.findOldstyle(make([]backing.Spec, 9)); err == nil ||
		!strings.Contains(err.Error(), `no export "A"; choose one of "", "", "", "", "", 4 more`) {
		t.Error(err)
	}
}
