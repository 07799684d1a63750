// Every order and every crash of short histories over one or two blocks.

package overlay

import (
	"flag"
	"strings"
	"testing"

	"ringnbd/engine/layer"
	"ringnbd/engine/layer/trial"
)

var historyLength = flag.Int("history", 2, "how many requests a history has of which every order "+
	"and crash is looked at")

// letters are the requests that histories are made of, on a disk of three blocks of 512 bytes.
var letters = map[byte]trial.Ask{
	'w': {Op: layer.Write, Len: 512},
	'W': {Op: layer.Write, Len: 512, Flags: layer.FUA},
	'v': {Op: layer.Write, Off: 512, Len: 512},
	'V': {Op: layer.Write, Off: 512, Len: 512, Flags: layer.FUA},
	'z': {Op: layer.Zero, Len: 512},
	'Z': {Op: layer.Zero, Len: 1024, Flags: layer.FUA},
	'n': {Op: layer.Zero, Len: 512, Flags: layer.NoHole},
	't': {Op: layer.Trim, Len: 512},
	'f': {Op: layer.Flush},
	'r': {Op: layer.Read, Len: 1024},
}

// small is a rig of three blocks, of which the first is in a state.
func small(first State, wrap func(*Overlay) planWithRows) trial.Rig {
	k := &stack{shape: shape{wrap: wrap}, size: 3 * 512}
	k.origin = Origin{Size: k.size}
	l, _ := Lay(k.size)
	k.disks = []*trial.Disk{
		{Size: k.size, Align: 512, ReadOnly: true, Initial: func(sector uint64) uint64 {
			return trial.Stamp(originSource, sector)
		}},
		{Size: l.FileLen, Align: 512, Front: l.DataAt}}
	top := k.disks[1]
	k.format(top)
	page := make([]byte, pageLen)
	page[0] = byte(first)
	top.WriteAt(page, l.MapAt)
	data := make([]byte, 512) // where the state is not data, it is of a time before
	trial.Fill(data, trial.Stamp(originSource+1, 0))
	top.WriteAt(data, l.DataAt)
	return trial.Rig{Disks: k.disks, Boot: k.boot, Whole: k.whole, Check: k.check,
		OriginFirst: true, Initial: func(sector uint64) uint64 {
			switch {
			case sector > 0 || first == FromOrigin:
				return k.below(sector)
			case first == Data:
				return trial.Stamp(originSource+1, 0)
			}
			return 0
		}}
}

// enumerate goes through a history from each state of the first block.
func enumerate(text string, wrap func(*Overlay) planWithRows) (sum trial.Counted, err error) {
	var history []trial.Ask
	for i := range text {
		history = append(history, letters[text[i]])
	}
	for _, first := range []State{FromOrigin, Data, Zeroes} {
		rig := func() trial.Rig { return small(first, wrap) }
		counted, err := trial.Enumerate(rig, history, 3*512)
		sum.Orders += counted.Orders
		sum.Moments += counted.Moments
		sum.Images += counted.Images
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// TestEveryCrash goes through all histories of two requests (or -history), and some longer ones.
func TestEveryCrash(t *testing.T) {
	if raced {
		*historyLength = 1
	}
	histories := []string{""}
	for range *historyLength {
		var longer []string
		for _, h := range histories {
			for a := range letters {
				longer = append(longer, h+string(a))
			}
		}
		histories = longer
	}
	histories = append(histories, "wfw", "wwf", "vwf", "wfz", "zfw", "tfw", "nfw", "wtw", "zwf",
		"Wfw", "vWf", "wVf", "wfv", "wfzw", "rwf")
	var all trial.Counted
	for _, h := range histories {
		counted, err := enumerate(h, nil)
		if err != nil {
			t.Fatalf("%s: %v", h, err)
		}
		all.Orders += counted.Orders
		all.Moments += counted.Moments
		all.Images += counted.Images
	}
	t.Logf("%d histories: %+v", len(histories), all)
}

// TestEveryCrashCatches plants those bugs that a short history shows.
func TestEveryCrashCatches(t *testing.T) {
	for name, history := range map[string]string{
		"a block is marked before its data is written":              "fw wf wV",
		"pages are copied after the flush":                          "wfv Vw",
		"pages are written without the flush before them":           "wf",
		"the only page is not written durably":                      "wf",
		"a durable write is answered before the map is saved":       "W",
		"a durable write relies on a map that is not saved yet":     "wW W",
		"a flush does not wait for the round that is under way":     "wVf",
		"zeroes that keep space are marked before they are written": "nf nV",
		"zeroes are read from the top":                              "r",
		"what changes during a round is taken as saved":             "Vwf",
	} {
		bug, ok := bugShapes()[name]
		if !ok {
			t.Errorf("%q is not a bug", name)
		}
		caught := false
		for _, h := range strings.Fields(history) {
			_, err := enumerate(h, bug.wrap)
			caught = caught || err != nil
		}
		if !caught {
			t.Errorf("%q is not caught by %s", name, history)
		}
	}
}
