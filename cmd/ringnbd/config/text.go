// A configuration, or an export of it, as the text of a file.
//
// Invariant: what is written is read as the same; defaults are left out.

package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text is the configuration as a file. What cannot be written is an error: TOML is UTF-8.
func (c *Config) Text() (string, error) {
	var w writer
	w.keys(reflect.ValueOf(c).Elem(), "")
	w.tables(reflect.ValueOf(c).Elem(), "")
	return w.finish()
}

// Text is the export as a file of its own.
func (e *Export) Text() (string, error) {
	var w writer
	w.export(e)
	return w.finish()
}

// writer writes a file.
type writer struct {
	strings.Builder
	err error
}

func (w *writer) finish() (string, error) {
	return strings.TrimPrefix(w.String(), "\n"), w.err
}

func (w *writer) export(e *Export) { w.table(reflect.ValueOf(e).Elem(), join("export", e.Name)) }

// table writes a table with its header, and the tables in it.
func (w *writer) table(v reflect.Value, path string) {
	fmt.Fprintf(w, "\n[%s]\n", path)
	w.keys(v, "")
	w.tables(v, path)
}

// keys writes the values of a struct, and of the structs in it.
func (w *writer) keys(v reflect.Value, path string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := f.Tag.Get("key")
		if key == "" || f.Type.Kind() != reflect.Struct {
			continue
		}
		where := join(path, key)
		sub := v.Field(i)
		switch x := sub.Addr().Interface().(type) {
		case *Node:
			if x.Text.IsSet() {
				fmt.Fprintf(w, "%s = %s\n", where, w.quote(x.Text.V))
			}
		default:
			if !sub.FieldByName("V").IsValid() {
				w.keys(sub, where)
			} else if sub.FieldByName("At").Interface().(Pos).IsSet() {
				fmt.Fprintf(w, "%s = %s\n", where, w.value(sub.FieldByName("V").Interface()))
			}
		}
	}
}

// tables writes the tables in a struct.
func (w *writer) tables(v reflect.Value, path string) {
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("key")
		if key == "" {
			continue
		}
		where := join(path, key)
		switch x := v.Field(i).Addr().Interface().(type) {
		case *[]*Listen:
			for _, l := range *x {
				fmt.Fprintf(w, "\n[[%s]]\n", where)
				w.keys(reflect.ValueOf(l).Elem(), "")
			}
		case *Exports:
			for _, e := range *x {
				w.export(e)
			}
		case *Node:
			if x.Overlay != nil {
				w.table(reflect.ValueOf(x.Overlay).Elem(), where+".overlay")
			}
		default:
			if p := v.Field(i); p.Kind() == reflect.Pointer && !p.IsNil() {
				w.table(p.Elem(), where)
			}
		}
	}
}

// value writes a value.
func (w *writer) value(v any) string {
	switch x := v.(type) {
	case bool:
		return strconv.FormatBool(x)
	case int:
		return strconv.Itoa(x)
	case Strings:
		list := make([]string, len(x))
		for i := range x {
			list[i] = w.quote(x[i].V)
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	return w.quote(fmt.Sprint(v))
}

// quote writes text as TOML has it.
func (w *writer) quote(text string) string {
	if !utf8.ValidString(text) && w.err == nil {
		w.err = fmt.Errorf("%q is not UTF-8, and a configuration is: give it a name that is", text)
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
