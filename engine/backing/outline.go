// What a tree is made of, as far as that can be seen without opening it for use: which stores there
// are, how large, what each part promises and what it needs.
//
// Invariant: nothing is changed, made or locked, so the outline of a tree that is served can be
// drawn too. What is promised here is what layered.go opens.

package backing

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ringnbd/engine"
	"ringnbd/engine/layer/overlay"
	"ringnbd/engine/tree"
	"ringnbd/engine/units"
)

// Part is a layer or a store of a tree.
type Part struct {
	Text     string   `json:"text"`           // as it stands in the tree
	Role     string   `json:"role,omitempty"` // in the layer above: "origin" or "top"
	Kind     string   `json:"kind"`           // "overlay", "file", "block device"; "": unknown
	Size     uint64   `json:"size,omitempty"` // bytes that clients see
	Used     uint64   `json:"used,omitempty"` // bytes that a file takes on its disk
	Block    uint32   `json:"block,omitempty"`
	Memory   uint64   `json:"memory,omitempty"` // bytes of memory, at most
	Space    uint64   `json:"space,omitempty"`  // bytes of space for what is written, at most
	Free     uint64   `json:"free,omitempty"`   // bytes that are free for that
	Promises []string `json:"promises,omitempty"`
	Needs    []string `json:"needs,omitempty"`
	Wrong    []string `json:"wrong,omitempty"` // why it cannot be served as it is
	Parts    []Part   `json:"parts,omitempty"`

	errs []error
}

// The roles of the parts of an overlay.
const (
	roleOrigin = "origin"
	roleTop    = "top"
)

// What stores need of others.
const (
	alone = "nothing else may use it meanwhile: it is locked against other ringnbds, QEMU and " +
		"its tools, and mounts"
	still = "nothing may write to it meanwhile: it is locked against writers; others may read it"
)

// Outline looks at the stores of a tree, which has passed its checks.
func Outline(n *tree.Node) Part {
	p := outline(n, "")
	if n.Layer == "" && p.Kind != "" {
		p.Promises = append(p.Promises, "what clients write goes into it at once",
			"FLUSH and FUA make what was written durable")
		p.Needs = append(p.Needs, alone)
	}
	return p
}

// Errors returns what is wrong anywhere in the part.
func (p *Part) Errors() []error {
	all := p.errs
	for i := range p.Parts {
		all = append(all, p.Parts[i].Errors()...)
	}
	return all
}

func (p *Part) wrong(err error) {
	p.errs = append(p.errs, err)
	p.Wrong = append(p.Wrong, err.Error())
}

func outline(n *tree.Node, role string) Part {
	if n.Layer == "" {
		p := outlineStore(n, role)
		if role == roleOrigin && p.Kind != "" {
			p.Promises = append(p.Promises, "it is only read, and never changes")
			p.Needs = append(p.Needs, still)
		}
		return p
	}
	p := Part{Text: n.String(), Role: role, Kind: n.Layer}
	p.Parts = append(p.Parts, outline(&n.Parts[0], roleOrigin))
	p.Size = p.Parts[0].Size
	l, err := overlay.Lay(p.Size)
	if err != nil && p.Parts[0].Kind != "" {
		p.wrong(&TopError{Path: n.Parts[0].String(), Err: err})
	}
	p.Block, p.Memory, p.Space = l.Block, l.MapLen, l.FileLen
	if n.Option(tree.OptionDiscard) != "" {
		p.outlineThrownAway(n)
	} else {
		p.outlineKept(n)
	}
	return p
}

// outlineKept adds what an overlay with a FILE promises and needs.
func (p *Part) outlineKept(n *tree.Node) {
	top := outlineTop(n, p.Size)
	p.Free = top.Free
	if p.Role == roleOrigin {
		p.Promises = append(p.Promises, "it is only read: "+top.Text+" does not change either")
		top.Needs = append(top.Needs, still)
		p.Space = 0
	} else {
		p.Promises = append(p.Promises,
			"what clients write is kept in "+top.Text+"; "+n.Parts[0].String()+" never changes",
			"FLUSH and FUA make it durable: it is there after a crash, and no block is torn",
			"TRIM and WRITE_ZEROES give back the space that they free in "+top.Text,
			"BLOCK_STATUS tells the data, holes and zeroes of both (base:allocation), and which "+
				"of them has the data (qemu:allocation-depth)",
			"several connections see the same disk (multi-conn)")
		top.Needs = append(top.Needs, alone)
		p.Needs = append(p.Needs, p.spaceIn(top.Text, "clients write"))
	}
	p.Needs = append(p.Needs, "memory for the map: up to "+units.Size(p.Memory)+", as it fills")
	if p.Role != roleOrigin {
		p.Needs = append(p.Needs, "up to 256 KiB of the memory for requests, to save the map")
	}
	p.Needs = append(p.Needs, "one event loop, which serves all of its connections")
	p.Parts = append(p.Parts, top)
}

// spaceIn says what an overlay may need on a file system.
func (p *Part) spaceIn(place, what string) string {
	text := fmt.Sprintf("space in %s for what %s: up to %s", place, what, units.Size(p.Space))
	if p.Free > 0 {
		text += "; " + units.Size(p.Free) + " is free"
	}
	return text
}

