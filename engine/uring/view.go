// The memory that giouring shares with the kernel. giouring maps the rings but hides every pointer
// in unexported fields; here they are looked up by name once, with their types, and kept.
//
// Invariant: a build against a giouring with another layout does not start. The panic names the
// field.

package uring

import (
	"reflect"
	"unsafe"

	"github.com/pawelgaczynski/giouring"
)

// view is the two queues as Go sees them. The slices and pointers lead into memory that giouring
// has mapped; they are valid until QueueExit.
type view struct {
	sqHead, sqTail, sqFlags *uint32
	sqMask                  uint32
	sqes                    []SQE
	cqHead, cqTail          *uint32
	cqMask                  uint32
	cqes                    []CQE
}

// layout holds byte offsets of unexported fields of giouring's structs.
type layout struct {
	ringSQ, ringCQ                                                uintptr
	sqHead, sqTail, sqMask, sqEntries, sqFlags, sqEntry           uintptr
	cqHead, cqTail, cqMask, cqEntries, cqEntry                    uintptr
	paramFlags, paramCompletions, paramEntries, paramFeatureFlags uintptr
}

// found is filled while the package is initialised, so that a wrong giouring is noticed at start
// and not under load.
var found = findLayout(reflect.TypeFor[giouring.Ring](),
	reflect.TypeFor[giouring.SubmissionQueue](),
	reflect.TypeFor[giouring.CompletionQueue](), reflect.TypeFor[giouring.Params]())

// findLayout takes the types as arguments so that a test can show it a wrong one.
func findLayout(ring, sq, cq, params reflect.Type) layout {
	word, pointer := reflect.TypeFor[uint32](), reflect.TypeFor[*uint32]()
	if params.Size() != paramsSize {
		panic("engine/uring: giouring's " + params.Name() +
			" is no longer struct io_uring_params: this needs the giouring version in go.mod")
	}
	return layout{
		ringSQ:            offsetOf(ring, "sqRing", reflect.PointerTo(sq)),
		ringCQ:            offsetOf(ring, "cqRing", reflect.PointerTo(cq)),
		sqHead:            offsetOf(sq, "head", pointer),
		sqTail:            offsetOf(sq, "tail", pointer),
		sqMask:            offsetOf(sq, "ringMask", pointer),
		sqEntries:         offsetOf(sq, "ringEntries", pointer),
		sqFlags:           offsetOf(sq, "flags", pointer),
		sqEntry:           offsetOf(sq, "sqes", reflect.TypeFor[*SQE]()),
		cqHead:            offsetOf(cq, "head", pointer),
		cqTail:            offsetOf(cq, "tail", pointer),
		cqMask:            offsetOf(cq, "ringMask", pointer),
		cqEntries:         offsetOf(cq, "ringEntries", pointer),
		cqEntry:           offsetOf(cq, "cqes", reflect.TypeFor[*giouring.CompletionQueueEvent]()),
		paramFlags:        offsetOf(params, "flags", word),
		paramCompletions:  offsetOf(params, "cqEntries", word),
		paramEntries:      offsetOf(params, "sqEntries", word),
		paramFeatureFlags: offsetOf(params, "features", word),
	}
}

// paramsSize is sizeof(struct io_uring_params), fixed by the kernel's ABI.
const paramsSize = 120

// offsetOf panics unless t has a field of that name and exactly that type.
func offsetOf(t reflect.Type, name string, want reflect.Type) uintptr {
	f, ok := t.FieldByName(name)
	if !ok || f.Type != want {
		got := "has no such field"
		if ok {
			got = "has it as " + f.Type.String()
		}
		panic("engine/uring: giouring's " + t.Name() + "." + name + " should be " + want.String() +
			" but giouring " + got +
			": this needs the giouring version in go.mod")
	}
	return f.Offset
}

// viewOf reads the pointers of a ring that giouring has set up.
func viewOf(ring *giouring.Ring) view {
	// SAFETY: findLayout has checked that these offsets hold *SubmissionQueue and *CompletionQueue;
	// NewRing sets both.
	sq := *(*unsafe.Pointer)(unsafe.Add(unsafe.Pointer(ring), found.ringSQ))
	cq := *(*unsafe.Pointer)(unsafe.Add(unsafe.Pointer(ring), found.ringCQ))
	v := view{
		sqHead:  wordAt(sq, found.sqHead),
		sqTail:  wordAt(sq, found.sqTail),
		sqFlags: wordAt(sq, found.sqFlags),
		sqMask:  *wordAt(sq, found.sqMask),
		cqHead:  wordAt(cq, found.cqHead),
		cqTail:  wordAt(cq, found.cqTail),
		cqMask:  *wordAt(cq, found.cqMask),
	}
	// SAFETY: sqes and cqes point at arrays of exactly ringEntries entries in the mapping that
	// QueueInitParams made; the masks are entries-1, so an index under the mask is inside. CQE has
	// the layout of CompletionQueueEvent (layout_test.go).
	v.sqes = unsafe.Slice(*(**SQE)(unsafe.Add(sq, found.sqEntry)), *wordAt(sq, found.sqEntries))
	v.cqes = unsafe.Slice(*(**CQE)(unsafe.Add(cq, found.cqEntry)), *wordAt(cq, found.cqEntries))
	return v
}

// wordAt reads the *uint32 kept at that offset of a giouring struct.
func wordAt(base unsafe.Pointer, offset uintptr) *uint32 {
	// SAFETY: findLayout has checked that the field at this offset is a *uint32.
	return *(**uint32)(unsafe.Add(base, offset))
}

// params is giouring's Params, with the fields that giouring lets no caller set.
type params struct{ raw *giouring.Params }

func newParams(flags, completions uint32) params {
	p := params{raw: new(giouring.Params)}
	*p.word(found.paramFlags) = flags
	*p.word(found.paramCompletions) = completions
	return p
}

// features returns the FEAT bits, which the kernel fills in during setup.
func (p params) features() uint32 { return *p.word(found.paramFeatureFlags) }

func (p params) word(offset uintptr) *uint32 {
	// SAFETY: findLayout has checked that the field at this offset of Params is a uint32.
	return (*uint32)(unsafe.Add(unsafe.Pointer(p.raw), offset))
}
