// Who is at the other end of the socket, and what that user may do.
//
// Invariant: what the kernel noted when the client connected counts: its user, its group and its
// further groups. None of it can be changed by the client afterwards.

package control

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"ringnbd/engine/uring"
)

// Caller is a client of the control socket.
type Caller struct {
	UID    uint32
	GID    uint32
	PID    int32 // 0: it has no number here, or it is the server itself
	Groups []uint32
	Signal string // the caller is a signal, or another cause within the server
}

// String names the caller for a log.
func (c Caller) String() string {
	if c.Signal != "" {
		return c.Signal
	}
	text := "uid " + strconv.FormatUint(uint64(c.UID), 10)
	if c.PID > 0 {
		text = "pid " + strconv.Itoa(int(c.PID)) + " " + text
	}
	return text
}

// callerOf returns who has connected.
func callerOf(c *net.UnixConn) (Caller, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var who *unix.Ucred
	var groups []uint32
	var failure error
	err = raw.Control(func(fd uintptr) {
		if who, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET,
			unix.SO_PEERCRED); failure == nil {
			groups, failure = uring.PeerGroups(int(fd))
		}
	})
	if err = errors.Join(err, failure); err != nil {
		return Caller{}, err
	}
	return Caller{UID: who.Uid, GID: who.Gid, PID: who.Pid, Groups: groups}, nil
}

// Principal is a user or a group.
type Principal struct {
	Group bool
	ID    uint32
}

// principalForms are the spellings of a principal: with a number or a name.
var principalForms = []string{"uid:", "user:", "gid:", "group:"}

// CheckPrincipal checks the spelling of uid:0, user:NAME, gid:0 and group:NAME. The name need not
// exist on this machine.
func CheckPrincipal(text string) error {
	_, name, ok := strings.Cut(text, ":")
	known := slices.ContainsFunc(principalForms,
		func(p string) bool { return strings.HasPrefix(text, p) })
	if !ok || !known || name == "" {
		return fmt.Errorf("%q is not a user or a group; write uid:0, user:NAME, gid:0 or "+
			"group:NAME", text)
	}
	return nil
}

// ParsePrincipal reads a principal, and looks its name up.
func ParsePrincipal(text string) (Principal, error) {
	if err := CheckPrincipal(text); err != nil {
		return Principal{}, err
	}
	kind, name, _ := strings.Cut(text, ":")
	group := kind == "gid" || kind == "group"
	number := name
	if strings.Trim(name, "0123456789") != "" {
		var err error
		if number, err = lookUp(group, name); err != nil {
			return Principal{}, fmt.Errorf("%s: this machine has no such %s; make it first", text,
				map[bool]string{false: "user", true: "group"}[group])
		}
	}
	id, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return Principal{}, fmt.Errorf("%s: the number is too large", text)
	}
	return Principal{Group: group, ID: uint32(id)}, nil
}

// lookUp returns the number of a name.
func lookUp(group bool, name string) (string, error) {
	if group {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

// Access says who may do what. Admins may look and change, viewers may look.
type Access struct {
	Admins  []Principal
	Viewers []Principal
}

// DefaultAdmins are uid 0 and the user of this process.
func DefaultAdmins() []Principal {
	return []Principal{{ID: 0}, {ID: uint32(syscall.Getuid())}}
}

// Narrow reports whether no user but root and the server's own may connect: then the file of the
// socket keeps all others out.
func (a *Access) Narrow() bool {
	own := DefaultAdmins()
	return len(a.Viewers) == 0 && !slices.ContainsFunc(a.Admins,
		func(p Principal) bool { return !slices.Contains(own, p) })
}

// role is what a caller may do.
type role uint8

const (
	stranger role = iota
	viewer
	admin
	roles // how many there are
)

// roleOf decides what a caller may do.
func (a *Access) roleOf(c *Caller) role {
	is := func(p Principal) bool {
		if p.Group {
			return p.ID == c.GID || slices.Contains(c.Groups, p.ID)
		}
		return p.ID == c.UID
	}
	switch {
	case slices.ContainsFunc(a.Admins, is):
		return admin
	case slices.ContainsFunc(a.Viewers, is):
		return viewer
	}
	return stranger
}
