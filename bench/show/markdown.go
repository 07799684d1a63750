// Markdown: tables, and the block that a file of other text has between two markers.
//
// Invariant: the block holds nothing but what was written there, and nothing else of the file
// changes.

package show

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// The block in README.md starts and ends with these lines.
const (
	beginMarker = "<!-- bench: begin (written by bench/suite from its JSON, do not edit) -->"
	endMarker   = "<!-- bench: end -->"
)

// none stands where nothing was measured.
const none = "–"

// markdownTable is a table that is made row by row.
type markdownTable struct{ w table.Writer }

// newMarkdown begins a table: for each column "l" or "r", and its head.
func newMarkdown(sides string, heads ...any) markdownTable {
	t := markdownTable{table.NewWriter()}
	t.w.Style().Format.Header = text.FormatDefault
	var columns []table.ColumnConfig
	for i, side := range sides {
		if side == 'r' {
			columns = append(columns, table.ColumnConfig{Number: i + 1, Align: text.AlignRight})
		}
	}
	t.w.SetColumnConfigs(columns)
	t.w.AppendHeader(heads)
	return t
}

func (t markdownTable) row(cells ...any) { t.w.AppendRow(cells) }

// text is the table, empty without a row.
func (t markdownTable) text() string {
	if t.w.Length() == 0 {
		return ""
	}
	return t.w.RenderMarkdown() + "\n"
}

// replaceBlock puts block between the marker lines of text.
func replaceBlock(text []byte, block string) ([]byte, error) {
	head, rest, ok := bytes.Cut(text, []byte(beginMarker))
	if !ok {
		return nil, fmt.Errorf("no line %q", beginMarker)
	}
	_, tail, ok := bytes.Cut(rest, []byte(endMarker))
	if !ok {
		return nil, fmt.Errorf("no line %q after the first marker", endMarker)
	}
	return slices.Concat(head, []byte(beginMarker+"\n"), []byte(block), []byte(endMarker),
		tail), nil
}
