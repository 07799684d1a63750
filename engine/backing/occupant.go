// What the kernel does with a file or device: mounts, swap, device mapper and RAID, loop devices.
//
// Invariant: no device and no file of another program is opened, so nothing is woken or changed:
// everything is read from /proc and /sys, and by stat.

package backing

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// occupant is a use that the kernel makes of a store.
type occupant struct {
	text   string // "mounted at /mnt", to stand after "is"
	writes bool   // it may write
	swap   bool
}

// maxDepth limits the walk from a device to the devices stacked on it.
const maxDepth = 8

// occupants finds all uses of a file or block device.
func occupants(st *unix.Stat_t) []occupant {
	list := append(swaps(st), loops(st, maxDepth)...)
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		list = append(list, stacked(unix.Major(st.Rdev), unix.Minor(st.Rdev), maxDepth)...)
	}
	return list
}

// sameStore reports whether two stats are of one file, or of one block device.
func sameStore(a, b *unix.Stat_t) bool {
	if a.Mode&unix.S_IFMT == unix.S_IFBLK || b.Mode&unix.S_IFMT == unix.S_IFBLK {
		return a.Mode&unix.S_IFMT == b.Mode&unix.S_IFMT && a.Rdev == b.Rdev
	}
	return a.Dev == b.Dev && a.Ino == b.Ino
}

// swaps looks for active swap on the file or device itself.
func swaps(st *unix.Stat_t) []occupant {
	text, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		var there unix.Stat_t
		if len(f) < 2 || !strings.HasPrefix(f[0], "/") || unix.Stat(unescape(f[0]), &there) != nil {
			continue
		}
		if sameStore(st, &there) {
			return []occupant{{text: "in use as swap space", writes: true, swap: true}}
		}
	}
	return nil
}

// loops looks for loop devices over the file or device, and for what is done with them.
func loops(st *unix.Stat_t, depth int) []occupant {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil || depth == 0 {
		return nil
	}
	var list []occupant
	for _, file := range files {
		path := attribute(file)
		var there unix.Stat_t
		if path == "" || unix.Stat(path, &there) != nil || !sameStore(st, &there) {
			continue
		}
		dir := filepath.Dir(filepath.Dir(file))
		o := occupant{text: "attached to /dev/" + filepath.Base(dir),
			writes: attribute(dir+"/ro") != "1"}
		major, minor, ok := number(dir)
		if above := stacked(major, minor, depth-1); ok && len(above) > 0 {
			o.text += ", which is " + texts(above)
			o.writes = o.writes && anyWrites(above)
		}
		list = append(list, o)
	}
	return list
}

// stacked returns what is done with a block device, and with the devices stacked on it.
func stacked(major, minor uint32, depth int) []occupant {
	if depth == 0 {
		return nil
	}
	list := mounts(major, minor)
	st := unix.Stat_t{Mode: unix.S_IFBLK, Rdev: unix.Mkdev(major, minor)}
	if depth < maxDepth { // occupants has those of the first device already
		list = append(list, swaps(&st)...)
		list = append(list, loops(&st, depth-1)...)
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", major, minor)
	for pattern, word := range map[string]string{
		"/holders/*":   "part of ",
		"/*/partition": "with its partition ",
	} {
		found, err := filepath.Glob(dir + pattern)
		if err != nil {
			continue
		}
		for _, at := range found {
			if pattern == "/*/partition" {
				at = filepath.Dir(at)
			}
			name := filepath.Base(at)
			major, minor, ok := number(at)
			above := []occupant(nil)
			if ok {
				above = stacked(major, minor, depth-1)
			}
			o := occupant{text: word + name, writes: attribute(at+"/ro") != "1"}
			if label := attribute(at + "/dm/name"); label != "" {
				o.text += " (" + label + ")"
			}
			switch {
			case len(above) > 0:
				o.text += ", which is " + texts(above)
				o.writes = o.writes && anyWrites(above)
			case pattern == "/*/partition":
				continue // a partition that is there and not used
			}
			list = append(list, o)
		}
	}
	return list
}

// mounts looks for file systems on a device, by its number and by its name: btrfs shows a number
// that belongs to no device.
func mounts(major, minor uint32) []occupant {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	device := fmt.Sprintf("%d:%d", major, minor)
	for line := range strings.Lines(string(text)) {
		// 36 35 98:0 /root /mnt rw,noatime shared:1 - ext4 /dev/root rw,errors=continue
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		var there unix.Stat_t
		same := f[2] == device
		source := unescape(g[1])
		if !same && strings.HasPrefix(source, "/dev/") && unix.Stat(source, &there) == nil {
			same = there.Mode&unix.S_IFMT == unix.S_IFBLK && there.Rdev == unix.Mkdev(major, minor)
		}
		if same {
			rw := g[2] == "rw" || strings.HasPrefix(g[2], "rw,")
			return []occupant{{text: "mounted at " + unescape(f[4]), writes: rw}}
		}
	}
	return nil
}

func texts(list []occupant) string {
	words := make([]string, len(list))
	for i, o := range list {
		words[i] = o.text
	}
	return strings.Join(words, ", and ")
}

func anyWrites(list []occupant) bool {
	for _, o := range list {
		if o.writes {
			return true
		}
	}
	return false
}

// number returns the number of a block device, given its folder in sysfs.
func number(dir string) (major, minor uint32, ok bool) {
	n, err := fmt.Sscanf(attribute(dir+"/dev"), "%d:%d", &major, &minor)
	return major, minor, err == nil && n == 2
}

// attribute reads a file of sysfs; "" if there is none.
func attribute(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(text), "\n")
}

// unescape undoes the escapes of blanks in names of /proc: \040 for a space.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		var c byte
		if text[i] == '\\' && i+3 < len(text) {
			if n, err := fmt.Sscanf(text[i+1:i+4], "%03o", &c); err == nil && n == 1 {
				b.WriteByte(c)
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
