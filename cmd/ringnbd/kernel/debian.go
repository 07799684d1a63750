// The kernel package of the Debian that this machine runs, downloaded by apt and unpacked beside
// its kind, never installed.
//
// Invariant: a folder of the cache is complete: it gets its name when everything is in it. Two
// tests that fill it at once do no harm.

package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"ringnbd/cmd/ringnbd/debian"
)

// ErrNoKernel says that no kernel package can be had. Its text is for who runs the tests.
var ErrNoKernel = errors.New("no kernel package of Debian")

// Kernel is an unpacked kernel package.
type Kernel struct {
	Release string // as uname -r says it in the guest
	Version string // of the package
	dir     string
}

// Image is the path of the kernel itself.
func (k *Kernel) Image() string { return filepath.Join(k.dir, "boot", "vmlinuz-"+k.Release) }

func (k *Kernel) modules() string { return filepath.Join(k.dir, "lib", "modules", k.Release) }

// CacheDir is where kernels and archives are kept from one run to the next.
func CacheDir() (string, error) { return debian.CacheDir("kernel") }

// FindKernel returns the kernel that the package linux-image-amd64 stands for now, from the cache
// or downloaded. Without a network it is the newest that the cache has. The error wraps
// ErrNoKernel.
func FindKernel(cache string) (*Kernel, error) {
	if err := debian.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKernel, err)
	}
	k, err := nameKernel(cache)
	if err == nil && k.complete() {
		return k, nil
	}
	if err == nil {
		err = k.download(cache)
	}
	if err != nil {
		// The lists may be missing, or older than what the mirrors still have.
		if _, updated := debian.Run(debian.AptLimit, cache, "apt-get", "update",
			"-qq"); updated == nil {
			if k, err = nameKernel(cache); err == nil && !k.complete() {
				err = k.download(cache)
			}
		}
	}
	if err == nil {
		return k, nil
	}
	if kept := newest(cache); kept != nil {
		return kept, nil
	}
	return nil, fmt.Errorf("%w: %v", ErrNoKernel, err)
}

func (k *Kernel) complete() bool {
	_, err := os.Stat(k.Image())
	return err == nil
}

var (
	dependsOnImage = regexp.MustCompile(`(?m)^Depends:.*\blinux-image-([0-9][^ ,]*-amd64)\b`)
	versionLine    = regexp.MustCompile(`(?m)^Version: (\S+)$`)
)

// nameKernel asks apt's lists which package linux-image-amd64 depends on.
func nameKernel(cache string) (*Kernel, error) {
	about, err := debian.Run(debian.AptLimit, cache, "apt-cache", "show", "--no-all-versions",
		"linux-image-amd64")
	if err != nil {
		return nil, err
	}
	release := dependsOnImage.FindStringSubmatch(about)
	if release == nil {
		return nil,
			errors.New("apt's lists do not tell which kernel linux-image-amd64 is; apt-get " +
				"update fetches them")
	}
	if about, err = debian.Run(debian.AptLimit, cache, "apt-cache", "show", "--no-all-versions",
		"linux-image-"+release[1]); err != nil {
		return nil, err
	}
	version := versionLine.FindStringSubmatch(about)
	if version == nil {
		return nil, fmt.Errorf("apt's lists have no linux-image-%s", release[1])
	}
	k := &Kernel{Release: release[1], Version: version[1]}
	k.dir = filepath.Join(cache, "linux-"+k.Release+"_"+fileName(k.Version))
	return k, nil
}

// download fills k.dir.
func (k *Kernel) download(cache string) error {
	work, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if _, err := debian.Run(debian.AptLimit, work, "apt-get", "download", "-qq",
		"linux-image-"+k.Release+"="+k.Version); err != nil {
		return fmt.Errorf("no network to Debian's packages: %w", err)
	}
	packages, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("apt-get download left %d packages, not 1", len(packages))
	}
	unpacked := filepath.Join(work, "unpacked")
	if _, err := debian.Run(debian.AptLimit, work, "dpkg-deb", "-x", packages[0],
		unpacked); err != nil {
		return err
	}
	if err := os.Rename(unpacked, k.dir); err != nil && !k.complete() {
		return err
	}
	return nil
}

// newest is the kernel of the cache that came last, nil if there is none.
func newest(cache string) *Kernel {
	found, _ := filepath.Glob(filepath.Join(cache, "linux-*_*", "boot", "vmlinuz-*"))
	var last *Kernel
	var when time.Time
	for _, image := range found {
		info, err := os.Stat(image)
		if err != nil || last != nil && info.ModTime().Before(when) {
			continue
		}
		dir := filepath.Dir(filepath.Dir(image))
		_, version, _ := strings.Cut(filepath.Base(dir), "_")
		last, when = &Kernel{Release: strings.TrimPrefix(filepath.Base(image), "vmlinuz-"),
			Version: version, dir: dir}, info.ModTime()
	}
	return last
}

// fileName makes a version fit to be part of a file's name.
func fileName(version string) string {
	return strings.NewReplacer(":", "%3a", "/", "_").Replace(version)
}
