// Locks on images: ringnbd, qemu-nbd and qemu-img see each other, in either order.
//
// Invariant: an image that has a writer has no second writer and is not copied.

package live_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// qemuNBD serves an image with qemu-nbd until the test ends, or stop is called.
func qemuNBD(t *testing.T, image string, flags ...string) (socket string, stop func()) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "q.sock")
	cmd := exec.Command("qemu-nbd", append(flags, "-f", "raw", "-t", "-k", socket, image)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(stop)
	if !eventually(20*time.Second, func() bool {
		return exec.Command("nbdinfo", "--size", "nbd+unix:///?socket="+socket).Run() == nil
	}) {
		t.Fatal("qemu-nbd does not listen")
	}
	return socket, stop
}

// refusedBy runs a command that must fail with words.
func refusedBy(t *testing.T, words, name string, arguments ...string) {
	t.Helper()
	out, err := try(t, 20*time.Second, name, arguments...)
	if err == nil || !strings.Contains(out, words) {
		t.Errorf("%s %s: %v, %q; want %q", name, strings.Join(arguments, " "), err, out, words)
	}
}

func TestRingnbdRefusesImagesOfQEMU(t *testing.T) {
	need(t, "qemu-nbd", "nbdinfo")
	image, other := sparseImage(t, 8<<20), sparseImage(t, 8<<20)
	listen := "unix:" + filepath.Join(t.TempDir(), "s")
	_, stop := qemuNBD(t, image)
	const words = "open for writing in QEMU, or in a tool that locks as it does: qemu-nbd, process "
	refusedBy(t, words, ringnbd, "serve", "--listen", listen, image)
	refusedBy(t, words, ringnbd, "serve", "--listen", listen, "--read-only", image)
	refusedBy(t, words, ringnbd, "copy", other, image)
	refusedBy(t, words, ringnbd, "copy", image, other+".copy")
	refusedBy(t, words, ringnbd, "bench", "--count", "1", "file:"+image)
	must(t, 20*time.Second, ringnbd, "copy", "--force", image, other+".forced")
	stop()
	must(t, 20*time.Second, ringnbd, "copy", other, image)
}

func TestRingnbdReadsTogetherWithQEMU(t *testing.T) {
	need(t, "qemu-nbd", "nbdinfo")
	image := sparseImage(t, 8<<20)
	qemuNBD(t, image, "-r")
	startRingnbd(t, "serve", "--listen", "unix:"+filepath.Join(t.TempDir(), "s"), "--read-only",
		image)
	must(t, 20*time.Second, ringnbd, "copy", image, image+".copy")
	qemuNBD(t, image, "-r")
}

func TestQEMURefusesImagesOfRingnbd(t *testing.T) {
	need(t, "qemu-nbd", "qemu-img", "qemu-io")
	image, other := sparseImage(t, 8<<20), sparseImage(t, 8<<20)
	s := startRingnbd(t, "serve", "--listen", "unix:"+filepath.Join(t.TempDir(), "s"), image)
	refusedBy(t, `Failed to get "write" lock`, "qemu-nbd", "-f", "raw", "-k",
		filepath.Join(t.TempDir(), "q"), image)
	refusedBy(t, `Failed to get "write" lock`, "qemu-img", "convert", "-n", "-f", "raw", "-O",
		"raw", other, image)
	refusedBy(t, `Failed to get shared "write" lock`, "qemu-img", "convert", "-f", "raw", "-O",
		"raw", image, other)
	refusedBy(t, `Failed to get "write" lock`, "qemu-io", "-f", "raw", "-c", "write 0 4k", image)
	must(t, 20*time.Second, "qemu-img", "info", "-f", "raw", image)
	must(t, 20*time.Second, "qemu-img", "convert", "-U", "-f", "raw", "-O", "raw", image, other)
	s.kill()
	if !eventually(20*time.Second, func() bool {
		return exec.Command("qemu-io", "-f", "raw", "-c", "write 0 4k", image).Run() == nil
	}) {
		t.Error("the image is locked although its server was killed")
	}
}

func TestQEMUReadsTogetherWithRingnbd(t *testing.T) {
	need(t, "qemu-nbd", "nbdinfo", "qemu-img", "qemu-io")
	image := sparseImage(t, 8<<20)
	startRingnbd(t, "serve", "--listen", "unix:"+filepath.Join(t.TempDir(), "s"), "--read-only",
		image)
	qemuNBD(t, image, "-r")
	must(t, 20*time.Second, "qemu-img", "convert", "-f", "raw", "-O", "raw", image, image+".copy")
	refusedBy(t, `Failed to get "write" lock`, "qemu-io", "-f", "raw", "-c", "write 0 4k", image)
}
