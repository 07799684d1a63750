// What the kernel did while a server's threads were in it, by sampling with perf (Debian package
// linux-perf, root only).
//
// Invariant: without perf, or when it fails, the profile stays as Go's own, which knows only the
// system calls.

package profile

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ringnbd/bench/measure"
)

// perfRate is samples per second of CPU time; a prime, so that it does not fall into step with
// timers.
const perfRate = "499"

// perfGrace is what recording and printing may take on top of the recorded time.
const perfGrace = 20 * time.Second

// findPerf is the path of perf, or "" when it is missing or cannot be used.
func findPerf() string {
	path, err := exec.LookPath("perf")
	if err != nil || os.Geteuid() != 0 {
		return ""
	}
	return path
}

// kernelSplit counts samples by what the kernel did; its own threads that work for the server are
// workers.
type kernelSplit struct {
	all     int // of the server's own threads, in the kernel or not
	kernel  map[string]int
	workers int
}

// recordKernel samples a process for some seconds. The machines that this runs on have no hardware
// counters, so the sampling is by the CPU clock.
func recordKernel(ctx context.Context, perf string, pid, seconds int) (kernelSplit, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+perfGrace)
	defer cancel()
	dir, err := os.MkdirTemp("", "ringnbd-perf-")
	if err != nil {
		return kernelSplit{}, err
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "data")
	if _, err := runPerf(ctx, perf, "record", "-q", "-e", "cpu-clock", "-F", perfRate, "-g",
		"--kernel-callchains",
		"-p", strconv.Itoa(pid), "-o", data, "--", "sleep", strconv.Itoa(seconds)); err != nil {
		return kernelSplit{}, err
	}
	text, err := runPerf(ctx, perf, "script", "--no-inline", "-i", data, "-F", "comm,ip,sym")
	if err != nil {
		return kernelSplit{}, err
	}
	split := parsePerf(text)
	if split.all == 0 {
		return kernelSplit{}, fmt.Errorf("%s: no samples", perf)
	}
	return split, nil
}

func runPerf(ctx context.Context, perf string, arguments ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, perf, arguments...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the bench
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("perf %s: %w: %s", arguments[0], err,
			measure.LastLines(stderr.String(), 3))
	}
	return out, nil
}

// parsePerf reads what perf script printed: of every sample a line with the thread's name, and then
// its stack, the leaf first, a line "address symbol" each.
func parsePerf(text []byte) kernelSplit {
	split := kernelSplit{kernel: map[string]int{}}
	var comm string
	var stack []string
	leaf := uint64(0)
	end := func() {
		switch {
		case comm == "":
		case strings.HasPrefix(comm, "iou-"):
			split.workers++
		default:
			split.all++
			if int64(leaf) < 0 { // the upper half of the addresses is the kernel's
				split.kernel[kernelWork(stack)]++
			}
		}
		comm, stack, leaf = "", stack[:0], 0
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.TrimSpace(line) == "":
			end()
		case line[0] != ' ' && line[0] != '\t':
			end()
			comm = strings.TrimSpace(line)
		default:
			address, symbol, _ := strings.Cut(strings.TrimSpace(line), " ")
			if len(stack) == 0 {
				leaf, _ = strconv.ParseUint(address, 16, 64)
			}
			stack = append(stack, symbol)
		}
	}
	end()
	return split
}

