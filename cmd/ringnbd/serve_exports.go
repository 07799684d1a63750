// The arguments of serve and --export, parsed into specifications of exports.
//
// Invariant: a PATH is taken literally, whatever characters it contains, but for ?partition= (see
// backing.ParsePath); only --export has a syntax of its own.

package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"ringnbd/engine/backing"
	"ringnbd/engine/tree"
)

// parseExport reads NAME=PATH[,ro][,partitions][,format=raw][,description=TEXT]. NAME ends at the
// first "=" that is not written twice, and may contain any other character as it is; after it, a
// comma that belongs to a value is written twice.
func parseExport(text string) (backing.Spec, error) {
	name, rest, ok := cutName(text)
	if !ok {
		return backing.Spec{},
			fmt.Errorf("%q has no =; write NAME=PATH[,ro][,partitions][,format=raw]"+
				"[,description=TEXT], and == for a = in NAME", text)
	}
	fields, err := splitFields(rest)
	if err != nil {
		return backing.Spec{}, fmt.Errorf("export %q: %w", name, err)
	}
	s := backing.Spec{Name: name}
	s.SetPath(fields[0])
	if s.Path == "" {
		return backing.Spec{}, fmt.Errorf("export %q has an empty path", name)
	}
	for _, field := range fields[1:] {
		key, value, hasValue := strings.Cut(field, "=")
		switch {
		case key == "ro" && !hasValue:
			s.ReadOnly = true
		case key == "partitions" && !hasValue:
			s.Partitions = true
		case key == "format" && value == "raw":
			s.Raw = true
		case key == "format":
			return backing.Spec{},
				fmt.Errorf("export %q: format %q: images are served as they are, so the only "+
					"format is format=raw", name, value)
		case key == "description" && hasValue:
			s.Description = value
		default:
			return backing.Spec{},
				fmt.Errorf("export %q: unknown option %q; there are ro, partitions, "+
					"format=raw and description=TEXT, and a comma in a path or text is written "+
					"twice", name, field)
		}
	}
	return s, nil
}

// cutName splits at the first single "=" and replaces each double "=" before it by one. A value
// after it that begins with "=" cannot be expressed; write such a path ./=PATH.
func cutName(text string) (name, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '=' {
			if i+1 == len(text) || text[i+1] != '=' {
				return b.String(), text[i+1:], true
			}
			i++
		}
		b.WriteByte(text[i])
	}
	return text, "", false
}

// splitFields splits a path and its options. The commas of a tree belong to it as they are.
func splitFields(text string) ([]string, error) {
	if !tree.Is(text) {
		return splitCommas(text), nil
	}
	_, end, err := tree.Prefix(text)
	if err != nil {
		return nil, err
	}
	fields := splitCommas(text[end:])
	if fields[0] = strings.TrimSpace(fields[0]); fields[0] != "" {
		return nil, &tree.Error{Text: text, At: end, What: "the tree ends before this; options " +
			"follow after a comma"}
	}
	fields[0] = text[:end]
	return fields, nil
}

// nameOf is the name of the export of a path, when several paths are served: that of the file that
// clients write to, or of the origin if what they write is thrown away. A partition's follows that
// of its disk.
func nameOf(path string) string {
	n, err := tree.Parse(path)
	if err != nil { // reported when all specs are checked
		return filepath.Base(path)
	}
	for n.Layer != "" {
		n = &n.Parts[len(n.Parts)-1]
	}
	var s backing.Spec
	s.SetPath(n.Path)
	name := filepath.Base(s.Path)
	if _, which, hasKind := strings.Cut(s.Partition, ":"); hasKind {
		return name + "/" + which
	} else if s.Partition != "" {
		return name + "/" + s.Partition
	}
	return name
}

// splitCommas splits at single commas and replaces each double comma by one, as qemu does.
func splitCommas(text string) []string {
	var fields []string
	var field strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] != ',':
			field.WriteByte(text[i])
		case i+1 < len(text) && text[i+1] == ',':
			field.WriteByte(',')
			i++
		default:
			fields = append(fields, field.String())
			field.Reset()
		}
	}
	return append(fields, field.String())
}

// splitPort splits the port off `serve PORT PATH...`. A single number is a path: without a path
// there would be nothing to serve on a port.
func splitPort(args []string) (port string, paths []string, err error) {
	if len(args) < 2 || strings.Trim(args[0], "0123456789") != "" || args[0] == "" {
		return "", args, nil
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 || n > 65535 {
		return "", nil,
			fmt.Errorf("port %s: must be from 1 to 65535 (a file of that name is written ./%s)",
				args[0], args[0])
	}
	return strconv.Itoa(n), args[1:], nil
}

// arguments reads the words that are not flags, and checks that flags and words agree.
func (o *options) arguments(args []string) ([]backing.Spec, error) {
	port, paths, err := splitPort(args)
	if err != nil {
		return nil, err
	}
	if port != "" {
		o.listen = append([]string{net.JoinHostPort("localhost", port)}, o.listen...)
	}
	if err := checkPaths(paths); err != nil {
		return nil, err
	}
	specs, err := o.specs(paths)
	if err != nil {
		return nil, err
	}
	if err := o.findOldstyle(specs); err != nil {
		return nil, err
	}
	return specs, o.check(specs)
}

// specs makes the list of exports: the paths first, then the exports of --export. A single path is
// the default export ""; several are named after their files.
func (o *options) specs(paths []string) ([]backing.Spec, error) {
	list := make([]backing.Spec, 0, len(paths)+len(o.exports))
	for _, path := range paths {
		var s backing.Spec
		s.SetPath(path)
		if len(paths) > 1 {
			s.Name = nameOf(path)
		}
		list = append(list, s)
	}
	list = append(list, o.exports...)
	if len(list) == 0 {
		return nil,
			fmt.Errorf("nothing to serve; name a disk image, a block device, null:SIZE or " +
				"memory:SIZE")
	}
	images, disks := 0, 0
	for i := range list {
		s := &list[i]
		s.ReadOnly = s.ReadOnly || o.readOnly
		s.Direct, s.Force, s.Raw = o.direct, o.force, s.Raw || bool(o.raw)
		if !backing.Synthetic(s.Path) && !tree.Is(s.Path) {
			images++
			if s.Partition == "" {
				disks++
				s.Partitions = s.Partitions || o.partitions
			}
			if !s.ReadOnly {
				s.Create = o.create
			}
		}
	}
	if o.create > 0 && o.readOnly {
		return nil,
			fmt.Errorf("--create and --read-only exclude each other: a new image that cannot be " +
				"written has no use")
	}
	if o.create > 0 && images == 0 {
		return nil,
			fmt.Errorf("--create has no image to create: every export has its size already")
	}
	if o.partitions && disks == 0 {
		return nil,
			fmt.Errorf("--partitions has no disk to look into: name a disk image or a block device")
	}
	return list, backing.Check(list)
}
