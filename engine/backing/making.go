// Names for which no file is made: a slip in an address or in the name of a device must not make a
// file that the user takes for a server or a disk.
//
// Invariant: names of files that exist are not judged here, and every name is allowed with ./ in
// front of it, except below /dev.

package backing

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// address matches what looks like an address: a scheme of URIs or of the tools of this field, or a
// port after the first colon. Names with a colon elsewhere, or other words before it, are names.
var address = regexp.MustCompile(`(?i)^([a-z][a-z0-9+.-]*://|` +
	`(nbds?|nbds?\+[a-z]+|unix|vsock|tcp|tls|fd|file|null|memory|ssh|scp|rbd|iscsi|http|https|` +
	`ftp|json|host_device|blkdebug|socket|localhost):|` +
	`(\[[0-9a-f:.]*\]|[^/:]*):[0-9]+(:exportname=.*|/.*)?$)`)

// shared is where shared memory lives: the only place below /dev whose files are files.
const shared = "/dev/shm"

// MayMake returns why no file is to be made at a path where there is none, or nil.
func MayMake(path string) error {
	switch {
	case path == "" || strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("%q is not a path", path)
	case path == "-":
		return fmt.Errorf("-: a file of that name is written ./-")
	case address.MatchString(path):
		return fmt.Errorf("%s: looks like an address, and there is no such file; a server is "+
			"named by nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH, "+
			"and a new file of that name by ./%s", path, path)
	case strings.HasSuffix(path, "/"):
		return fmt.Errorf("%s: ends in a slash; name the file to be made", path)
	}
	var st unix.Stat_t
	switch {
	case BelowDev(path):
		return fmt.Errorf("%s: there is no such device, and no file is made below /dev", path)
	case unix.Stat(filepath.Dir(path), &st) == unix.ENOENT:
		return fmt.Errorf("%s: there is no directory %s; make it first", path, filepath.Dir(path))
	}
	return nil
}

// BelowDev reports whether a path is where devices are: a regular file there is a mistake.
func BelowDev(path string) bool {
	directory := filepath.Dir(path)
	if full, err := filepath.Abs(directory); err == nil {
		directory = full
	}
	if real, err := filepath.EvalSymlinks(directory); err == nil {
		directory = real
	}
	within := func(top string) bool {
		return directory == top || strings.HasPrefix(directory, top+"/")
	}
	return within("/dev") && !within(shared)
}

// MayMakeNew is MayMake if there is nothing at the path yet, else nil.
func MayMakeNew(path string) error {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != unix.ENOENT {
		return nil
	}
	return MayMake(path)
}
