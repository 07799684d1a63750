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
func (c *Config) Text() (string, error) { return c.write(new(writer)) }

func (c *Config) write(w *writer) (string, error) {
	w.keys(reflect.ValueOf(c).Elem(), "", "")
	w.tables(reflect.ValueOf(c).Elem(), "")
	return w.finish()
}

// Text is the export as a file of its own.
func (e *Export) Text() (string, error) {
	var w writer
	w.export(e)
	return w.finish()
}

// writer writes a file. With all it writes defaults as well, and where each value comes from, and
// notes each in rows.
type writer struct {
	strings.Builder
	err  error
	all  bool
	unix bool // an address that is a Unix socket is being written
	rows []Row
}

func (w *writer) finish() (string, error) {
	return strings.TrimPrefix(w.String(), "\n"), w.err
}

func (w *writer) export(e *Export) { w.table(reflect.ValueOf(e).Elem(), join("export", e.Name)) }

// table writes a table with its header, and the tables in it.
func (w *writer) table(v reflect.Value, path string) {
	w.header("["+path+"]", v)
	w.keys(v, "", path)
	w.tables(v, path)
}

// header begins a table.
func (w *writer) header(line string, v reflect.Value) {
	if at := v.FieldByName("At"); w.all && at.IsValid() {
		line = remark(line, at.Interface().(Pos))
	}
	fmt.Fprintf(w, "\n%s\n", line)
}

// remark adds to a line where it comes from.
func remark(line string, at Pos) string {
	const column = 40
	return fmt.Sprintf("%-*s # %s", column, line, visibleComment(at.Where()))
}

// visibleComment is the path of a file in a comment, which is one line.
func visibleComment(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}

// key writes a key with its value.
func (w *writer) key(where, table string, value any, at Pos) {
	line := where + " = " + w.value(value)
	if w.all {
		line = remark(line, at)
		w.rows = append(w.rows, Row{Key: strings.TrimPrefix(table+"."+where, "."), Value: value,
			At: at})
	}
	w.WriteString(line + "\n")
}

// keys writes the values of a struct, and of the structs in it. path is in the table.
func (w *writer) keys(v reflect.Value, path, table string) {
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
				w.key(where, table, x.Text.V, x.Text.At)
			}
		default:
			value := sub.FieldByName("V")
			if !value.IsValid() {
				w.keys(sub, where, table)
				continue
			}
			at := sub.FieldByName("At").Interface().(Pos)
			if at.IsSet() || w.all && w.inForce(where, value) {
				w.key(where, table, value.Interface(), at)
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
			for i, l := range *x {
				if !l.Address.IsSet() && !w.all {
					continue // of a server without another
				}
				w.header("[["+where+"]]", reflect.ValueOf(l).Elem())
				w.unix = strings.HasPrefix(l.Address.V, "unix:")
				w.keys(reflect.ValueOf(l).Elem(), "", fmt.Sprintf("%s[%d]", where, i))
			}
			w.unix = false
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

// inForce reports whether a value that no file has is worth a line: a default that does something.
func (w *writer) inForce(key string, value reflect.Value) bool {
	switch value.Interface().(type) {
	case string, Size, Mode, Strings:
		return !value.IsZero()
	}
	return !w.unix || key != "freebind" && !strings.HasPrefix(key, "keepalive.")
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
