// Tests of the ring's verbs: order, full queues, overflow, timeouts, signals, threads, closing.

package uring

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNopsCompleteInOrder(t *testing.T) {
	r := newRing(t, 64, 256)
	next := uint64(0)
	for round := range 100 {
		batch := 1 + round%64
		for i := range batch {
			PrepNop(r.SQE(), next+uint64(i))
		}
		for _, c := range collect(t, r, batch) {
			if c.UserData != next || c.Res != 0 || c.Flags != 0 {
				t.Fatalf("round %d: %+v, want user_data %d", round, c, next)
			}
			next++
		}
	}
	if r.inFlight() != 0 || r.queued() != 0 || r.Ready() {
		t.Errorf("in flight %d, queued %d, ready %v at the end", r.inFlight(), r.queued(),
			r.Ready())
	}
}

func TestEveryRungOfTheLadderWorks(t *testing.T) {
	for i := range rungs {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		r, err := open(Config{Entries: 8}, rungs[i:])
		if err != nil {
			t.Fatalf("rung %d: %v", i, err)
		}
		fd := newEventfd(t)
		PrepNop(r.SQE(), 1)
		PrepPoll(r.SQE(), 2, int32(fd), PollIn)
		if c := collect(t, r, 1)[0]; c.UserData != 1 {
			t.Errorf("rung %d: %+v", i, c)
		}
		Notify(fd)
		if c := collect(t, r, 1)[0]; c.UserData != 2 || c.Res != int32(PollIn) {
			t.Errorf("rung %d: %+v", i, c)
		}
		if err := r.Close(); err != nil {
			t.Errorf("rung %d: Close: %v", i, err)
		}
	}
}

func TestUnknownSetupFlagsFallToTheNextRung(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := open(Config{Entries: 8}, []uint32{1 << 31, rungs[2]})
	if err != nil {
		t.Fatal(err)
	}
	if f := r.Features(); f.DeferTaskrun || f.SingleIssuer || !f.CoopTaskrun {
		t.Errorf("features of the last rung: %+v", f)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	_, err = open(Config{Entries: 8}, []uint32{1 << 31})
	var old *unsupportedError
	if !errors.As(err, &old) || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("no rung left: %v, want an unsupportedError", err)
	}
}

func TestConfigOutOfBounds(t *testing.T) {
	for _, c := range []Config{{}, {Entries: 32769}, {Entries: 8, Completions: 4},
		{Entries: 8, Completions: 65537}} {
		if r, err := Open(c); err == nil {
			_ = r.Close()
			t.Errorf("%+v was accepted", c)
		}
	}
}

func TestFullSubmissionQueueIsNilUntilEnter(t *testing.T) {
	r := newRing(t, 8, 64)
	for round := range 5 {
		for i := range 8 {
			s := r.SQE()
			if s == nil {
				t.Fatalf("round %d: entry %d of 8 is nil", round, i)
			}
			PrepNop(s, uint64(round*8+i))
		}
		for range 2 {
			if r.SQE() != nil {
				t.Fatalf("round %d: a ninth entry", round)
			}
		}
		if r.queued() != 8 {
			t.Fatalf("queued %d, want 8", r.queued())
		}
		if err := r.Enter(0, 0); err != nil {
			t.Fatal(err)
		}
		if r.queued() != 0 {
			t.Fatalf("queued %d after Enter", r.queued())
		}
	}
	for i, c := range collect(t, r, 40) {
		if c.UserData != uint64(i) {
			t.Fatalf("completion %d is of %d", i, c.UserData)
		}
	}
}

