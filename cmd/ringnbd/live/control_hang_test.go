// Changes of exports whose storage hangs, beside changes of others.

package live_test

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ringnbd/cmd/ringnbd/control"
)

// outcome is what a change got, and how long that took.
type outcome struct {
	status int
	text   string
	took   time.Duration
}

// later asks for a change in the background.
func (s *steered) later(t *testing.T, method string, export string, body any) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		began := time.Now()
		status, text := s.ask(t, method, "/v1/export", name(export), body)
		done <- outcome{status, text, time.Since(began)}
	}()
	return done
}

// TestHangingStorageDelaysItsOwnChangesOnly checks that an export that is removed while its storage
// hangs, and one that is added from there, get an answer in time, and delay no other change.
func TestHangingStorageDelaysItsOwnChangesOnly(t *testing.T) {
	need(t, "qemu-io")
	image, hang, heal := fuseFile(t)
	other := sparseImage(t, 1<<20)
	s := serveSteered(t, "", "[export.sick]\npath = \""+image+"\"\n")
	load := exec.Command("qemu-io", "-f", "raw", "-c", "sleep 2000", "-c", "write 0 1M", "-c",
		"flush", s.uriOf("sick"))
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); len(s.connected(t, "sick")) == 0; {
		if time.Now().After(end) {
			t.Fatal("qemu-io did not connect")
		}
		time.Sleep(20 * time.Millisecond)
	}
	hang()
	defer heal()
	time.Sleep(3 * time.Second) // it writes now, and has no answer
	removed := s.later(t, "DELETE", "sick", nil)
	added := s.later(t, "PUT", "twin", control.Wanted{Path: image, ReadOnly: true})
	time.Sleep(time.Second)
	for range 5 {
		began := time.Now()
		if status, text := s.ask(t, "PUT", "/v1/export", name("well"),
			control.Wanted{Path: other}); status != http.StatusOK {
			t.Errorf("%d %s", status, text)
		}
		if status, text := s.ask(t, "DELETE", "/v1/export", name("well"),
			nil); status != http.StatusOK {
			t.Errorf("%d %s", status, text)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a change of a healthy export took %v", took)
		}
	}
	if status, text := s.ask(t, "DELETE", "/v1/export", name("sick"),
		nil); status != http.StatusConflict || !strings.Contains(text, "is being removed by pid") {
		t.Errorf("a second removal: %d %s", status, text)
	}
	out := must(t, 10*time.Second, ringnbd, "ctl", "--control", "unix:"+s.dir+"/control", "status")
	if !strings.Contains(out, "export sick is being removed") {
		t.Error(out)
	}
	if a := <-removed; a.status != http.StatusServiceUnavailable || a.took > 30*time.Second ||
		!strings.Contains(a.text, "the change goes on") {
		t.Errorf("removed: %+v", a)
	}
	if a := <-added; a.status == http.StatusOK || a.took > 30*time.Second {
		t.Errorf("added: %+v", a)
	}
	heal()
	_ = load.Wait()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		status, text := s.ask(t, "PUT", "/v1/export", name("sick"), control.Wanted{Path: image})
		if status == http.StatusOK {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it cannot be served again: %d %s", status, text)
		}
	}
}
