// Mistakes that people make in a command line, and the answers that help.
//
// Invariant: a proposal in an answer works; a word that is right is never called wrong.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ringnbd/cmd/ringnbd/nearest"
	"ringnbd/engine/backing"
	"ringnbd/engine/client"
	"ringnbd/engine/tree"
)

// otherWords are the names that other programs, and people, have for our flags and commands.
var otherWords = map[string][]string{
	"--listen": {"address", "addr", "bind", "host", "ipaddr", "socket", "unix", "k", "U",
		"b"},
	"--port":            {"tcp"},
	"--read-only":       {"ro"},
	"--export":          {"name", "export-name", "exportname", "x", "N"},
	"--create":          {"size"},
	"--memory":          {"mem", "ram", "buffer-size"},
	"--max-connections": {"connections", "max-clients", "shared", "limit"},
	"--loops":           {"threads"},
	"--direct":          {"cache", "odirect", "direct-io"},
	"--log-format":      {"json"},
	"--duration":        {"runtime", "time", "seconds"},
	"--depth":           {"iodepth", "queue-depth", "qd"},
	"--pattern":         {"readwrite"},
	"--bs":              {"blocksize", "block-size"},
	"--connections":     {"numjobs", "jobs"},
	"--count":           {"number", "requests"},
	"--requests":        {"depth", "queue-depth"},
	"--map":             {"extents", "totals"},
	"--list":            {"exports", "all"},
	"--allocated":       {"no-sparse", "no-holes"},
	"--spawn":           {"run", "start"},
	"serve":             {"server", "start", "run", "daemon", "listen", "share"},
	"info":              {"list", "ls", "show", "map", "status", "size"},
	"copy":              {"cp", "dd", "clone", "convert", "mirror", "sync"},
	"bench":             {"perf", "fio", "load", "measure"},
	"ctl":               {"control", "admin", "reload", "add", "remove", "kick"},
	"conform":           {"test", "check", "verify", "validate"},
}

// suggest finds the words that may have been meant. It returns the end of an answer, or nothing.
func suggest(typed string, words []string) string {
	return nearest.Words(typed, words, otherWords)
}

// subcommands are the names of the commands that can be called.
func subcommands(c *cobra.Command) (names []string) {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() || sub.Name() == "help" {
			names = append(names, sub.Name())
		}
	}
	return names
}

// unknownCommand answers a word after the program's name that is not a command.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	advice := suggest(args[0], subcommands(c))
	if advice == "" && fileExists(args[0]) {
		advice = fmt.Sprintf("; to serve it: ringnbd serve %s", args[0])
	}
	return fmt.Errorf("unknown command %q%s", args[0], advice)
}

// flagError answers flags that do not exist, and values that a flag does not accept.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var needs *pflag.ValueRequiredError
	var wrong *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		typed := "--" + unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			typed = typed[1:]
		}
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		return fmt.Errorf("unknown flag: %s%s", typed, suggest(typed, names))
	case errors.As(err, &needs):
		what, _ := pflag.UnquoteUsage(needs.GetFlag())
		name := needs.GetFlag().Name
		return fmt.Errorf("--%s needs a value: --%s %s", name, name, what)
	case errors.As(err, &wrong):
		return fmt.Errorf("--%s %s: %w", wrong.GetFlag().Name, wrong.GetValue(),
			plainNumber(wrong, errors.Unwrap(wrong)))
	}
	return err
}

// plainNumber words the error of a flag that takes a number, or true and false; other flags word
// their own.
func plainNumber(wrong *pflag.InvalidValueError, err error) error {
	words := "must be a whole number"
	var cause error
	switch kind, text := wrong.GetFlag().Value.Type(), wrong.GetValue(); {
	case kind == "bool":
		return errors.New("must be true or false; without a value it is true")
	case strings.HasPrefix(kind, "float"):
		words = "must be a number"
		_, cause = strconv.ParseFloat(text, 64)
	case strings.HasPrefix(kind, "uint"):
		words = "must be a whole number, 0 or more"
		_, cause = strconv.ParseUint(text, 0, 64)
	case strings.HasPrefix(kind, "int"):
		_, cause = strconv.ParseInt(text, 0, 64)
	default:
		return err
	}
	if errors.Is(cause, strconv.ErrRange) {
		words = "is out of range"
	}
	return errors.New(words)
}

