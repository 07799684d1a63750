// What the loopback itself carries: one stream of large writes between two threads, with no
// protocol and no storage.
//
// Invariant: the figure is of this run and this network namespace.

package measure

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// carryTime is how long each transport is filled.
const carryTime = 200 * time.Millisecond

// loopbackCarries measures both transports, in bytes per second. Interference only ever makes it
// less, so the best of several tries counts.
func loopbackCarries(ctx context.Context) (map[string]float64, error) {
	all := map[string]float64{}
	for _, transport := range []string{Unix, TCP} {
		for range 3 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			speed, err := carry(transport)
			if err != nil {
				return nil, fmt.Errorf("the loopback over %s: %w", transport, err)
			}
			all[transport] = max(all[transport], speed)
		}
	}
	return all, nil
}

// carry fills one connection for carryTime.
func carry(transport string) (bytesPerSecond float64, err error) {
	dir, err := os.MkdirTemp("", "ringnbd-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	address := "127.0.0.1:0"
	if transport == Unix {
		address = filepath.Join(dir, "socket")
	}
	l, err := net.Listen(transport, address)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	from, err := net.Dial(transport, l.Addr().String())
	if err != nil {
		return 0, err
	}
	defer from.Close()
	to, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer to.Close()
	begun := time.Now()
	sent := make(chan error, 1)
	go func() {
		block := make([]byte, LargeBlock)
		for time.Since(begun) < carryTime {
			if _, err := from.Write(block); err != nil {
				sent <- err
				return
			}
		}
		sent <- from.Close()
	}()
	var received int64
	block := make([]byte, LargeBlock)
	for {
		n, err := to.Read(block)
		received += int64(n)
		if err != nil { // io.EOF, or what the sender says next
			break
		}
	}
	bytesPerSecond = float64(received) / time.Since(begun).Seconds()
	return bytesPerSecond, <-sent
}
