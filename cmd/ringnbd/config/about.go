// What each key is for, in words for people, and a value to show it with.
//
// Invariant: there is a text for every key of types.go, and for nothing else.

package config

// text is what a key is for. value is a value for the example, as TOML has it; with off it stands
// there as a comment, for most servers do without it.
type text struct {
	about, value string
	off          bool
}

// texts are by the keys, without the names of exports.
var texts = map[string]text{
	"include": {"more files to read: patterns, relative to this file, in order of name; a table " +
		"may stand in one file only", `["ringnbd.d/*.toml"]`, false},
	"memory": {"buffer memory of all requests together, a hard bound (default: 160 MiB for each " +
		"loop, at most 1 GiB, and half of what the control group leaves)", `"640MiB"`, true},
	"loops": {"number of event loops, each with its own ring and thread (default: one for each " +
		"core, at most 8)", `4`, true},
	"max-connections": {"connections that are served at a time (default: 1024, or what the " +
		"control group has room for)", `1024`, true},
	"handshake-timeout": {"time in which a client has to finish its handshake", `"10s"`, true},
	"shutdown-timeout": {"time in which requests in flight are answered after SIGTERM", `"10s"`,
		true},
	"register": {"register the memory with io_uring, which locks it: auto (if the limit on " +
		"locked memory allows it), on (or fail) or off", `"auto"`, true},
	"poll": {"how long an idle loop polls for work before it sleeps: a time up to 10ms, a number " +
		"of microseconds, or auto", `"auto"`, true},
	"debug": {"profiles and counters over HTTP at an address of this machine", `"localhost:6060"`,
		true},

	"log": {"what is logged, on standard error", "", false},
	"log.level": {"info; debug adds connections, and the features of io_uring on this kernel",
		`"info"`, false},
	"log.format": {"text or json", `"text"`, false},

	"control": {"a socket by which the running server is looked at and changed: ringnbd ctl", "",
		false},
	"control.socket": {"path of the socket", `"/run/ringnbd/control"`, false},
	"control.admins": {"who may change the server: uid:0, user:NAME, gid:0, group:NAME",
		`["uid:0"]`, false},
	"control.viewers": {"who may look at it", `["gid:0"]`, true},

	"listen": {"an address at which connections are accepted (default: localhost:10809)", "",
		false},
	"listen.address": {"HOST:PORT or unix:PATH; 0.0.0.0 and [::] are all interfaces",
		`"localhost:10809"`, false},
	"listen.oldstyle": {"the one export that clients get here which are from before 2011 and " +
		"cannot negotiate", `"vm1"`, true},
	"listen.freebind": {"TCP: the address may come to this machine later, as the virtual IP of " +
		"a cluster does", `true`, true},
	"listen.keepalive": {"TCP: how soon a client whose machine has vanished is noticed", "", false},
	"listen.keepalive.idle": {"time without traffic before the first probe, in whole seconds",
		`"1m"`, true},
	"listen.keepalive.interval": {"time between probes, in whole seconds", `"15s"`, true},
	"listen.keepalive.user-timeout": {"time that data or probes may be without an answer", `"5m"`,
		true},
	"listen.mode": {"Unix: permissions of the socket; who may write to it may connect (default: " +
		"what the umask leaves)", `"0660"`, false},
	"listen.group": {"Unix: group of the socket", `"root"`, true},

	"export": {"what is served, under this name; [export.\"\"] is the default export", "", false},
	"export.path": {"a disk image, a block device, a partition (PATH?partition=2), a tree " +
		"(overlay(ORIGIN, FILE)), null:SIZE or memory:SIZE; relative to this file",
		`"/dev/vg0/vm1"`, false},
	"export.description": {"shown to clients", `"root disk of vm1"`, false},
	"export.read-only":   {"clients cannot write", `false`, true},
	"export.format": {"auto refuses an image that looks like another format; raw serves its " +
		"bytes whatever they look like", `"raw"`, false},
	"export.create": {"size of an image that is made, sparse, if it is missing", `"10GiB"`, true},
	"export.direct": {"O_DIRECT: auto (where the file system supports it), on (or fail) or off",
		`"auto"`, true},
	"export.force":      {"serve it although other programs use it", `false`, true},
	"export.partitions": {"serve each partition as well, as NAME/1 and so on", `true`, true},

	"export.overlay": {"in place of a path: writes go to a file, and the origin is never changed",
		"", false},
	"export.overlay.origin": {"what is read where nothing was written: a path, or a table with " +
		"an overlay of its own", `"/srv/golden.img"`, false},
	"export.overlay.top":    {"the file that has what was written", `"/srv/vm2.cow"`, false},
	"export.overlay.create": {"if-missing makes the file", `"if-missing"`, false},
	"export.overlay.discard": {"on-disconnect: each client has its own, which is thrown away " +
		"with its connection; then there is no top", `"on-disconnect"`, true},
	"export.overlay.dir": {"directory of the files that hold what will be thrown away",
		`"/var/tmp"`, true},
	"export.overlay.origin.overlay": {"an overlay that is the origin of another", "", false},
}
