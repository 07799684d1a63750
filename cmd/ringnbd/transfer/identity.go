// The identity of an end, by which a later run, or the end of this run, can tell whether it is the
// same.
//
// Invariant: an identity is read from the file at every call; it contains nothing that changes by
// itself, like the times or the number of a device's node, which are new after every boot.

package transfer

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"ringnbd/engine/backing"
)

// identity is what must be the same when a copy continues.
type identity struct {
	Place string `json:"place"`
	Size  uint64 `json:"size"` // bytes
	Inode uint64 `json:"inode,omitempty"`
	// nanoseconds since 1970, if the file system has it: inode numbers are used again
	Born int64 `json:"born,omitempty"`
	// nanoseconds since 1970; compared only for the source
	Modified int64  `json:"modified,omitempty"`
	Serial   string `json:"serial,omitempty"` // of a device, if the kernel knows it
}

// place is a text that is equal for two places only if they are certainly the same.
func (p *Place) place() string {
	t := &p.Target
	switch {
	case p.Stream() || p.Null():
		return p.Text
	case len(p.Command) > 0:
		return "command:" + strings.Join(p.Command, " ") // its socket differs each time
	}
	if t.File() {
		path, err := filepath.Abs(t.Address)
		if err != nil {
			path = t.Address
		}
		return "file:" + path
	}
	return t.Network + ":" + absolute(t) + "/" + t.Export
}

func (l *local) identity() identity {
	id := l.wholeIdentity()
	if l.part != "" { // the table may have changed since
		id.Serial += fmt.Sprintf("+%d,%d", l.base, l.length)
	}
	return id
}

// wholeIdentity is the identity of the file or device that is open.
func (l *local) wholeIdentity() identity {
	p := Place{}
	p.Target.Network, p.Target.Address = "file", backing.WritePath(l.name(), l.part)
	id := identity{Place: p.place(), Size: l.length}
	info, err := l.f.Stat()
	if err != nil {
		return id
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if l.device {
		if n, err := l.f.Seek(0, io.SeekEnd); err == nil {
			id.Size = uint64(n)
		}
		if ok {
			id.Serial = serial(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(stat.Rdev),
				unix.Minor(stat.Rdev)))
		}
		return id
	}
	id.Size, id.Modified = uint64(info.Size()), info.ModTime().UnixNano()
	if ok {
		id.Inode = stat.Ino
	}
	var x unix.Statx_t
	if err := unix.Statx(int(l.f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &x); err == nil &&
		x.Mask&unix.STATX_BTIME != 0 {
		id.Born = x.Btime.Sec*1e9 + int64(x.Btime.Nsec)
	}
	return id
}

// serial is the identifier of a device, given its directory in sysfs, from its maker or from the
// program that made it, or "": then path and size must do. A partition has its disk's and its own
// number.
func serial(dir string) string {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b[:min(len(b), 1024)]))
	}
	partition := read(dir + "/partition")
	if partition != "" {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return ""
		}
		dir = filepath.Dir(real)
	}
	for _, name := range []string{"wwid", "device/wwid", "serial", "device/serial", "dm/uuid",
		"md/uuid", "loop/backing_file"} {
		if text := read(filepath.Join(dir, name)); text != "" {
			if partition != "" {
				text += " partition " + partition
			}
			return text
		}
	}
	return ""
}

// checkUnchanged refuses a source that has changed since the copy began: a copy of a file that
// changes is not a copy of any one moment, and may have zeroes where the file was truncated and
// grew again.
func (j *job) checkUnchanged() error {
	now := j.source.identity()
	if now.Size != j.from.Size {
		return fmt.Errorf("%s: was changed while it was copied: it has %d bytes, and had %d; "+
			"the copy is not usable", j.source.name(), now.Size, j.from.Size)
	}
	if now.Modified != j.from.Modified {
		return fmt.Errorf("%s: was changed while it was copied; the copy is not usable",
			j.source.name())
	}
	return nil
}

// samePath reports whether two paths lead to the same file, or would if they existed.
func samePath(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	if errX == nil && errY == nil {
		return os.SameFile(x, y)
	}
	return resolved(a) == resolved(b)
}

// resolved is a path without symbolic links, as far as it exists.
func resolved(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		path = full
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if to, err := os.Readlink(path); err == nil { // dangling
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// checkApart refuses ends that are the same, and a state file that is one of them, or whose part
// file is.
func (o *Options) checkApart() error {
	server := !o.Source.Target.File() && len(o.Source.Command) == 0 // a command is started twice
	if server && o.Source.place() == o.Destination.place() {
		return fmt.Errorf("%s: is the source and the destination", o.Source.Text)
	}
	for _, p := range []*Place{&o.Source, &o.Destination} {
		if o.Resume == "" || !p.Target.File() {
			continue
		}
		for _, path := range []string{o.Resume, o.Resume + partSuffix} {
			if whole, _ := backing.ParsePath(p.Target.Address); samePath(path, whole) {
				return fmt.Errorf("--resume %s: %s is what is copied from or to; name another file",
					o.Resume, path)
			}
		}
	}
	return nil
}
