// What is in force: every value, with its default if no file has it, and where it comes from.
//
// Invariant: what is shown is a configuration that says the same.

package config

import (
	"encoding/json"
	"fmt"
	"time"
)

// Defaults are the defaults that depend on the machine.
type Defaults struct {
	Loops          int
	MaxConnections int
	Memory         uint64 // bytes
	Listen         string // the address of a server without another
}

// Fill fills in defaults. They have no place, as the others.
func (c *Config) Fill(d Defaults) {
	for _, v := range []struct {
		of *Value[int]
		is int
	}{{&c.Loops, d.Loops}, {&c.MaxConnections, d.MaxConnections}} {
		if !v.of.IsSet() {
			v.of.V = v.is
		}
	}
	if !c.Memory.IsSet() {
		c.Memory.V = Size(d.Memory)
	}
	if len(c.Listen) == 0 && d.Listen != "" {
		l := new(Listen)
		setDefaults(l)
		l.Address.V = d.Listen
		c.Listen = []*Listen{l}
	}
}

// Row is a value that is in force.
type Row struct {
	Key   string // export.vm1.path, listen[0].address
	Value any
	At    Pos
}

// MarshalJSON gives sizes as bytes and times as seconds, which programs can use as they are.
func (r Row) MarshalJSON() ([]byte, error) {
	value := r.Value
	switch v := value.(type) {
	case Size:
		value = uint64(v)
	case Time:
		value = time.Duration(v).Seconds()
	case Strings:
		value = v.Texts()
	case fmt.Stringer:
		value = v.String()
	}
	row := struct {
		Key     string `json:"key"`
		Value   any    `json:"value"`
		Default bool   `json:"default,omitempty"`
		File    string `json:"file,omitempty"`
		Line    int    `json:"line,omitempty"`
		Column  int    `json:"column,omitempty"`
	}{Key: r.Key, Value: value, Default: !r.At.IsSet(), File: r.At.File}
	if r.At.Line > 0 {
		row.Line, row.Column = r.At.Line, r.At.Column
	}
	return json.Marshal(row)
}

// Show is what is in force, as a file with a comment behind each value that says where it comes
// from, and as rows.
func (c *Config) Show() (string, []Row, error) {
	w := writer{all: true}
	text, err := c.write(&w)
	return text, w.rows, err
}
