// Clients of exports that leave, and clients that are ended: what they were promised arrives.

package engine

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

// tcpPair is a connection over TCP whose server side can hold a MiB that the client does not take.
func tcpPair(t *testing.T) (server int, c *client) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	socket := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		check(err)
		return fd
	}
	door, fd := socket(), socket()
	defer unix.Close(door)
	check(unix.Bind(door, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	check(unix.Listen(door, 1))
	at, err := unix.Getsockname(door)
	check(err)
	check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096))
	check(unix.Connect(fd, at))
	server, _, err = unix.Accept4(door, unix.SOCK_CLOEXEC)
	check(err)
	check(unix.SetsockoptInt(server, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20))
	c = &client{t, os.NewFile(uintptr(fd), "client")}
	t.Cleanup(func() { _ = c.fd.Close() })
	return server, c
}

// TestRepliesArriveAlthoughTheClientGoesOn: a client that is slow to take its replies goes on
// sending while its connection is ended. Were its socket closed with bytes that were not read, the
// replies that it has not received yet would be lost with a reset.
func TestRepliesArriveAlthoughTheClientGoesOn(t *testing.T) {
	const n, each = 8, 128 << 10
	for _, removed := range []bool{false, true} {
		e := startEngine(t, 1, nullDevice(1<<20), nullDevice(1<<20))
		id, row := e.IDs()[0], &Client{}
		fd, c := tcpPair(t)
		if err := e.AdoptClient(fd, id, proto.Session{}, row); err != nil {
			t.Fatal(err)
		}
		r := proto.Request{Command: proto.CmdRead, Length: each}
		for range n {
			c.send(r, nil)
		}
		until(t, "the reads", func() bool { return counted(t, e).BytesRead == n*each })
		var ended <-chan struct{}
		goesOn := 300 * time.Millisecond
		if removed {
			w, err := e.publish(&Change{Remove: []ID{id}})
			if err != nil {
				t.Fatal(err)
			}
			go e.seeOff(w.home, w.leaving)
			ended, goesOn = w.departures[0].gone, time.Duration(leaveGraceNanos)+goesOn
		} else {
			ended = e.Retire(row)
		}
		answered, wire := 0, make([]byte, proto.RequestSize)
		proto.PutRequest(wire, &proto.Request{Cookie: 1, Command: proto.CmdFlush})
		for began := time.Now(); time.Since(began) < goesOn; {
			if _, err := c.fd.Write(wire); err != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		within(t, ended, 10*time.Second)
		data := make([]byte, each)
		for {
			var head [proto.SimpleReplySize]byte
			if _, err := io.ReadFull(c.fd, head[:]); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("removed %t: %d replies, then %v", removed, answered, err)
			}
			if cookie, _, err := proto.ParseSimpleReply(head[:]); err != nil {
				t.Fatal(err)
			} else if cookie == 0 {
				c.read(data)
				answered++
			}
		}
		if answered < n {
			t.Errorf("removed %t: %d replies, then the end", removed, answered)
		}
	}
}

// TestAReadInPartsIsWholeWhenItsConnectionEnds: with its first part all of its data was promised.
func TestAReadInPartsIsWholeWhenItsConnectionEnds(t *testing.T) {
	const n = 8 << 20
	for _, removed := range []bool{false, true} {
		d := fileDevice(t, n, unix.O_DIRECT)
		want := bytes.Repeat([]byte{1, 2, 3, 4}, n/4)
		if _, err := unix.Pwrite(d.FD, want, 0); err != nil {
			t.Fatal(err)
		}
		e := scantyEngine(t, d)
		row := &Client{}
		c := guest(t, e, row)
		c.send(proto.Request{Command: proto.CmdRead, Length: n}, nil)
		got := make([]byte, proto.SimpleReplySize+n)
		c.read(got[:1<<20])
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if removed {
				_, _ = e.Apply(soon(t), Change{Remove: e.IDs()})
			} else {
				<-e.Retire(row)
			}
		}()
		time.Sleep(time.Duration(leaveGraceNanos) + 300*time.Millisecond)
		c.read(got[1<<20:])
		if !bytes.Equal(got[proto.SimpleReplySize:], want) {
			t.Errorf("removed %t: other data", removed)
		}
		if k, err := c.fd.Read(got[:1]); k != 0 || err != io.EOF {
			t.Errorf("removed %t: %d bytes after the reply, %v", removed, k, err)
		}
		within(t, ended, 10*time.Second)
	}
}

// TestAReadInPartsThatIsNotTakenKeepsUpNoRemoval: it is cut as others are.
func TestAReadInPartsThatIsNotTakenKeepsUpNoRemoval(t *testing.T) {
	e := scantyEngine(t, fileDevice(t, 8<<20, unix.O_DIRECT))
	c := connect(t, e, 0)
	c.send(proto.Request{Command: proto.CmdRead, Length: 8 << 20}, nil)
	until(t, "the read", func() bool { return counted(t, e).Divided == 1 })
	applied(t, e, Change{Remove: e.IDs()})
}
