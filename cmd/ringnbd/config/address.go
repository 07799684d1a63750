// The text of addresses, with answers to what people write instead.
//
// Invariant: nothing is looked up: an address that passes may still not be one of this machine.

package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"ringnbd/engine/gate"
	"ringnbd/proto"
)

// CheckAddress says what is wrong with an address to listen on, if its form shows what was meant.
func CheckAddress(address string) error {
	scheme, rest, _ := strings.Cut(address, ":")
	switch {
	case rest == "" && (strings.Contains(address, "/") || strings.HasSuffix(address, ".sock")) ||
		strings.HasPrefix(address, "/"):
		return fmt.Errorf("a Unix socket is written unix:%s", address)
	case scheme == "vsock":
		return errors.New("vsock is not supported; listen on HOST:PORT or unix:PATH")
	case strings.HasPrefix(rest, "//"):
		return errors.New("is a URI; write HOST:PORT or unix:PATH")
	case scheme == "tcp" && rest != "":
		return fmt.Errorf("write %s", rest)
	}
	return nil
}

// CheckOldstyle says what is wrong with an address for clients that cannot negotiate.
func CheckOldstyle(address string) error {
	if err := CheckAddress(address); err != nil || strings.HasPrefix(address, "unix:") {
		return err
	}
	_, port, err := net.SplitHostPort(address)
	number, _ := strconv.Atoi(port)
	switch {
	case err != nil || port == "":
		return errors.New("write HOST:PORT or unix:PATH; the port has no default")
	case number == proto.DefaultPort:
		return fmt.Errorf("port %d is for clients that negotiate; choose another port",
			proto.DefaultPort)
	}
	return nil
}

// checkListen says what is wrong with an address to listen on.
func checkListen(address string) error {
	if err := CheckAddress(address); err != nil {
		return err
	}
	return gate.CheckAddress(address)
}

// SplitDebug splits HOST:PORT; of unix:PATH the path is the host. It refuses addresses that other
// machines could reach.
func SplitDebug(text string) (host, port string, err error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if path == "" {
			return "", "", errors.New("no path; write unix:PATH")
		}
		return path, "", nil
	}
	if err := CheckAddress(text); err != nil {
		return "", "", err
	}
	if host, port, err = net.SplitHostPort(text); err != nil {
		return "", "", errors.New("no address; write localhost:PORT or unix:PATH")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil { // which takes no sign
		return "", "", fmt.Errorf("%q is not a port; write a number from 0 (any free one) to 65535",
			port)
	}
	if !LoopbackName(host) {
		return "", "",
			errors.New("profiles show what the server does and cost it time, so they are for " +
				"this machine alone; write localhost:PORT, 127.0.0.1:PORT, [::1]:PORT or unix:PATH")
	}
	return host, port, nil
}

// LoopbackName reports whether a host is localhost, or an address of the loopback. Any other name
// may belong to another machine by the time that it is looked up.
func LoopbackName(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}
