# Requests of no bytes succeed and do nothing, also at the very end.
from case import *

h = connect()
size = h.get_size()
h.pwrite(b"\x55" * 4096, 0)
for offset in (0, 1, 511, 4096, size):
    assert h.pread(0, offset) == b""
    h.pwrite(b"", offset)
    h.trim(0, offset)
    h.zero(0, offset)
alive(h)
assert h.pread(4096, 0) == b"\x55" * 4096
h.shutdown()
