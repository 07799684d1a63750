// The only table from errno values of Linux to those of the protocol.
//
// Invariant: only zero and the eight values of the spec's "Error values" go over the wire, whatever
// number the kernel returned.

package proto

// Errno is an error value of a reply to a request; zero is success.
type Errno uint32

// The values the spec allows ("Error values"). ENOMEM is listed for clients that read replies of
// other servers: the spec asks servers to avoid it, and FromSystem does.
const (
	Success   Errno = 0
	EPERM     Errno = 1
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

// Linux errno values that do not become EIO. The numbers are those of x86, arm64 and every other
// architecture that uses asm-generic/errno.h.
const (
	linuxEPERM      = 1
	linuxEACCES     = 13
	linuxEINVAL     = 22
	linuxENOTTY     = 25
	linuxEFBIG      = 27
	linuxENOSPC     = 28
	linuxEROFS      = 30
	linuxENOSYS     = 38
	linuxEOPNOTSUPP = 95
	linuxEDQUOT     = 122
)

// FromSystem maps a positive Linux errno to the value that goes over the wire; zero is Success.
// What is not listed is EIO on purpose: EOVERFLOW, ENOTSUP and ESHUTDOWN each tell a client
// something about its request or about the server, which a device that fails with the same number
// does not mean; and ENOMEM "SHOULD NOT" be sent.
func FromSystem(errno int32) Errno {
	switch errno {
	case 0:
		return Success
	case linuxEPERM, linuxEACCES, linuxEROFS:
		return EPERM
	case linuxENOSPC, linuxEDQUOT, linuxEFBIG:
		return ENOSPC
	case linuxEINVAL, linuxEOPNOTSUPP, linuxENOTTY, linuxENOSYS:
		return EINVAL
	}
	return EIO
}

// systemName returns name and meaning of a Linux errno that storage fails with, or "".
func systemName(errno int32) string {
	switch errno {
	case 5:
		return "EIO: an input/output error"
	case linuxENOSPC:
		return "ENOSPC: no space left"
	case linuxEDQUOT:
		return "EDQUOT: the quota is used up"
	case linuxEFBIG:
		return "EFBIG: the file would be too large"
	case linuxEROFS:
		return "EROFS: read-only"
	case linuxEOPNOTSUPP:
		return "EOPNOTSUPP: not supported"
	}
	return ""
}

// inSpec reports whether the spec has this value.
func (e Errno) inSpec() bool {
	switch e {
	case Success, EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN:
		return true
	}
	return false
}

// String returns the spec's name of the value.
func (e Errno) String() string {
	switch e {
	case Success:
		return "success"
	case EPERM:
		return "EPERM"
	case EIO:
		return "EIO"
	case ENOMEM:
		return "ENOMEM"
	case EINVAL:
		return "EINVAL"
	case ENOSPC:
		return "ENOSPC"
	case EOVERFLOW:
		return "EOVERFLOW"
	case ENOTSUP:
		return "ENOTSUP"
	case ESHUTDOWN:
		return "ESHUTDOWN"
	}
	return "unknown error"
}
