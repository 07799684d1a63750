// [ COMMAND... ] with the servers that people write there.
//
// Invariant: no started server is left afterwards.

package live_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestServersInBracketsServeAndEnd(t *testing.T) {
	need(t, "qemu-nbd", "qemu-img", "nbdkit")
	source, dir := randomImage(t, 8<<20, 3), t.TempDir()
	qcow2 := filepath.Join(dir, "disk.qcow2")
	must(t, time.Minute, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, qcow2)
	for name, server := range map[string][]string{
		"qemu-nbd": {"qemu-nbd", "-r", "-f", "qcow2", qcow2},
		"nbdkit":   {"nbdkit", "-r", "file", source},
		"ringnbd":  {ringnbd, "serve", "-r", source},
	} {
		t.Run(name, func(t *testing.T) {
			pid := filepath.Join(t.TempDir(), "pid")
			words := append([]string{"[", "sh", "-c", `echo $$ >"$0"; exec "$@"`, pid},
				append(server, "]")...)
			back := filepath.Join(t.TempDir(), "back.img")
			must(t, time.Minute, ringnbd, append(append([]string{"copy"}, words...), back)...)
			sameFiles(t, source, back)
			if out := must(t, time.Minute, ringnbd,
				append([]string{"info", "--json"}, words...)...); !strings.Contains(out,
				"8388608") {
				t.Errorf("info: %s", out)
			}
			text, err := os.ReadFile(pid)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat("/proc/" + strings.TrimSpace(string(text))); err == nil {
				t.Errorf("%s is there still, as process %s", name, text)
			}
		})
	}
	// The format is also written, and the image is not in use afterwards.
	must(t, time.Minute, ringnbd, "copy", source, "[", "qemu-nbd", "-f", "qcow2", qcow2, "]")
	must(t, time.Minute, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, qcow2)
}

// What nbdcopy and ringnbd copy write to a pipe is the same. (From one into a file nbdcopy 1.14
// copies nothing: "truncate: Invalid argument".)
func TestStreamsAreLikeThoseOfNbdcopy(t *testing.T) {
	need(t, "nbdcopy", "nbdkit")
	source, dir := randomImage(t, 5<<20+12345, 4), t.TempDir()
	writeAt(t, source, 1<<20, make([]byte, 2<<20))
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	script := `"$0" copy [ nbdkit -r file "$1" ] - | cat >"$2"; ` +
		`nbdcopy -- [ nbdkit -r file "$1" ] - | "$0" copy - "$3"`
	must(t, time.Minute, "sh", "-c", script, ringnbd, source, a, b)
	sameFiles(t, source, a)
	sameFiles(t, source, b)
}
