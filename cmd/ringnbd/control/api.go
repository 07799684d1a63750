// What goes over the socket, and what the routes need of a server.
//
// Invariant: the names of JSON are those of the configuration where both have a thing; sizes are
// bytes.

package control

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Status is what a server says about itself.
type Status struct {
	Version        string    `json:"version"`
	PID            int       `json:"pid"`
	Started        time.Time `json:"started"`
	Loops          int       `json:"loops"`
	Memory         uint64    `json:"memory"`
	MaxConnections int       `json:"max-connections"`
	Config         string    `json:"config,omitempty"` // the file of the configuration
	Listen         []string  `json:"listen"`           // URIs
	Exports        int       `json:"exports"`
	Connections    int       `json:"connections"`
	Requests       uint64    `json:"requests"`
	Errors         uint64    `json:"errors"`
	BytesRead      uint64    `json:"bytes-read"`
	BytesWritten   uint64    `json:"bytes-written"`
	// Changes are the changes that are under way, or wait for storage.
	Changes []string `json:"changes,omitempty"`
	// Reloaded is when the configuration was read last, with or without success, and Trouble why
	// what it says is not in force.
	Reloaded *time.Time `json:"reloaded,omitempty"`
	Trouble  string     `json:"trouble,omitempty"`
}

// Wanted is an export as it is asked for: the keys of an export in the configuration.
type Wanted struct {
	Path        string `json:"path" jsonschema:"what is served, as on the command line"`
	Description string `json:"description,omitempty"`
	ReadOnly    bool   `json:"read-only,omitempty"`
	Partitions  bool   `json:"partitions,omitempty" jsonschema:"serve its partitions as well"`
	Create      Size   `json:"create,omitempty" jsonschema:"size of an image that is made"`
	Direct      string `json:"direct,omitempty" jsonschema:"auto, on or off"`
	Format      string `json:"format,omitempty" jsonschema:"raw, or left out"`
	Force       bool   `json:"force,omitempty" jsonschema:"serve it although others use it"`
}

// Export is an export as it is served.
type Export struct {
	Name        string `json:"name"`
	Path        string `json:"path"`
	Description string `json:"description,omitempty"`
	State       string `json:"state"` // StateServed, or what is being done with it
	Size        uint64 `json:"size"`
	ReadOnly    bool   `json:"read-only"`
	Direct      bool   `json:"direct"`
	Block       uint32 `json:"block"`
	From        string `json:"from"` // where it was asked for
	Asked       Wanted `json:"asked"`
	Connections uint64 `json:"connections"`
	Requests    uint64 `json:"requests"`
	Reads       uint64 `json:"reads"`
	Writes      uint64 `json:"writes"`
	Errors      uint64 `json:"errors"`
	BytesRead   uint64 `json:"bytes-read"`
	BytesWrite  uint64 `json:"bytes-written"`
	DiskErrors  uint64 `json:"disk-errors"`
	FlushFailed bool   `json:"flush-failed"`
}

// StateServed is the state of an export that is not being changed.
const StateServed = "served"

// Exports is the answer of GET /v1/exports.
type Exports struct {
	Exports []Export `json:"exports"`
}

// Changed is the answer of a change.
type Changed struct {
	Changed bool     `json:"changed"` // false: it was so before
	Export  *Export  `json:"export,omitempty"`
	Notes   []string `json:"notes,omitempty"` // what the user should know
}

// Resize asks for a new size.
type Resize struct {
	// Size is the new size of a file, and none for a device, which is looked at again.
	Size  Size `json:"size,omitempty"`
	Force bool `json:"force,omitempty" jsonschema:"shrink it although clients are connected"`
}

// Connection is a client that is being served.
type Connection struct {
	ID           uint64    `json:"id"`
	Peer         string    `json:"peer"`
	Export       string    `json:"export"`
	Since        time.Time `json:"since"`
	Requests     uint64    `json:"requests"`
	Errors       uint64    `json:"errors"`
	BytesRead    uint64    `json:"bytes-read"`
	BytesWritten uint64    `json:"bytes-written"`
}

// Connections is the answer of GET /v1/connections.
type Connections struct {
	Connections []Connection `json:"connections"`
}

// Configuration is what is in force.
type Configuration struct {
	File string `json:"file,omitempty"` // "": the server was started without a configuration
	Text string `json:"text"`           // as a configuration file
}

// Differences is the answer of POST /v1/config/diff and POST /v1/reload.
type Differences struct {
	Changed     bool     `json:"changed"` // something was changed
	DryRun      bool     `json:"dry-run,omitempty"`
	Differences []string `json:"differences"` // a line for each
}

// Running is a server whose exports can be changed while it runs. A change returns when it is done,
// or with an error and nothing changed; one that is so already changes nothing. Errors of type
// *Error say which status answers them; all others are answered with 400.
type Running interface {
	Status() Status
	Exports() ([]Export, error)
	Export(name string) (Export, error)
	Put(ctx context.Context, by Caller, name string, want Wanted, replace bool) (Changed, error)
	Remove(ctx context.Context, by Caller, name string, force bool) (Changed, error)
	Resize(ctx context.Context, by Caller, name string, to Resize) (Changed, error)
	Flush(ctx context.Context, by Caller, name string) (Changed, error)
	Overlay(ctx context.Context, by Caller, name, verb string) (Changed, error)
	Connections() []Connection
	Kick(ctx context.Context, by Caller, id uint64) (Changed, error)
	Config() (Configuration, error)
	Diff() (Differences, error)
	Reload(ctx context.Context, by Caller, dry bool) (Differences, error)
}

// Error is an answer that says what is wrong.
type Error struct {
	Status int     `json:"-"`
	Text   string  `json:"error"`
	Field  string  `json:"field,omitempty"` // the parameter, or the key of the body
	File   string  `json:"file,omitempty"`  // of the configuration
	Line   int     `json:"line,omitempty"`
	Column int     `json:"column,omitempty"`
	More   []Error `json:"more,omitempty"` // further mistakes of the configuration
}

func (e *Error) Error() string {
	switch {
	case e.File != "" && e.Line > 0:
		return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text)
	case e.File != "":
		return e.File + ": " + e.Text
	}
	return e.Text
}

// failed makes an error with a status.
func failed(status int, field, format string, args ...any) *Error {
	return &Error{Status: status, Field: field, Text: fmt.Sprintf(format, args...)}
}

// NotFound says that there is nothing of the name that was asked for.
func NotFound(field, format string, args ...any) *Error {
	return failed(http.StatusNotFound, field, format, args...)
}

// Conflict says what is in the way of a change.
func Conflict(field, format string, args ...any) *Error {
	return failed(http.StatusConflict, field, format, args...)
}

// Unavailable says what has no answer now, and may have one later.
func Unavailable(format string, args ...any) *Error {
	return failed(http.StatusServiceUnavailable, "", format, args...)
}

// Wrong says what is wrong with a parameter or a key.
func Wrong(field, format string, args ...any) *Error {
	return failed(http.StatusBadRequest, field, format, args...)
}
