// What is different between two configurations, and what a change to the newer one does to clients.
//
// Invariant: two configurations without a difference are the same to the server, however they are
// written.

package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"

	"ringnbd/engine/units"
)

// Effect is when a change is in force, and what it does to connections.
type Effect uint8

// The effects.
const (
	AtOnce   Effect = iota // connections stay
	NewOnly                // connections stay as they are; later ones have it
	Again                  // the address is closed and opened; connections stay
	Ends                   // connections of the export are answered, flushed, and ended
	WhenMade               // only an image that is made later has it
	Restart                // not before the server is restarted
	PartsEnd               // connections of the partitions that are served with the export end
)

// effects are the effects by what the tags say.
var effects = map[string]Effect{"now": AtOnce, "new": NewOnly, "again": Again, "ends": Ends,
	"made": WhenMade, "restart": Restart}

// Subject is what is different.
type Subject uint8

// The subjects.
const (
	OfExport  Subject = iota
	OfListen          // an address
	OfSetting         // of the server as a whole
)

// Change is a key that has another value.
type Change struct {
	Key      string // path, keepalive.idle
	Old, New string // as text
	Effect   Effect
}

// Difference is an export, an address or a setting that is different. What was added has no Old,
// and what was removed no New.
type Difference struct {
	Subject     Subject
	Name        string // of the export, or the address; "" for a setting
	Changes     []Change
	Connections int // that will end
	OldExport   *Export
	NewExport   *Export
	OldListen   *Listen
	NewListen   *Listen
	At          Pos // in the new configuration; of what was removed, in the old one
}

// Sign is +, - or ~ for what is added, removed and changed, and ! for what needs a restart.
func (d *Difference) Sign() string {
	switch {
	case d.Subject == OfSetting && d.Changes[0].Effect == Restart:
		return "!"
	case d.Subject == OfSetting || len(d.Changes) > 0:
		return "~"
	case d.OldExport != nil || d.OldListen != nil:
		return "-"
	}
	return "+"
}

// Ends reports whether connections to the export end.
func (d *Difference) Ends() bool {
	for _, c := range d.Changes {
		if c.Effect == Ends {
			return true
		}
	}
	return d.Subject == OfExport && d.Sign() == "-"
}

// Reopens notes that the export has to be opened again for what is different, although some of it
// usually is in force at once: so many connections end.
func (d *Difference) Reopens(connections int) {
	d.Connections = connections
	for i := range d.Changes {
		if c := &d.Changes[i]; c.Effect == AtOnce {
			c.Effect = Ends
		}
	}
}

// PartsEnd notes that the partitions that are served with the export are not any more, and how many
// connections they have.
func (d *Difference) PartsEnd(connections int) {
	for i := range d.Changes {
		if c := &d.Changes[i]; c.Key == "partitions" && c.Effect == AtOnce && connections > 0 {
			c.Effect, d.Connections = PartsEnd, connections
		}
	}
}

// String is the difference as a line: ~ export vm1: read-only off -> on (at once).
func (d *Difference) String() string {
	name := d.Name
	if !isBare(name) && d.Subject == OfExport {
		name = strconv.Quote(name)
	}
	what := d.Sign()
	switch d.Subject {
	case OfExport:
		what += " export " + name
	case OfListen:
		what += " listen " + name
	}
	var list []string
	for _, c := range d.Changes {
		list = append(list, fmt.Sprintf("%s%s %s -> %s (%s)", c.Key,
			map[bool]string{true: ":"}[d.Subject == OfSetting], c.Old, c.New, d.effect(c.Effect)))
	}
	switch {
	case d.Subject == OfSetting:
		return what + " " + list[0]
	case len(list) > 0:
		return what + ": " + strings.Join(list, ", ")
	case d.Sign() != "-":
		return what
	case d.Subject == OfListen:
		return what + ": its connections stay"
	}
	return what + ": " + d.ending()
}

// ending says how many connections will end.
func (d *Difference) ending() string {
	if d.Connections == 0 {
		return "it has no connections"
	}
	return units.Plural(d.Connections, "connection") + " will end"
}

func (d *Difference) effect(e Effect) string {
	switch e {
	case NewOnly:
		return "for new connections"
	case Again:
		return "listens again; its connections stay"
	case Ends:
		return d.ending()
	case PartsEnd:
		return units.Plural(d.Connections, "connection") + " of its partitions will end"
	case WhenMade:
		return "for an image that is made"
	case Restart:
		return "needs a restart"
	}
	return "at once"
}

// Diff compares two configurations. connections returns how many connections an export has now;
// nil stands for none.
func Diff(from, to *Config, connections func(export string) int) []Difference {
	if connections == nil {
		connections = func(string) int { return 0 }
	}
	list := diffExports(from, to, connections)
	list = append(list, diffListen(from, to)...)
	for _, c := range changes(reflect.ValueOf(from).Elem(), reflect.ValueOf(to).Elem(), "") {
		list = append(list, Difference{Subject: OfSetting, Changes: []Change{c.Change}, At: c.at})
	}
	return list
}

func diffExports(from, to *Config, connections func(string) int) (list []Difference) {
	before := make(map[string]*Export, len(from.Exports))
	for _, e := range from.Exports {
		before[e.Name] = e
	}
	after := make(map[string]bool, len(to.Exports))
	for _, e := range to.Exports {
		after[e.Name] = true
		d := Difference{Subject: OfExport, Name: e.Name, OldExport: before[e.Name], NewExport: e,
			At: e.At}
		if d.OldExport != nil {
			d.Changes = exportChanges(d.OldExport, e)
			if len(d.Changes) == 0 {
				continue
			}
			if d.Ends() {
				d.Connections = connections(e.Name)
			}
		}
		list = append(list, d)
	}
	for _, e := range from.Exports {
		if !after[e.Name] {
			list = append(list, Difference{Subject: OfExport, Name: e.Name, OldExport: e, At: e.At,
				Connections: connections(e.Name)})
		}
	}
	return list
}

