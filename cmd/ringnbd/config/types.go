// What a configuration file can say.
//
// Invariant: the name of a key stands here and nowhere else, in the tag of its field; about.go has
// a text for every key.

package config

// Config is a configuration, of all its files together.
type Config struct {
	Path  string       // of the first file
	Files []string     // that were read, the first file first
	Notes []Mistake    // what is not wrong, and may surprise
	bad   map[Pos]bool // tables with mistakes, by their headers: what they lack may be among these

	Include          Value[Strings] `key:"include"`
	Memory           Value[Size]    `key:"memory" when:"restart"`
	Loops            Value[int]     `key:"loops" when:"restart"`
	MaxConnections   Value[int]     `key:"max-connections" when:"restart"`
	HandshakeTimeout Value[Time]    `key:"handshake-timeout" default:"10s" when:"restart"`
	ShutdownTimeout  Value[Time]    `key:"shutdown-timeout" default:"10s" when:"now"`
	Register         Value[Choice]  `key:"register" of:"auto on off" when:"restart"`
	Poll             Value[Poll]    `key:"poll" default:"0s" when:"restart"`
	Debug            Value[string]  `key:"debug" when:"restart"`
	Log              Log            `key:"log"`
	Control          *Control       `key:"control"`
	Listen           []*Listen      `key:"listen"`
	Exports          Exports        `key:"export"`
}

// Log is the log of the server.
type Log struct {
	Level  Value[Choice] `key:"level" of:"info debug" when:"now"`
	Format Value[Choice] `key:"format" of:"text json" when:"restart"`
}

// Listen is an address at which connections are accepted.
type Listen struct {
	At Pos // of its header

	Address   Value[string] `key:"address"`
	Oldstyle  Value[string] `key:"oldstyle" when:"again"` // name of an export, if it is set
	Freebind  Value[bool]   `key:"freebind" when:"again"`
	Keepalive Keepalive     `key:"keepalive"`
	Mode      Value[Mode]   `key:"mode" when:"again"` // without a place: as the umask has it
	Group     Value[string] `key:"group" when:"again"`
}

// Keepalive is how soon a client whose machine has vanished is noticed.
type Keepalive struct {
	Idle        Value[Time] `key:"idle" default:"1m" when:"new"`
	Interval    Value[Time] `key:"interval" default:"15s" when:"new"`
	UserTimeout Value[Time] `key:"user-timeout" default:"5m" when:"new"`
}

// Exports are all exports, in the order of the files.
type Exports []*Export

// Export is an export. Its store is either a path (or a tree, as text), or a table of its own.
type Export struct {
	Name string
	At   Pos // of its header

	Path        Value[string] `key:"path" when:"ends"`
	Description Value[string] `key:"description" when:"now"`
	ReadOnly    Value[bool]   `key:"read-only" when:"now"`
	Format      Value[Choice] `key:"format" of:"auto raw" when:"ends"`
	Create      Value[Size]   `key:"create" when:"made"`
	Direct      Value[Choice] `key:"direct" of:"auto on off" when:"ends"`
	Force       Value[bool]   `key:"force" when:"ends"`
	Partitions  Value[bool]   `key:"partitions" when:"now"`
	Overlay     *Overlay      `key:"overlay"`
}

// Overlay keeps writes away from its origin.
type Overlay struct {
	At Pos

	Origin  Node          `key:"origin"`
	Top     Value[string] `key:"top"`
	Create  Value[Choice] `key:"create" of:"no if-missing"`
	Discard Value[Choice] `key:"discard" of:"never on-disconnect"`
	Dir     Value[string] `key:"dir"`
}

// Node is a part of a tree: a path or a tree as text, or a table.
type Node struct {
	At   Pos
	Text Value[string] // if it is not a table

	Overlay *Overlay `key:"overlay"`
}

// Control is the socket by which a running server is changed.
type Control struct {
	At Pos

	Socket  Value[string]  `key:"socket" when:"restart"`
	Admins  Value[Strings] `key:"admins" default:"uid:0" when:"now"`
	Viewers Value[Strings] `key:"viewers" when:"now"`
}

// later has the keys that a later version understands, by the table that they are in.
var later = map[string][]string{
	"":       {"tls", "limits", "identity", "http"},
	"listen": {"tls", "identity", "http"},
	"export": {"tls", "limits", "identity", "allow"},
}
