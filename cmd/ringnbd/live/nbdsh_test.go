// libnbd from Python: one script of testdata for each behaviour. Python is
// Debian's, because libnbd's module belongs to it; RINGNBD_LIVE_PYTHON names
// another.

package live_test

import (
	"cmp"
	"os"
	"testing"
	"time"

	"ringnbd/bench/measure"
)

var python = cmp.Or(os.Getenv("RINGNBD_LIVE_PYTHON"), "/usr/bin/python3")

// script runs testdata/NAME with a server's URI and its image.
func script(t *testing.T, name, uri, image string) {
	t.Helper()
	if _, err := try(t, time.Minute, python, "-c", "import nbd"); err != nil {
		t.Skip("no Python module nbd (Debian package python3-libnbd)")
	}
	if out, err := try(t, 2*time.Minute, python, "-B", absolute(t, "testdata/"+name), uri,
		image); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}

// onSparse runs a script against a fresh sparse image.
func onSparse(t *testing.T, name string, size int64) {
	t.Helper()
	image := sparseImage(t, size)
	s := serve(t, measure.Unix, image)
	script(t, name, s.uri(""), image)
}

// onlyOurs is onSparse for what the protocol leaves to the server.
func onlyOurs(t *testing.T, name string, size int64) {
	t.Helper()
	onlyRingnbd(t)
	onSparse(t, name, size)
}

func TestRequestsBeyondTheEndAreRefused(t *testing.T)   { onSparse(t, "range.py", 16<<20) }
func TestAnyOffsetAndLengthIsServed(t *testing.T)       { onSparse(t, "unaligned.py", 16<<20) }
func TestFUAAndFlushReachTheImage(t *testing.T)         { onSparse(t, "durable.py", 16<<20) }
func TestWriteZeroesWithEveryFlag(t *testing.T)         { onSparse(t, "zero.py", 16<<20) }
func TestTrimStaysInItsRange(t *testing.T)              { onSparse(t, "trim.py", 16<<20) }
func TestRequestsUpTo64MiB(t *testing.T)                { onSparse(t, "large.py", 128<<20) }
func TestReplyOvertakesASlowOne(t *testing.T)           { onSparse(t, "outoforder.py", 4<<30) }
func TestLeavingWithRequestsInFlight(t *testing.T)      { onSparse(t, "pending.py", 64<<20) }
func TestRequestsOfNoBytesSucceed(t *testing.T)         { onlyOurs(t, "zerolength.py", 16<<20) }
func TestUnadvertisedCommandsAreRefused(t *testing.T)   { onlyOurs(t, "unadvertised.py", 16<<20) }
func TestNegotiationOfLibnbdAndOldClients(t *testing.T) { onlyOurs(t, "options.py", 16<<20) }

func TestReadOnlyExportRefusesEveryChange(t *testing.T) {
	onlyRingnbd(t)
	image := randomImage(t, 16<<20, 1)
	s := serve(t, measure.Unix, image, "--read-only")
	script(t, "readonly.py", s.uri(""), image)
	sameFiles(t, image, randomImage(t, 16<<20, 1))
}
