// The errno table, which has only the spec's values as results.

package proto

import (
	"syscall"
	"testing"
)

func TestFromSystem(t *testing.T) {
	for errno, want := range map[syscall.Errno]Errno{
		0:              Success,
		syscall.EPERM:  EPERM,
		syscall.EACCES: EPERM, syscall.EROFS: EPERM,
		syscall.ENOSPC: ENOSPC, syscall.EDQUOT: ENOSPC, syscall.EFBIG: ENOSPC,
		syscall.EINVAL: EINVAL, syscall.EOPNOTSUPP: EINVAL, syscall.ENOSYS: EINVAL,
		syscall.ENOTTY: EINVAL,
		syscall.EIO:    EIO, syscall.ENODEV: EIO, syscall.ENXIO: EIO, syscall.ETIMEDOUT: EIO,
		syscall.EREMOTEIO: EIO,
		syscall.ENOMEM:    EIO, syscall.EOVERFLOW: EIO, syscall.ESHUTDOWN: EIO, syscall.EBADF: EIO,
		syscall.EILSEQ:  EIO,
		syscall.ENODATA: EIO, syscall.ECANCELED: EIO, syscall.EINTR: EIO,
	} {
		if got := FromSystem(int32(errno)); got != want {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
	}
}

func TestOnlyTheValuesOfTheSpec(t *testing.T) {
	for errno := int32(-4096); errno <= 4096; errno++ {
		if got := FromSystem(errno); !got.inSpec() || got == ENOMEM || got == ENOTSUP ||
			(got == Success) != (errno == 0) {
			t.Errorf("%d: %v", errno, got)
		}
	}
}

func TestErrnoNames(t *testing.T) {
	for e, want := range map[Errno]string{
		Success: "success", EPERM: "EPERM", EIO: "EIO", ENOMEM: "ENOMEM", EINVAL: "EINVAL",
		ENOSPC:    "ENOSPC",
		EOVERFLOW: "EOVERFLOW", ENOTSUP: "ENOTSUP", ESHUTDOWN: "ESHUTDOWN", 2: "unknown error",
	} {
		if e.String() != want {
			t.Errorf("%d: %s", uint32(e), e)
		}
	}
}
