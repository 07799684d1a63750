// A start that a signal can end: it may wait for ever, for a lock that a process of another PID
// namespace holds, or for storage that does not answer.
//
// Invariant: a signal ends a start at once. Sockets and images that the start has made are removed,
// by the start itself if it returns, and otherwise by callOff. A child asks storage first
// (backing.Reach), so that a system call that never returns is not ours; if storage begins to hang
// between the child's question and ours, nothing can be done.

package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"ringnbd/engine/backing"
	"ringnbd/engine/gate"
)

const (
	// startGrace is how long a start may take to notice that it was called off, and to undo its
	// work.
	startGrace = 250 * time.Millisecond
	// startQuiet is how long a start may wait before a log line says so.
	startQuiet = 3 * time.Second
)

var errInterrupted = errors.New("interrupted while starting")

// begun is what callOff must know of a start that hangs.
type begun struct {
	mu     sync.Mutex
	busy   string // what the start does now
	stop   bool
	doors  []*gate.Place
	images []*backing.Backing // nil until all are complete
}

// step records what the start does from now on, and reports whether it may go on.
func (b *begun) step(what string) (on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = what
	return !b.stop
}

// opening is the step of opening an image.
func (b *begun) opening(path string) (on bool) {
	return b.step("opening " + visible(path) + ": its storage, or a lock on it, does not answer")
}

func (b *begun) listening(p *gate.Place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.doors = append(b.doors, p)
}

// opened records that all images are open.
func (b *begun) opened(images []*backing.Backing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.images = images
}

// busyWith is what the start does now.
func (b *begun) busyWith() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.busy
}

// remove removes what a start that hangs has made. Removing may hang as well, so no lock is held
// meanwhile.
func (b *begun) remove() {
	b.mu.Lock()
	doors, images := b.doors, b.images
	b.mu.Unlock()
	for _, door := range doors {
		door.Close()
	}
	for _, image := range images {
		backing.Reach(image.Spec().Path)
		image.Abandon()
	}
}

// start brings the server up, unless a signal arrives first: then ended is true. A start that was
// called off in order is not an error; a start that had to be left hanging is.
func (s *server) start(specs []backing.Spec, signals <-chan os.Signal) (ended bool, err error) {
	up := make(chan error, 1)
	go func() {
		err := s.up(specs)
		if err != nil {
			s.abandon()
		}
		up <- err
	}()
	quiet := time.NewTimer(startQuiet)
	defer quiet.Stop()
	for {
		select {
		case err := <-up:
			return false, err
		case <-quiet.C:
			s.log.Warn("the start takes long", "busy_with", s.begun.busyWith())
		case sig := <-signals:
			return true, s.callOff(sig, up, signals)
		}
	}
}

// callOff ends a start that is under way.
func (s *server) callOff(sig os.Signal, up <-chan error, signals <-chan os.Signal) error {
	s.begun.mu.Lock()
	s.begun.stop = true
	s.begun.mu.Unlock()
	select {
	case err := <-up:
		if err == nil { // the start was complete before it could notice, and may have clients
			defer s.journal.close()
			s.log.Info("shutting down, just started", "signal", sig.String())
			return s.down(signals)
		}
		s.log.Info("interrupted while starting; nothing was served", "signal", sig.String())
		return nil
	case <-time.After(startGrace):
	}
	gone := make(chan struct{})
	go func() {
		s.begun.remove()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(startGrace):
	}
	leaveFiles()
	return fmt.Errorf("interrupted (%v) while %s", sig, s.begun.busyWith())
}
