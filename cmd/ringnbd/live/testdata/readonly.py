# A read-only export says so, refuses every change with EPERM (also a change
# beyond the end), and serves reads and flushes.
from case import *

h = connect()
assert h.is_read_only()
before = h.pread(8192, 0)
refused(("EPERM",), h.pwrite, b"x" * 4096, 0)
refused(("EPERM",), h.pwrite, b"x" * 4096, h.get_size())
refused(("EPERM",), h.trim, 4096, 0)
refused(("EPERM",), h.zero, 4096, 0)
assert h.pread(8192, 0) == before
if h.can_flush():
    h.flush()
h.shutdown()
