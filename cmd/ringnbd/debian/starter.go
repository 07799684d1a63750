// The scripts that start an unpacked program.
//
// Invariant: the children of a program do not see the libraries of the other release in their
// environment.

package debian

import (
	"fmt"
	"path/filepath"
	"strings"
)

// starterVersion is part of the name of a folder: another script needs another folder.
const starterVersion = 2

// starter is the script for a program that was unpacked into work and will be found in dir.
func starter(work, dir, name string) (string, error) {
	program, err := first(work, "usr/bin/"+name, "usr/sbin/"+name, "bin/"+name, "sbin/"+name)
	if err != nil {
		return "", err
	}
	loader, err := first(work, "lib64/ld-linux*.so.*", "usr/lib64/ld-linux*.so.*",
		"lib/ld-linux*.so.*", "usr/lib/ld-linux*.so.*")
	if err != nil {
		return "", err
	}
	var libraries []string
	// Some programs find libraries of their own by an absolute path, which leads to a folder of
	// this machine's release.
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*",
		"usr/lib/*-linux-gnu*/*"} {
		found, _ := filepath.Glob(filepath.Join(work, pattern))
		for _, l := range found {
			if shared, _ := filepath.Glob(filepath.Join(l, "lib*.so*")); len(shared) > 0 {
				libraries = append(libraries, filepath.Join(dir, strings.TrimPrefix(l, work)))
			}
		}
	}
	start := fmt.Sprintf("exec %s --library-path %s --argv0 %s %s",
		filepath.Join(dir, loader), strings.Join(libraries, ":"), name, filepath.Join(dir, program))
	switch name {
	case "nbdkit":
		return fmt.Sprintf(nbdkitStarter, dir, start), nil
	case "python3":
		return fmt.Sprintf(pythonStarter, dir, start), nil
	}
	return "#!/bin/sh\n" + start + " \"$@\"\n", nil
}

// nbdkitStarter gives nbdkit the paths of plugin and filters, which nbdkit would look for in the
// folders of an installation.
const nbdkitStarter = `#!/bin/sh
for lib in %s/usr/lib/*/nbdkit; do :; done
plugin=
for word; do
	shift
	case $word in
	--filter=*/*) ;;
	--filter=*) word=--filter=$lib/filters/nbdkit-${word#--filter=}-filter.so ;;
	*) if [ -z "$plugin" ] && [ -e "$lib/plugins/nbdkit-$word-plugin.so" ]; then
		plugin=$word word=$lib/plugins/nbdkit-$word-plugin.so
	fi ;;
	esac
	set -- "$@" "$word"
done
%s "$@"
`

// pythonStarter gives Python the path of its library.
const pythonStarter = `#!/bin/sh
export PYTHONHOME=%[1]s/usr PYTHONPATH=%[1]s/usr/lib/python3/dist-packages
%[2]s "$@"
`

// first is the path below work of the first file that matches one of the patterns.
func first(work string, patterns ...string) (string, error) {
	for _, p := range patterns {
		if found, _ := filepath.Glob(filepath.Join(work, p)); len(found) > 0 {
			return filepath.Rel(work, found[0])
		}
	}
	return "", fmt.Errorf("the packages have no %s", patterns[0])
}