// A full queue of requests that wait for something: Enter must free the entries although nothing
// completes, and deferred completions must come without a blocking Enter.
func TestFullQueueOfWaitingRequests(t *testing.T) {
	r := newRing(t, 4, 64)
	fd := newEventfd(t)
	for i := range 16 {
		s := r.SQE()
		if s == nil {
			if err := r.Enter(0, 0); err != nil {
				t.Fatal(err)
			}
			s = r.SQE()
		}
		PrepPoll(s, uint64(i), int32(fd), PollIn)
	}
	if err := r.Enter(0, 0); err != nil {
		t.Fatal(err)
	}
	if r.inFlight() != 16 {
		t.Fatalf("in flight %d, want 16", r.inFlight())
	}
	if n := r.Reap(make([]CQE, 16)); n != 0 {
		t.Fatalf("%d completions before the event", n)
	}
	Notify(fd)
	got := 0
	for end := Now() + int64(5*time.Second); got < 16 && Now() < end; {
		if !r.Ready() {
			runtime.Gosched()
			continue
		}
		if err := r.Enter(0, 0); err != nil {
			t.Fatal(err)
		}
		got += r.Reap(make([]CQE, 16))
	}
	if got != 16 || r.inFlight() != 0 {
		t.Errorf("%d completions of 16 by polling Ready, in flight %d", got, r.inFlight())
	}
}

func TestOverflowedCompletionsAreNotLost(t *testing.T) {
	r := newRing(t, 8, 8)
	const total = 500
	for i := range total {
		s := r.SQE()
		if s == nil {
			if err := r.Enter(0, 0); err != nil {
				t.Fatal(err)
			}
			if s = r.SQE(); s == nil {
				t.Fatal("no entry after Enter")
			}
		}
		PrepNop(s, uint64(i))
	}
	for i, c := range collect(t, r, total) {
		if c.UserData != uint64(i) {
			t.Fatalf("completion %d is of %d", i, c.UserData)
		}
	}
	if r.inFlight() != 0 || r.deferred() {
		t.Errorf("in flight %d, deferred %v", r.inFlight(), r.deferred())
	}
}

func TestCompletionQueueSizeIsHonoured(t *testing.T) {
	r := newRing(t, 4, 4096)
	if len(r.sqes) != 4 || len(r.cqes) != 4096 || r.cqMask != 4095 {
		t.Fatalf("%d entries, %d completions, mask %d", len(r.sqes), len(r.cqes), r.cqMask)
	}
	for i := range 4096 {
		if r.queued() == 4 {
			if err := r.Enter(0, 0); err != nil {
				t.Fatal(err)
			}
		}
		PrepNop(r.SQE(), uint64(i))
	}
	if err := r.Enter(0, 0); err != nil {
		t.Fatal(err)
	}
	if r.deferred() {
		t.Error("4096 completions overflowed")
	}
	out := make([]CQE, 5000)
	if n := r.Reap(out); n != 4096 || out[4095].UserData != 4095 {
		t.Errorf("reaped %d", n)
	}
	big := newRing(t, 512, 8192)
	if len(big.sqes) != 512 || len(big.cqes) != 8192 {
		t.Errorf("%d entries, %d completions, want 512 and 8192", len(big.sqes), len(big.cqes))
	}
	twice := newRing(t, 16, 0)
	if len(twice.cqes) != 32 {
		t.Errorf("%d completions by default, want 32", len(twice.cqes))
	}
}

func TestReapTakesWhatFits(t *testing.T) {
	r := newRing(t, 16, 16)
	for i := range 10 {
		PrepNop(r.SQE(), uint64(i))
	}
	if err := r.Enter(10, -1); err != nil {
		t.Fatal(err)
	}
	next := uint64(0)
	for _, want := range []int{3, 3, 3, 1, 0} {
		out := make([]CQE, 3)
		if n := r.Reap(out); n != want {
			t.Fatalf("reaped %d, want %d", n, want)
		}
		for _, c := range out[:want] {
			if c.UserData != next {
				t.Fatalf("user_data %d, want %d", c.UserData, next)
			}
			next++
		}
	}
	if r.Reap(nil) != 0 {
		t.Error("reaped into nothing")
	}
}

