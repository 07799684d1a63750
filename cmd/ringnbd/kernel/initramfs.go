// The files that a guest starts with: busybox, the kernel's modules, the programs that a check
// needs, and the scripts of testdata/, which are the checks.
//
// Invariant: the name of an archive in the cache is a digest of the paths, sizes and times of the
// files that it was made of.

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

// guestModules are loaded in every guest. The first two implement crc32c for libcrc32c, which asks
// for "crc32c" by name and not by symbol, so that no module depends on them.
var guestModules = []string{"crc32c_generic", "crc32c_intel", "virtio_pci", "virtio_net",
	"virtio_blk", "nbd", "ext4", "xfs"}

// basePrograms are in every guest: the path in the guest, and the name of the program on this
// machine.
var basePrograms = map[string]string{
	"/bin/busybox": "busybox", "/sbin/nbd-client": "nbd-client",
	"/sbin/mkfs.ext4": "mke2fs", "/sbin/e2fsck": "e2fsck", "/sbin/mkfs.xfs": "mkfs.xfs",
	"/sbin/xfs_repair": "xfs_repair",
	"/sbin/blkdiscard": "blkdiscard", "/sbin/blkid": "blkid", "/sbin/fstrim": "fstrim",
	"/sbin/mkswap": "mkswap",
}

// fioProgram is for guests that run fio, which needs more libraries than all other programs.
var fioProgram = map[string]string{"/usr/bin/fio": "fio"}

// packageOf has the Debian package of each program.
var packageOf = map[string]string{
	"busybox": "busybox-static", "nbd-client": "nbd-client", "mke2fs": "e2fsprogs",
	"e2fsck": "e2fsprogs", "mkfs.xfs": "xfsprogs",
	"xfs_repair": "xfsprogs", "blkdiscard": "util-linux", "blkid": "util-linux",
	"fstrim": "util-linux", "mkswap": "util-linux", "fio": "fio",
	"qemu-system-x86_64": "qemu-system-x86", "ldd": "libc-bin",
}

// errNoProgram means that a program is not installed. The error names the Debian package that has
// it.
var errNoProgram = errors.New("not installed")

// find finds a program of packageOf on this machine.
func find(name string) (string, error) {
	path, err := lookProgram(name)
	if err != nil {
		return "", fmt.Errorf("%s is %w (Debian package %s)", name, errNoProgram, packageOf[name])
	}
	return path, nil
}

// Initramfs writes the initramfs of a guest to a file: the files of all guests, fio if asked for,
// files of this machine with their libraries (path in the guest to path on this machine), and the
// scripts. The large parts come from the cache.
func (k *kernelPackage) Initramfs(cache, file string, fio bool, files map[string]string) error {
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
	err = eachScript(func(path string, body []byte) error {
		a.file(path, body)
		return nil
	})
	if err != nil {
		return err
	}
	if err := a.close(); err != nil {
		return err
	}
	return out.Close()
}

// eachScript calls do with the path in a guest and the content of each script of testdata.
func eachScript(do func(path string, body []byte) error) error {
	list, err := scripts.ReadDir("testdata")
	if err != nil {
		return err
	}
	for _, entry := range list {
		body, err := scripts.ReadFile("testdata/" + entry.Name())
		if err != nil {
			return err
		}
		if err := do(scriptPath(entry.Name()), body); err != nil {
			return err
		}
	}
	return nil
}

// scriptPath is the path in a guest of a file of testdata.
func scriptPath(name string) string {
	if name == "init.sh" {
		return "/init"
	}
	return "/t/" + name
}

// writeRootTree writes a root file system to an existing folder, for guests that boot from a disk:
// busybox and the scripts, nothing else.
func writeRootTree(dir string) error {
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
	return eachScript(func(path string, body []byte) error {
		return os.WriteFile(filepath.Join(dir, path), body, 0o755)
	})
}

func (k *kernelPackage) appendPart(out io.Writer, cache string, programs map[string]string,
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

// part returns an archive of the cache, and makes it first if it is missing.
func (k *kernelPackage) part(cache string, programs map[string]string, base bool) (string, error) {
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
	defer os.Remove(out.Name()) // fails after the rename
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

// base adds what every guest has once: folders, the console, links, modules.
func (k *kernelPackage) base(a *archive) error {
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
