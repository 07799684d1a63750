// Unix sockets: the file by which clients find a server.
//
// Invariant: the file of a socket that a living server listens on is never removed by another
// server, neither when it starts nor when it ends.

package gate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxUnixPath is the room for a path in a sockaddr_un, without its closing NUL, in bytes.
	maxUnixPath = 107
	// staleLockWait is how long to wait for another server that is replacing the same stale socket.
	staleLockWait = 2 * time.Second
	// lockSuffix is appended to a socket's path for the path of its lock. No other program locks a
	// file of that name, and no other user can: only the owner may open it.
	lockSuffix = ".ringnbd-lock"
)

// listenUnix listens on a path.
func listenUnix(path string, o *Options) (*Place, error) {
	if err := checkUnixPath(path); err != nil {
		return nil, err
	}
	if strings.HasPrefix(path, "@") {
		// package net would make it a socket in the abstract namespace, without a file
		path = "./" + path
	}
	whole, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	l, err := takePath(path, o)
	if err != nil {
		return nil, fmt.Errorf("listen on unix:%s: %s", path, adviceUnix(err))
	}
	return &Place{Listeners: []net.Listener{l}, URI: unixURI(whole)}, nil
}

// checkUnixPath says why a path cannot be a socket's.
func checkUnixPath(path string) error {
	switch {
	case path == "":
		return errors.New(`listen on "unix:": no path; write unix:PATH`)
	case len(path) > maxUnixPath:
		return fmt.Errorf("listen on unix:%s: the path has %d bytes, the kernel takes %d; "+
			"choose a shorter path", path, len(path), maxUnixPath)
	case strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("listen on %q: a path has no NUL byte; choose another", "unix:"+path)
	}
	return nil
}

// Errors of takePath. Each is the end of a line about the path.
var (
	errLive      = errors.New("another server is listening there; stop it or choose another path")
	errNotSocket = errors.New("the path exists and is not a socket; remove it or choose another " +
		"path")
	errLocked = errors.New("another server is starting there; try again or choose another path")
)

// takePath listens on a path, and replaces a socket there that no process listens on. The path is
// locked meanwhile: between bind and listen a new socket looks like a stale one, and two servers
// that start at the same time would remove each other's. The file's mode follows the umask, unless
// the options have one.
func takePath(path string, o *Options) (net.Listener, error) {
	if _, err := findStale(path); err != nil {
		return nil, err // before the lock, which perhaps cannot be made there
	}
	unlock, err := lockPath(path + lockSuffix)
	if err != nil {
		return nil, err
	}
	defer unlock()
	stale, err := findStale(path)
	if err != nil {
		return nil, err
	}
	stale.remove(path)
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, o.restrict)
	}}
	made, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	l := made.(*net.UnixListener)
	l.SetUnlinkOnClose(false) // it would remove any file that has the name by then
	ours := &unixListener{UnixListener: l, path: path, file: fileAt(path)}
	if err := o.permit(path); err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// unixListener removes its socket's file when it is closed, unless the file was replaced.
type unixListener struct {
	*net.UnixListener
	path string
	file file
	gone sync.Once
}

// Close removes the file first: as long as the socket is open, no other file can have its inode.
func (l *unixListener) Close() error {
	l.gone.Do(func() { l.file.remove(l.path) })
	return l.UnixListener.Close()
}

// file identifies a file; the zero value stands for no file.
type file struct{ dev, inode uint64 }

// fileAt returns the file that has the path now.
func fileAt(path string) file {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return file{}
	}
	return file{uint64(st.Dev), st.Ino}
}

// remove removes the file from the path, unless another file has the path.
func (f file) remove(path string) {
	if f != (file{}) && fileAt(path) == f {
		_ = os.Remove(path) // bind reports what stays
	}
}

// findStale returns the socket of a server that has ended, or nothing; an error means that the path
// is in use.
func findStale(path string) (file, error) {
	there := fileAt(path)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return file{}, nil
	case err != nil:
		return file{}, err
	case info.Mode().Type() != fs.ModeSocket:
		return file{}, errNotSocket
	}
	c, err := net.DialTimeout("unix", path, staleLockWait)
	switch {
	case err == nil:
		c.Close()
		return file{}, errLive
	case errors.Is(err, syscall.ECONNREFUSED):
		return there, nil
	case errors.Is(err, fs.ErrNotExist):
		return file{}, nil
	case errors.Is(err, fs.ErrPermission):
		return file{}, err
	}
	// a full backlog (EAGAIN), a socket of another type (EPROTOTYPE): a process listens
	return file{}, errLive
}

// lockPath takes a lock that is a file, which unlock removes. A file that a killed server has left
// is not an obstacle.
func lockPath(path string) (unlock func(), err error) {
	for end := time.Now().Add(staleLockWait); ; time.Sleep(10 * time.Millisecond) {
		fd, err := unix.Open(path,
			unix.O_CREAT|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
		if err == unix.EACCES && fileAt(path) != (file{}) {
			return nil, fmt.Errorf("%s belongs to another user; remove it or choose another path",
				path)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		var st unix.Stat_t
		if err == nil && unix.Fstat(fd, &st) == nil {
			ours := file{uint64(st.Dev), st.Ino}
			// else its last holder has removed it, and other servers lock the next file
			if fileAt(path) == ours {
				return func() {
					if st.Size == 0 { // as we make it
						ours.remove(path)
					}
					_ = unix.Close(fd)
				}, nil
			}
		}
		_ = unix.Close(fd)
		switch {
		case err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, fmt.Errorf("%s: %w", path, err)
		case time.Now().After(end):
			return nil, errLocked
		}
	}
}

// adviceUnix says what is wrong and what to do.
func adviceUnix(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "no such directory; create it or choose another path"
	case errors.Is(err, fs.ErrPermission):
		return "no permission; choose a path in a folder you may write"
	case errors.Is(err, syscall.EADDRINUSE):
		return errLocked.Error()
	}
	return err.Error()
}