func TestTimeouts(t *testing.T) {
	r := newRing(t, 8, 16)
	for _, d := range []time.Duration{time.Microsecond, 20 * time.Millisecond,
		1100 * time.Millisecond} {
		begin := Now()
		if err := r.Enter(1, d); err != nil {
			t.Fatalf("Enter(1, %v): %v", d, err)
		}
		// A signal may end a wait early (nil, like a timeout), so only too late is wrong for
		// certain.
		if took := time.Duration(Now() - begin); took > d+10*time.Second {
			t.Errorf("a timeout of %v took %v", d, took)
		} else if took < d {
			t.Logf("a timeout of %v ended after %v: a signal", d, took)
		}
	}
	begin := Now()
	if err := r.Enter(1, 0); err != nil {
		t.Fatal(err)
	}
	if took := time.Duration(Now() - begin); took > 10*time.Second {
		t.Errorf("a timeout of 0 took %v", took)
	}
	PrepNop(r.SQE(), 7)
	if err := r.Enter(1, time.Hour); err != nil {
		t.Fatal(err)
	}
	var out [2]CQE
	if n := r.Reap(out[:]); n != 1 || out[0].UserData != 7 {
		t.Errorf("reaped %d: %+v", n, out)
	}
}

func TestWaitCountsWhatIsNotReapedYet(t *testing.T) {
	r := newRing(t, 8, 16)
	PrepNop(r.SQE(), 1)
	if err := r.Enter(1, -1); err != nil {
		t.Fatal(err)
	}
	if err := r.Enter(1, -1); err != nil { // would hang if it waited for another one
		t.Fatal(err)
	}
	if n := r.Reap(make([]CQE, 4)); n != 1 {
		t.Errorf("reaped %d", n)
	}
}

// Go preempts with SIGURG, so a wait is interrupted at any time: never an error, never a lost
// completion.
func TestSignalStormWhileWaiting(t *testing.T) {
	r := newRing(t, 8, 16)
	fd, a := newEventfd(t), newArena(t, 4096, false)
	PrepRead(r.SQE(), 9, int32(fd), a.Addr(0), 8, 0)
	tid, stop := unix.Gettid(), atomic.Bool{}
	done := make(chan int)
	go func() {
		sent := 0
		for ; !stop.Load(); sent++ {
			if sent == 500 {
				Notify(fd)
			}
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			time.Sleep(50 * time.Microsecond)
		}
		done <- sent
	}()
	early := 0
	var out [4]CQE
	n := 0
	for end := Now() + int64(20*time.Second); n == 0 && Now() < end; early++ {
		if err := r.Enter(1, -1); err != nil {
			t.Errorf("Enter under signals: %v", err)
			break
		}
		n = r.Reap(out[:])
	}
	stop.Store(true)
	sent := <-done
	if n != 1 || out[0].UserData != 9 || out[0].Res != 8 {
		t.Fatalf("reaped %d: %+v", n, out[0])
	}
	if early < 10 {
		t.Errorf("%d signals interrupted only %d waits: the storm was none", sent, early-1)
	}
}

func TestWrongThreadIsAClearError(t *testing.T) {
	r, idle := newRing(t, 8, 16), newRing(t, 8, 16)
	PrepNop(r.SQE(), 1)
	onOtherThread(func() {
		wantThreadError(t, r.Enter(0, 0), "Enter(0)")
		wantThreadError(t, r.Enter(1, time.Second), "Enter(1)")
		wantThreadError(t, r.RegisterFiles([]int32{0}), "RegisterFiles")
		wantThreadError(t, r.LimitWorkers(1, 1), "LimitWorkers")
		wantThreadError(t, r.Close(), "Close")
	})
	// A thread with a ring of its own has a table of descriptors: ours must not be looked up there.
	onOtherThread(func() {
		own, err := Open(Config{Entries: 8})
		if err != nil {
			t.Error(err)
			return
		}
		second, err := Open(Config{Entries: 8}) // so that more than one place of the table is taken
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = second.Close() }()
		wantThreadError(t, r.Enter(1, time.Second), "Enter(1) beside another ring")
		wantThreadError(t, idle.Enter(1, 50*time.Millisecond),
			"Enter(1) with nothing queued beside another ring")
		if own.inFlight() != 0 {
			t.Error("the other thread's own ring was entered")
		}
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	})
	if c := collect(t, r, 1)[0]; c.UserData != 1 || c.Res != 0 {
		t.Errorf("afterwards, on the right thread: %+v", c)
	}
}

