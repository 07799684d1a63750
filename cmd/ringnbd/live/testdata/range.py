# Requests beyond the end: READ and TRIM are EINVAL, WRITE and WRITE_ZEROES are
# ENOSPC, nothing is written, and the last byte can still be reached.
from case import *

h = connect()
size = h.get_size()
h.pwrite(b"\xaa" * 1024, size - 1024)
for offset, length in ((size - 512, 1024), (size, 512), (size + 1, 1), (1 << 62, 4096), (size - 1, 2)):
    refused(("EINVAL",), h.pread, length, offset)
    refused(("ENOSPC",), h.pwrite, b"x" * length, offset)
    refused(("EINVAL",), h.trim, length, offset)
    refused(("ENOSPC",), h.zero, length, offset)
    alive(h)
assert h.pread(1024, size - 1024) == b"\xaa" * 1024
h.pwrite(b"!", size - 1)
assert h.pread(1, size - 1) == b"!"
h.shutdown()
