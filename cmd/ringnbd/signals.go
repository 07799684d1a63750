// Signals, for every command. INT, TERM, HUP and QUIT ask for an end in order; the second of them
// asks for an end at once. HUP has no effect if it was ignored when the program started (nohup).
// USR1, USR2, PIPE, ALRM and other signals that end programs by default do nothing here: Go's
// runtime catches them all.
//
// Invariant: no signal that can be caught leaves behind a socket, a started server or half-written
// state.

package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// signalEcho is the time after the first signal in which another counts as its echo: timeout(1)
// signals the process, and then its group; when a terminal goes away, the shell signals its jobs,
// and so does the kernel.
const signalEcho = 100 * time.Millisecond

// endings are the signals that ask for an end.
func endings() []os.Signal {
	list := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}

// catchSignals collects the signals that ask for an orderly end. The channel has room for two, so
// that the second is not lost while the first is handled.
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, endings()...)
	return signals
}

// catchReloads collects the signals that ask for an end, and apart from them SIGHUP, which asks a
// server with a configuration to read it again.
func catchReloads() (signals, hangups <-chan os.Signal) {
	ends, reloads := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	signal.Notify(reloads, syscall.SIGHUP)
	return ends, reloads
}

// interruptible makes a context for work that a signal may end early: the first signal cancels the
// context, the second ends the program. stop restores the default of the signals.
func interruptible() (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(context.Background(), endings()...)
	context.AfterFunc(ctx, func() {
		time.Sleep(signalEcho)
		stop()
	})
	return ctx, stop
}

// onSecondSignal calls do before the second signal ends the program. stop restores the signals; if
// the second signal has arrived, stop does not return before it has ended the program.
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
				// until it arrives; it does not if it was ignored when the program started
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

// keepPipes catches SIGPIPE, so that a write fails with EPIPE when a reader goes away (`ringnbd
// serve ... | head -1`), and the server continues. The signal is not ignored, because programs that
// we start would inherit that.
func keepPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// keepFirstThread keeps all goroutines but main off the first thread of the process. The kernel
// delivers a signal for the process to that thread if the thread does not block it. If the thread
// slept in a system call that no signal ends (a read that a FUSE daemon does not answer), the
// signal would never be handled.
func keepFirstThread() { runtime.LockOSThread() }
