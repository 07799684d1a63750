// Programs for the guest: what busybox and Debian's nbd-client do not have.
//
// Invariant: the exit status is 0 only if all is well.

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ringnbd/proto"
)

func guestProgram(role string, arguments []string) int {
	var err error
	switch {
	case role == "hog" && len(arguments) == 1:
		err = hog(arguments[0])
	case role == "attach" && len(arguments) == 3:
		err = attach(arguments[0], arguments[1], arguments[2])
	default:
		err = fmt.Errorf("no such program, or not its arguments: %s %q", role, arguments)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1
	}
	return 0
}

// hog fills MiB of anonymous memory, and reads all of it.
func hog(mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	// Every word is its own: one of another page is noticed.
	for at := 0; at < len(memory); at += 8 {
		binary.LittleEndian.PutUint64(memory[at:], uint64(at)*0x9e3779b97f4a7c15+1)
	}
	for at := 0; at < len(memory); at += 8 {
		if got, want := binary.LittleEndian.Uint64(memory[at:]), uint64(at)*0x9e3779b97f4a7c15+
			1; got != want {
			return fmt.Errorf("at %d is %#x, not %#x", at, got, want)
		}
	}
	return nil
}

// Generic netlink of nbd.ko (include/uapi/linux/nbd-netlink.h).
const (
	nbdCmdConnect, nbdCmdDisconnect, nbdCmdReconfigure = 1, 2, 3

	nbdAttrIndex, nbdAttrSize, nbdAttrBlockSize, nbdAttrTimeout, nbdAttrServerFlags = 1, 2, 3, 4, 5
	nbdAttrSockets, nbdAttrDeadConnTimeout                                          = 7, 8

	nbdSockItem, nbdSockFD = 1, 1
)

// requestTimeout is the seconds after which the kernel sends what was on its way over a connection
// that died again, over another.
const requestTimeout = 6

// attach attaches an export to /dev/nbd0 over some connections, and replaces those that die until
// SIGTERM. /tmp/reconnected counts them.
func attach(address, export, connections string) error {
	n, err := strconv.Atoi(connections)
	if err != nil {
		return err
	}
	link, err := openNetlink()
	if err != nil {
		return err
	}
	sockets := make([]*os.File, n)
	var size uint64
	var flags uint16
	for i := range sockets {
		if sockets[i], size, flags, err = negotiate(address, export); err != nil {
			return err
		}
	}
	message := slices.Concat(attribute(nbdAttrIndex, u32(0)), attribute(nbdAttrSize, u64(size)),
		attribute(nbdAttrBlockSize, u64(4096)),
		attribute(nbdAttrServerFlags, u64(uint64(flags))),
		attribute(nbdAttrTimeout, u64(requestTimeout)), attribute(nbdAttrDeadConnTimeout, u64(90)),
		socketList(sockets...))
	if err := link.call(nbdCmdConnect, message); err != nil {
		return fmt.Errorf("NBD_CMD_CONNECT: %w", err)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	for again := 0; ; {
		if err := os.WriteFile("/tmp/reconnected", []byte(strconv.Itoa(again)), 0o600); err != nil {
			return err
		}
		select {
		case <-term:
			return link.call(nbdCmdDisconnect, attribute(nbdAttrIndex, u32(0)))
		case <-time.After(100 * time.Millisecond):
		}
		for i, s := range sockets {
			poll := []unix.PollFd{{Fd: int32(s.Fd()), Events: unix.POLLRDHUP}}
			if ready, err := unix.Poll(poll, 0); err != nil || ready == 0 {
				continue
			}
			fresh, _, _, err := negotiate(address, export)
			if err != nil {
				continue // the server is not there yet
			}
			// The kernel replaces a connection that it has seen die, which it may not have yet.
			if err := link.call(nbdCmdReconfigure,
				slices.Concat(attribute(nbdAttrIndex, u32(0)), socketList(fresh))); err != nil {
				fmt.Fprintln(os.Stderr, "NBD_CMD_RECONFIGURE:", err)
				fresh.Close()
				continue
			}
			s.Close()
			sockets[i] = fresh
			again++
		}
	}
}

// negotiate opens a connection by NBD_OPT_EXPORT_NAME, which every server has.
func negotiate(address, export string) (*os.File, uint64, uint16, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, 0, 0, err
	}
	defer conn.Close() // File is a duplicate
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, 0, 0, err
	}
	banner := make([]byte, proto.BannerSize)
	if _, err := io.ReadFull(conn, banner); err != nil {
		return nil, 0, 0, err
	}
	if binary.BigEndian.Uint64(banner) != proto.Magic ||
		binary.BigEndian.Uint64(banner[8:]) != proto.OptionMagic {
		return nil, 0, 0, errors.New("this is no NBD server")
	}
	hello := binary.BigEndian.AppendUint32(nil,
		proto.FlagClientFixedNewstyle|proto.FlagClientNoZeroes)
	hello = binary.BigEndian.AppendUint64(hello, proto.OptionMagic)
	hello = binary.BigEndian.AppendUint32(hello, proto.OptExportName)
	hello = binary.BigEndian.AppendUint32(hello, uint32(len(export)))
	if _, err := conn.Write(append(hello, export...)); err != nil {
		return nil, 0, 0, err
	}
	reply := make([]byte, proto.ExportNameReplySize)
	if _, err := io.ReadFull(conn, reply); err != nil {
		return nil, 0, 0, err
	}
	file, err := conn.(*net.TCPConn).File()
	return file, binary.BigEndian.Uint64(reply), binary.BigEndian.Uint16(reply[8:]), err
}

