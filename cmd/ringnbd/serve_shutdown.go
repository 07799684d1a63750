// Taking the server down: at leisure on the first signal, at once on the second.
//
// Invariant: clients have the shutdown timeout, each export's flush what is left of it, or two
// seconds, and then the process ends, whatever clients and disks do. Its status is 0 only if every
// answered write was flushed and no connection was cut.

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"ringnbd/engine"
	"ringnbd/engine/backing"
)

// closePatience is how long the engine may take to let go of the kernel, before the process just
// ends.
const closePatience = 3 * time.Second

// down stops accepting, drains the engine and lets go of everything.
func (s *server) down(signals <-chan os.Signal) error {
	began := time.Now()
	s.gate.Close()
	defer s.debug.vanish()
	for _, d := range s.doors {
		d.Close()
	}
	drained, closed, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { done <- s.drain(drained, closed) }()
	var late <-chan struct{}
	for {
		select {
		case <-drained: // which has a bound of its own
			drained = nil
			late, _ = engine.Patience(closePatience)
		case <-closed: // what follows has one, too
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
			return errors.New("the engine did not let go of the kernel; is a disk hanging?")
		}
	}
}

// drain does what may take its time. drained is closed when clients and disks have had theirs,
// closed when the engine has ended.
func (s *server) drain(drained, closed chan<- struct{}) error {
	trouble := s.engine.Drain(s.options.shutdown)
	close(drained)
	s.debug.close() // it asks the engine, which is still worth asking while it drains
	if err := s.engine.Close(); err != nil {
		return errors.Join(trouble, err)
	}
	close(closed)
	for _, b := range s.backings {
		// else to close it may take for ever, and nothing is lost: it was flushed, or that was said
		if !b.Device.Waits {
			trouble = errors.Join(trouble, b.Close())
		}
	}
	return trouble
}

// waits says whether there are images that are left for leaveFiles to close.
func (s *server) waits() bool {
	return slices.ContainsFunc(s.backings, func(b *backing.Backing) bool { return b.Device.Waits })
}
