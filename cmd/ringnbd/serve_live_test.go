// Changes that want the same export: in turn, or refused, or given up in time.

package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"ringnbd/cmd/ringnbd/control"
	"ringnbd/engine/backing"
)

func newTestLive() *live {
	return newLive(slog.New(slog.DiscardHandler), new(backing.Stores), nil)
}

// TestChangesOfOneExportTakeTurns checks that a second change waits for the first, and that changes
// of other exports do not.
func TestChangesOfOneExportTakeTurns(t *testing.T) {
	l := newTestLive()
	begun, held, order := make(chan struct{}), make(chan struct{}), make(chan string, 3)
	change := func(name string, do func()) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := l.do(context.Background(), "being changed by "+name, []string{"a"},
				func(*task) (control.Changed, error) {
					do()
					order <- name
					return control.Changed{}, nil
				})
			done <- err
		}()
		return done
	}
	first := change("first", func() { close(begun); <-held })
	<-begun
	if got := l.changes(); len(got) != 1 || got[0] != "export a is being changed by first" {
		t.Errorf("%q", got)
	}
	second := change("second", func() {})
	if _, err := l.do(context.Background(), "x", []string{"b"},
		func(*task) (control.Changed, error) {
			order <- "other"
			return control.Changed{}, nil
		}); err != nil {
		t.Error(err)
	}
	close(held)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
	if a, b, c := <-order, <-order, <-order; a != "other" || b != "first" || c != "second" {
		t.Errorf("%s, %s, %s", a, b, c)
	}
	if got := l.changes(); len(got) != 0 {
		t.Errorf("%q are left", got)
	}
}

// TestChangesThatWaitAreTold checks that a client that leaves does not wait, and that a server that
// ends refuses changes.
func TestChangesThatWaitAreTold(t *testing.T) {
	l := newTestLive()
	if err := l.claim(t.Context(), "being removed by pid 7", []string{"a"}); err != nil {
		t.Fatal(err)
	}
	late, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := l.claim(late, "x", []string{"b", "a"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := l.claim(t.Context(), "x", []string{"b"}); err != nil {
		t.Errorf("a claim of two names that failed keeps one of them: %v", err)
	}
	busy := &task{names: []string{"b"}}
	var refused *control.Error
	if err := l.claimMore(busy, []string{"b", "c", "a"}); !errors.As(err, &refused) ||
		refused.Status != 409 || !strings.Contains(err.Error(), "being removed by pid 7") {
		t.Error(err)
	}
	l.release(busy.names)
	if got := l.changes(); len(got) != 1 {
		t.Errorf("%q", got)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		l.release([]string{"a"})
	}()
	began := time.Now()
	l.close()
	if took := time.Since(began); took < 10*time.Millisecond {
		t.Errorf("the end did not wait for a change: %v", took)
	}
	if err := l.claim(t.Context(), "x", []string{"a"}); err == nil ||
		!strings.Contains(err.Error(), "shutting down") {
		t.Error(err)
	}
}

// TestTaskIsGivenUpOnlyBeforeItCommits checks that a task is either given up or carried out.
func TestTaskIsGivenUpOnlyBeforeItCommits(t *testing.T) {
	var early, late task
	if err := early.commit(); err != nil || early.giveUp() {
		t.Error("a task that has committed was given up")
	}
	if !late.giveUp() || !errors.Is(late.commit(), errGivenUp) {
		t.Error("a task that was given up has committed")
	}
}

func TestSameSpec(t *testing.T) {
	here := wholePath("a.img")
	for _, row := range []struct {
		a, b backing.Spec
		same bool
	}{
		{backing.Spec{Path: "a.img"}, backing.Spec{Path: here}, true},
		{backing.Spec{Path: "a.img"}, backing.Spec{Path: "b.img"}, false},
		{backing.Spec{Path: "a.img"}, backing.Spec{Path: "a.img", Partition: "2"}, false},
		{backing.Spec{Path: "a.img"}, backing.Spec{Path: "a.img", ReadOnly: true}, false},
		{backing.Spec{Path: "overlay(a.img, b)"},
			backing.Spec{Path: "overlay(" + here + "," + wholePath("b") + ")"}, true},
		{backing.Spec{Path: "null:1G"}, backing.Spec{Path: "null:1G"}, true},
	} {
		if got := sameSpec(row.a, row.b); got != row.same {
			t.Errorf("%+v and %+v: %t", row.a, row.b, got)
		}
	}
}
