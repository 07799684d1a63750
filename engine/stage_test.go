// Stages under more talkers than there are: everybody gets through, with the right bytes, and a connection that has fallen silent gives its large stage back.

package engine

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"ringnbd/proto"
)

// TestMoreWritersThanStages: a loop of the least memory has minStages large stages; four times as many connections write payloads that want one.
func TestMoreWritersThanStages(t *testing.T) {
	const writers, each, length = 4 * minStages, 40, 40 << 10
	d := memoryDevice(t, writers*each*length)
	c := Config{Loops: 1, MaxConnections: writers}
	c.Memory = MinMemory(c)
	e, err := Start(c, []Export{{Facts: factsOf(d), Device: d}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	var all sync.WaitGroup
	for w := range writers {
		client := connect(t, e, 0)
		all.Go(func() {
			go func() { // four in flight, so that a receive finds more than the connection's own stage holds
				for i := range each {
					payload := bytes.Repeat([]byte{byte(w), byte(i)}, length/2)
					client.send(proto.Request{Cookie: uint64(i), Command: proto.CmdWrite, Offset: uint64((w*each + i) * length), Length: length}, payload)
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
				if want := bytes.Repeat([]byte{byte(w), byte(i)}, length/2); errno != proto.Success || !bytes.Equal(got, want) {
					t.Errorf("writer %d: request %d reads back wrong (%v)", w, i, errno)
				}
			}
		})
	}
	all.Wait()
	if n := e.Counters().Stageless; n == 0 {
		t.Error("there were stages enough for all, so this tested nothing")
	}
}

// TestSilentConnectionGivesItsStageBack: after a burst, and idleStage of silence, all large stages are free, and the connection still works.
func TestSilentConnectionGivesItsStageBack(t *testing.T) {
	e := startEngine(t, 1, memoryDevice(t, 16<<20))
	c := connect(t, e, 0)
	payload := bytes.Repeat([]byte{3}, 64<<10)
	for i := range 4 {
		if errno := c.call(proto.CmdWrite, 0, uint64(i)<<16, 64<<10, payload); errno != proto.Success {
			t.Fatal(errno)
		}
	}
	if n := e.Counters().StagesLent; n != 1 {
		t.Fatalf("%d large stages are lent: the writer should hold one", n)
	}
	for deadline := time.Now().Add(10 * time.Second); e.Counters().StagesLent != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a silent connection keeps its large stage")
		}
	}
	got := make([]byte, 64<<10)
	if errno := c.call(proto.CmdRead, 0, 1<<16, 64<<10, got); errno != proto.Success || !bytes.Equal(got, payload) {
		t.Fatalf("after its stage was taken back: %v", errno)
	}
	if errno := c.call(proto.CmdWrite, 0, 0, 64<<10, payload); errno != proto.Success {
		t.Fatal(errno)
	}
}