// outlineTop looks at the FILE of an overlay over an origin of a size.
func outlineTop(n *tree.Node, size uint64) Part {
	path := n.Parts[1].String()
	var st unix.Stat_t
	if unix.Stat(path, &st) == unix.ENOENT {
		top := Part{Text: path, Role: roleTop, Free: freeIn(filepath.Dir(path))}
		if n.Option(tree.OptionCreate) == "" {
			top.wrong(&TopError{Path: path, Missing: true})
			return top
		}
		top.Kind = kindFile
		top.Promises = append(top.Promises, "it does not exist yet, and is made when it is served")
		return top
	}
	top := outlineStore(&n.Parts[1], roleTop)
	switch {
	case top.Kind == kindFile:
		top.Free = freeIn(path)
		if err := outlineSuper(&top, path, size); err != nil {
			top.wrong(&TopError{Path: path, Err: err})
		}
	case top.Kind != "":
		top.wrong(&TopError{Path: path, NotFile: true})
	}
	return top
}

// outlineSuper reads what the FILE of an overlay says of itself.
func outlineSuper(top *Part, path string, size uint64) error {
	fd, err := openRetry(path, unix.O_CLOEXEC|unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	head := make([]byte, overlay.HeadLen)
	n, err := readFull(fd, head, 0)
	if err != nil {
		return err
	}
	super, err := overlay.Parse(head[:n])
	if err == nil && size > 0 && super.Origin.Size != size {
		err = &overlay.OriginError{Was: super.Origin, Is: overlay.Origin{Size: size}}
	}
	if err == nil {
		err = super.CheckLength(top.Size)
	}
	if err != nil {
		return err
	}
	top.Promises = append(top.Promises, fmt.Sprintf("it is an overlay over %s of %s",
		super.Origin.Name, units.Exact(super.Origin.Size)))
	if super.Committing {
		top.Promises = append(top.Promises, "a commit into its origin was cut off, and is to be "+
			"done again")
	}
	top.Size = 0
	return nil
}

// outlineThrownAway adds what an overlay that is thrown away promises and needs.
func (p *Part) outlineThrownAway(n *tree.Node) {
	dir := n.Option(tree.OptionDir)
	if dir == "" {
		dir = DefaultThrowAwayDir
	}
	p.Promises = append(p.Promises,
		"every connection begins with "+n.Parts[0].String()+" as it is, which never changes",
		"what a client writes is seen by that connection alone, and gone when it ends",
		"FLUSH and FUA succeed at once, for nothing is to survive",
		"what one client has read is in the page cache for all others")
	p.Free = freeIn(dir)
	p.Needs = append(p.Needs, p.spaceIn(dir, "each client writes"),
		"memory for the map of each client: up to "+units.Size(p.Memory)+", as it fills",
		"an open file for each client",
		"one event loop for each connection")
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		p.wrong(&TopError{Path: dir, Dir: true, Err: err})
	}
}

// The kinds of stores.
const (
	kindFile  = "file"
	kindBlock = "block device"
)

// outlineStore looks at a store. It opens it for reading for a moment, without a lock.
func outlineStore(n *tree.Node, role string) Part {
	p := Part{Text: n.String(), Role: role}
	s := Spec{ReadOnly: true}
	s.SetPath(p.Text)
	if kind, size, err := s.synthetic(); kind != "" || err != nil {
		if p.Kind, p.Size = kind, size; err != nil {
			p.wrong(err)
		}
		return p
	}
	id, err := identify(&s)
	if err != nil {
		p.wrong(err)
		return p
	}
	fd, err := openRetry(s.Path, unix.O_CLOEXEC|unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		p.wrong(explain(&s, err))
		return p
	}
	defer unix.Close(fd)
	end, err := seek(fd, 0, unix.SEEK_END)
	var st unix.Stat_t
	if err = errors.Join(err, unix.Fstat(fd, &st)); err != nil {
		p.wrong(explain(&s, err))
		return p
	}
	p.Kind, p.Size = kindBlock, end
	if id.kind == idFile {
		p.Kind, p.Used = kindFile, uint64(st.Blocks)*512
	}
	if s.Partition != "" {
		p.outlinePartition(&s, fd, &st)
	}
	return p
}

// outlinePartition finds the partition that a spec names in the open disk.
func (p *Part) outlinePartition(s *Spec, fd int, st *unix.Stat_t) {
	o := &store{spec: *s, device: engine.Device{Kind: engine.File, FD: fd, Size: p.Size}}
	if p.Kind == kindBlock {
		o.device.Kind = engine.Block
		o.traits.logical = queueOf(unix.Major(st.Rdev), unix.Minor(st.Rdev)).
			block("logical_block_size")
	}
	b := &Backing{spec: *s, store: o}
	if err := b.choose(); err != nil {
		p.wrong(err)
		return
	}
	p.Kind, p.Size, p.Used = "partition of a "+p.Kind, b.window.size, 0
}

// freeIn is how much space is left on the file system of a path.
func freeIn(path string) uint64 {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return 0
	}
	return fs.Bavail * uint64(fs.Bsize)
}
