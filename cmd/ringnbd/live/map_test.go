// Block status as clients use it: the map of an image agrees with what the file system says of the
// file, also while it is written to, and a map of many extents does not delay other clients.

package live_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/bench/measure"
)

// extent is one line of nbdinfo --map --json.
type extent struct {
	Offset, Length uint64
	Type           uint64
}

func mapOf(t *testing.T, uri string) []extent {
	t.Helper()
	var list []extent
	if err := json.Unmarshal([]byte(must(t, 2*time.Minute, "nbdinfo", "--map", "--json", uri)),
		&list); err != nil {
		t.Fatal(err)
	}
	return list
}

// dotted makes an image with n pieces of data of 4 KiB, evenly spread over size bytes, and gives
// their distance.
func dotted(t *testing.T, size uint64, n uint64) (path string, distance uint64) {
	t.Helper()
	path = sparseImage(t, int64(size))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	distance = size / n &^ 4095
	dot := []byte(strings.Repeat("dot.", 1024))
	for i := range n {
		if _, err := f.WriteAt(dot, int64(i*distance)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return path, distance
}

func TestMapAgreesWithTheFile(t *testing.T) {
	need(t, "nbdinfo")
	onlyRingnbd(t)
	const size = 6 << 30 // beyond what 32 bits count
	image, distance := dotted(t, size, 1000)
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const prepared = 5<<30 + 1<<20
	if err := unix.Fallocate(int(f.Fd()), 0, prepared, 1<<20); err != nil {
		t.Fatal(err)
	}
	s := serve(t, measure.Unix, image)
	var at, data, holes, zeroes uint64
	for _, e := range mapOf(t, s.uri("")) {
		if e.Offset != at || e.Length == 0 {
			t.Fatalf("an extent at %d of %d bytes follows one that ends at %d", e.Offset, e.Length,
				at)
		}
		at += e.Length
		switch e.Type {
		case 0:
			if e.Offset%distance != 0 || e.Length != 4096 {
				t.Errorf("data at %d, %d bytes, where none was written", e.Offset, e.Length)
			}
			data++
		case 2:
			zeroes += e.Length
		case 3:
			holes++
		default:
			t.Errorf("status %d at %d", e.Type, e.Offset)
		}
	}
	if at != size || data != 1000 || holes < 1000 || zeroes == 0 || zeroes > 1<<20 {
		t.Errorf("%d bytes, %d pieces of data, %d holes, %d bytes that are allocated and zero", at,
			data, holes, zeroes)
	}
}

// Many extents: the map is drawn in reasonable time, complete and correct, and the reads of another
// connection go on meanwhile: the map is drawn again and again until there were 5,000 reads, which
// would never be reached if reads waited for the map. Their latency is for a benchmark.
func TestMapOfManyExtents(t *testing.T) {
	need(t, "nbdinfo")
	onlyRingnbd(t)
	if testing.Short() {
		t.Skip("130,000 extents take ten seconds (not with -short)")
	}
	// 42,000 extents for each request of 4 GiB, as 100 GiB with a million have. The most part of
	// the time goes to their end: a file system that discards does so for each of them.
	const size, dots = 12800 << 20, 1 << 16
	image, distance := dotted(t, size, dots)
	s := serve(t, measure.Unix, image)
	load, list := make(chan string, 1), []extent(nil)
	go func() {
		out, err := try(t, time.Minute, ringnbd, "bench", "--pattern", "randread", "--depth", "1",
			"--count", "5000", "--json", s.uri(""))
		if err != nil {
			out = "failed: " + err.Error() + out
		}
		load <- out
	}()
	out := ""
	for out == "" {
		list = mapOf(t, s.uri(""))
		select {
		case out = <-load:
		default:
		}
	}
	if strings.HasPrefix(out, "failed") || !strings.Contains(out, `"requests`) {
		t.Errorf("reads beside the map: %.400s", out)
	}
	if len(list) != 2*dots {
		t.Fatalf("%d extents, want %d", len(list), 2*dots)
	}
	for i, e := range list {
		if i%2 == 0 && (e.Offset != uint64(i/2)*distance || e.Length != 4096 || e.Type != 0) ||
			i%2 == 1 && e.Type != 3 {
			t.Fatalf("extent %d is %+v", i, e)
		}
	}
}

// What has just been written is never said to be zero, however often it was zeroed before.
func TestMapIsTrueAfterEveryWrite(t *testing.T) {
	onlyRingnbd(t)
	onSparse(t, "truestatus.py", 64<<20)
}

func TestStructuredReadsAndErrors(t *testing.T) {
	onlyRingnbd(t)
	onSparse(t, "structured.py", 64<<20)
}

// A client that starts its own server, and systemd, hand it a socket.
func TestServerOnAnInheritedSocket(t *testing.T) {
	need(t, "nbdinfo")
	onlyRingnbd(t)
	image := sparseImage(t, 1<<20)
	// behind what the server logs
	if out := must(t, time.Minute, "nbdinfo", "--size", "[", ringnbd, "serve", image,
		"]"); !strings.HasSuffix(out, fmt.Sprintln(1<<20)) {
		t.Errorf("nbdinfo --size [ ringnbd serve IMAGE ] printed %q", out)
	}
	out, err := try(t, time.Minute, "sh", "-c",
		`LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve null:1M 3< /dev/null`, ringnbd)
	if err == nil ||
		!strings.Contains(out, "socket 1 of LISTEN_FDS is not a listening stream socket") {
		t.Errorf("a file as a socket: %v, %q", err, out)
	}
	for words, number := range map[string]string{
		"must be a number of sockets, up to 1024": "100000",
		"socket 1 of LISTEN_FDS":                  "20",
	} {
		out, err := try(t, time.Minute, "sh", "-c",
			`LISTEN_PID=$$ LISTEN_FDS=`+number+` exec "$0" serve null:1M`, ringnbd)
		if err == nil || !strings.Contains(out, words) {
			t.Errorf("%s sockets that are not there: %v, %q", number, err, out)
		}
	}
}