// kernelWorks says what functions of Linux are at work on, looked for from the leaf of a stack
// outwards; a name that ends in * is a prefix. What is further in (waking the receiver of a
// message, submitting a bio) is counted apart from its purpose. Names are of Linux 6.1 to 6.18; a
// name that a kernel does not have finds nothing, and its time goes to what is further out.
var kernelWorks = []struct{ name, functions string }{
	{"interrupts", "asm_sysvec_* asm_common_interrupt common_interrupt sysvec_* irq_exit_rcu"},
	{"page faults", "asm_exc_page_fault exc_page_fault handle_mm_fault"},
	{"wake-ups",
		"try_to_wake_up __wake_up* default_wake_function wake_up_* ep_poll_callback " +
			"eventfd_signal_mask"},
	{"sleep",
		"schedule __schedule schedule_hrtimeout_range* schedule_timeout io_cqring_wait " +
			"io_cqring_schedule io_cqring_wait_schedule"},
	{"block layer",
		"submit_bio* blk_* __blk_* bio_* virtio_queue_rq virtio_queue_rqs virtblk_* " +
			"iomap_dio_complete* dio_complete nvme_* loop_queue_rq"},
	{"receive",
		"io_recv io_recvmsg sock_recvmsg unix_stream_recvmsg unix_stream_read_generic " +
			"tcp_recvmsg io_poll_add io_arm_poll_handler"},
	{"send",
		"io_send io_sendmsg io_send_zc io_sendmsg_zc sock_sendmsg unix_stream_sendmsg tcp_sendmsg"},
	{"read", "io_read io_read_fixed __io_read vfs_read"},
	{"write", "io_write io_write_fixed __io_write vfs_write ksys_pwrite64"},
	{"flush", "io_fsync vfs_fsync_range do_fsync"},
	{"ranges", "io_fallocate vfs_fallocate io_uring_cmd io_madvise"},
	{"io_uring",
		"__do_sys_io_uring_enter __x64_sys_io_uring_enter __se_sys_io_uring_enter " +
			"__arm64_sys_io_uring_enter io_run_task_work tctx_task_work"},
}

// kernelRest is time that no function of a stack explains: above all the way into the kernel and
// out of it.
const kernelRest = "system call"

// kernelWork gives a kernel stack, the leaf first, to a work.
func kernelWork(stack []string) string {
	for _, symbol := range stack {
		symbol, _, _ = strings.Cut(symbol, ".") // of functions that the compiler has cloned
		for _, work := range kernelWorks {
			for function := range strings.FieldsSeq(work.functions) {
				if prefix, open := strings.CutSuffix(function, "*"); function == symbol ||
					open && strings.HasPrefix(symbol, prefix) {
					return work.name
				}
			}
		}
	}
	return kernelRest
}

// splitKernel lists, in place of the callers of system calls, what the kernel did in them, in the
// proportions that perf saw, and adds the time of its workers, which Go's profile has no samples
// of.
func splitKernel(p *measure.Profile, split kernelSplit) {
	samples := 0
	for _, n := range split.kernel {
		samples += n
	}
	k := slices.IndexFunc(p.Stages, func(s measure.Stage) bool { return s.Name == Kernel })
	if samples == 0 || k < 0 {
		return
	}
	list := slices.DeleteFunc(p.Top, func(f measure.Function) bool {
		return strings.HasPrefix(f.Name, KernelPrefix)
	})
	for name, n := range split.kernel {
		list = append(list,
			measure.Function{Name: KernelPrefix + name,
				Share: p.Stages[k].Share * float64(n) / float64(samples)})
	}
	if split.workers > 0 && split.all > 0 {
		each := float64(split.workers) / float64(split.all)
		addKernel(p, k, each)
		for i := range list {
			list[i].Share /= 1 + each
		}
		list = append(list,
			measure.Function{Name: KernelPrefix + "workers", Share: each / (1 + each)})
	}
	slices.SortFunc(list, byShare)
	p.Top = list[:min(len(list), maxTop)]
}

// addKernel adds time to the kernel's stage, each seconds for each second of the whole.
func addKernel(p *measure.Profile, k int, each float64) {
	var micros float64
	for i := range p.Stages {
		micros += p.Stages[i].MicrosPerRequest
		p.Stages[i].Share /= 1 + each
	}
	p.Stages[k].Share += each / (1 + each)
	p.Stages[k].MicrosPerRequest += each * micros
	p.Seconds *= 1 + each
}
