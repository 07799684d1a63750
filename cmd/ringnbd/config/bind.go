// From the tree of nodes to the types.
//
// Invariant: a key that no field has is a mistake, and so is a value that its field does not take;
// all others are read.

package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// binder fills types, and collects what is wrong.
type binder struct {
	mistakes []Mistake
	bad      map[Pos]bool // tables with mistakes
}

// reader is a kind of value that reads itself. of are the words of a choice.
type reader interface {
	read(n *node, of []string) error
}

// placed is an error about a part of a value, with a place of its own.
type placed struct {
	at Pos
	error
}

func (b *binder) wrong(at Pos, field, text string) {
	b.mistakes = append(b.mistakes, Mistake{at, field, text})
}

// fields are the fields of a type of table by their keys, and the keys in their order.
func fields(t reflect.Type) (names []string, index map[string]int) {
	index = map[string]int{}
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("key"); key != "" {
			names = append(names, key)
			index[key] = i
		}
	}
	return names, index
}

// table fills a struct. context is the path without the names of exports, as `later` has it.
func (b *binder) table(n *node, into reflect.Value, path, context string) {
	if n.kind != kindTable {
		b.wrong(n.at, path, path+" must be a table; it is "+n.what())
		return
	}
	if at := into.FieldByName("At"); at.IsValid() {
		at.Set(reflect.ValueOf(n.at))
	}
	before := len(b.mistakes)
	defer func() {
		if n.bad || len(b.mistakes) > before {
			b.bad[n.at] = true
		}
	}()
	names, index := fields(into.Type())
	for _, name := range n.names {
		sub, where := n.named[name], join(path, name)
		i, known := index[name]
		switch {
		case known:
			b.field(sub, into.Type().Field(i), into.Field(i), where, join(context, name))
		case slices.Contains(later[context], name):
			b.wrong(sub.key, where, strconv.Quote(name)+
				" comes with a later version; remove it until then")
		default:
			b.wrong(sub.key, where, b.unknown(name, path, names))
		}
	}
}

// unknown words a key that does not exist.
func (b *binder) unknown(name, path string, names []string) string {
	table := "at the top of the file"
	if path != "" {
		table = "in [" + path + "]"
	}
	nearest := didYouMean(name, names)
	if nearest == "" {
		nearest = "; there are " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("unknown key %s %s%s", strconv.Quote(name), table, nearest)
}

// field fills a field with a node.
func (b *binder) field(n *node, f reflect.StructField, into reflect.Value, path, context string) {
	switch v := into.Addr().Interface().(type) {
	case *Exports:
		b.exports(n, v, path)
	case *Node:
		b.node(n, v, path, context)
	case *[]*Listen:
		if n.kind != kindTables {
			b.wrong(n.at, path, fmt.Sprintf("%s must be an array of tables: write [[%s]]; it is %s",
				path, path, n.what()))
			return
		}
		for _, one := range n.list {
			l := new(Listen)
			setDefaults(l)
			b.table(one, reflect.ValueOf(l).Elem(), path, context)
			*v = append(*v, l)
		}
	default:
		switch {
		case into.Kind() == reflect.Pointer:
			fresh := reflect.New(into.Type().Elem())
			defaults(fresh.Elem())
			if b.table(n, fresh.Elem(), path, context); n.kind == kindTable {
				into.Set(fresh)
			}
		case into.FieldByName("V").IsValid():
			b.value(n, into, strings.Fields(f.Tag.Get("of")), path)
		default:
			b.table(n, into, path, context)
		}
	}
}

// exports reads the table of exports.
func (b *binder) exports(n *node, into *Exports, path string) {
	if n.kind != kindTable {
		b.wrong(n.at, path, fmt.Sprintf("an export needs a name: write [export.NAME]; it is %s",
			n.what()))
		return
	}
	for _, name := range n.names {
		sub, where := n.named[name], join(path, name)
		if sub.kind != kindTable {
			b.wrong(sub.at, where, fmt.Sprintf("export %q must be a table: write [%s]; it is %s",
				name, where, sub.what()))
			continue
		}
		e := &Export{Name: name}
		setDefaults(e)
		b.table(sub, reflect.ValueOf(e).Elem(), where, path)
		*into = append(*into, e)
	}
}

// node reads a part of a tree.
func (b *binder) node(n *node, into *Node, path, context string) {
	switch n.kind {
	case kindText:
		into.At, into.Text = n.at, Value[string]{V: n.text, At: n.at, inner: n.inner}
	case kindTable:
		b.table(n, reflect.ValueOf(into).Elem(), path, context)
	default:
		b.wrong(n.at, path, path+" must be a path, or a table; it is "+n.what())
	}
}

// value reads a value.
func (b *binder) value(n *node, into reflect.Value, of []string, path string) {
	var err error
	v := into.FieldByName("V").Addr().Interface()
	switch v := v.(type) {
	case *string:
		if *v = n.text; n.kind != kindText {
			err = fmt.Errorf("must be text in quotes; it is %s", n.what())
		}
	case *bool:
		if *v = n.text == "true"; n.kind != kindBool {
			err = fmt.Errorf("must be true or false, without quotes; it is %s", n.what())
		}
	case *int:
		if *v, err = strconv.Atoi(n.text); n.kind != kindInteger {
			err = fmt.Errorf("must be a whole number, without quotes; it is %s", n.what())
		} else if err != nil {
			err = fmt.Errorf("%s is out of range", n.text)
		}
	case reader:
		err = v.read(n, of)
	}
	at := n.at
	if part := (placed{}); errors.As(err, &part) {
		at = part.at
	}
	if err != nil {
		b.wrong(at, path, path+": "+err.Error())
		return
	}
	into.FieldByName("At").Set(reflect.ValueOf(n.at))
	if text, ok := into.Addr().Interface().(*Value[string]); ok {
		text.inner = n.inner
	}
}

// setDefaults fills in the defaults of a table.
func setDefaults[T any](into *T) { defaults(reflect.ValueOf(into).Elem()) }

// defaults fills in the defaults that the tags of a struct have.
func defaults(into reflect.Value) {
	var b binder
	for i := range into.NumField() {
		f := into.Type().Field(i)
		of := strings.Fields(f.Tag.Get("of"))
		text, found := f.Tag.Lookup("default")
		if len(of) > 0 {
			text, found = of[0], true
		}
		switch {
		case found && f.Type == reflect.TypeFor[Value[Strings]]():
			into.Field(i).Addr().Interface().(*Value[Strings]).V = Strings{{V: text}}
		case found:
			b.value(&node{kind: kindText, text: text}, into.Field(i), of, f.Name)
		case f.Type.Kind() == reflect.Struct && f.Type.NumField() > 0 && f.Tag.Get("key") != "" &&
			!into.Field(i).FieldByName("V").IsValid():
			defaults(into.Field(i))
		}
	}
	if len(b.mistakes) > 0 {
		panic(b.mistakes[0]) // a tag of ours, which every start reads
	}
}
