// What a user can do about an error of the floors below, in the words of the command that runs. The
// floors below know no flags: their errors carry facts.
//
// Invariant: advice follows the error's own text, and names only flags that its command has; an
// error without advice is given back as it is.

package main

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/engine/client"
)

// adviser gives the advice of one command about an error, or nothing.
type adviser func(error) string

// clientAdvice is what every command that connects to a server can do about an error.
func clientAdvice(err error) string {
	var absent *client.AbsentError
	if errors.As(err, &absent) && absent.More > 0 {
		return "ringnbd info --list shows them"
	}
	return ""
}

// about adds advice to an error; of errors that are joined, to each.
func (a adviser) about(err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		parts := joined.Unwrap()
		if errors.Join(parts...).Error() != err.Error() {
			return err
		}
		advised := make([]error, len(parts))
		for i, part := range parts {
			advised[i] = a.about(part)
		}
		return errors.Join(advised...)
	}
	if text := a(err); text != "" {
		return fmt.Errorf("%w; %s", err, text)
	}
	return err
}

// storeWords are what a command says about the errors of a store that it opens.
type storeWords struct {
	create         string // how a missing image is made, after "check the path"
	read           string // how a store that may not be written is used
	server, kernel string // what else helps if a server, or the kernel, uses it
	raw            string // how the bytes of an image are used as they are
	direct         string // what to do without O_DIRECT
	size           string // how an image is made, before the size that it can have
	exists         string // what to do about an image that is there already
}

// about is the advice about an error of a store, or nothing.
func (w *storeWords) about(err error) string {
	var (
		access *backing.AccessError
		held   *backing.HeldError
		format *backing.FormatError
		direct *backing.DirectError
		size   *backing.SizeError
		exists *backing.ExistsError
	)
	switch {
	case errors.As(err, &access):
		return accessAdvice(access, w.create, w.read)
	case errors.As(err, &held):
		return heldAdvice(held, w.server, "", w.kernel)
	case errors.As(err, &format):
		return convert(format) + "; or " + w.raw
	case errors.As(err, &direct):
		return w.direct
	case errors.As(err, &size) && size.Image && w.size != "":
		return fmt.Sprintf("%s %d", w.size, size.Next)
	case errors.As(err, &exists):
		return w.exists
	}
	return ""
}

// serveAdvice is what `ringnbd serve` can do about an error.
func serveAdvice(err error) string {
	var (
		access *backing.AccessError
		name   *backing.NameError
		cut    *engine.CutError
		home   *engine.HomeError
	)
	words := storeWords{create: ", or let --create SIZE make a new image",
		read: "serve it with --read-only", server: ", or serve it read-only in both",
		kernel: ", or serve it with --read-only",
		raw:    "say --format raw (format=raw in --export) to serve its bytes as they are",
		direct: "use --direct auto or off", size: "use --create",
		exists: "drop --create to serve it as it is"}
	switch {
	case errors.As(err, &home) && home.Need > 0:
		return "give more --memory, or fewer --loops"
	case errors.As(err, &home):
		return "give more --loops"
	case errors.As(err, &access) && access.Part:
		words.create, words.read = "", "serve the export with --read-only"
	case errors.As(err, &access) && strings.Contains(access.Path, "?"):
		words.create += "; a partition is written PATH?partition=N"
	case errors.As(err, &name) && name.Other != "":
		return "give each a name of its own with --export NAME=PATH"
	case errors.As(err, &name):
		return "choose another name with --export NAME=PATH"
	case errors.As(err, &cut):
		return "--shutdown-timeout gives them longer"
	}
	return words.about(err)
}

// ctlAdvice is what `ringnbd ctl` can do about an error.
func ctlAdvice(err error) string {
	var socket *control.SocketError
	var refused *control.Error
	switch {
	case errors.As(err, &socket) && errors.Is(err, unix.EACCES):
		return "run as root, or let the server's configuration name this user among its admins " +
			"or viewers"
	case errors.As(err, &socket) && (errors.Is(err, unix.ENOENT) ||
		errors.Is(err, unix.ECONNREFUSED)):
		return "start a server with --control unix:PATH, and say its PATH here in the same way"
	case errors.As(err, &refused) && refused.Field == "replace":
		return "--replace does that"
	case errors.As(err, &refused) && refused.Field == "force":
		return "--force does that"
	}
	return ""
}

