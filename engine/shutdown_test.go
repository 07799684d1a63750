// What a shutdown flushes, and that nothing is written to a descriptor that has been given back.

package engine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A question that is on its way when the engine closes: its wake-up must not go to whatever has the
// eventfd's number by then.
func TestCloseWaitsForWhoWakesALoop(t *testing.T) {
	c := Config{Loops: 1, MaxConnections: 1}
	c.Memory = MinMemory(c)
	e, err := Start(c, []Export{nullExport()})
	if err != nil {
		t.Fatal(err)
	}
	l, fd := e.shared.loops[0], e.wakes[0]
	wake, entered, release := l.wake, make(chan struct{}), make(chan struct{})
	first := true
	l.wake = func() { // called under the engine's lock: once by Counters, then by Close
		if first {
			first = false
			close(entered)
			<-release
			if link, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); !strings.Contains(link,
				"eventfd") {
				t.Errorf("the loop is woken through %q", link)
			}
		}
		wake()
	}
	asked := make(chan struct{})
	go func() {
		e.Counters()
		close(asked)
	}()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- e.Close() }()
	select {
	case <-closed:
		t.Error("closed while a caller wakes a loop")
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	<-asked
	<-closed
	if _, ok := e.Counters(); ok {
		t.Error("counters of a closed engine")
	}
}

func nullExport() Export {
	x := Export{Device: &Device{Kind: Null, FD: -1, Size: 1 << 20, Block: 1}}
	x.Size = 1 << 20
	return x
}

// A pipe cannot be flushed: fdatasync says EINVAL, which stands for a disk's error.
func TestDrainNamesWhatWasNotFlushed(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	export := func(name string, fd int, written bool) Export {
		x := Export{Name: name, Device: &Device{Kind: File, FD: fd, Size: 1 << 20, Block: 1}}
		x.Device.written.Store(written)
		return x
	}
	served := []Export{export("good", int(file.Fd()), true), export("bad", pipe[0], true),
		export("untouched", pipe[0], false), export("", pipe[1], true)}
	e := &Engine{shared: newShared(served, 1, 0)}
	text := ""
	if err := e.flushAll(time.Minute); err != nil {
		text = err.Error()
	}
	want := "export \"bad\" was not flushed (invalid argument): data that clients wrote may be " +
		"lost\n" +
		"the default export was not flushed (invalid argument): data that clients wrote may be lost"
	if text != want {
		t.Errorf("%s\nwant\n%s", text, want)
	}
	for range 2 * maxNames {
		served = append(served, export("more", pipe[0], true))
	}
	e.shared = newShared(served, 1, 0)
	if err := e.flushAll(time.Minute); strings.Count(err.Error(), "\n") != maxNames ||
		!strings.HasSuffix(err.Error(), "nor were 12 more exports") {
		t.Errorf("many: %v", err)
	}
}

// TestDrainFlushesADeviceOnce: two exports have the device, and both are named.
func TestDrainFlushesADeviceOnce(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	d := &Device{Kind: File, FD: pipe[0], Size: 1 << 20, Block: 1}
	d.written.Store(true)
	e := &Engine{shared: newShared([]Export{{Name: "a", Device: d}, nullExport(),
		{Name: "b", Device: d}}, 1, 0)}
	if dirty := e.shared.table.dirty(); len(dirty) != 1 || dirty[0] != d {
		t.Errorf("%d devices are flushed", len(dirty))
	}
	err := e.flushAll(time.Minute)
	if err == nil || strings.Count(err.Error(), "was not flushed") != 2 {
		t.Errorf("of two exports whose device was not flushed: %v", err)
	}
}