func socketList(sockets ...*os.File) []byte {
	var items []byte
	for _, s := range sockets {
		items = append(items,
			attribute(nbdSockItem|unix.NLA_F_NESTED, attribute(nbdSockFD, u32(uint32(s.Fd()))))...)
	}
	return attribute(nbdAttrSockets|unix.NLA_F_NESTED, items)
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }

// attribute is struct nlattr: length, type, value, filled up to a multiple of four.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// netlink is a generic netlink socket and the number that nbd has there.
type netlink struct {
	socket int
	family uint16
}

func openNetlink() (*netlink, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC,
		unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	l := &netlink{socket: socket, family: unix.GENL_ID_CTRL}
	answer, err := l.exchange(unix.CTRL_CMD_GETFAMILY,
		attribute(unix.CTRL_ATTR_FAMILY_NAME, []byte("nbd\x00")))
	if err != nil {
		return nil, fmt.Errorf("the kernel's nbd has no netlink: %w", err)
	}
	for len(answer) >= 4 {
		length := int(binary.NativeEndian.Uint16(answer))
		if length < 4 || length > len(answer) {
			break
		}
		if binary.NativeEndian.Uint16(answer[2:]) == unix.CTRL_ATTR_FAMILY_ID && length >= 6 {
			l.family = binary.NativeEndian.Uint16(answer[4:])
			return l, nil
		}
		answer = answer[min(len(answer), (length+3)&^3):]
	}
	return nil, errors.New("the kernel's answer has no family number")
}

// call sends a command and waits for its acknowledgement.
func (l *netlink) call(command uint8, attributes []byte) error {
	_, err := l.exchange(command, attributes)
	return err
}

// exchange sends a command and returns the attributes of the answer, if there is one besides the
// acknowledgement.
func (l *netlink) exchange(command uint8, attributes []byte) ([]byte, error) {
	message := u32(uint32(16 + 4 + len(attributes)))
	message = binary.NativeEndian.AppendUint16(message, l.family)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	message = append(message, 0, 0, 0, 0, 0, 0, 0, 0) // sequence number, port
	message = append(append(message, command, 1, 0, 0), attributes...)
	if err := unix.Sendto(l.socket, message, 0,
		&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var answer []byte
	for buffer := make([]byte, 16<<10); ; {
		n, _, err := unix.Recvfrom(l.socket, buffer, 0)
		if err != nil {
			return nil, err
		}
		for rest := buffer[:n]; len(rest) >= 20; {
			length := int(binary.NativeEndian.Uint32(rest))
			if length < 20 || length > len(rest) {
				return nil, errors.New("a message of the kernel is cut off")
			}
			if binary.NativeEndian.Uint16(rest[4:]) == unix.NLMSG_ERROR {
				if errno := int32(binary.NativeEndian.Uint32(rest[16:])); errno != 0 {
					return nil, unix.Errno(-errno)
				}
				return answer, nil
			}
			answer = slices.Clone(rest[20:length])
			rest = rest[min(len(rest), (length+3)&^3):]
		}
	}
}
