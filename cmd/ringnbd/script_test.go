// The command line as a user meets it: each script in testdata/script is one behaviour, run against
// the real program.
//
// Invariant: scripts use Unix sockets or free ports, so that they run at the same time as
// each other and as a server of the machine.

package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// patience is how long a script waits for something to happen, on a machine that is busy.
const patience = time.Minute

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ringnbd": main, "confine": confine})
}

func TestScripts(t *testing.T) {
	// Who runs the tests may have ignored SIGHUP (nohup), and programs that are started would
	// inherit that. Of a signal that is listened to they inherit nothing.
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(heard) })
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":    cmdStatus,
			"await":     cmdAwait,
			"terminate": cmdTerminate,
			"signal":    cmdSignal,
			"freeport":  cmdFreePort,
			"occupy":    cmdOccupy,
			"stall":     cmdStall,
			"datagrams": cmdDatagrams,
			"fetch":     cmdFetch,
			"profiled":  cmdProfiled,
		},
		Condition: func(condition string) (bool, error) {
			if condition == "fuse" { // file systems of one's own can be mounted
				f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
				if err == nil {
					f.Close()
				}
				return err == nil && os.Getuid() == 0, nil
			}
			return false, errors.New("unknown condition " + condition)
		},
	})
}

// withoutWaits leaves out what a server says of a start that takes long, as it may on a machine
// that is busy.
func withoutWaits(text string) string {
	rest := ""
	for line := range strings.Lines(text) {
		if !strings.Contains(line, `msg="the start takes long"`) {
			rest += line
		}
	}
	return rest
}

// cmdStatus runs a command that must end with the given status: status N command [argument...]. A
// failure must be told in one line that begins with the program's name.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command [argument...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
	text := withoutWaits(ts.ReadFile("stderr"))
	if want != 0 && (strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "ringnbd: ")) {
		ts.Fatalf("want one line that begins with the program's name on stderr, got %q", text)
	}
}

// cmdAwait waits until a file holds a match: await FILE REGEXP.
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await file regexp")
	}
	pattern := regexp.MustCompile("(?m)" + args[1])
	var text []byte
	deadline := time.Now().Add(patience)
	for ; time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, _ = os.ReadFile(ts.MkAbs(args[0]))
		if pattern.Match(text) {
			return
		}
		for _, c := range ts.BackgroundCmds() {
			// testscript waits for it in a goroutine of its own
			if err := c.Process.Signal(syscall.Signal(0)); err != nil {
				ts.Fatalf("%s ended (%v) before %s held %s:\n%s", c.Args, err, args[0], args[1],
					text)
			}
		}
	}
	ts.Fatalf("%s does not hold %s after %v:\n%s", args[0], args[1], patience, text)
}

// cmdTerminate sends SIGTERM to the command that was started last in the background.
func cmdTerminate(ts *testscript.TestScript, _ bool, _ []string) {
	all := ts.BackgroundCmds()
	ts.Check(all[len(all)-1].Process.Signal(syscall.SIGTERM))
}

// cmdSignal sends a signal to the command that was started last in the background: signal NAME.
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	all := ts.BackgroundCmds()
	number := unix.SignalNum("SIG" + args[0])
	if number == 0 {
		ts.Fatalf("no signal %s", args[0])
	}
	ts.Check(all[len(all)-1].Process.Signal(number))
}

// cmdFreePort sets a variable to an unused TCP port: freeport NAME.
func cmdFreePort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "localhost:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], port)
}

// cmdOccupy listens on a port or a Unix socket until the script ends: occupy VARIABLE, or occupy
// unix:PATH.
func cmdOccupy(ts *testscript.TestScript, _ bool, args []string) {
	network, address := "tcp", "localhost:0"
	if path, ok := strings.CutPrefix(args[0], "unix:"); ok {
		network, address = "unix", ts.MkAbs(path)
	}
	l, err := net.Listen(network, address)
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	if network == "tcp" {
		_, port, err := net.SplitHostPort(l.Addr().String())
		ts.Check(err)
		ts.Setenv(args[0], port)
	}
}

// cmdStall connects to a Unix socket and asks for more than it will ever read, so that the server
// has requests in flight that it cannot finish.
func cmdStall(ts *testscript.TestScript, _ bool, args []string) {
	c, err := net.Dial("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { c.Close() })
	banner := make([]byte, 18)
	_, err = io.ReadFull(c, banner)
	ts.Check(err)
	const fixedNoZeroes, exportName = 3, 1
	hello := binary.BigEndian.AppendUint32(nil, fixedNoZeroes)
	hello = append(hello, "IHAVEOPT"...)
	hello = binary.BigEndian.AppendUint32(hello, exportName)
	hello = binary.BigEndian.AppendUint32(hello, 0)
	for cookie := range uint64(64) {
		hello = append(hello, 0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0) // READ
		hello = binary.BigEndian.AppendUint64(hello, cookie)
		hello = binary.BigEndian.AppendUint64(hello, 0)
		hello = binary.BigEndian.AppendUint32(hello, 1<<20)
	}
	_, err = c.Write(hello)
	ts.Check(err)
	// size, flags, and the head of the first reply: from here on the server is stuck with us
	reply := make([]byte, 10+16)
	_, err = io.ReadFull(c, reply)
	ts.Check(err)
}

// cmdDatagrams receives what is sent to a Unix datagram socket and writes each one as a line to a
// file: datagrams SOCKET FILE.
func cmdDatagrams(ts *testscript.TestScript, _ bool, args []string) {
	c, err := net.ListenUnixgram("unixgram",
		&net.UnixAddr{Name: ts.MkAbs(args[0]), Net: "unixgram"})
	ts.Check(err)
	out, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer out.Close()
		text := make([]byte, 4096)
		for {
			n, err := c.Read(text)
			if err != nil {
				return
			}
			_, _ = out.Write(append(text[:n:n], '\n'))
		}
	}()
	ts.Defer(func() { c.Close(); <-done })
}
