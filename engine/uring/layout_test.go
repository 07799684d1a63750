// Tests that our structs, and giouring's, have the kernel's layout (include/uapi/linux/io_uring.h,
// struct user_msghdr), and that a giouring with another layout is noticed.

package uring

import (
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/pawelgaczynski/giouring"
)

func TestStructsHaveTheKernelsLayout(t *testing.T) {
	type fields map[string]uintptr
	for _, c := range []struct {
		of      reflect.Type
		size    uintptr
		offsets fields
	}{
		{reflect.TypeFor[SQE](), 64,
			fields{"OpCode": 0, "Flags": 1, "IoPrio": 2, "Fd": 4, "Off": 8, "Addr": 16, "Len": 24,
				"OpcodeFlags": 28,
				"UserData":    32, "BufIG": 40, "Personality": 42, "SpliceFdIn": 44, "Addr3": 48}},
		{reflect.TypeFor[CQE](), 16, fields{"UserData": 0, "Res": 8, "Flags": 12}},
		{reflect.TypeFor[giouring.CompletionQueueEvent](), 16,
			fields{"UserData": 0, "Res": 8, "Flags": 12}},
		{reflect.TypeFor[giouring.Params](), paramsSize,
			fields{"sqEntries": 0, "cqEntries": 4, "flags": 8, "features": 20, "sqOff": 40,
				"cqOff": 80}},
		{reflect.TypeFor[giouring.RsrcUpdate](), 16, fields{"Offset": 0, "Data": 8}},
		{reflect.TypeFor[giouring.Probe](), 16 + 256*8,
			fields{"LastOp": 0, "OpsLen": 1, "Ops": 16}},
		{reflect.TypeFor[Iovec](), iovecSize, fields{"Base": 0, "Len": 8}},
		{reflect.TypeFor[Msghdr](), msghdrSize,
			fields{"Name": 0, "NameLen": 8, "Iov": 16, "IovLen": 24, "Control": 32,
				"ControlLen": 40, "Flags": 48}},
		{reflect.TypeFor[waitArgument](), waitArgumentSize + 16,
			fields{"signals": 0, "signalsSize": 8, "minimum": 12, "timespec": 16,
				"seconds": timespecAt, "nanoseconds": timespecAt + 8}},
	} {
		if c.of.Size() != c.size {
			t.Errorf("%v has %d bytes, the kernel's %d", c.of, c.of.Size(), c.size)
		}
		for name, offset := range c.offsets {
			if f, ok := c.of.FieldByName(name); !ok || f.Offset != offset {
				t.Errorf("%v.%s: found %v at %d, the kernel has it at %d", c.of, name, ok, f.Offset,
					offset)
			}
		}
	}
}

func TestAnotherGiouringIsNoticed(t *testing.T) {
	ring, sq := reflect.TypeFor[giouring.Ring](), reflect.TypeFor[giouring.SubmissionQueue]()
	cq, params := reflect.TypeFor[giouring.CompletionQueue](), reflect.TypeFor[giouring.Params]()
	type Ring struct{ sqRing *int }
	type Params struct{ flags uint32 }
	for _, c := range []struct {
		name   string
		types  [4]reflect.Type
		expect string
	}{
		{"field gone", [4]reflect.Type{reflect.TypeFor[struct{}](), sq, cq, params},
			"no such field"},
		{"field of another type", [4]reflect.Type{reflect.TypeFor[Ring](), sq, cq, params},
			"Ring.sqRing should be *giouring.SubmissionQueue but giouring has it as *int"},
		{"queues exchanged", [4]reflect.Type{ring, cq, sq, params}, "should be"},
		{"params of another size", [4]reflect.Type{ring, sq, cq, reflect.TypeFor[Params]()},
			"io_uring_params"},
	} {
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.Contains(text, c.expect) ||
					!strings.Contains(text, "go.mod") {
					t.Errorf("%s: panic %q, want one with %q", c.name, text, c.expect)
				}
			}()
			findLayout(c.types[0], c.types[1], c.types[2], c.types[3])
		}()
	}
	_, _ = Ring{}.sqRing, Params{}.flags
}

// The view's arrays must be where the kernel writes: an entry written through it is one that the
// kernel executes.
func TestViewIsTheKernelsMemory(t *testing.T) {
	r := newRing(t, 4, 8)
	if r.sqMask != 3 || r.cqMask != 7 || cap(r.sqes) != 4 || cap(r.cqes) != 8 {
		t.Fatalf("view: masks %d %d, %d entries, %d completions", r.sqMask, r.cqMask, len(r.sqes),
			len(r.cqes))
	}
	s := r.SQE()
	if s != &r.sqes[0] || uintptr(unsafe.Pointer(s))%64 != 0 {
		t.Fatal("the first entry is not the first of the array")
	}
	PrepNop(s, 0x0123456789abcdef)
	if err := r.Enter(1, -1); err != nil {
		t.Fatal(err)
	}
	if r.cqes[0].UserData != 0x0123456789abcdef {
		t.Errorf("completion 0 is %+v", r.cqes[0])
	}
}
