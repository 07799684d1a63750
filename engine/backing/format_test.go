// Images that are not raw are recognised by their bytes, and refused.
//
// Invariant: no byte of an image changes by being looked at.

package backing

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// at puts text at an offset of a disk of zeroes of a size.
func disk(size, offset int, text string) []byte {
	b := make([]byte, size)
	copy(b[offset:], text)
	return b
}

func TestFormatsAreTold(t *testing.T) {
	const size = 8192
	for name, content := range map[string][]byte{
		"a qcow image":      disk(size, 0, "QFI\xfb\x00\x00\x00\x01"),
		"a qcow2 image":     disk(size, 0, "QFI\xfb\x00\x00\x00\x03"),
		"a QED image":       disk(size, 0, "QED\x00"),
		"a VMDK image":      disk(size, 0, "KDMV\x01\x00\x00\x00"),
		"a VMDK descriptor": []byte("\n# Disk DescriptorFile\nversion=1\n"),
		"a VDI image":       disk(size, 64, "\x7f\x10\xda\xbe"),
		"a VHDX image":      disk(size, 0, "vhdxfile"),
		"a Parallels image": disk(size, 0, "WithoutFreeSpace"),
		"a VHD image":       disk(size, size-512, "conectix"),
		"a DMG image":       disk(size, size-512, "koly\x00\x00\x00\x04"),
		"a gzip file":       []byte("\x1f\x8b\x08\x00"),
		"an xz file":        []byte("\xfd7zXZ\x00\x00\x04"),
		"a zstd file":       []byte("\x28\xb5\x2f\xfd\x04"),
		"an lz4 file":       []byte("\x04\x22\x4d\x18\x64"),
		"a bzip2 file":      []byte("BZh91AY&SY\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.img")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, readOnly := range []bool{false, true} {
				refused(t, "is "+name+", not a raw disk", Spec{Path: path, ReadOnly: readOnly})
				b := mustOpen(t, Spec{Path: path, ReadOnly: readOnly, Raw: true})
				if b.Device.Size != uint64(len(content)) {
					t.Errorf("size %d", b.Device.Size)
				}
				b.Close()
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, content) {
				t.Errorf("the image was changed (%v)", err)
			}
		})
	}
}

func TestRawDisksAreRaw(t *testing.T) {
	boot := disk(4096, 510, "\x55\xaa")
	for name, content := range map[string][]byte{
		"zeroes":               make([]byte, 4096),
		"a boot sector":        boot,
		"a name without bytes": []byte("QFI"),
		"a word in a text":     disk(4096, 0, "text about conectix and KDMV"),
		"BZh":                  disk(4096, 0, "BZhello"),
		"a footer too early":   disk(4096, 4096-513, "conectix"),
		"short":                []byte("conecti"),
		"LUKS":                 disk(4096, 0, "LUKS\xba\xbe"),
	} {
		path := filepath.Join(t.TempDir(), "disk.img")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		b := mustOpen(t, Spec{Path: path})
		if b.Encrypted != (name == "LUKS") {
			t.Errorf("%s: encrypted %v", name, b.Encrypted)
		}
		b.Close()
	}
}

func TestForeignFormatsAreNeverToBeTruncated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, disk(1000, 0, "QFI\xfb\x00\x00\x00\x03"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []Spec{{}, {Direct: DirectOn}, {Raw: true, Direct: DirectOn}} {
		s.Path = path
		if _, err := Prepare([]Spec{s}); err == nil || strings.Contains(err.Error(), "truncate") {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
