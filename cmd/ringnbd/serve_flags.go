// The command line of serve: every flag with its default, its spelling and its check.
//
// Invariant: after check the options are complete and agree with each other, as far as text can
// show; serve checks what depends on the machine.

package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ringnbd/cmd/ringnbd/config"
	"ringnbd/engine"
	"ringnbd/engine/backing"
	"ringnbd/engine/gate"
)

const (
	maxLoops       = config.MaxLoops
	maxConnections = config.MaxConnections
)

// options are the values of serve's flags.
type options struct {
	exports     []backing.Spec // of --export, in order
	create      uint64         // bytes, 0: never
	listen      []string
	oldstyle    []oldstyle
	readOnly    bool
	partitions  bool // of every disk
	force       bool
	raw         rawFlag
	loops       int
	memory      uint64 // bytes, 0: the default for the number of loops
	connections int
	homed       bool // exports may have a loop of their own, for all of their connections
	direct      backing.DirectMode
	poll        pollFlag
	registered  engine.Registration
	allowance   allowance // what this process may have
	lookups     int       // maximum of concurrent block status lookups in each loop, 0: the default
	handshake   time.Duration
	shutdown    time.Duration
	debug       debugFlag
	control     controlFlag
	admins      []string // who may use the control socket, besides root and the server's own user
	viewers     []string
	logFormat   string
	verbose     bool
	loud        bool                    // --verbose was given beside --config
	config      string                  // path of a configuration file, "" without one
	file        *config.Config          // what it says
	flagged     *config.Config          // what the flags say, without exports
	manner      map[string]gate.Options // of the addresses that have some
}

func (o *options) register(flags *pflag.FlagSet) {
	o.allowance = readAllowance()
	flags.SortFlags = false
	o.handshake, o.shutdown = gate.DefaultHandshakeTimeout, 10*time.Second
	s := sections{flags: flags}
	s.begin("What is served")
	flags.Var((*exportFlag)(&o.exports), "export",
		"serve PATH under NAME; repeatable; PATH,ro is read-only, PATH,partitions serves its "+
			"partitions as well, PATH,format=raw is raw whatever it looks like, "+
			"PATH,description=TEXT has a description")
	flags.Var((*sizeFlag)(&o.create), "create", "create missing images, sparse, of `SIZE`")
	flags.BoolVarP(&o.readOnly, "read-only", "r", false, "serve everything read-only")
	flags.BoolVar(&o.partitions, "partitions", false,
		"serve each partition of every disk as well, as NAME/N")
	flags.Var(&o.raw, "format",
		"`FORMAT` of all images: raw is the only one; it serves them whatever they look like")
	flags.BoolVar(&o.force, "force", false,
		"serve images and devices that other programs use: see above")
	flags.StringVarP(&o.config, "config", "c", "",
		"serve what `FILE` says, in place of PATHs and all other flags but --verbose; see: "+
			"ringnbd config")
	s.begin("Where")
	flags.VarP((*listenFlag)(&o.listen), "listen", "l",
		"accept connections at `ADDRESS`, HOST:PORT or unix:PATH; repeatable (default "+
			gate.DefaultListen+")")
	flags.VarP((*portFlag)(&o.listen), "port", "p",
		"short for --listen localhost:`PORT`; repeatable")
	flags.Var((*oldstyleFlag)(&o.oldstyle), "oldstyle",
		"serve EXPORT at ADDRESS to clients from before 2011, which cannot negotiate: without "+
			"TLS, and to every client that can connect; repeatable")
	flags.Var(&o.control, "control",
		"look at the server and change it through the socket `unix:PATH`, see ringnbd ctl "+
			"(default: none)")
	s.begin("Limits")
	flags.IntVar(&o.connections, "max-connections", o.allowance.connections(),
		"serve at most `N` connections at a time")
	flags.Var((*sizeFlag)(&o.memory), "memory",
		"`SIZE` of the buffer memory of all loops, a hard bound (default 160 MiB for each "+
			"loop, at most 1 GiB, and half of what the control group leaves)")
	flags.Var((*timeFlag)(&o.handshake), "handshake-timeout",
		"close connections that have not finished the handshake after this `TIME`")
	flags.Var((*timeFlag)(&o.shutdown), "shutdown-timeout",
		"after SIGTERM, answer the requests in flight for at most this `TIME`")
	s.begin("Tuning")
	flags.IntVar(&o.loops, "loops", o.allowance.loops(),
		"number `N` of event loops, each with its own ring and thread; at most 8 unless given")
	flags.Var((*directFlag)(&o.direct), "direct",
		"O_DIRECT: `MODE` auto (where the file system supports it), on (or fail) or off")
	flags.Var((*registerFlag)(&o.registered), "register",
		"register the memory with io_uring, which locks it: `MODE` auto (if the limit on locked "+
			"memory allows it), on (or fail) or off")
	flags.Var(&o.poll, "poll", "how long an idle loop polls for work before it sleeps: "+
		"`MICROSECONDS`, 0 for never, or auto")
	s.begin("Logs")
	flags.BoolVarP(&o.verbose, "verbose", "v", false,
		"log connections, and the features of io_uring on this kernel")
	flags.Var((*logFlag)(&o.logFormat), "log-format", "`FORMAT` text or json, on standard error")
	flags.Var(&o.debug, "debug", "profiles and counters over HTTP at `ADDRESS` of this machine, "+
		"localhost:PORT or unix:PATH (default: none)")
	s.end()
}

