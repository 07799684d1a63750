// Programs of another release of Debian, in addition to the installed ones: their packages with all
// dependencies, libc included, unpacked into a folder of the cache. A small shell script for each
// program starts it with the loader and the libraries of its release, so that it runs on any
// machine, for any user.
//
// Invariant: apt works only in folders of the cache; it neither reads nor changes the packages that
// are installed here.

package debian

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// maxListAge is how long apt's lists are used. A package that a mirror no longer has makes them be
// fetched earlier.
const maxListAge = 12 * time.Hour

// Suite is a release of Debian.
type Suite struct {
	Name string // of its folder in the archive: trixie, sid, bookworm-backports
	Base string // the release that it completes; "" if it is complete itself
}

// Programs are the unpacked programs of a suite.
type Programs struct {
	dir      string
	versions map[string]string
}

// Bin is the folder with a script for each program, for PATH.
func (p *Programs) Bin() string { return filepath.Join(p.dir, "start") }

// Version is the upstream version of a package of the suite, or "" if it was not unpacked.
func (p *Programs) Version(name string) string { return p.versions[name] }

// Upstream removes what Debian adds to a version: 1:10.0.2+ds-2+deb13u1~bpo12+1 is 10.0.2.
func Upstream(version string) string {
	if _, rest, ok := strings.Cut(version, ":"); ok {
		version = rest
	}
	if at := strings.IndexAny(version, "+~-"); at >= 0 {
		version = version[:at]
	}
	return version
}

// Fetch returns programs of a suite, from the cache or downloaded: packages has the names of
// programs by the name of their package. Without a network it returns the programs that were
// unpacked last.
func Fetch(cache string, s Suite, packages map[string][]string) (*Programs, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	home := filepath.Join(cache, s.Name)
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
			return nil, err
		}
	}
	lock, err := os.Create(filepath.Join(home, "fetching"))
	if err != nil {
		return nil, err
	}
	defer lock.Close() // and the lock with it
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	// apt sees an empty list of installed packages. Its locks are in the folder of this file, so
	// that any user may take them.
	if err := os.WriteFile(filepath.Join(home, "status"), nil, 0o644); err != nil {
		return nil, err
	}
	f := &fetch{Suite: s, home: home, programs: packages}
	for name := range packages {
		f.packages = append(f.packages, name)
	}
	slices.Sort(f.packages)
	p, err := f.newest()
	if err != nil {
		if kept := f.kept(); kept != nil {
			return kept, nil
		}
	}
	return p, err
}

// fetch is a call of Fetch.
type fetch struct {
	Suite
	home     string
	packages []string
	programs map[string][]string
}

// newest asks apt for the current packages, and unpacks those that are not unpacked yet.
func (f *fetch) newest() (*Programs, error) {
	if err := f.sources(); err != nil {
		return nil, err
	}
	stamp := filepath.Join(f.home, "updated")
	if info, err := os.Stat(stamp); err != nil || time.Since(info.ModTime()) > maxListAge {
		if err := f.update(stamp); err != nil {
			return nil, err
		}
	}
	p, err := f.unpacked()
	if err != nil { // the lists may name packages that the mirrors no longer have
		if updated := f.update(stamp); updated != nil {
			return nil, updated
		}
		p, err = f.unpacked()
	}
	return p, err
}

