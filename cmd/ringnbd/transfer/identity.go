// What an end is, so that a later run, or the end of this one, can tell whether it still is.
//
// Invariant: an identity is taken anew from the file at every call; it has nothing in it that
// changes by itself, like the times of a device's node, or its number, which are new after every
// boot.

package transfer

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Identity is what must be the same when a copy goes on.
type Identity struct {
	Place string `json:"place"`
	Size  uint64 `json:"size"` // bytes
	Inode uint64 `json:"inode,omitempty"`
	// nanoseconds since 1970, where the file system knows: inodes are used again
	Born int64 `json:"born,omitempty"`
	// nanoseconds since 1970; counts for the source alone
	Modified int64  `json:"modified,omitempty"`
	Serial   string `json:"serial,omitempty"` // of a device, where the kernel knows one
}

// place is the same for two places that are certainly one.
func (p *Place) place() string {
	t := &p.Target
	switch {
	case p.Stream() || p.Null():
		return p.Text
	case len(p.Command) > 0:
		return "command:" + strings.Join(p.Command, " ") // whose socket is another each time
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

func (l *local) identity() Identity {
	p := Place{}
	p.Target.Network, p.Target.Address = "file", l.name()
	id := Identity{Place: p.place(), Size: l.length}
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

// serial is what a device, given its directory in sysfs, is called by its maker or by who made it,
// or "": then its path and size must do. A partition has its disk's and its number.
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

// unchanged says whether the source is still what it was when the copy began: a copy of a file that
// changes is of no moment that there ever was, and may have zeroes where it was cut off and grown
// again.
func (j *job) unchanged() error {
	now := j.source.identity()
	if now.Size != j.from.Size {
		return fmt.Errorf("%s: was changed while it was copied: it has %d bytes, and had %d; "+
			"the copy is no good", j.source.name(), now.Size, j.from.Size)
	}
	if now.Modified != j.from.Modified {
		return fmt.Errorf("%s: was changed while it was copied; the copy is no good",
			j.source.name())
	}
	return nil
}

// theSame says whether two paths are one file, or would be if they existed.
func theSame(a, b string) bool {
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

// apart refuses ends that are one, and a state that is kept in one of them, or written by way of
// it.
func (o *Options) apart() error {
	server := !o.Source.Target.File() && len(o.Source.Command) == 0 // of a command two are started
	if server && o.Source.place() == o.Destination.place() {
		return fmt.Errorf("%s: is the source and the destination", o.Source.Text)
	}
	for _, p := range []*Place{&o.Source, &o.Destination} {
		if o.Resume == "" || !p.Target.File() {
			continue
		}
		for _, path := range []string{o.Resume, o.Resume + partSuffix} {
			if theSame(path, p.Target.Address) {
				return fmt.Errorf("--resume %s: %s is what is copied from or to; name another file",
					o.Resume, path)
			}
		}
	}
	return nil
}
