// The advice of each command names only what that command has.
//
// Invariant: every kind of error that the floors below can give is asked about once for each
// command.

package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/engine/client"
)

// belowErrors are errors of the floors below, and the advice of serve, bench and copy about each.
var belowErrors = []struct {
	err                error
	serve, bench, copy string
}{
	{&backing.AccessError{Err: unix.ENOENT},
		"check the path, or let --create SIZE make a new image", "check the path", ""},
	{&backing.AccessError{Err: unix.EACCES, ReadOnly: true},
		"change its permissions or run as a user who may",
		"change its permissions or run as a user who may", ""},
	{&backing.AccessError{Err: unix.EPERM},
		"change its permissions, run as a user who may, or serve it with --read-only",
		"change its permissions, run as a user who may, or only read it (--pattern randread)", ""},
	{&backing.AccessError{Err: unix.EROFS},
		"serve it with --read-only", "only read it (--pattern randread)", ""},
	{&backing.AccessError{Err: unix.EIO}, "", "", ""},
	{&backing.HeldError{By: backing.HeldByServer, Write: true},
		"stop that program, or serve it read-only in both, or say --force",
		"stop that program, or put the load on its export, or say --force",
		"stop that program, or copy to its export, or say --force"},
	{&backing.HeldError{By: backing.HeldByServer},
		"stop that program, or serve it read-only in both, or say --force",
		"stop that program, or put the load on its export, or say --force",
		"stop that program, or copy from its export, or say --force"},
	{&backing.HeldError{By: backing.HeldByQEMU},
		"stop that program, or say --force", "stop that program, or say --force",
		"stop that program, or copy from an export of it, or say --force"},
	{&backing.HeldError{By: backing.HeldByKernel, Write: true},
		"end that use first, or serve it with --read-only, or say --force",
		"end that use first, or only read it (--pattern randread), or say --force",
		"end that use first, or say --force"},
	{&backing.HeldError{By: backing.HeldByKernel, Write: true, Final: true}, "", "", ""},
	{&backing.FormatError{Path: "a b", QEMU: "vmdk"},
		"convert it (qemu-img convert -f vmdk -O raw 'a b' disk.img), or serve it with: qemu-nbd " +
			"-f vmdk 'a b'; or say --format raw (format=raw in --export) to serve its bytes as " +
			"they are",
		"convert it (qemu-img convert -f vmdk -O raw 'a b' disk.img), or serve it with: qemu-nbd " +
			"-f vmdk 'a b'; or say --format raw to use its bytes as they are",
		"copy it with: qemu-img convert -f vmdk -O raw 'a b' DESTINATION; or say --format raw to " +
			"copy its bytes as they are"},
	{&backing.FormatError{Path: "d.xz", Unpack: "xz"},
		"unpack it first (xz -dk d.xz); or say --format raw (format=raw in --export) to serve " +
			"its bytes as they are",
		"unpack it first (xz -dk d.xz); or say --format raw to use its bytes as they are",
		"unpack it first (xz -dk d.xz); or say --format raw to copy its bytes as they are"},
	{&backing.DirectError{}, "use --direct auto or off", "", ""},
	{&backing.SizeError{Next: 1024, Image: true}, "use --create 1024", "", ""},
	{&backing.SizeError{Next: 1024}, "", "", ""},
	{&backing.ExistsError{}, "drop --create to serve it as it is", "", ""},
	{&backing.NameError{Other: "b"}, "give each a name of its own with --export NAME=PATH", "", ""},
	{&backing.NameError{Wrong: "is wrong"}, "choose another name with --export NAME=PATH", "", ""},
	{&engine.CutError{Connections: 1}, "--shutdown-timeout gives them longer", "", ""},
	{&client.AbsentError{Err: errors.New("no such export"), More: 3}, "",
		"ringnbd info --list shows them", "ringnbd info --list shows them"},
	{&client.AbsentError{Err: errors.New("no such export")}, "", "", ""},
	{errors.New("anything else"), "", "", ""},
}

func TestAdviceOfEachCommand(t *testing.T) {
	for _, c := range belowErrors {
		for name, pair := range map[string]struct {
			adviser adviser
			want    string
		}{"serve": {serveAdvice, c.serve}, "bench": {benchAdvice, c.bench},
			"copy": {copyAdvice, c.copy}} {
			wrapped := fmt.Errorf("opening: %w", c.err)
			want := wrapped.Error()
			if pair.want != "" {
				want += "; " + pair.want
			}
			err := pair.adviser.about(wrapped)
			if err.Error() != want || !errors.Is(err, c.err) {
				t.Errorf("%s: %q, want %q", name, err, want)
			}
		}
	}
}

// An adviser's words are a command's: each flag in them is one that the command has.
func TestAdviceNamesFlagsOfItsCommand(t *testing.T) {
	flag := regexp.MustCompile(`--([a-z-]+)`)
	for _, c := range belowErrors {
		for text, command := range map[string]*cobra.Command{c.serve: newServe(),
			c.bench: newBench(), c.copy: newCopy()} {
			text = strings.ReplaceAll(text, "ringnbd info --list", "") // another command
			for _, found := range flag.FindAllStringSubmatch(text, -1) {
				if command.Flags().Lookup(found[1]) == nil {
					t.Errorf("%s has no --%s: %q", command.Name(), found[1], text)
				}
			}
		}
	}
}

func TestAdviceAboutStreamsAndJoinedErrors(t *testing.T) {
	for unpack, want := range map[string]string{
		"zstd": "unpack it on the way (zstd -dc | ringnbd copy - ...)",
		"":     "convert it in a file: qemu-img convert -O raw",
	} {
		want += "; or say --format raw to copy its bytes as they are"
		if got := copyAdvice(&backing.FormatError{Path: "-", Unpack: unpack}); got != want {
			t.Errorf("%q", got)
		}
	}
	err := adviser(serveAdvice).about(errors.Join(errors.New("a"),
		&backing.DirectError{Path: "p", Why: "takes none"}))
	if got := err.Error(); got != "a\np: takes none; use --direct auto or off" {
		t.Errorf("%q", got)
	}
	if serve := adviser(serveAdvice); serve.about(nil) != nil {
		t.Error("advice about no error")
	}
}

func TestAdviceOfTheControlSocket(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&engine.HomeError{Need: 5},
			"remove another overlay, or start the server with more memory or fewer loops"},
		{&engine.HomeError{}, "remove another overlay, or start the server with more loops"},
		{&backing.AccessError{Path: "x", Err: unix.ENOENT},
			"check the path, or let create make a new image"},
		{&backing.HeldError{By: backing.HeldByServer},
			"stop that program, or serve it read-only in both, or say force"},
		{&backing.DirectError{}, "let direct be auto or off"},
		{&backing.SizeError{Next: 1024, Image: true}, "create it with 1024"},
		{&backing.ExistsError{}, "leave out create to serve it as it is"},
		{errors.New("anything else"), ""},
	} {
		if got := controlAdvice(fmt.Errorf("opening: %w", c.err)); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