// complete offers the values of flags that accept only a few.
func complete(c *cobra.Command) {
	for flag, values := range map[string][]string{"direct": {"auto", "on", "off"},
		"register": registerNames, "log-format": {"text", "json"}, "poll": {"auto", "0", "50"},
		"control": {"unix:/run/ringnbd/control"},
		"debug":   {"localhost:0", "localhost:6060", "unix:ringnbd.debug"}} {
		// The only error is a flag that does not exist, which a test would see.
		_ = c.RegisterFlagCompletionFunc(flag,
			cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

// check checks the flags together, and fills in the default of --memory.
func (o *options) check(specs []backing.Spec) error {
	switch {
	case o.loops < 1 || o.loops > maxLoops:
		return fmt.Errorf("--loops %d: must be from 1 to %d", o.loops, maxLoops)
	case o.connections < 1 || o.connections > maxConnections:
		return fmt.Errorf("--max-connections %d: must be from 1 to %d", o.connections,
			maxConnections)
	case o.handshake <= 0:
		return fmt.Errorf("--handshake-timeout %v: must be more than 0", o.handshake)
	case o.shutdown <= 0:
		return fmt.Errorf("--shutdown-timeout %v: must be more than 0", o.shutdown)
	}
	// Overlays are among the exports, or can be added, by the control socket or a reload.
	o.homed = o.control != "" || o.file != nil ||
		slices.ContainsFunc(specs, func(s backing.Spec) bool { return s.Layered() })
	if o.memory == 0 {
		o.memory = o.allowance.memoryFor(o.engine())
	}
	return nil
}

func (o *options) engine() engine.Config {
	return engine.Config{Loops: o.loops, Memory: o.memory, MaxConnections: o.connections,
		Poll: time.Duration(o.poll), Register: o.registered,
		Lookups: o.lookups, Homed: o.homed}
}

// listenFlag is a list of addresses.
type listenFlag []string

func (f *listenFlag) Type() string   { return "ADDRESS" }
func (f *listenFlag) String() string { return "" }
func (f *listenFlag) Set(text string) error {
	if isPort(text) {
		return fmt.Errorf("a port alone is given with --port %s, or as localhost:%s", text, text)
	}
	if err := config.CheckAddress(text); err != nil {
		return err
	}
	*f = append(*f, text)
	return nil
}

// portFlag adds a port of localhost to a list of addresses.
type portFlag []string

func (f *portFlag) Type() string   { return "PORT" }
func (f *portFlag) String() string { return "" }
func (f *portFlag) Set(text string) error {
	if !isPort(text) {
		return errors.New("must be from 1 to 65535")
	}
	*f = append(*f, net.JoinHostPort("localhost", text))
	return nil
}

type directFlag backing.DirectMode

var directNames = []string{backing.DirectAuto: "auto", backing.DirectOn: "on",
	backing.DirectOff: "off"}

func (f *directFlag) Type() string   { return "MODE" }
func (f *directFlag) String() string { return directNames[*f] }
func (f *directFlag) Set(text string) error {
	for mode, name := range directNames {
		if text == name {
			*f = directFlag(mode)
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", strings.Join(directNames, ", "))
}

type registerFlag engine.Registration

var registerNames = []string{engine.RegisterAuto: "auto", engine.RegisterOn: "on",
	engine.RegisterOff: "off"}

func (f *registerFlag) Type() string   { return "MODE" }
func (f *registerFlag) String() string { return registerNames[*f] }
func (f *registerFlag) Set(text string) error {
	i := slices.Index(registerNames, text)
	if i < 0 {
		return fmt.Errorf("must be one of %s", strings.Join(registerNames, ", "))
	}
	*f = registerFlag(i)
	return nil
}

// pollFlag is a duration in whole microseconds, or engine.PollAuto.
type pollFlag time.Duration

// maxPoll bounds --poll: a loop that has had no work for longer gains nothing by polling.
const maxPoll = 10 * time.Millisecond

func (f *pollFlag) Type() string { return "MICROSECONDS" }
func (f *pollFlag) String() string {
	if time.Duration(*f) == engine.PollAuto {
		return "auto"
	}
	return strconv.FormatInt(time.Duration(*f).Microseconds(), 10)
}
func (f *pollFlag) Set(text string) error {
	if text == "auto" {
		*f = pollFlag(engine.PollAuto)
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	d := time.Duration(n) * time.Microsecond
	if err != nil || d > maxPoll {
		return fmt.Errorf("must be auto, or a number of microseconds from 0 to %d",
			maxPoll.Microseconds())
	}
	*f = pollFlag(d)
	return nil
}

type logFlag string

func (f *logFlag) Type() string { return "FORMAT" }
func (f *logFlag) String() string {
	if *f == "" {
		return "text"
	}
	return string(*f)
}
func (f *logFlag) Set(text string) error {
	if text != "text" && text != "json" {
		return fmt.Errorf("must be text or json")
	}
	*f = logFlag(text)
	return nil
}

type exportFlag []backing.Spec

func (f *exportFlag) Type() string   { return "NAME=PATH" }
func (f *exportFlag) String() string { return "" }
func (f *exportFlag) Set(text string) error {
	s, err := parseExport(text)
	if err == nil {
		*f = append(*f, s)
	}
	return err
}
