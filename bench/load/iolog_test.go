// Reading traces: those that fio writes, and broken ones.

package load

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// traceFile writes a trace and returns its path.
func traceFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// traceOf are options that replay a trace.
func traceOf(path, file string) *Options {
	return &Options{Prefix: "--", Replay: Replay{Path: path, File: file}}
}

func read(t *testing.T, text, want string) (*trace, error) {
	t.Helper()
	return readTrace(t.Context(), traceOf(traceFile(t, text), want), func(Progress) {})
}

// entries is a trace as a list.
func (t *trace) entries() (list []entry) {
	for i := range t.n {
		list = append(list, t.at(i))
	}
	return list
}

const us = 1000

func TestTraceVersions(t *testing.T) {
	want := []entry{{0, 4096, 512, kindRead}, {0, 0, 8192, kindWrite}, {150 * us, 0, 0, kindFlush},
		{150 * us, 0, 0, kindFlush}, {350 * us, 1 << 40, 1 << 31, kindTrim},
		{350 * us, 0, 4096, kindZero}}
	for name, text := range map[string]string{
		"2": "fio version 2 iolog\n/d add\n/d open\n/d wait 700 0\n/d read 4096 512\n/d write 0 " +
			"8192\n/d wait 99 0\n/d wait 150 0\n/d sync 0 0\n" +
			"/d datasync 4096 17\n/d wait 200 0\n/d trim 1099511627776 2147483648\n/d " +
			"write_zeroes 0 4096\n/d close\n",
		"3": "fio version 3 iolog\n1 /d add\n2 /d open\n700 /d read 4096 512\n700 /d write 0 " +
			"8192\n850 /d sync 4096 0\n850 /d datasync 4096 17\n" +
			"1050 /d trim 1099511627776 2147483648\n1050 /d write_zeroes 0 4096\n1100 /d close\n",
		"3, of Windows, without an end": "fio version 3 iolog\r\n\r\n700 /d read 4096 " +
			"512\r\n700 /d\twrite 0  8192\r\n850 /d sync 4096 0\r\n850 /d syncfs 4096 17\r\n" +
			"1050 /d trim 1099511627776 2147483648\r\n1050 /d write_zeroes 0 4096",
		"3, with times that go back": "fio version 3 iolog\n700 /d read 4096 512\n600 /d write " +
			"0 8192\n850 /d sync 4096 0\n0 /d sync 4096 17\n" +
			"1050 /d trim 1099511627776 2147483648\n1049 /d write_zeroes 0 4096\n",
	} {
		tr, err := read(t, text, "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := tr.entries(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		if tr.name != "/d" || tr.unit != 512 || tr.smallest != 512 || tr.largest != 8192 ||
			tr.end != 1<<40+1<<31 || tr.lasts() != 350*time.Microsecond {
			t.Errorf("%s: %+v", name, tr)
		}
	}
}

func TestTracesOfNobody(t *testing.T) {
	const three = "fio version 3 iolog\n"
	for text, words := range map[string]string{
		"":               "empty",
		"0, 4096, 512\n": `the first line must be "fio version 3 iolog"`,

		"fio version 4 iolog\n":                             "the first line must be",
		"fio version 2 iolog":                               "not one request",
		three + "0 d add\n0 d open\n":                       "not one request",
		three + "0 d read 0\n":                              "line 2: not TIME NAME ACTION",
		three + "0 d read 0 512 1\n":                        "line 2: not TIME",
		three + "0 d read 0 512 1 2 3 4 5\n":                "line 2: not TIME",
		"fio version 2 iolog\n0 d read 0 512\n":             "line 2: not NAME ACTION",
		three + "0\n":                                       "line 2: nothing but a time",
		three + "0 d read\n":                                "read needs an offset",
		three + "0 d explode\n":                             `no action "explode"`,
		three + "0 d explode 0 0\n":                         `no action "explode"; there are read`,
		three + "\n\n0 d read x 512\n":                      `line 4: "x" is not an offset`,
		three + "0 d read -1 512\n":                         `"-1" is not an offset`,
		three + "0 d read 0 +1\n":                           `"+1" is not a length`,
		three + "0 d read 18446744073709551616 1":           "is not an offset",
		three + "0 d read 0 0\n":                            "a read of 0 bytes",
		three + "0 d write 0 67108865\n":                    "at most 67108864",
		three + "0 d trim 0 4294967296\n":                   "at most 4294967295",
		three + "0 d trim 9223372036854775807 1":            "no export is that large",
		three + "x d read 0 512\n":                          `"x" is not a time`,
		three + "0.5 d read 0 512\n":                        `"0.5" is not a time`,
		three + "9999999999999999 d read 0 1\n":             "is not a time",
		three + "0 d wait 100 0\n":                          "wait does not go with version 3",
		"fio version 2 iolog\nd wait 1\n":                   "not NAME ACTION",
		"fio version 2 iolog\nd wait 10000000000000000 1\n": "a wait of",
		three + "0 d read 0 512\n" + three:                  "line 3: a second header",
		three + "0 a read 0 512\n0 b write 0 512\n":         "--replay-file: a, b",
		three + strings.Repeat("x", 1<<17):                  "line 2: longer than 65536 bytes",
		strings.Repeat("\x00\xff\n", 100):                   "the first line must be",
		three + "0 \x00 \xff 0 1\n":                         `no action "\xff"`,
	} {
		tr, err := read(t, text, "")
		if err == nil || !strings.Contains(err.Error(), words) ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("%.60q: %v, %v; want %q", text, tr, err, words)
		}
	}
	if _, err := readTrace(t.Context(), traceOf("/nowhere", ""), func(Progress) {}); err == nil ||
		!strings.Contains(err.Error(), "--replay: open /nowhere: no such file") {
		t.Error(err)
	}
	if _, err := readTrace(t.Context(), traceOf("/", ""), func(Progress) {}); err == nil ||
		!strings.Contains(err.Error(), "is a directory") {
		t.Error(err)
	}
}

