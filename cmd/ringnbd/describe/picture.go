// The picture: an export as one bar, as wide as the terminal.
//
// Invariant: memory is proportional to the columns. A column is shown as data only if most of it is
// data, and as some data if there is less.

package describe

import (
	"fmt"
	"io"
	"math/bits"
	"strings"

	"ringnbd/engine/client"
	"ringnbd/engine/units"
	"ringnbd/proto"
)

// plainWidth is the width in columns of a bar that does not go to a terminal.
const plainWidth = 72

// picture is an export as a bar.
type picture struct {
	size   uint64
	base   bool // base:allocation, which distinguishes holes from other zeroes
	glyphs []string
	cells  []cell
}

// cell counts the bytes of each kind in a column.
type cell struct{ data, zero, hole uint64 }

// Glyphs for mostly data, some data, zeroes, holes.
var (
	fancyGlyphs = []string{"█", "▒", "░", "·"}
	plainGlyphs = []string{"#", "+", "0", "."}
)

func newPicture(size uint64, o *Options) *picture {
	width := uint64(plainWidth)
	if o.Width > 0 {
		width = uint64(max(o.Width-2, 1))
	}
	p := &picture{size: size, base: o.Context == proto.ContextAllocation, glyphs: plainGlyphs,
		cells: make([]cell, min(width, max(size, 1)))}
	if o.Fancy {
		p.glyphs = fancyGlyphs
	}
	return p
}

// border is the offset where a column begins: the size times i over the number of columns, in 128
// bits.
func (p *picture) border(i int) uint64 {
	high, low := bits.Mul64(p.size, uint64(i))
	q, _ := bits.Div64(high, low, uint64(len(p.cells)))
	return q
}

func (p *picture) add(e client.Extent) {
	high, low := bits.Mul64(e.Offset, uint64(len(p.cells)))
	first, _ := bits.Div64(high, low, p.size)
	end := e.Offset + e.Length
	for i := int(first); i < len(p.cells); i++ {
		from, to := p.border(i), p.border(i+1)
		if from >= end {
			break
		}
		n := min(to, end) - min(max(from, e.Offset), min(to, end))
		c := &p.cells[i]
		zero, hole := e.Flags&uint64(proto.StatusZero) != 0, e.Flags&uint64(proto.StatusHole) != 0
		switch {
		case !p.base && e.Flags == 0:
			c.hole += n
		case !p.base || !zero:
			c.data += n
		case hole:
			c.hole += n
		default:
			c.zero += n
		}
	}
}

func (p *picture) write(w io.Writer) {
	if p.size == 0 {
		return
	}
	var b strings.Builder
	for _, c := range p.cells {
		all := c.data + c.zero + c.hole
		switch {
		case c.data > all/2:
			b.WriteString(p.glyphs[0])
		case c.data > 0:
			b.WriteString(p.glyphs[1])
		case c.zero > 0:
			b.WriteString(p.glyphs[2])
		default:
			b.WriteString(p.glyphs[3])
		}
	}
	fmt.Fprintf(w, "[%s]\n %s\n", b.String(), p.ruler())
	legend := "%s data  %s some data  %s zeroes that take space  %s holes, which are zeroes\n"
	if !p.base {
		legend = "%s set  %s partly set  %s (not used)  %s clear\n"
	}
	fmt.Fprintf(w, legend, p.glyphs[0], p.glyphs[1], p.glyphs[2], p.glyphs[3])
}

// ruler is the line below the bar: the offsets of its beginning and end and, if there is room, of
// its quarters, each centred below its column.
func (p *picture) ruler() string {
	width := len(p.cells)
	line := []byte("0" + strings.Repeat(" ", max(width-1, 0)))
	right := units.Size(p.size)
	if len(right) >= width {
		return "0 " + right
	}
	if width >= 60 {
		for quarter := 1; quarter < 4; quarter++ {
			label := units.Size(p.size / 4 * uint64(quarter))
			copy(line[width*quarter/4-len(label)/2:], label)
		}
	}
	copy(line[width-len(right):], right)
	return string(line)
}
