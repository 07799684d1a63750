# Requests of more than 32 MiB are refused, their payload is skipped, and the
# connection stays up.
from case import *

h = connect()
h.pwrite(b"\x42" * 4096, 0)
for length in (32 * MiB + 1, 33 * MiB, 64 * MiB):
    refused(("EINVAL", "EOVERFLOW"), h.pread, length, 0)
    alive(h)
    refused(("EINVAL",), h.pwrite, bytes(length), 0)
    alive(h)
assert h.pread(4096, 0) == b"\x42" * 4096
h.trim(h.get_size(), 0)  # no payload: no limit
alive(h)
h.shutdown()
