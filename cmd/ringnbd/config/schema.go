// The JSON schema of a configuration file, for editors and other programs.
//
// Invariant: the schema is made from the types that are read, so that it has every key and no
// other. What it refuses is a mistake; what it takes may still be one, for it knows no places and
// compares no tables.

package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
)

// draft is the version of JSON schema.
const draft = "https://json-schema.org/draft/2020-12/schema"

// Schema is the schema of a file.
func Schema() *jsonschema.Schema {
	s := table(reflect.TypeFor[Config](), "")
	s.Schema, s.Title = draft, "Configuration of ringnbd"
	s.Defs = map[string]*jsonschema.Schema{
		"overlay": table(reflect.TypeFor[Overlay](), "export.overlay")}
	return s
}

// table is the schema of a table.
func table(t reflect.Type, path string) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{},
		AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}},
		Description:          texts[path].about}
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("key")
		if key == "" {
			continue
		}
		p := property(f, join(path, key))
		p.Description = texts[join(path, key)].about
		s.Properties[key] = p
		s.PropertyOrder = append(s.PropertyOrder, key)
	}
	switch t {
	case reflect.TypeFor[Listen]():
		s.Required = []string{"address"}
	case reflect.TypeFor[Control]():
		s.Required = []string{"socket"}
	case reflect.TypeFor[Overlay]():
		s.Required = []string{"origin"}
	case reflect.TypeFor[Export]():
		s.OneOf = []*jsonschema.Schema{{Required: []string{"path"}},
			{Required: []string{"overlay"}}}
	}
	return s
}

// property is the schema of a field.
func property(f reflect.StructField, path string) *jsonschema.Schema {
	switch f.Type {
	case reflect.TypeFor[[]*Listen]():
		return &jsonschema.Schema{Type: "array", Items: table(reflect.TypeFor[Listen](), path)}
	case reflect.TypeFor[Exports]():
		return &jsonschema.Schema{Type: "object",
			AdditionalProperties: table(reflect.TypeFor[Export](), path)}
	case reflect.TypeFor[*Overlay]():
		return &jsonschema.Schema{Ref: "#/$defs/overlay"}
	case reflect.TypeFor[Node]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"},
			{Type: "object", Properties: map[string]*jsonschema.Schema{
				"overlay": {Ref: "#/$defs/overlay"}}, Required: []string{"overlay"},
				AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}}}}}
	}
	if f.Type.Kind() == reflect.Pointer {
		return table(f.Type.Elem(), path)
	}
	v, isValue := f.Type.FieldByName("V")
	if !isValue {
		return table(f.Type, path)
	}
	s := scalar(v.Type, f)
	if text, ok := f.Tag.Lookup("default"); ok && s.Type != "array" {
		s.Default, _ = json.Marshal(text) // a string, which cannot fail
	} else if len(s.Enum) > 0 {
		s.Default, _ = json.Marshal(s.Enum[0])
	}
	return s
}

// scalar is the schema of a value.
func scalar(t reflect.Type, f reflect.StructField) *jsonschema.Schema {
	const size = `^[0-9.]+ *([kKmMgGtTpPeE]?i?[bB]?|[bB]ytes?)$`
	least := func(n float64) *float64 { return &n }
	switch t {
	case reflect.TypeFor[string]():
		return &jsonschema.Schema{Type: "string"}
	case reflect.TypeFor[bool]():
		return &jsonschema.Schema{Type: "boolean"}
	case reflect.TypeFor[int]():
		return &jsonschema.Schema{Type: "integer", Minimum: least(1)}
	case reflect.TypeFor[Size]():
		return &jsonschema.Schema{Types: []string{"string", "integer"}, Pattern: size,
			Minimum: least(1)}
	case reflect.TypeFor[Time]():
		return &jsonschema.Schema{Types: []string{"string", "number"},
			Pattern: `^[0-9.]+([a-zµ]+[0-9.]*)*$`, ExclusiveMinimum: least(0)}
	case reflect.TypeFor[Poll]():
		return &jsonschema.Schema{Types: []string{"string", "integer"},
			Pattern: `^(auto|[0-9.]+(ns|us|µs|ms|s))$`, Minimum: least(0),
			Maximum: least(float64(MaxPoll.Microseconds()))}
	case reflect.TypeFor[Mode]():
		return &jsonschema.Schema{Type: "string", Pattern: `^0*[0-7]{1,3}$`}
	case reflect.TypeFor[Strings]():
		return &jsonschema.Schema{Type: "array", Items: &jsonschema.Schema{Type: "string"}}
	}
	s := &jsonschema.Schema{Type: "string"}
	for _, word := range strings.Fields(f.Tag.Get("of")) {
		s.Enum = append(s.Enum, word)
	}
	return s
}

// Keys are all keys of a file in the order of the types, the tables before what is in them, without
// the names of exports. Tables in an origin are left out: they are as those around them.
func Keys() []string {
	var list []string
	var add func(t reflect.Type, path string)
	add = func(t reflect.Type, path string) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Tag.Get("key") == "" {
				continue
			}
			where := join(path, f.Tag.Get("key"))
			list = append(list, where)
			of := f.Type
			for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
				of = of.Elem()
			}
			_, isValue := of.FieldByName("V")
			if !isValue && !slices.Contains(list, where+".overlay") &&
				!strings.HasSuffix(where, "origin.overlay") {
				add(of, where)
			}
		}
	}
	add(reflect.TypeFor[Config](), "")
	return list
}
