// A running guest. The test sends it a command at a time, over a serial line of its own, and the
// guest answers with a line. The other serial line is the console.
//
// Invariant: every wait has a limit. A guest that does not answer in time is killed, because a
// later answer could belong to any command; the goroutine that kills a guest waits for its process.

package kernel

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// config describes a guest.
type config struct {
	kernel    *kernelPackage
	Initramfs string // path
	Dir       string // for console.log and a socket
	Memory    int    // MiB
	// block devices of QEMU as JSON (qemu -blockdev), each of which becomes a virtio disk:
	// /dev/vda, /dev/vdb ...
	Disks  []string
	Append string // more words for the kernel's command line
}

// machine is a booted guest.
type machine struct {
	Boot time.Duration // from the start until it accepted commands

	config config
	cmd    *exec.Cmd
	stdin  io.Writer
	lines  chan string // lines from the guest; closed when qemu has ended
	gone   chan struct{}
	kill   sync.Once
}

// mark begins every line that is meant for the test; see testdata/init.sh.
const mark = "ringnbd-test: "

// startMachine boots a guest and waits until it accepts commands.
func startMachine(c config, limit time.Duration) (*machine, error) {
	qemu, err := find("qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	m := &machine{config: c, lines: make(chan string, 64), gone: make(chan struct{})}
	m.cmd = exec.Command(qemu, m.arguments()...)
	// The process group is for Kill; the death signal is for a test that is killed itself.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(c.Dir, "qemu.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	m.cmd.Stderr = log
	if m.stdin, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go m.listen(stdout)
	if err := m.AwaitReady(limit); err != nil {
		m.Kill()
		return nil, err
	}
	m.Boot = time.Since(start)
	return m, nil
}

func (m *machine) arguments() []string {
	c := m.config
	// No watchdogs, no stall warnings and no check of the timer, which panics: an emulated
	// processor on a busy machine may stand still for seconds.
	words := "console=ttyS0 quiet loglevel=4 panic=0 oops=panic nowatchdog no_timer_check " +
		"rcupdate.rcu_cpu_stall_suppress=1 mitigations=off nokaslr random.trust_cpu=on " + c.Append
	arguments := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m",
		strconv.Itoa(c.Memory) + "M",
		"-kernel", c.kernel.Image(), "-initrd", c.Initramfs, "-append", words,
		"-chardev", "file,id=console,append=on,path=" + m.console(), "-serial", "chardev:console",
		"-chardev", "stdio,id=test,signal=off", "-serial", "chardev:test",
		"-qmp", "unix:" + m.qmp() + ",server=on,wait=off",
		// 10.0.2.2 in the guest is 127.0.0.1 here.
		"-netdev", "user,id=net,ipv6=off", "-device", "virtio-net-pci,netdev=net,romfile=",
	}
	for i, disk := range c.Disks {
		arguments = append(arguments, "-blockdev", disk, "-device",
			fmt.Sprintf("virtio-blk-pci,drive=disk%d", i))
	}
	return arguments
}

func (m *machine) console() string { return filepath.Join(m.config.Dir, "console.log") }
func (m *machine) qmp() string     { return filepath.Join(m.config.Dir, "qmp.sock") }

// listen passes on lines from the guest until qemu ends.
func (m *machine) listen(stdout io.Reader) {
	r := bufio.NewReader(stdout)
	for {
		line, err := r.ReadString('\n')
		if _, said, ok := strings.Cut(strings.TrimRight(line, "\r\n"), mark); ok {
			m.lines <- said
		}
		if err != nil {
			break
		}
	}
	_ = m.cmd.Wait() // qemu.log and the console tell how it ended
	close(m.gone)
	close(m.lines)
}

// AwaitReady waits until a booting guest accepts commands. It drops the lines before that.
func (m *machine) AwaitReady(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		line, err := m.Receive(time.Until(deadline))
		if err != nil || line == "READY" {
			return err
		}
	}
}

