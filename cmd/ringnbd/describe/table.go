// The list of exports as text: a line for each, or two if the terminal has no room for the URI in
// the first.
//
// Invariant: no line but those of URIs is wider than the terminal; into a pipe nothing is
// shortened. A URI is never broken, so that it can be copied.
//
// go-pretty's table prints when it has all rows; this table prints a row as soon as it is known.

package describe

import (
	"io"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"

	"ringnbd/engine/units"
)

// The columns.
const (
	nameColumn = iota
	sizeColumn
	modeColumn
	flagsColumn
	descriptionColumn
	uriColumn
	columns
)

var titles = [columns]string{"EXPORT", "SIZE", "MODE", "FLAGS", "DESCRIPTION", "URI"}

// table is a table whose columns have the widths of the first page.
type table struct {
	w      io.Writer
	width  int    // of the terminal, in columns; 0: none
	mark   string // at the end of a text that was cut off
	widths [columns]int
	below  bool // the URI is on a line of its own
}

// gap is the number of spaces between columns, indent before lines below a row.
const (
	gap    = 2
	indent = 4
)

// begin computes the widths of the columns, and prints the head. Only if these rows are the whole
// list is a column without content left out.
func (t *table) begin(rows []found, whole bool) error {
	for i, title := range titles {
		t.widths[i] = len(title)
	}
	described := !whole
	for i := range rows {
		described = described || rows[i].export.Description != ""
		for k, cell := range cells(&rows[i]) {
			t.widths[k] = max(t.widths[k], text.StringWidth(cell))
		}
	}
	if !described {
		t.widths[descriptionColumn] = 0
	}
	t.fit()
	head := titles
	if !described {
		head[descriptionColumn] = ""
	}
	return t.line(head)
}

// fit narrows and removes columns until the rest has room.
func (t *table) fit() {
	if t.width <= 0 || t.over() <= 0 {
		return
	}
	t.below, t.widths[uriColumn] = true, 0
	for _, c := range []struct{ column, minWidth int }{
		{descriptionColumn, 12}, {nameColumn, 16}, {flagsColumn, 5},
		{descriptionColumn, 0}, {nameColumn, 3}, {flagsColumn, 0},
	} {
		if over := t.over(); over > 0 && t.widths[c.column] > c.minWidth {
			t.widths[c.column] = max(t.widths[c.column]-over, c.minWidth)
		}
	}
}

// over is by how many columns the table is too wide for the terminal.
func (t *table) over() int {
	all := -gap
	for _, width := range t.widths {
		if width > 0 {
			all += width + gap
		}
	}
	return all - t.width
}

// row prints an export.
func (t *table) row(f *found) error {
	if err := t.line(cells(f)); err != nil {
		return err
	}
	var below []string
	if f.failed != "" {
		reason := f.failed
		if t.width > indent+10 {
			reason = text.WrapSoft(reason, t.width-indent)
		}
		below = strings.Split(reason, "\n")
	} else if t.below {
		below = []string{f.export.URI}
	}
	for _, line := range below {
		line = strings.Repeat(" ", indent) + strings.TrimRight(line, " ") + "\n"
		if _, err := io.WriteString(t.w, line); err != nil {
			return err
		}
	}
	return nil
}

// cells are the texts of a row.
func cells(f *found) [columns]string {
	c := [columns]string{nameColumn: quoted(f.export.Name)}
	if f.failed != "" {
		return c
	}
	c[sizeColumn], c[modeColumn], c[flagsColumn], c[uriColumn] = units.Size(f.export.Size),
		f.export.mode(), f.export.short(), f.export.URI
	if f.export.Description != "" {
		c[descriptionColumn] = quoted(f.export.Description)
	}
	return c
}

// quoted makes a text of the server harmless for a terminal.
func quoted(s string) string { return strconv.QuoteToGraphic(s) }

func (t *table) line(c [columns]string) error {
	var b strings.Builder
	for i, width := range t.widths {
		if width == 0 {
			continue
		}
		cell := c[i]
		if t.width > 0 {
			cell = text.Snip(cell, width, t.mark)
		}
		if i == sizeColumn {
			b.WriteString(text.AlignRight.Apply(cell, width))
		} else {
			b.WriteString(text.Pad(cell, width, ' '))
		}
		b.WriteString(strings.Repeat(" ", gap))
	}
	_, err := io.WriteString(t.w, strings.TrimRight(b.String(), " ")+"\n")
	return err
}
