// Package version knows which ringnbd this is: a number that can be compared, and the revision of
// the source that it was built from.
//
// Invariant: the number is in this file alone, and CHANGELOG.md has a section for it.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Number is the version, as in https://semver.org. It is raised in the commit that gives
// CHANGELOG.md the section of the version.
const Number = "0.10.0"

// revision is set by the linker (see the Makefile); a plain go build leaves it to the build
// information.
var revision string

// Revision is the revision of the source in git, with "-dirty" if files were changed; "unknown" if
// the build was not told.
func Revision() string {
	if revision != "" {
		return revision
	}
	commit, changed := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = s.Value[:min(len(s.Value), 7)]
			case s.Key == "vcs.modified" && s.Value == "true":
				changed = "-dirty"
			}
		}
	}
	return commit + changed
}

// Text is the version, the revision, the compiler and the platform: what a bug report needs.
func Text() string {
	return fmt.Sprintf("%s (%s, %s, %s/%s)", Number, Revision(), runtime.Version(), runtime.GOOS,
		runtime.GOARCH)
}