// checkDashes answers a long flag with a single dash, which pflag would take for its first letter
// and a value.
func checkDashes(c *cobra.Command, args []string) error {
	for _, arg := range args {
		if arg == "--" {
			return nil
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		if len(name) < 2 || !strings.HasPrefix(arg, "-") || strings.HasPrefix(arg, "--") {
			continue
		}
		if c.Flags().Lookup(name) != nil {
			return fmt.Errorf("unknown flag: -%s; did you mean --%s?", name, name)
		}
	}
	return nil
}

// awaitPath waits until the storage of a path answers. Nothing has begun yet, so a signal ends the
// program.
func awaitPath(path string) {
	ctx, stop := interruptible()
	defer stop()
	quiet := time.AfterFunc(startQuiet, func() {
		writeLastLine(os.Stderr, "ringnbd: waiting for the storage of "+oneLine(visible(path)))
	})
	defer quiet.Stop()
	err := backing.Await(ctx, func() error { backing.Reach(path); return nil })
	if ctx.Err() == nil {
		return
	}
	if err == nil {
		err = errors.New("interrupted")
	}
	writeLastLine(os.Stderr, "ringnbd: "+oneLine(visible(fmt.Sprintf("%s: %v", path, err))))
	os.Exit(exitFailure)
}

// fileExists reports whether a path leads to a file of any kind.
func fileExists(path string) bool {
	awaitPath(path)
	_, err := os.Lstat(path)
	return err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid)
}

// isPort reports whether a text is the number of a TCP port.
func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// checkPaths answers an address or a port in place of a PATH, unless a file has that name.
func checkPaths(paths []string) error {
	for i, text := range paths {
		path, _ := backing.ParsePath(text)
		if backing.Synthetic(path) || tree.Is(text) || fileExists(path) {
			continue
		}
		others := strings.Join(slices.Delete(slices.Clone(paths), i, i+1), " ")
		if others == "" {
			others = "disk.img"
		}
		literally := fmt.Sprintf(" (a file of that name is written ./%s)", path)
		scheme, rest, _ := strings.Cut(path, ":")
		host, port, err := net.SplitHostPort(path)
		switch {
		case isPort(path) && len(paths) == 1:
			return fmt.Errorf("nothing to serve on port %s; write: ringnbd serve %s disk.img%s",
				path, path, literally)
		case isPort(path):
			return fmt.Errorf("%s is not a file; a port stands before the paths: ringnbd serve %s "+
				"%s%s", path, path, others, literally)
		case scheme == "unix" && rest != "":
			return fmt.Errorf("%s is an address; write: ringnbd serve --listen %s %s%s", path, path,
				others, literally)
		case err == nil && isPort(port):
			if host == "" {
				host = "localhost"
			}
			return fmt.Errorf("%s is an address; write: ringnbd serve --listen %s %s%s", path,
				net.JoinHostPort(host, port), others, literally)
		case scheme == "file" && rest != "":
			return fmt.Errorf("%s: paths are written as they are: ringnbd serve %s", path, rest)
		case strings.HasPrefix(rest, "//"):
			return fmt.Errorf("%s is an address of clients, which serve makes from --listen; name "+
				"what to serve: a disk image or a block device", path)
		}
	}
	return nil
}

// checkURI answers the path of a Unix socket, or a host, in place of a URI.
func checkURI(text string) error {
	awaitPath(text)
	if info, err := os.Stat(text); err == nil && info.Mode()&fs.ModeSocket != 0 {
		return fmt.Errorf("%s is a Unix socket; write 'nbd+unix:///?socket=%s'", text, text)
	}
	host := text == "localhost" || net.ParseIP(text) != nil || !strings.ContainsAny(text, "./:[ ")
	if !host || text == "" || fileExists(text) {
		return nil
	}
	return fmt.Errorf("%s is not an NBD URI; write nbd://%s, if it is a host", text, uriHost(text))
}

// uriHost is a host as URIs write it.
func uriHost(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// parseServer reads the URI of a server; about tells what to use for a file instead.
func parseServer(text, about string) (client.Target, error) {
	if err := checkURI(text); err != nil {
		return client.Target{}, err
	}
	t, err := client.ParseTarget(text)
	if t.File() || !strings.Contains(text, ":") {
		return t, fmt.Errorf("%q is not an NBD URI: write nbd://HOST/EXPORT or "+
			"nbd+unix:///EXPORT?socket=PATH%s", text, about)
	}
	var scheme *client.SchemeError
	if errors.As(err, &scheme) { // its own text offers file: too
		return t, fmt.Errorf("%s: is not a scheme of NBD; use nbd://HOST/EXPORT or "+
			"nbd+unix:///EXPORT?socket=PATH", scheme.Scheme)
	}
	return t, err
}
