// Names of loads: null/randread/4k/4x32/unix.
//
// Invariant: a name that parses is the name of exactly one load, and the load has that name
// again.

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ringnbd/bench/measure"
	"ringnbd/engine/units"
)

// usualLoads are few, so that a comparison takes minutes: the server alone, over both transports
// and with one request at a time, and the disk read, written, in large requests and in requests
// that do not fill its blocks.
var usualLoads = []string{
	"null/randread/4k/1x32/unix",
	"null/randread/4k/4x32/unix",
	"null/randread/4k/4x32/tcp",
	"null/randread/4k/1x1/unix",
	"file/randread/4k/1x32/unix",
	"file/randread/4k/4x32/unix",
	"file/randwrite/4k/4x32/unix",
	"file/read/1m/1x16/unix",
	"file/randwrite/512/4x32/unix",
}

// What can stand in the fields of a name.
var (
	backends = []string{measure.Null, measure.Memory, measure.File, measure.Loop, measure.Overlay,
		measure.Mapped}
	patterns   = []string{"randread", "randwrite", "randrw", "read", "write"}
	transports = []string{measure.Unix, measure.TCP}
)

// Bounds of a load, against slips of the finger.
const (
	maxBlock       = 32 << 20
	maxConnections = 10000
	maxDepth       = 1024
	usualPercent   = 70 // reads of randrw, when its name does not say
)

// parseLoads reads names separated by commas; without any, the usual ones.
func parseLoads(text string) ([]namedLoad, error) {
	names := usualLoads
	if text != "" {
		names = strings.Split(text, ",")
	}
	var all []namedLoad
	for _, name := range names {
		l, err := parseLoad(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		one := namedLoad{name: loadName(l), load: l}
		if slices.Contains(all, one) {
			return nil, fmt.Errorf("%s is there twice", one.name)
		}
		all = append(all, one)
	}
	return all, nil
}

// parseLoad reads one name.
func parseLoad(name string) (measure.Load, error) {
	f := strings.Split(name, "/")
	if len(f) < 5 {
		return measure.Load{},
			fmt.Errorf("%q: write BACKEND/PATTERN/SIZE/CONNECTIONSxDEPTH/TRANSPORT, such as %s",
				name, usualLoads[1])
	}
	l := measure.Load{Backend: f[0], Transport: f[4]}
	wrong := func(what string, a ...any) (measure.Load, error) {
		return measure.Load{}, fmt.Errorf("%q: "+what, append([]any{name}, a...)...)
	}
	var percent string
	l.Pattern, percent, _ = strings.Cut(f[1], ":")
	size, err := units.ParseSize(f[2])
	connections, depth, shaped := strings.Cut(f[3], "x")
	switch {
	case !slices.Contains(backends, l.Backend):
		return wrong("there is no back end %q; there are %s", l.Backend,
			strings.Join(backends, ", "))
	case !slices.Contains(patterns, l.Pattern):
		return wrong("there is no pattern %q; there are %s", l.Pattern,
			strings.Join(patterns, ", "))
	case err != nil || size < 512 || size > maxBlock || size%512 != 0:
		return wrong("%q is not the size of a request: give a multiple of 512 up to 32m, such "+
			"as 4k", f[2])
	case !shaped || !within(connections, maxConnections, &l.Connections) ||
		!within(depth, maxDepth, &l.Depth):
		return wrong("%q: write CONNECTIONSxDEPTH, up to %dx%d, such as 4x32", f[3], maxConnections,
			maxDepth)
	case !slices.Contains(transports, l.Transport):
		return wrong("there is no transport %q; there are %s", l.Transport,
			strings.Join(transports, ", "))
	}
	l.BlockSize = int(size)
	if l.Pattern == "randrw" {
		l.ReadPercent = usualPercent
	}
	if percent != "" && (l.Pattern != "randrw" || !within(percent, 99, &l.ReadPercent)) {
		return wrong("%q: only randrw has a percentage of reads, from 1 to 99, such as randrw:70",
			f[1])
	}
	for _, more := range f[5:] {
		if !parseFurther(more, &l) {
			return wrong("%q: further parts are rate=REQUESTS per second, idle=CONNECTIONS and "+
				"exports=NUMBER, each once", more)
		}
	}
	return l, nil
}

// parseFurther reads one of the parts that a name may end with.
func parseFurther(text string, l *measure.Load) bool {
	key, value, _ := strings.Cut(text, "=")
	switch {
	case key == "rate" && l.Rate == 0:
		rate, err := strconv.ParseFloat(value, 64)
		l.Rate = rate
		return err == nil && rate >= 1 && rate <= 1e8
	case key == "idle" && l.Idle == 0:
		return within(value, maxConnections, &l.Idle)
	case key == "exports" && l.Exports == 0:
		return within(value, maxConnections, &l.Exports)
	}
	return false
}

// within reads a number from 1 to limit.
func within(text string, limit int, into *int) bool {
	n, err := strconv.Atoi(text)
	*into = n
	return err == nil && n >= 1 && n <= limit
}

// loadName is the name of a load.
func loadName(l measure.Load) string {
	pattern := l.Pattern
	if pattern == "randrw" {
		pattern += ":" + strconv.Itoa(l.ReadPercent)
	}
	name := fmt.Sprintf("%s/%s/%s/%dx%d/%s", l.Backend, pattern, shortSize(l.BlockSize),
		l.Connections, l.Depth, l.Transport)
	if l.Rate > 0 {
		name += "/rate=" + strconv.FormatFloat(l.Rate, 'f', -1, 64)
	}
	if l.Idle > 0 {
		name += fmt.Sprintf("/idle=%d", l.Idle)
	}
	if l.Exports > 0 {
		name += fmt.Sprintf("/exports=%d", l.Exports)
	}
	return name
}

// shortSize prints bytes the way names have them: 512, 4k, 1m.
func shortSize(n int) string {
	switch {
	case n%(1<<20) == 0:
		return strconv.Itoa(n>>20) + "m"
	case n%(1<<10) == 0:
		return strconv.Itoa(n>>10) + "k"
	}
	return strconv.Itoa(n)
}