func TestEntriesComeZeroed(t *testing.T) {
	r := newRing(t, 1, 8)
	for range 4 {
		s := r.SQE()
		if *s != (SQE{}) {
			t.Fatalf("a fresh entry is %+v", *s)
		}
		*s = SQE{OpCode: opNop, UserData: 1, OpcodeFlags: 0, Len: 7, Off: 9, Addr: 8, Addr3: 5,
			BufIG: 3, Personality: 0, SpliceFdIn: 0}
		if err := r.Enter(1, -1); err != nil {
			t.Fatal(err)
		}
		r.Reap(make([]CQE, 1))
	}
}

// Every operation in turn in the one slot of a ring, after one that sets all the flags it can:
// without zeroing, NOP and FALLOCATE are EINVAL and the write after a send is EOPNOTSUPP.
func TestFlagsDoNotLeakThroughAReusedSlot(t *testing.T) {
	r := newRing(t, 1, 16)
	a := newArena(t, 1<<16, false)
	left, right := socketpair(t)
	_ = right
	if err := r.RegisterBuffers(a); err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterFiles([]int32{newFile(t, t.TempDir(), 1<<20, 0)}); err != nil {
		t.Fatal(err)
	}
	*a.Msghdr(0) = Msghdr{Iov: a.Addr(64), IovLen: 1}
	a.Iovecs(64, 1)[0] = Iovec{Base: a.Addr(4096), Len: 100}
	dirty := []func(s *SQE){
		func(s *SQE) { PrepSendMsg(s, 1, left, a.Addr(0), MsgNoSignal|MsgWaitAll) },
		func(s *SQE) { PrepWriteFixed(s, 2, 0, 0, a.Addr(4096), 512, 0, WriteDsync) },
		func(s *SQE) { PrepFsync(s, 3, 0, true) },
		func(s *SQE) { PrepFallocate(s, 4, 0, FallocateKeepSize|FallocatePunchHole, 4096, 4096) },
	}
	clean := []struct {
		name    string
		want    int32
		prepare func(s *SQE)
	}{
		{"nop", 0, func(s *SQE) { PrepNop(s, 10) }},
		{"fallocate", 0, func(s *SQE) { PrepFallocate(s, 11, 0, FallocateKeepSize, 0, 4096) }},
		{"read", 512, func(s *SQE) { PrepReadFixed(s, 12, 0, 0, a.Addr(8192), 512, 0, 0) }},
		{"write", 512, func(s *SQE) { PrepWriteFixed(s, 13, 0, 0, a.Addr(8192), 512, 0, 0) }},
		{"cancel", -int32(syscall.ENOENT), func(s *SQE) { PrepCancel(s, 14, 999) }},
		{"fsync", 0, func(s *SQE) { PrepFsync(s, 15, 0, false) }},
	}
	for i, before := range dirty {
		for _, after := range clean {
			if res := single(t, r, before); res < 0 {
				t.Fatalf("dirty operation %d: %v", i, errno(res))
			}
			if res := single(t, r, after.prepare); res != after.want {
				t.Errorf("%s after dirty operation %d: %d, want %d", after.name, i, res, after.want)
			}
		}
	}
}

