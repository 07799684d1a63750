// The routes and their types, for programs that make clients.
//
// Invariant: the schemas are made from the table of routes and from the types that the routes read
// and write, so that none of them can be forgotten.

package control

import (
	"reflect"
	"sync"

	"github.com/google/jsonschema-go/jsonschema"
)

// Schema is the answer of GET /v1/schema.
type Schema struct {
	Routes []RouteSchema      `json:"routes"`
	Errors *jsonschema.Schema `json:"errors"` // what every other status answers
}

// RouteSchema describes a route.
type RouteSchema struct {
	Method     string             `json:"method"`
	Path       string             `json:"path"`
	About      string             `json:"about"`
	Admins     bool               `json:"admins"` // for admins alone
	Parameters []string           `json:"parameters,omitempty"`
	Needs      string             `json:"needs,omitempty"` // the parameter that must be there
	Body       *jsonschema.Schema `json:"body,omitempty"`
	// Answer is of the whole answer, or, if Lines is true, of each of its lines.
	Answer *jsonschema.Schema `json:"answer"`
	Lines  bool               `json:"lines,omitempty"`
}

// schemaOptions says what the types that write their own JSON are.
var schemaOptions = &jsonschema.ForOptions{TypeSchemas: map[reflect.Type]*jsonschema.Schema{
	reflect.TypeFor[Size](): {Types: []string{"integer", "string"},
		Description: "bytes, or a text with a unit: 10GiB"},
	reflect.TypeFor[Schema](): {Type: "object", Description: "this"},
	reflect.TypeFor[[]Error](): {Type: "array",
		Description: "further mistakes, in the form of this object"},
}}

// schemas makes the schemas, once.
var schemas = sync.OnceValues(func() (*Schema, error) {
	all := &Schema{}
	var err error
	of := func(t reflect.Type) *jsonschema.Schema {
		if t == nil || err != nil {
			return nil
		}
		var s *jsonschema.Schema
		s, err = jsonschema.ForType(t, schemaOptions)
		return s
	}
	for i := range routes {
		r := &routes[i]
		answers := r.answers
		if answers == nil {
			answers = reflect.TypeFor[Event]()
		}
		all.Routes = append(all.Routes, RouteSchema{Method: r.method, Path: r.path, About: r.about,
			Admins: r.changes, Parameters: r.params, Needs: r.needs, Body: of(r.body),
			Answer: of(answers), Lines: r.answers == nil})
	}
	all.Errors = of(reflect.TypeFor[Error]())
	return all, err
})

func (q *call) schema() (any, error) { return schemas() }
