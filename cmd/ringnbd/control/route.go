// The table of routes, and the checks of a request before its route is called.
//
// Invariant: a request reaches a route only if path and method are those of the table, and the user
// may do what the route does.

package control

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// route is what a path and a method do.
type route struct {
	method  string
	path    string
	about   string
	changes bool     // for admins alone
	params  []string // that it knows
	needs   string   // the parameter that it cannot do without
	body    reflect.Type
	answers reflect.Type // nil: a stream of Event
	serve   func(*call) (any, error)
}

// routes is the table.
var routes []route

func init() {
	named, changed := []string{"name"}, reflect.TypeFor[Changed]()
	routes = []route{
		{"GET", "/v1/status", "what the server is doing", false, nil, "", nil,
			reflect.TypeFor[Status](), (*call).status},
		{"GET", "/v1/exports", "all exports", false, nil, "", nil, reflect.TypeFor[Exports](),
			(*call).exports},
		{"GET", "/v1/export", "one export", false, named, "name", nil, reflect.TypeFor[Export](),
			(*call).export},
		{"PUT", "/v1/export", "serve an export, or change one; another path needs replace=true",
			true, []string{"name", "replace"}, "name", reflect.TypeFor[Wanted](), changed,
			(*call).put},
		{"DELETE", "/v1/export", "answer, flush and close an export; force=true cuts its clients",
			true, []string{"name", "force"}, "name", nil, changed, (*call).remove},
		{"POST", "/v1/export/flush", "flush an export to its disk", true, named, "name", nil,
			changed, (*call).flush},
		{"POST", "/v1/export/resize", "change the size of a file, or look at a device again", true,
			named, "name", reflect.TypeFor[Resize](), changed, (*call).resize},
		{"POST", "/v1/export/overlay/commit", "write what an overlay holds to its origin", true,
			named, "name", nil, changed, (*call).overlayCommit},
		{"POST", "/v1/export/overlay/drop", "forget what an overlay holds", true, named, "name",
			nil, changed, (*call).overlayDrop},
		{"GET", "/v1/connections", "all clients that are being served", false, nil, "", nil,
			reflect.TypeFor[Connections](), (*call).connections},
		{"DELETE", "/v1/connection", "end a connection", true, []string{"id"}, "id", nil, changed,
			(*call).kick},
		{"GET", "/v1/config", "the configuration in force", false, nil, "", nil,
			reflect.TypeFor[Configuration](), (*call).config},
		{"POST", "/v1/config/diff", "how the configuration file differs from what is served", false,
			nil, "", nil, reflect.TypeFor[Differences](), (*call).diff},
		{"POST", "/v1/reload", "read the configuration file again, and do what it says", true,
			[]string{"dry-run"}, "", nil, reflect.TypeFor[Differences](), (*call).reload},
		{"GET", "/v1/events", "what happens from now on, a line of JSON each", false, nil, "", nil,
			nil, (*call).stream},
		{"GET", "/v1/schema", "these routes, and the types of their bodies and answers", false, nil,
			"", nil, reflect.TypeFor[Schema](), (*call).schema},
	}
}

// find finds the route of a request.
func (s *Server) find(r *http.Request, role role) (*route, error) {
	if role == stranger {
		c := clientOf(r)
		return nil, failed(http.StatusForbidden, "",
			"%v may not use this control socket; name it among admins or viewers", c.caller)
	}
	var methods []string
	for i := range routes {
		if routes[i].path != r.URL.Path {
			continue
		}
		if routes[i].method != r.Method {
			methods = append(methods, routes[i].method)
			continue
		}
		if routes[i].changes && role != admin {
			c := clientOf(r)
			return nil, failed(http.StatusForbidden, "",
				"%v may look, and change nothing; name it among admins", c.caller)
		}
		return &routes[i], nil
	}
	if methods != nil {
		return nil, failed(http.StatusMethodNotAllowed, "", "%s takes %s, not %s", r.URL.Path,
			strings.Join(methods, " or "), r.Method)
	}
	return nil, NotFound("", "there is no %s; there is %s", r.URL.Path, strings.Join(paths(), ", "))
}

// paths lists the paths of all routes, each once.
func paths() (list []string) {
	for i := range routes {
		list = append(list, routes[i].path)
	}
	return slices.Compact(list)
}