func (f *fetch) update(stamp string) error {
	if _, err := f.apt("update"); err != nil {
		return err
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// sources writes the suite's sources.list, of the mirror that this machine uses.
func (f *fetch) sources() error {
	out, err := Run(AptLimit, "/", "apt-get", "indextargets",
		"--format", "$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)", "Identifier: Packages")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		field := strings.Fields(line)
		if len(field) != 4 || field[0] != "Debian" || field[1] != "main" ||
			strings.Contains(field[2], "-") {
			continue
		}
		text := fmt.Sprintf("deb %s %s main\n", field[3], f.Name)
		if f.Base != "" {
			text += fmt.Sprintf("deb %s %s main\n", field[3], f.Base)
		}
		return os.WriteFile(filepath.Join(f.home, "sources.list"), []byte(text), 0o644)
	}
	return errors.New("apt's sources have no archive of Debian, or its lists were never fetched " +
		"(apt-get update does)")
}

// apt runs apt-get in the suite's own folders. apt sees no installed packages, so that it also
// fetches the libraries.
func (f *fetch) apt(arguments ...string) (string, error) {
	at := func(name string) string { return filepath.Join(f.home, name) }
	own := []string{"-qq", "-o", "Dir::State=" + f.home, "-o", "Dir::State::lists=" + at("lists"),
		"-o", "Dir::State::status=" + at("status"), "-o", "Dir::Cache=" + at("cache"),
		"-o", "Dir::Etc::sourcelist=" + at("sources.list"), "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root", "-o",
		"Acquire::Retries=2"}
	return Run(AptLimit, f.home, "apt-get", append(own, arguments...)...)
}

func (f *fetch) install(how string) (string, error) {
	flags := []string{"install", how, "--yes", "--no-install-recommends", "--target-release",
		f.Name}
	return f.apt(append(flags, f.packages...)...)
}

var packageFile = regexp.MustCompile(`(?m)^'[^']*' (([^_ ]+)_([^_ ]+)_[^_ ]+\.deb) `)

// unpacked unpacks the packages that apt would install.
func (f *fetch) unpacked() (*Programs, error) {
	list, err := f.install("--print-uris")
	if err != nil {
		return nil, err
	}
	files := packageFile.FindAllStringSubmatch(list, -1)
	if len(files) == 0 {
		return nil, fmt.Errorf("apt would install nothing of %s for %s", f.Name,
			strings.Join(f.packages, ", "))
	}
	digest := sha256.New()
	for _, file := range files {
		fmt.Fprintln(digest, file[1])
	}
	fmt.Fprintln(digest, f.programs, starterVersion)
	p := &Programs{dir: filepath.Join(f.home, f.prefix()+hex.EncodeToString(digest.Sum(nil)[:8]))}
	if p.load() == nil {
		return p, nil
	}
	archives := filepath.Join(f.home, "cache/archives")
	defer f.clear(archives)
	if _, err := f.install("--download-only"); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(f.home, "unpack-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	for _, file := range files {
		if _, err := Run(AptLimit, "/", "dpkg-deb", "-x", filepath.Join(archives, file[1]),
			work); err != nil {
			return nil, err
		}
	}
	if err := f.finish(work, p, files); err != nil {
		return nil, err
	}
	return p, p.load()
}

// finish writes starters and versions, and gives the folder its name.
func (f *fetch) finish(work string, p *Programs, files [][]string) error {
	versions := ""
	for _, file := range files {
		version, err := url.PathUnescape(file[3])
		if _, asked := f.programs[file[2]]; asked && err == nil {
			versions += file[2] + " " + version + "\n"
		}
	}
	if err := os.MkdirAll(filepath.Join(work, "start"), 0o755); err != nil {
		return err
	}
	for _, programs := range f.programs {
		for _, name := range programs {
			text, err := starter(work, p.dir, name)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
			if err := os.WriteFile(filepath.Join(work, "start", name), []byte(text),
				0o755); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(filepath.Join(work, "versions"), []byte(versions), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	return os.Rename(work, p.dir)
}

// load reads the versions, which finish writes last.
func (p *Programs) load() error {
	b, err := os.ReadFile(filepath.Join(p.dir, "versions"))
	if err != nil {
		return err
	}
	p.versions = map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, version, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			p.versions[name] = Upstream(version)
		}
	}
	return nil
}

// prefix distinguishes the folders with these packages from other folders of the suite.
func (f *fetch) prefix() string {
	digest := sha256.Sum256([]byte(strings.Join(f.packages, " ")))
	return "of-" + hex.EncodeToString(digest[:4]) + "-"
}

// kept is what was unpacked last, or nil.
func (f *fetch) kept() *Programs {
	found, _ := filepath.Glob(filepath.Join(f.home, f.prefix()+"*", "versions"))
	var last *Programs
	var when time.Time
	for _, file := range found {
		p := &Programs{dir: filepath.Dir(file)}
		if info, err := os.Stat(file); err == nil && info.ModTime().After(when) && p.load() == nil {
			last, when = p, info.ModTime()
		}
	}
	return last
}

// clear removes the archives of unpacked packages, and the folders that they replace.
func (f *fetch) clear(archives string) {
	found, _ := filepath.Glob(filepath.Join(archives, "*.deb"))
	for _, file := range found {
		_ = os.Remove(file)
	}
	kept := f.kept()
	old, _ := filepath.Glob(filepath.Join(f.home, f.prefix()+"*"))
	for _, dir := range old {
		if kept != nil && dir != kept.dir {
			_ = os.RemoveAll(dir)
		}
	}
}
