// What a configuration file can say.
//
// Invariant: the name of a key stands here and nowhere else, in the tag of its field; about.go has
// a text for every key.

package config

// Config is a configuration, of all its files together.
type Config struct {
	Path  string    // of the first file
	Files []string  // that were read, the first file first
	Notes []Mistake // what is not wrong, and may surprise

	Include          Value[Strings] `key:"include"`
	Memory           Value[Size]    `key:"memory"`
	Loops            Value[int]     `key:"loops"`
	MaxConnections   Value[int]     `key:"max-connections"`
	HandshakeTimeout Value[Time]    `key:"handshake-timeout"`
	ShutdownTimeout  Value[Time]    `key:"shutdown-timeout"`
	Register         Value[Choice]  `key:"register" of:"auto on off"`
	Poll             Value[Poll]    `key:"poll"`
	Debug            Value[string]  `key:"debug"`
	Log              Log            `key:"log"`
	Control          *Control       `key:"control"`
	Listen           []*Listen      `key:"listen"`
	Exports          Exports        `key:"export"`
}

// Log is the log of the server.
type Log struct {
	Level  Value[Choice] `key:"level" of:"info debug"`
	Format Value[Choice] `key:"format" of:"text json"`
}

// Listen is an address at which connections are accepted.
type Listen struct {
	At Pos // of its header

	Address   Value[string] `key:"address"`
	Oldstyle  Value[string] `key:"oldstyle"` // name of an export, if it is set
	Freebind  Value[bool]   `key:"freebind"`
	Keepalive Keepalive     `key:"keepalive"`
	Mode      Value[Mode]   `key:"mode"`
	Group     Value[string] `key:"group"`
}

// Keepalive is how soon a client whose machine has vanished is noticed.
type Keepalive struct {
	Idle        Value[Time] `key:"idle"`
	Interval    Value[Time] `key:"interval"`
	UserTimeout Value[Time] `key:"user-timeout"`
}

// Exports are all exports, in the order of the files.
type Exports []*Export

// Export is an export. Its store is either a path (or a tree, as text), or a table of its own.
type Export struct {
	Name string
	At   Pos // of its header

	Path        Value[string] `key:"path"`
	Overlay     *Overlay      `key:"overlay"`
	Description Value[string] `key:"description"`
	ReadOnly    Value[bool]   `key:"read-only"`
	Format      Value[Choice] `key:"format" of:"auto raw"`
	Create      Value[Size]   `key:"create"`
	Direct      Value[Choice] `key:"direct" of:"auto on off"`
	Force       Value[bool]   `key:"force"`
	Partitions  Value[bool]   `key:"partitions"`
}

// Overlay keeps writes away from its origin.
type Overlay struct {
	At Pos

	Origin  Node          `key:"origin"`
	Top     Value[string] `key:"top"`
	Discard Value[Choice] `key:"discard" of:"never on-disconnect"`
}

// Node is a part of a tree: a path, a tree as text, or a table.
type Node struct {
	At   Pos
	Text string // "" if it is a table

	Overlay *Overlay `key:"overlay"`
}

// Control is the socket by which a running server is changed.
type Control struct {
	At Pos

	Socket  Value[string]  `key:"socket"`
	Admins  Value[Strings] `key:"admins"`
	Viewers Value[Strings] `key:"viewers"`
}

// later has the keys that a later version understands, by the table that they are in.
var later = map[string][]string{
	"":       {"tls", "limits", "identity", "http"},
	"listen": {"tls", "identity", "http"},
	"export": {"tls", "limits", "identity", "allow"},
}