func TestOneOfSeveralFiles(t *testing.T) {
	const text = "fio version 3 iolog\n0 a add\n0 b add\n0 c add\n5 a read 0 512\n7 b write " +
		"1024 512\n9 a sync 0 0\n11 b read 0 1024\n"
	tr, err := read(t, text, "b")
	if err != nil ||
		fmt.Sprint(tr.entries()) != fmt.Sprint([]entry{{0, 1024, 512, kindWrite},
			{4 * us, 0, 1024, kindRead}}) || tr.first[kindRead] != 8 {
		t.Errorf("%+v, %v", tr, err)
	}
	if _, err = read(t, text, "c"); err == nil ||
		!strings.Contains(err.Error(), "no requests to --replay-file c; there are some to a, b") {
		t.Error(err)
	}
	var many strings.Builder
	many.WriteString("fio version 3 iolog\n")
	for i := range 1000 {
		fmt.Fprintf(&many, "0 file%d read 0 512\n", i)
	}
	if _, err = read(t, many.String(), ""); err == nil ||
		!strings.Contains(err.Error(),
			"file0, file1, file2, file3, file4, file5, file6, file7, and more") {
		t.Error(err)
	}
}

func TestTraceNamesTheLine(t *testing.T) {
	tr, err := read(t, "fio version 2 iolog\nd sync 1 1\nd read 8192 4096\nd write 4096 8192\nd "+
		"trim 65536 2048\nd read 512 512\nd read 0 3\nd read 0 4096\n", "")
	if err != nil {
		t.Fatal(err)
	}
	for power, line := range map[uint64]int{1: 0, 2: 7, 512: 7, 1024: 6, 2048: 6, 4096: 5, 8192: 3,
		65536: 3} {
		if got := tr.misaligned(power); got != line {
			t.Errorf("the first that is not a multiple of %d is in line %d, want %d", power, got,
				line)
		}
	}
	if tr.widest != 4 || tr.farthest != 5 || tr.first[kindRead] != 3 || tr.unit != 1 {
		t.Errorf("%+v", tr)
	}
}

// Reading takes memory for the table, and nothing per line.
func TestBigTrace(t *testing.T) {
	const lines = 300000
	path := filepath.Join(t.TempDir(), "trace")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(f, "fio version 3 iolog")
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, "%d /dev/some/disk read %d 4096\n", i*10, uint64(i)*4096)
	}
	if _, err = f.WriteString(text.String()); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	shows := 0
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tr, err := readTrace(t.Context(), traceOf(path, ""), func(p Progress) {
		if shows++; p.Share <= 0 || p.Share > 1 ||
			!strings.HasPrefix(p.Phase, "reading the trace") {
			t.Errorf("%+v", p)
		}
	})
	runtime.ReadMemStats(&after)
	if err != nil || tr.n != lines ||
		tr.at(lines-1) != (entry{(lines - 1) * 10 * us, (lines - 1) * 4096, 4096, kindRead}) {
		t.Fatalf("%v", err)
	}
	if shows == 0 {
		t.Error("no progress was shown")
	}
	if n := after.Mallocs - before.Mallocs; n > 200 {
		t.Errorf("%d allocations", n)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > (lines+pieceSize)*22+(1<<18) {
		t.Errorf("%d bytes for %d lines", n, lines)
	}
}

// Also when the trace is a pipe without a writer, or has opened at all.
func TestReadingIsInterrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	interrupted := func(words string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer time.AfterFunc(50*time.Millisecond, cancel).Stop()
		if _, err := readTrace(ctx, traceOf(path, ""), func(Progress) {}); err == nil ||
			!strings.Contains(err.Error(), words) {
			t.Error(err)
		}
	}
	interrupted("interrupted while opening the trace")
	w, err := os.OpenFile(path, os.O_RDWR, 0) // wakes the reader that waits in open
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	interrupted("interrupted while reading the trace")
}

// A trace of the fio that is installed.
func TestFioWritesWhatWeRead(t *testing.T) {
	fio, err := exec.LookPath("fio")
	if err != nil {
		t.Skip("fio is not installed")
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "trace")
	cmd := exec.Command(fio, "--name=a", "--filename="+filepath.Join(folder, "d.img"),
		"--rw=randrw", "--bsrange=4k-16k", "--size=1M", "--number_ios=100",
		"--ioengine=psync", "--fsync=10", "--thinktime=2ms", "--thinktime_blocks=50",
		"--write_iolog="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tr, err := readTrace(t.Context(), traceOf(path, ""), func(Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	if tr.n < 100 || tr.first[kindRead] == 0 || tr.first[kindWrite] == 0 ||
		tr.first[kindFlush] == 0 ||
		tr.end > 1<<20 || tr.largest > 16384 || tr.unit != 4096 {
		t.Errorf("%+v", tr)
	}
	// One pause of 2 ms at least, and no hour: that the times are microseconds is what this shows.
	if d := tr.lasts(); d < 2*time.Millisecond || d > 20*time.Second {
		t.Errorf("the trace lasts %v", d)
	}
}
