// The number can be compared, and the changelog knows it.

package version

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	if !regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+$`).MatchString(Number) {
		t.Errorf("%q is not MAJOR.MINOR.PATCH", Number)
	}
	if !strings.HasPrefix(Text(), Number+" (") || Revision() == "" {
		t.Errorf("%q, %q", Text(), Revision())
	}
}

// TestChangelog: its newest version is this one, and every version has a date.
func TestChangelog(t *testing.T) {
	text, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	heads := regexp.MustCompile(`(?m)^## .*$`).FindAllString(string(text), -1)
	if len(heads) == 0 || !strings.HasPrefix(heads[0], "## ["+Number+"] - ") {
		t.Errorf("the newest of %q is not %s", heads, Number)
	}
	form := regexp.MustCompile(`^## \[[0-9.]+\] - 20[0-9]{2}-[0-9]{2}-[0-9]{2}$`)
	for _, head := range heads {
		if !form.MatchString(head) {
			t.Errorf("%q is not ## [VERSION] - YYYY-MM-DD", head)
		}
	}
}
