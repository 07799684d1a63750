// Exports that a program adds to the configuration: each in a file of its own, which the
// configuration includes.
//
// Invariant: no file that a person wrote is touched, and at every moment the files are what they
// were before or what they are afterwards.

package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// dropInPrefix begins the names of files that a program wrote.
const dropInPrefix = "ctl-"

// PlaceError is about an export that stands in a file that a person wrote.
type PlaceError struct {
	Name string
	At   Pos
}

func (e *PlaceError) Error() string {
	return fmt.Sprintf("export %q stands at %s, which this program does not change; change it "+
		"there", e.Name, e.At.Where())
}

// MistakesError is about a configuration that has mistakes.
type MistakesError []Mistake

func (e MistakesError) Error() string {
	if len(e) == 1 {
		return e[0].Error()
	}
	return fmt.Sprintf("%v (and %d more)", e[0], len(e)-1)
}

// Save writes an export into a file of its own, which the configuration at path includes, in place
// of the one that Save wrote before. It returns the path of that file.
func Save(path string, e *Export) (string, error) {
	c, mistakes := Load(path)
	if len(mistakes) > 0 {
		return "", MistakesError(mistakes)
	}
	file, err := c.dropIn(e.Name)
	if err != nil {
		return "", err
	}
	text, err := e.whole().Text()
	if err != nil {
		return "", err
	}
	at := slices.IndexFunc(c.Exports, func(o *Export) bool { return o.Name == e.Name })
	if at >= 0 && !sameFile(c.Exports[at].At.File, file) {
		return "", &PlaceError{e.Name, c.Exports[at].At}
	}
	if at >= 0 {
		c.Exports = slices.Delete(c.Exports, at, at+1)
	}
	if mistakes := c.with(file, text); len(mistakes) > 0 {
		return "", MistakesError(mistakes)
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	return file, replaceFile(file, []byte("# Written by ringnbd ctl.\n"+text), mode)
}

// Unsave removes the file that Save wrote for an export. saved is false if there is no such file
// and the configuration does not have the export.
func Unsave(path, name string) (saved bool, err error) {
	c, mistakes := Load(path)
	if len(mistakes) > 0 {
		return false, MistakesError(mistakes)
	}
	at := slices.IndexFunc(c.Exports, func(o *Export) bool { return o.Name == name })
	if at < 0 {
		return false, nil
	}
	file, err := c.dropIn(name)
	if err != nil || !sameFile(c.Exports[at].At.File, file) {
		return false, &PlaceError{name, c.Exports[at].At}
	}
	if err := os.Remove(file); err != nil {
		return false, err
	}
	return true, syncDirectory(filepath.Dir(file))
}

// with checks the configuration with the exports of one more file.
func (c *Config) with(file, text string) []Mistake {
	tree, mistakes := parse(file, []byte(text))
	more := Config{Path: c.Path}
	b := binder{bad: map[Pos]bool{}}
	b.table(tree, reflect.ValueOf(&more).Elem(), "", "")
	if mistakes = append(mistakes, b.mistakes...); len(mistakes) > 0 {
		return mistakes
	}
	c.Exports = append(c.Exports, more.Exports...)
	return c.check()
}

// whole is the export with whole paths: the process has a directory of its own.
func (e *Export) whole() *Export {
	at, err := os.Getwd()
	if err != nil {
		return e
	}
	there := *e
	place := Pos{File: filepath.Join(at, "file"), Line: elsewhere}
	if there.Path.IsSet() {
		there.Path.At = place
		settleTree(&there.Path)
	}
	return &there
}

// dropIn is the path of the file of an export: in the directory of the first pattern that takes the
// file in.
func (c *Config) dropIn(export string) (string, error) {
	name := dropInPrefix + fileName(export) + ".toml"
	for _, pattern := range c.Include.V {
		dir, last := filepath.Split(pattern.V)
		if ok, err := filepath.Match(last, name); err != nil || !ok ||
			strings.ContainsAny(dir, `*?[\`) {
			continue
		}
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(filepath.Dir(c.Path), dir)
		}
		return filepath.Join(dir, name), nil
	}
	return "", fmt.Errorf("%s includes no directory for such files; add "+
		"include = [\"%s.d/*.toml\"]", c.Path, strings.TrimSuffix(filepath.Base(c.Path), ".toml"))
}

// fileName is the name of an export as a part of the name of a file: no two exports have the same.
func fileName(export string) string {
	var b strings.Builder
	for _, c := range []byte(export) {
		if isBare(string(c)) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	const most = 200 // of 255 bytes that file systems take
	if b.Len() > most {
		sum := sha256.Sum256([]byte(export))
		return b.String()[:most-64] + "%" + hex.EncodeToString(sum[:31])
	}
	return b.String()
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// replaceFile makes a file in one step, durably. A file that is the same already stays.
func replaceFile(path string, text []byte, mode fs.FileMode) (err error) {
	if before, err := os.ReadFile(path); err == nil && bytes.Equal(before, text) {
		return nil
	}
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, ".ctl-*")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: there is no such directory; create it", dir)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if _, err = file.Write(text); err != nil {
		return err
	}
	if err = errors.Join(file.Chmod(mode), file.Sync()); err != nil {
		return err
	}
	if err = os.Rename(file.Name(), path); err != nil {
		return err
	}
	return errors.Join(file.Close(), syncDirectory(dir))
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
