// Stages under more busy connections than there are: each gets through, with the right bytes, and a
// connection that has fallen silent gives its large stage back.

package engine

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"ringnbd/proto"
)

// TestMoreWritersThanStages: a loop of the least memory has minStages large stages; four times as
// many connections write payloads that want one.
func TestMoreWritersThanStages(t *testing.T) {
	const writers, each, length = 4 * minStages, 40, 40 << 10
	d := memoryDevice(t, writers*each*length)
	c := Config{Loops: 1, MaxConnections: writers}
	c.Memory = AmpleMemory(c)
	e := start(t, c, d)
	var all sync.WaitGroup
	for w := range writers {
		client := connect(t, e, 0)
		all.Go(func() {
			// as fast as the socket takes them, so that a receive finds more than the connection's
			// own stage holds
			go func() {
				for i := range each {
					b := make([]byte, proto.RequestSize, proto.RequestSize+length)
					proto.PutRequest(b,
						&proto.Request{Cookie: uint64(i), Command: proto.CmdWrite,
							Offset: uint64((w*each + i) * length), Length: length})
					if _,
						err := client.fd.Write(append(b,
						bytes.Repeat([]byte{byte(w), byte(i)}, length/2)...)); err != nil {
						t.Error(err)
					}
				}
			}()
			for range each {
				if _, errno := client.reply(nil); errno != proto.Success {
					t.Errorf("writer %d: %v", w, errno)
				}
			}
			got := make([]byte, length)
			for i := range each {
				errno := client.call(proto.CmdRead, 0, uint64((w*each+i)*length), length, got)
				if want := bytes.Repeat([]byte{byte(w), byte(i)},
					length/2); errno != proto.Success || !bytes.Equal(got, want) {
					t.Errorf("writer %d: request %d reads back wrong (%v)", w, i, errno)
				}
			}
		})
	}
	all.Wait()
	if n := counted(t, e).Stageless; n == 0 {
		t.Error("there were stages enough for all, so this tested nothing")
	}
}

// TestSilentConnectionGivesItsStageBack: after a burst, and idleStageNanos of silence, all large
// stages are free, and the connection still works.
func TestSilentConnectionGivesItsStageBack(t *testing.T) {
	e := startEngine(t, 1, memoryDevice(t, 16<<20))
	c := connect(t, e, 0)
	payload := bytes.Repeat([]byte{3}, 64<<10)
	for i := range 4 {
		if errno := c.call(proto.CmdWrite, 0, uint64(i)<<16, 64<<10,
			payload); errno != proto.Success {
			t.Fatal(errno)
		}
	}
	if n := counted(t, e).StagesLent; n != 1 {
		t.Fatalf("%d large stages are lent: the writer should hold one", n)
	}
	for deadline := time.Now().Add(10 * time.Second); counted(t,
		e).StagesLent != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a silent connection keeps its large stage")
		}
	}
	got := make([]byte, 64<<10)
	if errno := c.call(proto.CmdRead, 0, 1<<16, 64<<10, got); errno != proto.Success ||
		!bytes.Equal(got, payload) {
		t.Fatalf("after its stage was taken back: %v", errno)
	}
	if errno := c.call(proto.CmdWrite, 0, 0, 64<<10, payload); errno != proto.Success {
		t.Fatal(errno)
	}
}

// TestStageComesBackFromWhoTakesNoReply: a large stage is not kept by a connection that waits for
// its client to take a reply.
func TestStageComesBackFromWhoTakesNoReply(t *testing.T) {
	e := startEngine(t, 1, memoryDevice(t, 16<<20))
	c := connect(t, e, 0)
	var read [proto.RequestSize]byte
	proto.PutRequest(read[:], &proto.Request{Cookie: 2, Command: proto.CmdRead, Length: 8 << 20})
	// In one piece, so that the last receive is one of many bytes: after a short one the stage is
	// given back at once.
	c.send(proto.Request{Cookie: 1, Command: proto.CmdWrite, Length: 64 << 10},
		append(make([]byte, 64<<10), read[:]...))
	for deadline := time.Now().Add(5 * time.Second); counted(t,
		e).StagesLent != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the writer never had a large stage")
		}
	}
	for deadline := time.Now().Add(10 * time.Second); counted(t,
		e).StagesLent != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a connection that takes no reply keeps its large stage")
		}
	}
	if cookie, errno := c.reply(nil); cookie != 1 || errno != proto.Success {
		t.Fatalf("cookie %d: %v", cookie, errno)
	}
	if cookie, errno := c.reply(make([]byte, 8<<20)); cookie != 2 || errno != proto.Success {
		t.Fatalf("cookie %d: %v", cookie, errno)
	}
}

// TestSilenceInsideAHeaderHoldsNothing: while others starve, and the cause of that is closed, a
// client that has sent five bytes of a header stays.
func TestSilenceInsideAHeaderHoldsNothing(t *testing.T) {
	d := memoryDevice(t, 64<<20)
	f := fileDevice(t, 64<<20, 0)
	e := startEngine(t, 1, d, f)
	quiet := connect(t, e, 0)
	b := make([]byte, proto.RequestSize)
	proto.PutRequest(b, &proto.Request{Cookie: 9, Command: proto.CmdRead, Length: 0})
	if _, err := quiet.fd.Write(b[:5]); err != nil {
		t.Fatal(err)
	}
	for range 6 { // each wants most of the memory for long requests, and takes nothing
		connect(t, e, 1).send(proto.Request{Command: proto.CmdRead, Length: 32 << 20}, nil)
	}
	for deadline := time.Now().Add(20 * time.Second); counted(t,
		e).Closed[CloseStalled] == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no connection was closed, so this tested nothing")
		}
	}
	time.Sleep(300 * time.Millisecond) // the tick that closes them looks at all connections
	if _, err := quiet.fd.Write(b[5:]); err != nil {
		t.Fatal(err)
	}
	if cookie, errno := quiet.reply(nil); cookie != 9 || errno != proto.Success {
		t.Fatalf("cookie %d: %v", cookie, errno)
	}
}

// TestPayloadThatDoesNotFitIsReceivedOnce: a writer of 2 KiB, a little more with its header than a
// connection's own stage holds, is given a large one, and then needs one receive a request.
func TestPayloadThatDoesNotFitIsReceivedOnce(t *testing.T) {
	e := startEngine(t, 1, memoryDevice(t, 1<<20))
	c := connect(t, e, 0)
	payload := make([]byte, 2048)
	const n = 200
	for range n {
		if errno := c.call(proto.CmdWrite, 0, 0, 2048, payload); errno != proto.Success {
			t.Fatal(errno)
		}
	}
	if got := counted(t, e).Receives; got > n+n/10 {
		t.Errorf("%d receives for %d requests", got, n)
	}
}
