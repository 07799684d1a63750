// What is read from apt's words, and what starts an unpacked program. The rest is seen to work by
// the tests that use it (cmd/ringnbd/live: TestVersionsOfClientsAndServers).

package debian

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestUpstream(t *testing.T) {
	for version, want := range map[string]string{
		"1:10.0.2+ds-2+deb13u1~bpo12+1": "10.0.2", "1.24.4-1": "1.24.4", "3.33-3": "3.33",
		"1:3.24-1.1": "3.24", "2.0~rc1-1": "2.0", "7": "7",
	} {
		if got := Upstream(version); got != want {
			t.Errorf("%s: %s, not %s", version, got, want)
		}
	}
}

func TestPackageFile(t *testing.T) {
	const line = "'http://mirror/q/qemu/qemu-utils_10.0.2%2bds-2_amd64.deb' " +
		"qemu-utils_1%3a10.0.2+ds-2_amd64.deb 1917864 MD5Sum:00\n"
	got := packageFile.FindAllStringSubmatch("Reading...\n"+line, -1)
	if len(got) != 1 || got[0][1] != "qemu-utils_1%3a10.0.2+ds-2_amd64.deb" ||
		got[0][2] != "qemu-utils" || got[0][3] != "1%3a10.0.2+ds-2" {
		t.Errorf("%q", got)
	}
}

// tree is an unpacked release whose loader prints what it is told to start.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"lib64/ld-linux-x86-64.so.2": "#!/bin/sh\nprintf '%s\\n' \"$@\" \"$PYTHONHOME\"\n",
		"usr/bin/qemu-io":            "", "usr/sbin/nbdkit": "", "usr/bin/python3": "",
		"usr/lib/x86_64-linux-gnu/libc.so.6": "", "usr/lib/x86_64-linux-gnu/ceph/libceph.so.2": "",
		"usr/lib/x86_64-linux-gnu/gconv/UTF-16.so":                      "",
		"usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-file-plugin.so": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestStarters(t *testing.T) {
	dir := tree(t)
	lib := dir + "/usr/lib/x86_64-linux-gnu"
	libraries := lib + ":" + lib + "/ceph"
	for _, c := range []struct {
		name      string
		arguments []string
		want      []string
	}{
		{"qemu-io", []string{"-c", "read 0 4k", ""},
			[]string{dir + "/usr/bin/qemu-io", "-c", "read 0 4k", "", ""}},
		{"nbdkit", []string{"-f", "--filter=delay", "--filter=/own.so", "file", "file"},
			[]string{dir + "/usr/sbin/nbdkit", "-f",
				"--filter=" + lib + "/nbdkit/filters/nbdkit-delay-filter.so", "--filter=/own.so",
				lib + "/nbdkit/plugins/nbdkit-file-plugin.so", "file", ""}},
		{"python3", []string{"-c", "x y"},
			[]string{dir + "/usr/bin/python3", "-c", "x y", dir + "/usr"}},
	} {
		text, err := starter(dir, dir, c.name)
		if err != nil {
			t.Fatal(err)
		}
		script := filepath.Join(t.TempDir(), "start")
		if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("/bin/sh", append([]string{script}, c.arguments...)...).Output()
		want := append([]string{"--library-path", libraries, "--argv0", c.name}, c.want...)
		if err != nil || string(out) != strings.Join(want, "\n")+"\n" {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.name, err, out, strings.Join(want, "\n"))
		}
	}
	if _, err := starter(dir, dir, "fio"); err == nil {
		t.Error("a program that is not there has a starter")
	}
}

func TestLastUnpackedProgramsAreKept(t *testing.T) {
	f := &fetch{home: t.TempDir(), packages: []string{"fio"}}
	if f.kept() != nil {
		t.Error("an empty cache has something")
	}
	dir := filepath.Join(f.home, f.prefix()+"1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if f.kept() != nil {
		t.Error("a folder that is not complete was taken")
	}
	if err := os.WriteFile(filepath.Join(dir, "versions"), []byte("fio 3.39-1\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	if p := f.kept(); p == nil || p.Version("fio") != "3.39" || p.Version("qemu-utils") != "" ||
		p.Bin() != dir+"/start" {
		t.Errorf("%+v", p)
	}
}
