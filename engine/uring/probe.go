// What this kernel's io_uring can do: found out by the probe of operations and the FEAT bits; the
// version counts only where the kernel reports nothing better.

package uring

import (
	"strconv"
	"strings"

	"github.com/pawelgaczynski/giouring"
	"golang.org/x/sys/unix"
)

// Constants newer than giouring (its list ends with Linux 6.1).
const (
	featMinTimeout = 1 << 15
	featNoIOWait   = 1 << 17

	enterNoIOWait = 1 << 7
)

// Features is what a ring found in its kernel. Each field says that the feature is there; String
// says which features are used.
type Features struct {
	Kernel string // release, as uname -r says it

	RegisteredRing bool // 5.18: enter by a registered descriptor
	CoopTaskrun    bool // 5.19: no interrupt to run completions
	SingleIssuer   bool // 6.0: one thread submits, no lock
	DeferTaskrun   bool // 6.1: completions run inside Enter only
	SendZC         bool // 6.1: SENDMSG_ZC
	MinWait        bool // 6.12: wait a minimum time for a batch
	Discard        bool // 6.12: BLOCK_URING_CMD_DISCARD
	NoIOWait       bool // 6.15: an idle loop does not count as waiting for I/O

	Missing []string // names of the missing features, with the version that brings each
}

// Features returns what was found when the ring was opened.
func (r *Ring) Features() Features { return r.found }

// probe asks the kernel. Open calls it once.
func (r *Ring) probe() Features {
	f := Features{
		Kernel:         release(),
		RegisteredRing: r.slot != slotNone,
		SingleIssuer:   r.setup&giouring.SetupSingleIssuer != 0,
		DeferTaskrun:   r.setup&giouring.SetupDeferTaskrun != 0,
		CoopTaskrun:    true, // even the last set of flags has it
		MinWait:        r.features&featMinTimeout != 0,
		NoIOWait:       r.features&featNoIOWait != 0,
	}
	// An error leaves the probe empty: then nothing is claimed.
	operations := new(giouring.Probe)
	_, _ = r.inner.RegisterProbe(operations, len(operations.Ops))
	f.SendZC = operations.IsSupported(giouring.OpSendMsgZC)
	// No bit reports a block device's commands. A vendor kernel may carry a newer io_uring on an
	// older block layer, so both must be new; a caller falls back to fallocate when a discard
	// completes with EINVAL or EOPNOTSUPP.
	major, minor := parseRelease(f.Kernel)
	f.Discard = operations.IsSupported(opCommand) && f.MinWait && atLeast(major, minor, 6, 12)
	for _, l := range f.lines() {
		if !l.there {
			f.Missing = append(f.Missing, l.name+" (Linux "+l.since+")")
		}
	}
	return f
}

// line is a feature as the user sees it.
type line struct {
	name, since string
	there, used bool // used says that ringnbd uses the feature where it is there
}

func (f *Features) lines() []line {
	return []line{
		{"registered ring descriptor", "5.18", f.RegisteredRing, true},
		{"cooperative task work", "5.19", f.CoopTaskrun, !f.DeferTaskrun},
		{"single issuer", "6.0", f.SingleIssuer, true},
		{"deferred task work", "6.1", f.DeferTaskrun, true},
		{"zero-copy send", "6.1", f.SendZC, false},
		{"minimum wait", "6.12", f.MinWait, false},
		{"block device discard", "6.12", f.Discard, true},
		{"idle without iowait", "6.15", f.NoIOWait, true},
	}
}

// String returns a line for the kernel and a line for each feature: used, there but not used, or
// missing, and the version of Linux that brought it.
func (f Features) String() string {
	var b strings.Builder
	b.WriteString("io_uring of Linux " + f.Kernel)
	for _, l := range f.lines() {
		state := "missing, comes with"
		if l.there && l.used {
			state = "used, since"
		} else if l.there {
			state = "there but not used, since"
		}
		b.WriteString("\n" + l.name + ": " + state + " Linux " + l.since)
	}
	return b.String()
}

// release returns the kernel's release, as uname -r does.
func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// parseRelease reads the first two numbers of a release like "6.12.3-amd64" or "5.19-rc1"; 0, 0 if
// there are none.
func parseRelease(s string) (major, minor int) {
	first, rest, _ := strings.Cut(s, ".")
	end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0
	}
	minor, err = strconv.Atoi(rest)
	if err != nil {
		return major, 0
	}
	return major, minor
}

func atLeast(major, minor, wantMajor, wantMinor int) bool {
	return major > wantMajor || major == wantMajor && minor >= wantMinor
}
