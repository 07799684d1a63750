// What a guest starts with: busybox, the kernel's modules, the programs that a check needs, and the
// scripts of testdata/ that are the checks.
//
// Invariant: an archive of the cache was made of exactly the files that its name stands for: it is
// a digest of their paths, sizes and times.

package kernel

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

//go:embed testdata/*.sh
var scripts embed.FS

// Modules of every guest. The last are the faces of libcrc32c, which asks for "crc32c" by name and
// not by symbol.
var guestModules = []string{"crc32c_generic", "crc32c_intel", "virtio_pci", "virtio_net",
	"virtio_blk", "nbd", "ext4", "xfs"}

// basePrograms are in every guest, by their path there. The value is the program's name here.
var basePrograms = map[string]string{
	"/bin/busybox": "busybox", "/sbin/nbd-client": "nbd-client",
	"/sbin/mkfs.ext4": "mke2fs", "/sbin/e2fsck": "e2fsck", "/sbin/mkfs.xfs": "mkfs.xfs",
	"/sbin/xfs_repair": "xfs_repair",
	"/sbin/blkdiscard": "blkdiscard", "/sbin/blkid": "blkid", "/sbin/fstrim": "fstrim",
	"/sbin/mkswap": "mkswap",
}

// fioProgram is for guests that run fio, which needs more libraries than all else together.
var fioProgram = map[string]string{"/usr/bin/fio": "fio"}

// packageOf tells which Debian package brings a program.
var packageOf = map[string]string{
	"busybox": "busybox-static", "nbd-client": "nbd-client", "mke2fs": "e2fsprogs",
	"e2fsck": "e2fsprogs", "mkfs.xfs": "xfsprogs",
	"xfs_repair": "xfsprogs", "blkdiscard": "util-linux", "blkid": "util-linux",
	"fstrim": "util-linux", "mkswap": "util-linux", "fio": "fio",
	"qemu-system-x86_64": "qemu-system-x86", "ldd": "libc-bin",
}

// ErrNoProgram says that a program is not installed. The error's text tells which Debian package
// has it.
var ErrNoProgram = errors.New("not installed")

// find looks for a program of packageOf.
func find(name string) (string, error) {
	path, err := lookProgram(name)
	if err != nil {
		return "", fmt.Errorf("%s is %w (Debian package %s)", name, ErrNoProgram, packageOf[name])
	}
	return path, nil
}

// Initramfs writes the initramfs of a guest to a file: what all guests have, fio if it is asked
// for, files of this machine with their libraries (path in the guest to path here), and the
// scripts. The large parts come from the cache.
func (k *Kernel) Initramfs(cache, file string, fio bool, files map[string]string) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	parts := []map[string]string{basePrograms}
	if fio {
		parts = append(parts, fioProgram)
	}
	for i, programs := range parts {
		if err := k.appendPart(out, cache, programs, i == 0); err != nil {
			return err
		}
	}
	a := newArchive(out)
	for _, inside := range slices.Sorted(maps.Keys(files)) {
		if err := a.program(inside, files[inside]); err != nil {
			return err
		}
	}
	list, err := scripts.ReadDir("testdata")
	if err != nil {
		return err
	}
	for _, entry := range list {
		body, err := scripts.ReadFile("testdata/" + entry.Name())
		if err != nil {
			return err
		}
		a.file(scriptPath(entry.Name()), body)
	}
	if err := a.close(); err != nil {
		return err
	}
	return out.Close()
}

// scriptPath is where a guest has a file of testdata.
func scriptPath(name string) string {
	if name == "init.sh" {
		return "/init"
	}
	return "/t/" + name
}

// RootTree writes a root file system to a folder that is there: busybox and the scripts, no more. A
// guest that boots from a disk has it there.
func RootTree(dir string) error {
	busybox, err := find("busybox")
	if err != nil {
		return err
	}
	body, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	for _, folder := range []string{"bin", "t", "dev", "proc", "sys", "tmp", "run", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "busybox"), body, 0o755); err != nil {
		return err
	}
	if err := os.Symlink("busybox", filepath.Join(dir, "bin", "sh")); err != nil {
		return err
	}
	list, err := scripts.ReadDir("testdata")
	if err != nil {
		return err
	}
	for _, entry := range list {
		body, err := scripts.ReadFile("testdata/" + entry.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, scriptPath(entry.Name())), body,
			0o755); err != nil {
			return err
		}
	}
	return nil
}

func (k *Kernel) appendPart(out io.Writer, cache string, programs map[string]string,
	base bool) error {
	part, err := k.part(cache, programs, base)
	if err != nil {
		return err
	}
	in, err := os.Open(part)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(out, in)
	return err
}

// part returns an archive of the cache, which is made if it is not there.
func (k *Kernel) part(cache string, programs map[string]string, base bool) (string, error) {
	if _, err := find("ldd"); err != nil {
		return "", err
	}
	digest := sha256.New()
	found := map[string]string{}
	for _, inside := range slices.Sorted(maps.Keys(programs)) {
		path, err := find(programs[inside])
		if err != nil {
			return "", err
		}
		libraries, err := librariesOf(path)
		if err != nil {
			return "", err
		}
		found[inside] = path
		for _, file := range append(libraries, path) {
			info, err := os.Stat(file)
			if err != nil {
				return "", err
			}
			fmt.Fprintln(digest, inside, file, info.Size(), info.ModTime().UnixNano())
		}
	}
	if base {
		fmt.Fprintln(digest, k.dir, guestModules)
	}
	part := filepath.Join(cache, "part-"+hex.EncodeToString(digest.Sum(nil)[:12])+".cpio")
	if _, err := os.Stat(part); err == nil {
		return part, nil
	}
	out, err := os.CreateTemp(cache, "part-*.new")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name()) // fails once it has its name
	defer out.Close()
	a := newArchive(out)
	for _, inside := range slices.Sorted(maps.Keys(found)) {
		if err := a.program(inside, found[inside]); err != nil {
			return "", err
		}
	}
	if base {
		if err := k.base(a); err != nil {
			return "", err
		}
	}
	if err := a.close(); err != nil {
		return "", err
	}
	return part, os.Rename(out.Name(), part)
}

// base adds what only the first archive of a guest has: folders, the console, links, modules.
func (k *Kernel) base(a *archive) error {
	for _, folder := range []string{"/dev", "/proc", "/sys", "/tmp", "/run", "/mnt", "/root"} {
		a.folder(folder)
	}
	a.entry("/dev/console", modeConsole, 5<<8|1, nil)
	a.entry("/bin/sh", modeLink, 0, []byte("busybox"))
	if body, err := os.ReadFile("/etc/mke2fs.conf"); err == nil {
		a.file("/etc/mke2fs.conf", body)
	}
	order, err := k.loadOrder(guestModules)
	if err != nil {
		return err
	}
	var names []byte
	for _, m := range order {
		if err := a.copy("/modules/"+m.name+".ko", m.path); err != nil {
			return err
		}
		names = append(names, m.name+"\n"...)
	}
	a.file("/modules/order", names)
	return nil
}
