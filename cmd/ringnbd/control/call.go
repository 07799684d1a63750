// The parameters and the body of a request.
//
// Invariant: what a route does not know is refused, and so is what is said twice: a misspelled
// parameter must not change the meaning of a request.

package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ringnbd/engine/units"
)

// call is one request.
type call struct {
	server  *Server
	request *http.Request
	writer  http.ResponseWriter
	control *http.ResponseController
	caller  Caller
	whole   bool // the request was read to its end
	params  url.Values
	body    []byte
}

// read reads and checks the parameters and the body for a route.
func (q *call) read(r *route) error {
	r2 := q.request
	if r2.ContentLength > maxBody {
		return tooLong()
	}
	var err error
	if q.params, err = url.ParseQuery(r2.URL.RawQuery); err != nil {
		return Wrong("", "the query %q is not readable: %v", r2.URL.RawQuery, err)
	}
	for name, values := range q.params {
		switch {
		case !slices.Contains(r.params, name):
			return Wrong(name, "unknown parameter %q%s", name, thereAre(r.params))
		case len(values) > 1:
			return Wrong(name, "the parameter %q is there twice", name)
		}
	}
	if r.needs != "" && !q.params.Has(r.needs) {
		return Wrong(r.needs, "the parameter %q is missing: %s?%s=", r.needs, r.path, r.needs)
	}
	_ = q.control.SetReadDeadline(time.Now().Add(q.server.times.body))
	q.body, err = io.ReadAll(http.MaxBytesReader(q.writer, r2.Body, maxBody))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return tooLong()
	case err != nil:
		return failed(http.StatusRequestTimeout, "", "the body did not arrive: %v", err)
	}
	q.whole = true
	_ = q.control.SetReadDeadline(time.Time{})
	if r.body == nil && len(bytes.TrimSpace(q.body)) > 0 {
		return Wrong("", "%s %s takes no body", r.method, r.path)
	}
	return nil
}

func tooLong() error {
	return failed(http.StatusRequestEntityTooLarge, "", "the body is longer than %s",
		units.Size(maxBody))
}

// thereAre lists what could have been said instead.
func thereAre(names []string) string {
	if len(names) == 0 {
		return "; there are none here"
	}
	return "; there is " + strings.Join(names, ", ")
}

// flag reads a parameter that is true or false, and false if it is left out.
func (q *call) flag(name string) (bool, error) {
	if !q.params.Has(name) {
		return false, nil
	}
	on, err := strconv.ParseBool(q.params.Get(name))
	if err != nil {
		return false, Wrong(name, "%s=%s: must be true or false", name, q.params.Get(name))
	}
	return on, nil
}

// decode reads the body as JSON.
func (q *call) decode(to any) error {
	if len(bytes.TrimSpace(q.body)) == 0 {
		return Wrong("", "the body is missing: it must be JSON; see /v1/schema")
	}
	if !utf8.Valid(q.body) {
		return Wrong("", "the body is not UTF-8, as JSON is; what is not UTF-8 in a path or a "+
			"name cannot be said here")
	}
	if key := repeated(q.body); key != "" {
		return Wrong(key, "the key %q is there twice", key)
	}
	if key, right := otherCase(q.body, reflect.TypeOf(to).Elem()); key != "" {
		return Wrong(key, "unknown key %q; did you mean %q?", key, right)
	}
	d := json.NewDecoder(bytes.NewReader(q.body))
	d.DisallowUnknownFields()
	err := d.Decode(to)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			return Wrong("", "the body goes on after its end")
		}
		return nil
	}
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	if errors.As(err, &kind) && kind.Field == "" {
		return Wrong("", "the body must be %s, not %s", kindName(kind.Type.Kind()), kind.Value)
	}
	if errors.As(err, &kind) {
		return Wrong(kind.Field, "%s: must be %s, not %s", kind.Field, kindName(kind.Type.Kind()),
			kind.Value)
	}
	if errors.As(err, &syntax) {
		e := Wrong("", "the body is not JSON: %v", syntax)
		e.Line, e.Column = placeOf(q.body, syntax.Offset)
		return e
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if key, bad := strconv.Unquote(name); bad == nil {
			return Wrong(key, "unknown key %s; see /v1/schema", name)
		}
	}
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	return Wrong("", "the body is not what is asked for: %v", err)
}

// placeOf turns the number of bytes that were read into a line and a column.
func placeOf(text []byte, read int64) (line, column int) {
	before := text[:min(max(int(read)-1, 0), len(text))]
	return bytes.Count(before, []byte("\n")) + 1, len(before) - bytes.LastIndexByte(before, '\n')
}

// otherCase returns the first key of an object that is a field of a struct but for the case of its
// letters, and the field. The decoder would take it.
func otherCase(text []byte, of reflect.Type) (key, right string) {
	var keys map[string]json.RawMessage
	if json.Unmarshal(text, &keys) != nil {
		return "", "" // the decoder says what is wrong
	}
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		for key := range keys {
			if key != name && strings.EqualFold(key, name) {
				return key, name
			}
		}
	}
	return "", ""
}

// repeated returns the first key that an object has twice, or "". Readers of JSON differ in which
// of the values they take.
func repeated(text []byte) string {
	type object struct {
		keys  map[string]bool // nil: a list
		value bool            // the next token is the value of a key
	}
	var open []object
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		top := len(open) - 1
		if key, ok := token.(string); ok && top >= 0 && open[top].keys != nil && !open[top].value {
			if open[top].keys[key] {
				return key
			}
			open[top].keys[key], open[top].value = true, true
			continue
		}
		if top >= 0 {
			open[top].value = false
		}
		switch token {
		case json.Delim('{'):
			open = append(open, object{keys: map[string]bool{}})
		case json.Delim('['):
			open = append(open, object{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:top]
		}
	}
}