// Check runs a script of testdata/ in the guest and returns the text of its result. If note is not
// nil it is called with the notes that the script prints before it ends. When the limit passes, the
// guest is killed.
func (m *machine) Check(limit time.Duration, note func(string), script string,
	arguments ...string) (string, error) {
	deadline := time.Now().Add(limit)
	if err := m.Send(script, arguments...); err != nil {
		return "", err
	}
	for {
		line, err := m.Receive(time.Until(deadline))
		if err != nil {
			return "", fmt.Errorf("%s %s: %w", script, strings.Join(arguments, " "), err)
		}
		verdict, said, _ := strings.Cut(line, " ")
		switch verdict {
		case "PASS":
			return said, nil
		case "FAIL":
			return "", fmt.Errorf("%s %s: %s\n%s", script, strings.Join(arguments, " "), said,
				m.Tail())
		case "NOTE":
			if note != nil {
				note(said)
			}
		case "READY":
			return "", fmt.Errorf("the guest booted again by itself\n%s", m.Tail())
		}
	}
}

// Send starts a script of testdata/ in the guest. Receive returns its answers.
func (m *machine) Send(script string, arguments ...string) error {
	if _, err := fmt.Fprintf(m.stdin, "%s %s\n", script, strings.Join(arguments, " ")); err != nil {
		return m.ended()
	}
	return nil
}

// Receive returns the next line from the guest. If none arrives in time, or the kernel of the guest
// has panicked, the guest is killed.
func (m *machine) Receive(limit time.Duration) (string, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		var why string
		select {
		case line, ok := <-m.lines:
			if !ok {
				return "", m.ended()
			}
			return line, nil
		case <-look.C:
			if !strings.Contains(tail(m.console(), 60), "Kernel panic") {
				continue
			}
			why = "the guest's kernel has panicked"
		case <-timer.C:
			why = "the guest did not answer in time and was killed"
		}
		end := m.Tail()
		m.Kill()
		return "", fmt.Errorf("%s\n%s", why, end)
	}
}

func (m *machine) ended() error { return fmt.Errorf("the guest has ended\n%s", m.Tail()) }

// Reset presses the reset button of the guest. It boots again, and the content of its memory is
// lost.
func (m *machine) Reset() error {
	conn, err := net.DialTimeout("unix", m.qmp(), 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	for _, command := range []string{"", "qmp_capabilities", "system_reset"} {
		if command != "" { // first comes a greeting
			if err := out.Encode(map[string]string{"execute": command}); err != nil {
				return err
			}
		}
		for {
			var answer map[string]json.RawMessage
			if err := in.Decode(&answer); err != nil {
				return err
			}
			if answer["error"] != nil {
				return fmt.Errorf("qemu: %s: %s", command, answer["error"])
			}
			if answer["QMP"] != nil || answer["return"] != nil { // other messages are events
				break
			}
		}
	}
	return nil
}

// AwaitOff waits until a guest has powered off.
func (m *machine) AwaitOff(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case <-m.gone:
			return nil
		case <-m.lines: // answers are not needed any more
		case <-timer.C:
			m.Kill()
			return fmt.Errorf("the guest did not power off within %s\n%s", limit, m.Tail())
		}
	}
}

// Kill ends qemu at once, like a loss of power, and waits for it. It may be called again.
func (m *machine) Kill() {
	m.kill.Do(func() {
		_ = syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		for range m.lines {                                   // until listen has waited for it
		}
	})
}

// Tail is the end of the console, and of qemu's own messages.
func (m *machine) Tail() string {
	text := "the end of the guest's console:\n" + tail(m.console(), 60)
	if said := tail(filepath.Join(m.config.Dir, "qemu.log"), 10); said != "" {
		text += "\nqemu said:\n" + said
	}
	return text
}

// Console is all output of the guest.
func (m *machine) Console() string {
	body, err := os.ReadFile(m.console())
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// tail returns the last lines of a file.
func tail(path string, lines int) string {
	body, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(strings.ReplaceAll(string(body), "\r", ""), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