// controlAdvice is what a client of the control socket can do about an error.
func controlAdvice(err error) string {
	var home *engine.HomeError
	switch {
	case errors.As(err, &home) && home.Need > 0:
		return "remove another overlay, or start the server with more memory or fewer loops"
	case errors.As(err, &home):
		return "remove another overlay, or start the server with more loops"
	}
	words := storeWords{create: ", or let create make a new image", read: "serve it read-only",
		server: ", or serve it read-only in both", kernel: ", or serve it read-only",
		raw:    "say that its format is raw to serve its bytes as they are",
		direct: "let direct be auto or off", size: "create it with",
		exists: "leave out create to serve it as it is"}
	return strings.Replace(words.about(err), "say --force", "say force", 1)
}

// benchAdvice is what `ringnbd bench` can do about an error of file:PATH.
func benchAdvice(err error) string {
	var access *backing.AccessError
	if errors.As(err, &access) {
		if _, part := backing.ParsePath(access.Path); part != "" {
			return "file: takes a whole file or device; serve the partition, and put the load on " +
				"its export"
		}
	}
	const read = "only read it (--pattern randread)"
	words := storeWords{read: read, server: ", or put the load on its export",
		kernel: ", or " + read, raw: "say --format raw to use its bytes as they are"}
	if text := words.about(err); text != "" {
		return text
	}
	return clientAdvice(err)
}

// copyAdvice is what `ringnbd copy` can do about an error of a file or device.
func copyAdvice(err error) string {
	var (
		held   *backing.HeldError
		format *backing.FormatError
	)
	switch {
	case errors.As(err, &held) && held.Write:
		return heldAdvice(held, ", or copy to its export", "", "")
	case errors.As(err, &held):
		return heldAdvice(held, ", or copy from its export", ", or copy from an export of it", "")
	case errors.As(err, &format):
		text := unpack(format)
		if text == "" && format.Path != stream {
			text = fmt.Sprintf("copy it with: qemu-img convert -f %s -O raw %s DESTINATION",
				format.QEMU, backing.ShellQuote(format.Path))
		} else if text == "" {
			text = "convert it in a file: qemu-img convert -O raw"
		}
		return text + "; or say --format raw to copy its bytes as they are"
	}
	return clientAdvice(err)
}

// accessAdvice is about a path that cannot be opened: create is how a missing image is made, and
// read how one that may not be written is used.
func accessAdvice(e *backing.AccessError, create, read string) string {
	switch {
	case errors.Is(e.Err, unix.ENOENT):
		return "check the path" + create
	case e.Forbidden() && e.ReadOnly:
		return "change its permissions or run as a user who may"
	case e.Forbidden():
		return "change its permissions, run as a user who may, or " + read
	case errors.Is(e.Err, unix.EROFS):
		return read
	}
	return ""
}

// heldAdvice is about a store that is in use: server, qemu and kernel follow the advice to stop
// what uses it, and stand for what else helps.
func heldAdvice(e *backing.HeldError, server, qemu, kernel string) string {
	if e.Final {
		return ""
	}
	if e.Part {
		kernel = ", or serve the kernel's own device of the partition (lsblk shows it)" + kernel
	}
	return [...]string{
		backing.HeldByServer: "stop that program" + server,
		backing.HeldByQEMU:   "stop that program" + qemu,
		backing.HeldByKernel: "end that use first" + kernel,
	}[e.By] + ", or say --force"
}

// stream is the path of standard input.
const stream = "-"

// unpack is the advice about a compressed file; "" if the file is not compressed.
func unpack(e *backing.FormatError) string {
	switch {
	case e.Unpack == "":
		return ""
	case e.Path == stream:
		return fmt.Sprintf("unpack it on the way (%s -dc | ringnbd copy - ...)", e.Unpack)
	}
	return fmt.Sprintf("unpack it first (%s -dk %s)", e.Unpack, backing.ShellQuote(e.Path))
}

// convert is the advice about a file that is not a raw disk, and is to be used where it is.
func convert(e *backing.FormatError) string {
	if e.Part {
		return "name another partition"
	}
	if text := unpack(e); text != "" {
		return text
	}
	file := backing.ShellQuote(e.Path)
	return strings.NewReplacer("FORMAT", e.QEMU, "FILE", file).Replace(
		"convert it (qemu-img convert -f FORMAT -O raw FILE disk.img), " +
			"or serve it with: qemu-nbd -f FORMAT FILE")
}
