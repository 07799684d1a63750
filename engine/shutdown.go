// Shutting down: what the control plane does from the last connection to the last loop.
//
// Invariant: whatever clients and storage do, Drain ends: connections have the timeout, and each
// flush has what is left of it, or minFlushTime. Storage that hangs keeps no other export's data
// from its disk.

package engine

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// minFlushTime is the time of one flush when connections have taken the whole timeout.
	minFlushTime = 2 * time.Second
	// maxFlushThreads is as many as file systems profit from: they write one journal for all.
	maxFlushThreads = 32
	// maxFlushLost bounds the threads that hang storage may keep.
	maxFlushLost = 96
	// cutGrace is how long the loops may take to cut their connections.
	cutGrace = 250 * time.Millisecond
	// closeGrace is how long the kernel may take to let go of connections that were cut.
	closeGrace = time.Second
	// maxNames bounds how many exports an error names.
	maxNames = 10
)

// Drain ends service. Requests are served for another second, but a connection that has fallen
// silent is closed; then what was taken in is answered, and every connection closed. What is left
// when the timeout ends is cut, and reported as an error. Every device that was written to is then
// flushed, and those that could not be are named.
func (e *Engine) Drain(timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	e.mu.Lock()
	e.closing = true
	e.mu.Unlock()
	var trouble []error
	if !e.ask(mail{kind: mailDrain}, timeout) {
		trouble = append(trouble, &CutError{Connections: e.Connections()})
		e.Cut()
	}
	return errors.Join(append(trouble, e.flushAll(max(time.Until(deadline), minFlushTime)))...)
}

// CutError says that connections were still busy when the timeout of Drain ended.
type CutError struct{ Connections int }

func (e *CutError) Error() string {
	return "the shutdown timeout ended with " + strconv.Itoa(e.Connections) +
		" connections still busy; they were cut"
}

// Cut closes every connection at once, or almost: it does not wait for a loop that hangs.
func (e *Engine) Cut() { e.ask(mail{kind: mailCut}, cutGrace) }

// flushAll flushes every device that a client has written to, each once: of two fsyncs of a device
// only one would hear of an error. Every export of a device that was not flushed is named. Exports
// that are being removed are flushed by that, and their descriptors may be closed at any moment:
// their ends are waited for.
func (e *Engine) flushAll(each time.Duration) error {
	late, stop := Patience(each)
	defer stop()
	e.mu.Lock()
	served := e.shared.table
	var leaving []*departure
	for _, x := range served.exports {
		if x != nil && x.leaving {
			leaving = append(leaving, e.shared.register.leaving[x.id])
		}
	}
	e.mu.Unlock()
	dirty := served.dirty()
	results := crew{maxFlushThreads, maxFlushLost, each}.do(len(dirty), func(i int) error {
		d := dirty[i]
		if d.Kind == Planned {
			return e.flushPlanned(served, d, each)
		}
		if err := fdatasync(d.FD); err != nil || !d.Failed() {
			return err
		}
		return errFlushFailed
	})
	failed := make(map[*Device]error)
	for i, err := range results {
		if err != nil {
			failed[dirty[i]] = err
		}
	}
	var trouble []error
	for _, d := range leaving {
		if err := d.outcome(late); err != nil {
			trouble = append(trouble, err)
		}
	}
	for _, x := range served.exports {
		if x == nil {
			continue
		}
		if err := failed[x.Device]; err != nil {
			text := x.title() + " was not flushed (" + err.Error() +
				"): data that clients wrote may be lost"
			trouble = append(trouble, errors.New(text))
		}
	}
	if more := len(trouble) - maxNames; more > 0 {
		trouble = append(trouble[:maxNames],
			errors.New("nor were "+strconv.Itoa(more)+" more exports"))
	}
	return errors.Join(trouble...)
}

// flushPlanned has a planned device flushed by its plan, which flushes what is below as it needs.
func (e *Engine) flushPlanned(t *table, d *Device, within time.Duration) error {
	for place, p := range t.devices {
		if p.device != d {
			continue
		}
		e.mu.Lock()
		m := e.postFlush(uint32(place))
		e.mu.Unlock()
		if m == nil {
			return errClosing
		}
		late, stop := Patience(within)
		defer stop()
		select {
		case <-m.done:
			return m.err
		case <-late:
			return errLate
		}
	}
	return nil
}

// dirty lists the devices that are to be flushed at the end: those of exports that stay until then,
// for what is below their plans is for their plans to flush.
func (t *table) dirty() (devices []*Device) {
	known := map[*Device]bool{}
	for _, x := range t.exports {
		if x != nil && !x.leaving && !known[x.Device] && x.Device.dirty() {
			known[x.Device] = true
			devices = append(devices, x.Device)
		}
	}
	return devices
}

var errFlushFailed = errors.New("an earlier flush failed")

// fdatasync is fdatasync(2), again after a signal.
func fdatasync(fd int) error {
	for {
		if err := unix.Fdatasync(fd); err != unix.EINTR {
			return err
		}
	}
}

// title names an export in an error.
func (x *Export) title() string {
	if x.Name == "" {
		return "the default export"
	}
	return "export " + strconv.Quote(x.Name)
}

// Close stops the loops. Connections that are left are cut first.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closing = true
	e.mu.Unlock()
	deadline := time.Now().Add(closeGrace)
	e.ask(mail{kind: mailCut}, closeGrace)
	for e.Connections() > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	e.mu.Lock()
	if !e.down {
		close(e.ended)
	}
	e.down = true
	e.mu.Unlock()
	if left := e.Connections(); left > 0 {
		return errors.New("the kernel still holds operations of " + strconv.Itoa(left) +
			" connections")
	}
	e.stop()
	return nil
}
