// Tests of the feature report.

package uring

import (
	"strings"
	"testing"
)

func TestFeaturesOfThisKernel(t *testing.T) {
	r := newRing(t, 8, 16)
	f := r.Features()
	t.Logf("\n%v", f)
	major, minor := parseRelease(f.Kernel)
	if major == 0 {
		t.Fatalf("no version in %q", f.Kernel)
	}
	for _, l := range f.lines() {
		sinceMajor, sinceMinor := parseRelease(l.since)
		if atLeast(major, minor, sinceMajor, sinceMinor) && !l.there &&
			l.name != "cooperative task work" {
			t.Errorf("%s came with Linux %s, but on %s it is not found", l.name, l.since, f.Kernel)
		}
	}
}

func TestFeatureReportHasALineForEach(t *testing.T) {
	f := Features{Kernel: "6.1.0-18-amd64", RegisteredRing: true, CoopTaskrun: true,
		SingleIssuer: true, DeferTaskrun: true, SendZC: true}
	text := f.String()
	for _, want := range []string{
		"io_uring of Linux 6.1.0-18-amd64\n",
		"\ndeferred task work: used, since Linux 6.1\n",
		"\nzero-copy send: there but not used, since Linux 6.1\n",
		"\nblock device discard: missing, comes with Linux 6.12\n",
		"\nidle without iowait: missing, comes with Linux 6.15",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if lines := strings.Count(text, "\n"); lines != len(f.lines()) {
		t.Errorf("%d lines after the first, want %d", lines, len(f.lines()))
	}
}

func TestParseRelease(t *testing.T) {
	for text, want := range map[string][2]int{"6.12.3-amd64": {6, 12}, "5.19-rc1": {5, 19},
		"6.18.44-fc-v669": {6, 18}, "7.0": {7, 0}, "10.2+": {10, 2},
		"": {0, 0}, "unknown": {0, 0}, "6": {6, 0}, "6.x": {6, 0}} {
		if major, minor := parseRelease(text); major != want[0] || minor != want[1] {
			t.Errorf("%q: %d.%d", text, major, minor)
		}
	}
}
