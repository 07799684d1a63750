// What signals mean, to every command. INT, TERM, HUP and QUIT ask for an end in order, the second
// of them for an end at once. HUP is not listened to where it was ignored from the beginning
// (nohup). USR1, USR2, PIPE, ALRM and whatever else would end another program do nothing here: Go's
// runtime catches them all.
//
// Invariant: no signal that can be caught leaves a socket, a started server or half a state behind.

package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// signalEcho is how long after the first signal another is taken for its echo: timeout(1) signals
// the process, and then its group; a shell whose terminal goes away signals its jobs, and the
// kernel does so as well.
const signalEcho = 100 * time.Millisecond

// endings are the signals that ask for an end.
func endings() []os.Signal {
	list := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}

// catchSignals collects the signals that ask for an orderly end. Two have room, so that the second
// is seen whatever the first is doing.
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, endings()...)
	return signals
}

// interruptible is a context for what a signal may end early: the first one ends the context, the
// second one the program. stop lets go of the signals.
func interruptible() (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(context.Background(), endings()...)
	context.AfterFunc(ctx, func() {
		time.Sleep(signalEcho)
		stop()
	})
	return ctx, stop
}

// onSecondSignal does something before the second signal ends the program. stop lets go of the
// signals; if the second has come, it is what ends the program.
func onSecondSignal(do func()) (stop func()) {
	signals, quit, gone := make(chan os.Signal, 2), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, endings()...)
	go func() {
		defer close(gone)
		var first time.Time
		for {
			select {
			case <-quit:
				return
			case s := <-signals:
				if first.IsZero() {
					first = time.Now()
				}
				if time.Since(first) < signalEcho {
					continue
				}
				do()
				signal.Reset(s)
				_ = syscall.Kill(os.Getpid(), s.(syscall.Signal))
				// until it has come; it was ignored from the beginning if it does not
				time.Sleep(signalEcho)
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(quit)
		<-gone
	}
}

// keepPipes: a reader that goes away (`ringnbd serve ... | head -1`) must not take the server with
// it: the write fails with EPIPE instead. The signal is caught and not ignored, for what is ignored
// stays so in the programs that we start.
func keepPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// keepFirstThread keeps all goroutines but main's away from the process's first thread. The kernel
// gives a signal for the process to that thread if it takes it, and there it stays: were the thread
// asleep in a system call that no signal ends (a read that a FUSE daemon has taken and does not
// answer), the signal would not be seen by anybody.
func keepFirstThread() { runtime.LockOSThread() }
