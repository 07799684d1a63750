// Taking the server down: at leisure on the first signal, at once on the second.
//
// Invariant: the process ends within the shutdown timeout and a moment, whatever clients and disks do, and its status is 0 only if every answered
// write was flushed and no connection was cut.

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"ringnbd/engine"
)

// cutPatience is how long cutting connections and letting go of the kernel may take after the shutdown timeout, before the process just ends.
const cutPatience = 2 * time.Second

// down stops accepting, drains the engine and lets go of everything.
func (s *server) down(signals <-chan os.Signal) error {
	began := time.Now()
	s.gate.Close()
	defer s.debug.vanish()
	for _, d := range s.doors {
		d.Close()
	}
	done := make(chan error, 1)
	go func() { done <- s.drain() }()
	late, stop := engine.Patience(s.options.shutdown + cutPatience)
	defer stop()
	for {
		select {
		case err := <-done:
			return err
		case sig := <-signals:
			if time.Since(began) > signalEcho {
				return fmt.Errorf("ended at once by a second signal (%v); requests in flight were cut", sig)
			}
		case <-late:
			return fmt.Errorf("the shutdown did not finish within %v; is a disk hanging? Data not yet flushed may be lost", s.options.shutdown)
		}
	}
}

func (s *server) drain() error {
	trouble := []error{s.engine.Drain(s.options.shutdown)}
	s.debug.close() // it asks the engine, which is still worth asking while it drains
	trouble = append(trouble, s.engine.Close())
	for _, b := range s.backings {
		trouble = append(trouble, b.Close())
	}
	return errors.Join(trouble...)
}
