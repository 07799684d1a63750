# TRIM never touches a byte outside its range, and the range can be written again.
from case import *

h = connect(strict=True)
assert h.can_trim()
span = 1 * MiB
for offset, length in ((0, span // 2), (4096, 4096), (1, 8190), (100, 1), (4095, 2), (span - 5000, 5000)):
    h.pwrite(b"\xdd" * span, 0)
    h.trim(length, offset)
    got = h.pread(span, 0)
    assert got[:offset] == b"\xdd" * offset, (offset, length)
    assert got[offset + length:] == b"\xdd" * (span - offset - length), (offset, length)
    h.pwrite(b"\xcc" * length, offset)
    assert h.pread(length, offset) == b"\xcc" * length
h.trim(h.get_size() - span, span)  # all the rest in one request
alive(h)
h.shutdown()
