// The archive of an initramfs: the "newc" format of cpio, which the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst), and programs put into it with the
// shared libraries that they need. Archives may be written one after another into one file.
//
// Invariant: a folder comes before its content, and no path is in an archive twice.

package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"ringnbd/cmd/ringnbd/debian"
)

// archive writes an archive.
type archive struct {
	out  *bufio.Writer
	at   int // bytes written
	node int
	has  map[string]bool
}

func newArchive(out io.Writer) *archive {
	return &archive{out: bufio.NewWriterSize(out, 1<<20), has: map[string]bool{}}
}

// Modes of the entries, as in struct stat.
const (
	modeFolder  = 0o040755
	modeFile    = 0o100755
	modeLink    = 0o120777
	modeConsole = 0o020600
)

// entry writes a header, a name and a body; device is the number of a character device, major << 8
// | minor.
func (a *archive) entry(name string, mode, device int, body []byte) {
	name = strings.TrimPrefix(name, "/")
	a.node++
	fmt.Fprintf(a.out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", a.node, mode,
		0, 0, 1, 0, len(body), 0, 0, device>>8, device&0xff, len(name)+1, 0)
	a.at += 110
	a.put(append([]byte(name), 0))
	a.put(body)
}

// put writes bytes, padded to a multiple of four.
func (a *archive) put(b []byte) {
	a.out.Write(b) // errors stay with the writer; close returns them
	a.at += len(b)
	for ; a.at%4 != 0; a.at++ {
		a.out.WriteByte(0)
	}
}

// folder adds a folder and the folders above it.
func (a *archive) folder(name string) {
	name = path.Clean("/" + name)
	if name == "/" || a.has[name] {
		return
	}
	a.folder(path.Dir(name))
	a.has[name] = true
	a.entry(name, modeFolder, 0, nil)
}

// file adds an executable file.
func (a *archive) file(name string, body []byte) {
	if a.has[name] {
		return
	}
	a.folder(path.Dir(name))
	a.has[name] = true
	a.entry(name, modeFile, 0, body)
}

// copy adds a file of this machine.
func (a *archive) copy(name, from string) error {
	if a.has[name] {
		return nil
	}
	body, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	a.file(name, body)
	return nil
}

// program adds a program of this machine under a name, with its shared libraries at the paths that
// they have on this machine.
func (a *archive) program(name, from string) error {
	if err := a.copy(name, from); err != nil {
		return err
	}
	libraries, err := librariesOf(from)
	if err != nil {
		return err
	}
	for _, l := range libraries {
		if err := a.copy(l, l); err != nil {
			return err
		}
	}
	return nil
}

// close ends the archive. Another archive may follow in the same file.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0, nil)
	for ; a.at%512 != 0; a.at++ {
		a.out.WriteByte(0)
	}
	return a.out.Flush()
}

// librariesOf lists the paths of the shared libraries and the loader of a program, as ldd finds
// them; none if the program is linked statically.
func librariesOf(program string) ([]string, error) {
	out, err := debian.Run(time.Minute, "/", "ldd", program)
	if err != nil {
		if strings.Contains(err.Error(), "not a dynamic executable") {
			return nil, nil
		}
		return nil, err
	}
	var paths []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("%s: %s", program, strings.TrimSpace(line))
		}
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") && !strings.HasSuffix(word, ":") {
				paths = append(paths, word)
				break
			}
		}
	}
	return paths, nil
}

// lookProgram finds a program in PATH, and in the folders for programs of root.
func lookProgram(name string) (string, error) {
	if found, err := exec.LookPath(name); err == nil {
		return filepath.EvalSymlinks(found)
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return filepath.EvalSymlinks(found)
		}
	}
	return "", fmt.Errorf("%s: %w", name, errors.ErrUnsupported)
}
