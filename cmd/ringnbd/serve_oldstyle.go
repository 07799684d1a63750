// --oldstyle: addresses for clients that cannot negotiate, each with the export that it leads to.
//
// Invariant: the server listens on an address only if its export exists, and never on the port of
// newstyle servers.

package main

import (
	"fmt"
	"strconv"
	"strings"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/engine/backing"
)

// oldstyle is an address for clients that cannot negotiate.
type oldstyle struct {
	address string // HOST:PORT or unix:PATH
	export  string // name, "" for the default export
}

// parseOldstyle reads ADDRESS[=EXPORT]. Only the path of a socket can contain a "=", which is
// written twice; EXPORT is taken as it is.
func parseOldstyle(text string) (oldstyle, error) {
	address, export, ok := cutName(text)
	if !ok {
		address = strings.ReplaceAll(text, "==", "=")
	}
	if err := config.CheckOldstyle(address); err != nil {
		return oldstyle{}, err
	}
	return oldstyle{address: address, export: export}, nil
}

// findOldstyle checks that the export of each oldstyle address is there.
func (o *options) findOldstyle(specs []backing.Spec) error {
	names := make(map[string]bool, len(specs))
	for i := range specs {
		names[specs[i].Name] = true
	}
	for i := range o.oldstyle {
		a := &o.oldstyle[i]
		if names[a.export] {
			continue
		}
		if a.export == "" {
			return fmt.Errorf("--oldstyle %s: there is no default export; write %s=EXPORT, with "+
				"one of %s", a.address, a.address, someNames(specs))
		}
		return fmt.Errorf("--oldstyle %s: there is no export %q; choose one of %s", a.address,
			a.export, someNames(specs))
	}
	return nil
}

// someNames lists the names of exports, at most maxNames of them.
func someNames(specs []backing.Spec) string {
	const maxNames = 5
	var names []string
	for i := range specs[:min(len(specs), maxNames)] {
		names = append(names, strconv.Quote(specs[i].Name))
	}
	if len(specs) > maxNames {
		names = append(names, fmt.Sprintf("%d more", len(specs)-maxNames))
	}
	return strings.Join(names, ", ")
}

type oldstyleFlag []oldstyle

func (f *oldstyleFlag) Type() string   { return "ADDRESS=EXPORT" }
func (f *oldstyleFlag) String() string { return "" }
func (f *oldstyleFlag) Set(text string) error {
	o, err := parseOldstyle(text)
	if err == nil {
		*f = append(*f, o)
	}
	return err
}
