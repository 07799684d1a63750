// fio with verification: every block carries a checksum of its content.

package live_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestFioVerifiesMixedSizesOverEightConnections(t *testing.T) {
	need(t, "fio")
	const jobs, region = 8, 64 << 20
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			s := serve(t, transport, sparseImage(t, jobs*region))
			out := must(t, 2*time.Minute, "fio", "--name=verify", "--ioengine=nbd",
				"--uri="+s.uri(""), "--rw=randwrite",
				"--bssplit=512/20:1k/10:4k/30:16k/15:64k/10:256k/10:1m/5", "--iodepth=32",
				fmt.Sprintf("--numjobs=%d", jobs),
				fmt.Sprintf("--size=%d", region), fmt.Sprintf("--offset_increment=%d", region),
				"--verify=crc32c", "--do_verify=1",
				"--verify_fatal=1", "--verify_state_save=0", "--randseed=7", "--group_reporting",
				"--eta=never")
			if strings.Contains(out, "verify failed") || !strings.Contains(out, "err= 0") {
				t.Error(out)
			}
		})
	}
}

func TestFioVerifiesWhileReadingAndWriting(t *testing.T) {
	need(t, "fio")
	s := serve(t, "unix", sparseImage(t, 256<<20))
	out := must(t, 2*time.Minute, "fio", "--name=mixed", "--ioengine=nbd", "--uri="+s.uri(""),
		"--rw=randrw", "--rwmixwrite=60",
		"--bssplit=512/30:4k/40:68k/20:1m/10", "--iodepth=32", "--numjobs=4", "--size=64m",
		"--offset_increment=64m", "--fsync=64",
		"--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1", "--verify_state_save=0",
		"--randseed=11", "--group_reporting", "--eta=never")
	if strings.Contains(out, "verify failed") || !strings.Contains(out, "err= 0") {
		t.Error(out)
	}
}