// The kernel keeps a ring, with 16 slots a thread, until its registered descriptor is given back.
func TestManyRingsOnOneThread(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := len(openDescriptors())
	for i := range 40 {
		r, err := Open(Config{Entries: 8, Completions: 64})
		if err != nil {
			t.Fatalf("ring %d: %v", i, err)
		}
		if !r.Features().RegisteredRing {
			t.Fatalf("ring %d: no registered descriptor", i)
		}
		PrepNop(r.SQE(), uint64(i))
		collect(t, r, 1)
		if err := r.Close(); err != nil {
			t.Fatalf("ring %d: %v", i, err)
		}
		if err := r.Close(); err != nil {
			t.Fatalf("ring %d, second Close: %v", i, err)
		}
		if n := len(openDescriptors()); n != before {
			t.Fatalf("ring %d: %d descriptors are open, %d before", i, n, before)
		}
	}
}

func TestSeventeenRingsAtOnceOnOneThread(t *testing.T) {
	registered := 0
	var all []*Ring
	for range 17 { // one more than a thread's table holds: the last one uses its plain descriptor
		r := newRing(t, 4, 8)
		all = append(all, r)
		if r.Features().RegisteredRing {
			registered++
		}
	}
	if registered != 16 {
		t.Errorf("%d registered descriptors, want 16", registered)
	}
	for i, r := range all {
		PrepNop(r.SQE(), uint64(i))
		if c := collect(t, r, 1)[0]; c.UserData != uint64(i) {
			t.Errorf("ring %d: %+v", i, c)
		}
	}
}

func TestCloseEndsWhatIsInFlight(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := Open(Config{Entries: 4, Completions: 4})
	if err != nil {
		t.Fatal(err)
	}
	a, fd := newArena(t, 4096, false), newEventfd(t)
	left, _ := socketpair(t)
	for i := range 12 { // three times what the completion queue holds
		if r.queued() == 4 {
			if err := r.Enter(0, 0); err != nil {
				t.Fatal(err)
			}
		}
		switch s := r.SQE(); i % 3 {
		case 0:
			PrepRead(s, uint64(i), int32(fd), a.Addr(0), 8, 0)
		case 1:
			PrepRecv(s, uint64(i), left, a.Addr(64), 64, MsgWaitAll)
		default:
			PrepPoll(s, uint64(i), left, PollIn)
		}
	}
	if err := r.Enter(0, 0); err != nil {
		t.Fatal(err)
	}
	PrepNop(r.SQE(), 99) // never submitted
	if r.inFlight() != 12 {
		t.Fatalf("in flight %d, want 12", r.inFlight())
	}
	begin := Now()
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if took := time.Duration(Now() - begin); took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
}

func TestNoAllocationOnThePath(t *testing.T) {
	r := newRing(t, 64, 128)
	a := newArena(t, 4096, false)
	out := make([]CQE, 64)
	allocs := testing.AllocsPerRun(200, func() {
		for i := range 32 {
			PrepNop(r.SQE(), uint64(i))
		}
		if r.Enter(0, 0) != nil || r.Enter(1, time.Second) != nil ||
			r.Enter(64, time.Microsecond) != nil || r.Enter(0, -1) != nil {
			t.Error("Enter failed")
		}
		if n := r.Reap(out); n != 32 {
			t.Errorf("reaped %d", n)
		}
		*a.Msghdr(0) = Msghdr{Iov: a.Addr(64), IovLen: 1}
		a.Iovecs(64, 2)[1] = Iovec{Base: a.Addr(128), Len: uint64(len(a.Bytes(128, 64)))}
		if _, ok := a.Find(a.Addr(5)); !ok || Now() < 0 {
			t.Error("Find")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations a turn", allocs)
	}
}

func TestMemoryOfARing(t *testing.T) {
	for _, c := range []struct {
		config Config
		pages  uint64 // as measured by what RLIMIT_MEMLOCK leaves on Linux 6.18
	}{{Config{8, 16}, 2}, {Config{Entries: 8}, 2}, {Config{512, 8192}, 41}, {Config{300, 5000},
		41}} {
		if got := c.config.Memory(); got != c.pages*4096 {
			t.Errorf("%+v: %d bytes, want %d pages", c.config, got, c.pages)
		}
	}
}