// exportChanges compares an export: its store as one, whether it is a path or tables.
func exportChanges(from, to *Export) (list []Change) {
	if a, b := from.Store(), to.Store(); a != b {
		list = append(list, Change{"path", a, b, Ends})
	}
	for _, c := range changes(reflect.ValueOf(from).Elem(), reflect.ValueOf(to).Elem(), "") {
		if c.Key != "path" {
			list = append(list, c.Change)
		}
	}
	return list
}

// diffListen compares addresses; one that stands twice is compared once.
func diffListen(from, to *Config) (list []Difference) {
	before := map[string]*Listen{}
	for _, l := range from.Listen {
		before[l.Address.V] = l
	}
	after := map[string]bool{}
	for _, l := range to.Listen {
		after[l.Address.V] = true
		d := Difference{Subject: OfListen, Name: l.Address.V, OldListen: before[l.Address.V],
			NewListen: l, At: l.At}
		if d.OldListen != nil {
			for _, c := range changes(reflect.ValueOf(d.OldListen).Elem(),
				reflect.ValueOf(l).Elem(), "") {
				d.Changes = append(d.Changes, c.Change)
			}
			if len(d.Changes) == 0 {
				continue
			}
		}
		list = append(list, d)
	}
	for _, l := range from.Listen {
		if !after[l.Address.V] {
			list = append(list, Difference{Subject: OfListen, Name: l.Address.V, OldListen: l,
				At: l.At})
		}
	}
	return list
}

// located is a change and its place.
type located struct {
	Change
	at Pos
}

// changes compares the values of two structs that have an effect, and of the structs in them.
func changes(from, to reflect.Value, path string) (list []located) {
	for i := range from.NumField() {
		f := from.Type().Field(i)
		key := f.Tag.Get("key")
		if key == "" || f.Type == reflect.TypeFor[Exports]() || f.Type.Kind() == reflect.Slice ||
			f.Type == reflect.TypeFor[*Overlay]() {
			continue
		}
		a, b := from.Field(i), to.Field(i)
		where := join(path, key)
		if f.Type.Kind() == reflect.Pointer {
			a, b = present(a), present(b)
		}
		if when := f.Tag.Get("when"); when != "" {
			old, fresh := valueText(a, f), valueText(b, f)
			if old != fresh {
				list = append(list, located{Change{where, old, fresh, effects[when]},
					b.FieldByName("At").Interface().(Pos)})
			}
		} else if !a.FieldByName("V").IsValid() {
			list = append(list, changes(a, b, where)...)
		}
	}
	return list
}

// InForce is what a server does that ran with one configuration and has been given the next: what
// needs a restart is as it was.
func InForce(running, next *Config) *Config {
	c := *next
	keepRestart(reflect.ValueOf(running).Elem(), reflect.ValueOf(&c).Elem())
	return &c
}

// keepRestart copies the values that need a restart, and makes tables of its own for them.
func keepRestart(from, to reflect.Value) {
	for i := range from.NumField() {
		f := from.Type().Field(i)
		a, b := from.Field(i), to.Field(i)
		switch {
		case f.Tag.Get("key") == "" || f.Type == reflect.TypeFor[*Overlay]():
		case f.Tag.Get("when") == "restart":
			b.Set(a)
		case f.Type.Kind() == reflect.Pointer && !(a.IsNil() && b.IsNil()):
			fresh := reflect.New(f.Type.Elem())
			fresh.Elem().Set(present(b))
			keepRestart(present(a), fresh.Elem())
			if b.Set(fresh); a.IsNil() {
				b.SetZero() // not before the restart
			}
		case f.Type.Kind() == reflect.Struct && !a.FieldByName("V").IsValid():
			keepRestart(a, b)
		}
	}
}

// present is the struct behind a pointer, with its defaults if there is none.
func present(p reflect.Value) reflect.Value {
	if !p.IsNil() {
		return p.Elem()
	}
	v := reflect.New(p.Type().Elem()).Elem()
	defaults(v)
	return v
}

// valueText is a value as a line shows it. A default is the same whether it was filled in or not.
func valueText(v reflect.Value, f reflect.StructField) string {
	if v.FieldByName("At").Interface().(Pos).IsSet() {
		return plainText(v.FieldByName("V").Interface())
	}
	text, found := f.Tag.Lookup("default")
	of := strings.Fields(f.Tag.Get("of"))
	switch v.FieldByName("V").Interface().(type) {
	case bool:
		return "off"
	case string:
		return "none"
	case Strings:
		return "[" + text + "]"
	}
	switch {
	case len(of) > 0:
		return of[0]
	case found:
		fresh := reflect.New(v.Type()).Elem()
		new(binder).value(&node{kind: kindText, text: text}, fresh, nil, f.Name)
		return plainText(fresh.FieldByName("V").Interface())
	}
	return "default"
}

// plainText is a value in a line.
func plainText(v any) string {
	switch x := v.(type) {
	case bool:
		return map[bool]string{true: "on", false: "off"}[x]
	case string:
		if x == "" || strings.ContainsFunc(x,
			func(r rune) bool { return r == ' ' || !unicode.IsGraphic(r) }) {
			return strconv.Quote(x)
		}
		return x
	case Strings:
		return "[" + strings.Join(x.Texts(), ", ") + "]"
	}
	return fmt.Sprint(v)
}
