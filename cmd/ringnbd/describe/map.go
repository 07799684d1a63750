// The map of an export: extents as they arrive, totals, or a picture.
//
// Invariant: an extent is printed or counted when it arrives, and not kept.

package describe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"ringnbd/engine/client"
	"ringnbd/engine/units"
	"ringnbd/proto"
)

// describeFlags describes the flags of an extent in nbdinfo's words.
func describeFlags(name string, flags uint64) string {
	switch {
	case name == proto.ContextAllocation:
		switch flags {
		case 0:
			return "data"
		case uint64(proto.StatusHole):
			return "hole"
		case uint64(proto.StatusZero):
			return "zero"
		case uint64(proto.StatusHole | proto.StatusZero):
			return "hole,zero"
		}
	case strings.HasPrefix(name, "qemu:dirty-bitmap:"):
		switch flags {
		case 0:
			return "clean"
		case 1:
			return "dirty"
		}
	case name == "qemu:allocation-depth":
		switch flags {
		case 0:
			return "unallocated"
		case 1:
			return "local"
		}
		return "backing depth " + strconv.FormatUint(flags, 10)
	}
	return "flags " + strconv.FormatUint(flags, 10)
}

// showMap walks the map once.
func showMap(ctx context.Context, o *Options, w io.Writer) error {
	c, err := client.Dial(ctx, &o.Target,
		client.Options{Timeout: o.Timeout, Contexts: []string{o.Context}})
	if err != nil {
		return err
	}
	var sum totals
	bar := newPicture(c.Size, o)
	out := &extentWriter{w: w, context: o.Context, json: o.JSON}
	err = c.Extents(ctx, o.Context, 0, c.Size, func(e client.Extent) error {
		sum.add(e.Flags, e.Length)
		switch {
		case o.Map == "extents" || o.JSON && o.Map == "picture":
			return out.extent(e)
		case o.Map == "picture":
			bar.add(e)
		}
		return nil
	})
	if err != nil {
		_ = c.Close() // if the connection is lost, err says so
		return err
	}
	switch {
	case o.Map == "totals":
		err = sum.write(w, o)
	case o.JSON:
		err = out.end()
	case o.Map == "picture":
		bar.write(w)
		err = sum.write(w, o)
	}
	return errors.Join(err, c.Close())
}

// extentWriter prints extents, a line each, as text or as elements of a JSON array.
type extentWriter struct {
	w       io.Writer
	context string
	json    bool
	b       []byte
	some    bool              // an extent was printed
	text    map[uint64]string // descriptions of flags
}

func (x *extentWriter) extent(e client.Extent) error {
	text, ok := x.text[e.Flags]
	if !ok {
		if x.text == nil || len(x.text) > 64 {
			x.text = map[uint64]string{}
		}
		text = describeFlags(x.context, e.Flags)
		x.text[e.Flags] = text
	}
	b := x.b[:0]
	if x.json {
		start := "[\n  "
		if x.some {
			start = ",\n  "
		}
		b = append(b, start...)
		b = append(b, `{ "offset": `...)
		b = strconv.AppendUint(b, e.Offset, 10)
		b = append(b, `, "length": `...)
		b = strconv.AppendUint(b, e.Length, 10)
		b = append(b, `, "type": `...)
		b = strconv.AppendUint(b, e.Flags, 10)
		b = append(b, `, "description": "`...)
		b = append(append(b, text...), `" }`...)
	} else {
		b = pad(b, e.Offset, 14)
		b = pad(b, e.Length, 15)
		b = pad(b, e.Flags, 5)
		b = append(append(append(b, "  "...), text...), '\n')
	}
	x.b, x.some = b, true
	_, err := x.w.Write(b)
	return err
}

// pad appends a number, right-aligned in a column.
func pad(b []byte, n uint64, width int) []byte {
	var digits [20]byte
	d := strconv.AppendUint(digits[:0], n, 10)
	for range width - len(d) {
		b = append(b, ' ')
	}
	if len(d) >= width {
		b = append(b, ' ')
	}
	return append(b, d...)
}

func (x *extentWriter) end() error {
	text := "\n]\n"
	if !x.some {
		text = "[]\n"
	}
	_, err := io.WriteString(x.w, text)
	return err
}

// totals are the number of extents, and the bytes of each kind.
type totals struct {
	kinds   []kind
	extents uint64
}

type kind struct {
	Size        uint64  `json:"size"` // bytes
	Percent     float64 `json:"percent"`
	Flags       uint64  `json:"type"`
	Description string  `json:"description"`
}

// maxKinds bounds how many kinds are kept apart: contexts have a few, but a server may invent more.
const maxKinds = 256

func (t *totals) add(flags, length uint64) {
	t.extents++
	i := slices.IndexFunc(t.kinds, func(k kind) bool { return k.Flags == flags })
	if i < 0 {
		if i = len(t.kinds); i == maxKinds {
			i--
		} else {
			t.kinds = append(t.kinds, kind{Flags: flags})
		}
	}
	t.kinds[i].Size += length
}

func (t *totals) write(w io.Writer, o *Options) error {
	all := uint64(0)
	for _, k := range t.kinds {
		all += k.Size
	}
	slices.SortFunc(t.kinds, func(a, b kind) int { return cmp.Compare(a.Flags, b.Flags) })
	for i := range t.kinds {
		k := &t.kinds[i]
		k.Percent, k.Description = 100*float64(k.Size)/float64(max(all, 1)),
			describeFlags(o.Context, k.Flags)
	}
	if o.JSON {
		return writeJSON(w, append([]kind{}, t.kinds...))
	}
	for _, k := range t.kinds {
		fmt.Fprintf(w, "%15d  %9s  %5.1f %%  %s\n", k.Size, units.Size(k.Size), k.Percent,
			k.Description)
	}
	_, err := fmt.Fprintln(w, units.Plural(t.extents, "extent"))
	return err
}
