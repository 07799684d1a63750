// The kernel package of the Debian that this machine runs, downloaded by apt and unpacked into the
// cache, never installed.
//
// Invariant: a folder of the cache gets its name when it is complete, so two tests may fill the
// cache at the same time.

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

// errNoKernel means that no kernel package is available. Its text is for people who run the tests.
var errNoKernel = errors.New("no kernel package of Debian")

// kernelPackage is an unpacked kernel package.
type kernelPackage struct {
	Release string // as uname -r prints it in the guest
	Version string // of the package
	dir     string
}

// Image is the path of the kernel itself.
func (k *kernelPackage) Image() string { return filepath.Join(k.dir, "boot", "vmlinuz-"+k.Release) }

func (k *kernelPackage) modules() string {
	return filepath.Join(k.dir, "lib", "modules", k.Release)
}

// cacheDir is the folder that keeps kernels and archives between runs.
func cacheDir() (string, error) { return debian.CacheDir("kernel") }

// findKernel returns the kernel that the package linux-image-amd64 depends on now, from the cache
// or downloaded. Without a network it is the newest kernel of the cache. The error wraps
// ErrNoKernel.
func findKernel(cache string) (*kernelPackage, error) {
	if err := debian.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKernel, err)
	}
	k, err := nameKernel(cache)
	if err == nil && k.complete() {
		return k, nil
	}
	if err == nil {
		err = k.download(cache)
	}
	if err != nil {
		// The lists may be missing, or name packages that the mirrors no longer have.
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
	return nil, fmt.Errorf("%w: %v", errNoKernel, err)
}

func (k *kernelPackage) complete() bool {
	_, err := os.Stat(k.Image())
	return err == nil
}

var (
	dependsOnImage = regexp.MustCompile(`(?m)^Depends:.*\blinux-image-([0-9][^ ,]*-amd64)\b`)
	versionLine    = regexp.MustCompile(`(?m)^Version: (\S+)$`)
)

// nameKernel asks apt's lists which package linux-image-amd64 depends on.
func nameKernel(cache string) (*kernelPackage, error) {
	about, err := debian.Run(debian.AptLimit, cache, "apt-cache", "show", "--no-all-versions",
		"linux-image-amd64")
	if err != nil {
		return nil, err
	}
	release := dependsOnImage.FindStringSubmatch(about)
	if release == nil {
		return nil,
			errors.New("apt's lists do not have the kernel of linux-image-amd64; apt-get " +
				"update fetches the lists")
	}
	if about, err = debian.Run(debian.AptLimit, cache, "apt-cache", "show", "--no-all-versions",
		"linux-image-"+release[1]); err != nil {
		return nil, err
	}
	version := versionLine.FindStringSubmatch(about)
	if version == nil {
		return nil, fmt.Errorf("apt's lists have no linux-image-%s", release[1])
	}
	k := &kernelPackage{Release: release[1], Version: version[1]}
	k.dir = filepath.Join(cache, "linux-"+k.Release+"_"+fileName(k.Version))
	return k, nil
}

// download downloads and unpacks the package into k.dir.
func (k *kernelPackage) download(cache string) error {
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

// newest is the kernel that was added to the cache last, or nil.
func newest(cache string) *kernelPackage {
	found, _ := filepath.Glob(filepath.Join(cache, "linux-*_*", "boot", "vmlinuz-*"))
	var last *kernelPackage
	var when time.Time
	for _, image := range found {
		info, err := os.Stat(image)
		if err != nil || last != nil && info.ModTime().Before(when) {
			continue
		}
		dir := filepath.Dir(filepath.Dir(image))
		_, version, _ := strings.Cut(filepath.Base(dir), "_")
		last, when = &kernelPackage{Release: strings.TrimPrefix(filepath.Base(image), "vmlinuz-"),
			Version: version, dir: dir}, info.ModTime()
	}
	return last
}

// fileName makes a version a valid part of a file name.
func fileName(version string) string {
	return strings.NewReplacer(":", "%3a", "/", "_").Replace(version)
}
