// Starting the server so that it can be called off: what a start waits for (a lock that a process
// of another PID namespace holds, storage that does not answer) it may wait for without end.
//
// Invariant: a signal ends a start at once. What has begun to exist, sockets and images, is
// removed, by the start itself if it comes back, else on its behalf. A child asks storage first
// (backing.Reach), so that what never returns is not a system call of ours; of storage that begins
// to hang between that and the same question of ours, nothing can be done.

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
	// startGrace is how long a start may take to notice that it was called off, and undo what it
	// did.
	startGrace = 250 * time.Millisecond
	// startQuiet is how long a start may wait without saying so.
	startQuiet = 3 * time.Second
)

var errInterrupted = errors.New("interrupted while starting")

// begun is what must be known of a start in order to give it up while it hangs.
type begun struct {
	mu     sync.Mutex
	busy   string // with what
	stop   bool
	doors  []*gate.Place
	images []*backing.Backing // once all are complete
}

// with notes what the start is busy with from now on, and says whether it is to go on.
func (b *begun) with(what string) (on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = what
	return !b.stop
}

// opening is with, of an image.
func (b *begun) opening(path string) (on bool) {
	return b.with("opening " + visible(path) + ": its storage, or a lock on it, does not answer")
}

func (b *begun) listening(p *gate.Place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.doors = append(b.doors, p)
}

// opened notes that all images are there.
func (b *begun) opened(images []*backing.Backing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.images = images
}

// what says what a start is busy with.
func (b *begun) what() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.busy
}

// forsake removes what a start that hangs has made. Removing may hang as well, so nothing is locked
// meanwhile.
func (b *begun) forsake() {
	b.mu.Lock()
	doors, images := b.doors, b.images
	b.mu.Unlock()
	for _, door := range doors {
		door.Close()
	}
	for _, image := range images {
		backing.Reach(image.Path())
		image.Abandon()
	}
}

// start brings the server up, unless a signal comes first: then ended is true. A start that was
// called off in order is not an error; one that had to be left hanging is.
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
			s.log.Warn("the start takes long", "busy_with", s.begun.what())
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
		if err == nil { // it was up before it could notice, and somebody may have come in
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
		s.begun.forsake()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(startGrace):
	}
	leaveFiles()
	return fmt.Errorf("interrupted (%v) while %s", sig, s.begun.what())
}
