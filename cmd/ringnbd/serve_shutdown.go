// Taking the server down: in order after the first signal, at once after the second.
//
// Invariant: clients have the shutdown timeout, the flush of each export has the rest of it or two
// seconds, and then the process ends, whatever clients and disks do. The exit status is 0 only if
// every answered write was flushed and no connection was cut.

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"ringnbd/engine"
)

// closePatience is how long the engine may take to release its resources in the kernel, before the
// process ends without it.
const closePatience = 3 * time.Second

// down stops accepting, drains the engine and releases everything.
func (s *server) down(signals <-chan os.Signal) error {
	began := time.Now()
	s.live.close()
	s.gate.Close()
	defer s.debug.vanish()
	defer s.vanishControl()
	s.mu.Lock()
	for _, d := range s.doors {
		d.Close()
	}
	s.mu.Unlock()
	drained, closed, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { done <- s.drain(drained, closed) }()
	var late <-chan struct{}
	for {
		select {
		case <-drained: // draining has its own time limit
			drained = nil
			late, _ = engine.Patience(closePatience)
		case <-closed: // what follows has its own time limit, too
			closed, late = nil, nil
		case err := <-done:
			if err != nil || s.waits() {
				leaveFiles()
			}
			return err
		case sig := <-signals:
			if time.Since(began) > signalEcho {
				s.engine.Cut()
				leaveFiles()
				return fmt.Errorf("ended at once by a second signal (%v); requests in flight "+
					"were cut", sig)
			}
		case <-late:
			leaveFiles()
			return errors.New("the engine did not end in time; a disk may hang")
		}
	}
}

// drain does the work that may take long. It closes drained when clients and disks have had their
// time, and closed when the engine has ended.
func (s *server) drain(drained, closed chan<- struct{}) error {
	s.mu.Lock()
	timeout := s.options.shutdown
	s.mu.Unlock()
	trouble := s.engine.Drain(timeout)
	close(drained)
	s.debug.close() // not earlier: the engine's counters are of interest while it drains
	s.closeControl()
	if err := s.engine.Close(); err != nil {
		return errors.Join(trouble, err)
	}
	close(closed)
	trouble = errors.Join(trouble, s.live.discards.close())
	for _, x := range s.live.all() {
		b := x.backing
		// Closing others may take for ever, and loses nothing: they were flushed, or the failed
		// flush was reported.
		if !b.Device.Waits {
			trouble = errors.Join(trouble, b.Close())
		}
	}
	return trouble
}

// waits reports whether drain has left images for leaveFiles to close.
func (s *server) waits() bool {
	return slices.ContainsFunc(s.live.all(),
		func(x *served) bool { return x.backing.Device.Waits })
}
