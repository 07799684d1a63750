// Tests of the machine's facts.

package measure

import "testing"

func TestFilesystemOfPicksTheInnermostMount(t *testing.T) {
	mounts, err := fakeProc(t, "self/mountinfo", `21 1 254:0 / / rw - ext4 /dev/vda rw
30 21 0:25 / /dev/shm rw shared:1 - tmpfs tmpfs rw
31 21 0:26 / /dev rw - devtmpfs none rw
`).GetMounts()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/tmp/x": "ext4 on /dev/vda",
		"/dev/shm/a": "tmpfs on tmpfs", "/dev/shmx": "devtmpfs on none"} {
		if got := filesystemOf(mounts, path); got != want {
			t.Errorf("%s lies on %q, want %q", path, got, want)
		}
	}
}

func TestChosenIsTheWordInBrackets(t *testing.T) {
	for list, want := range map[string]string{"none [mq-deadline] kyber": "mq-deadline",
		"write back": "write back", "": "", "[x": "[x"} {
		if got := chosen(list); got != want {
			t.Errorf("chosen(%q) = %q, want %q", list, got, want)
		}
	}
}
