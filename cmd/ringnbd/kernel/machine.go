// A running guest. The test gives it one command at a time, over a serial line of its own; it
// answers with one line. The other serial line is the console.
//
// Invariant: every wait has a limit; a guest that did not answer in time is killed, for nobody
// knows what it would answer to; whoever kills a guest waits for its process.

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

// Config is what a guest is made of.
type Config struct {
	Kernel    *Kernel
	Initramfs string // path
	Dir       string // for console.log and a socket
	Memory    int    // MiB
	// block devices of QEMU as JSON (qemu -blockdev), each of which becomes a virtio disk:
	// /dev/vda, /dev/vdb ...
	Disks  []string
	Append string // more words for the kernel's command line
}

// Machine is a guest that was booted.
type Machine struct {
	Boot time.Duration // from starting it until it took commands

	config Config
	cmd    *exec.Cmd
	stdin  io.Writer
	lines  chan string // what the guest says; closed when qemu has ended
	gone   chan struct{}
	kill   sync.Once
}

// mark opens every line that is meant for the test; see testdata/init.sh.
const mark = "ringnbd-test: "

// Start boots a guest and waits until it takes commands.
func Start(c Config, limit time.Duration) (*Machine, error) {
	qemu, err := find("qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	m := &Machine{config: c, lines: make(chan string, 64), gone: make(chan struct{})}
	m.cmd = exec.Command(qemu, m.arguments()...)
	// The group is for killing it; the death signal is for when the test itself is killed.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	said, err := os.Create(filepath.Join(c.Dir, "qemu.log"))
	if err != nil {
		return nil, err
	}
	defer said.Close()
	m.cmd.Stderr = said
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

func (m *Machine) arguments() []string {
	c := m.config
	// Neither watchdogs nor stall warnings: an emulated processor on a busy machine may stand still
	// for seconds.
	words := "console=ttyS0 quiet loglevel=4 panic=0 oops=panic nowatchdog " +
		"rcupdate.rcu_cpu_stall_suppress=1 mitigations=off nokaslr random.trust_cpu=on " + c.Append
	arguments := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m",
		strconv.Itoa(c.Memory) + "M",
		"-kernel", c.Kernel.Image(), "-initrd", c.Initramfs, "-append", words,
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

func (m *Machine) console() string { return filepath.Join(m.config.Dir, "console.log") }
func (m *Machine) qmp() string     { return filepath.Join(m.config.Dir, "qmp.sock") }

// listen passes on what the guest says until qemu ends.
func (m *Machine) listen(stdout io.Reader) {
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
	_ = m.cmd.Wait() // how it ended is told by qemu.log and by the console
	close(m.gone)
	close(m.lines)
}

// AwaitReady waits until a guest that boots takes commands. What it said before is dropped.
func (m *Machine) AwaitReady(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		line, err := m.Hear(time.Until(deadline))
		if err != nil || line == "READY" {
			return err
		}
	}
}

// Check runs a script of testdata/ in the guest and returns what it found worth telling. If note is
// not nil it is called with what the script says before it ends. A limit that passes kills the
// guest.
func (m *Machine) Check(limit time.Duration, note func(string), script string,
	arguments ...string) (string, error) {
	deadline := time.Now().Add(limit)
	if err := m.Say(script, arguments...); err != nil {
		return "", err
	}
	for {
		line, err := m.Hear(time.Until(deadline))
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

// Say starts a script of testdata/ in the guest. What it answers is to be heard.
func (m *Machine) Say(script string, arguments ...string) error {
	if _, err := fmt.Fprintf(m.stdin, "%s %s\n", script, strings.Join(arguments, " ")); err != nil {
		return m.ended()
	}
	return nil
}

// Hear returns the next line that the guest says. If there is none in time, or its kernel has
// panicked, the guest is killed.
func (m *Machine) Hear(limit time.Duration) (string, error) {
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

func (m *Machine) ended() error { return fmt.Errorf("the guest has ended\n%s", m.Tail()) }

// Reset presses the guest's reset button. It boots again; nothing that it had in memory is written.
func (m *Machine) Reset() error {
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
			if answer["QMP"] != nil || answer["return"] != nil { // anything else is an event
				break
			}
		}
	}
	return nil
}

// Off waits for a guest that was told to power off.
func (m *Machine) Off(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case <-m.gone:
			return nil
		case <-m.lines: // nobody asks any more
		case <-timer.C:
			m.Kill()
			return fmt.Errorf("the guest did not power off within %s\n%s", limit, m.Tail())
		}
	}
}

// Kill ends qemu at once, as if the power was cut, and waits for it. It may be called again.
func (m *Machine) Kill() {
	m.kill.Do(func() {
		_ = syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		for range m.lines {                                   // until listen has waited for it
		}
	})
}

// Tail is the end of the console, and of what qemu itself said.
func (m *Machine) Tail() string {
	text := "the end of the guest's console:\n" + tail(m.console(), 60)
	if said := tail(filepath.Join(m.config.Dir, "qemu.log"), 10); said != "" {
		text += "\nqemu said:\n" + said
	}
	return text
}

// Console is all that the guest printed.
func (m *Machine) Console() string {
	body, err := os.ReadFile(m.console())
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// tail is the last lines of a file.
func tail(path string, lines int) string {
	body, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(strings.ReplaceAll(string(body), "\r", ""), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
