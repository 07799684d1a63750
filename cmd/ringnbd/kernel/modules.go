// The kernel modules that a guest needs, in the order to load them. A package that is not installed
// has no modules.dep, which depmod would make of the "depends" field of each module; so the fields
// are read from the modules.
//
// Invariant: in the returned order, a module comes after all modules that it depends on.

package kernel

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// module is the file of a kernel module.
type module struct {
	name string // with _ for -, as the kernel writes it
	path string
}

// loadOrder is the order to load modules and all modules that they depend on. Modules that are
// built into the kernel are left out.
func (k *kernelPackage) loadOrder(names []string) ([]module, error) {
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(k.modules(), "kernel"),
		func(path string, entry fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".ko") {
				files[moduleName(path)] = path
			}
			return err
		})
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(k.modules(), "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var builtin []string
	for line := range strings.Lines(string(list)) {
		builtin = append(builtin, moduleName(strings.TrimSpace(line)))
	}
	var order []module
	var load func(name string) error
	load = func(name string) error {
		if slices.Contains(builtin, name) || slices.ContainsFunc(order, func(m module) bool {
			return m.name == name
		}) {
			return nil
		}
		path, ok := files[name]
		if !ok {
			return fmt.Errorf("the kernel package has no module %s", name)
		}
		needed, err := dependencies(path)
		if err != nil {
			return err
		}
		for _, n := range needed {
			if err := load(n); err != nil {
				return fmt.Errorf("%s needs %w", name, err)
			}
		}
		order = append(order, module{name, path})
		return nil
	}
	for _, name := range names {
		if err := load(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

// dependencies reads the modules that a module depends on (include/linux/module.h: MODULE_INFO).
func dependencies(path string) ([]string, error) {
	file, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s is not a kernel module: it has no .modinfo", path)
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(strings.ReplaceAll(string(list), "-", "_"), ","), nil
		}
	}
	return nil, nil
}
