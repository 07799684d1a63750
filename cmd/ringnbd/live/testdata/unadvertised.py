# Commands and flags that were never offered are EINVAL; the connection stays up
# and in step, also behind the payload of a refused write.
from case import *

h = connect()
h.pwrite(b"\x11" * 4096, 0)
if not h.can_cache():
    refused(("EINVAL",), h.cache, 4096, 0)
if not h.can_meta_context("base:allocation"):
    refused(("EINVAL",), h.block_status, 4096, 0, lambda *a: 0)
REQ_ONE, NO_HOLE, DF, FAST_ZERO, UNKNOWN = nbd.CMD_FLAG_REQ_ONE, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_DF, nbd.CMD_FLAG_FAST_ZERO, 1 << 9
for flag in (REQ_ONE, NO_HOLE, FAST_ZERO, UNKNOWN):
    refused(("EINVAL",), h.pread, 512, 0, flag)
    alive(h)
for flag in (REQ_ONE, NO_HOLE, DF, FAST_ZERO, UNKNOWN):
    refused(("EINVAL",), h.pwrite, b"x" * 65536, 0, flag)
    alive(h)
for flag in (REQ_ONE, NO_HOLE, DF, FAST_ZERO, UNKNOWN):
    refused(("EINVAL",), h.trim, 4096, 0, flag)
for flag in (REQ_ONE, DF, UNKNOWN):
    refused(("EINVAL",), h.zero, 4096, 0, flag)
assert h.pread(4096, 0) == b"\x11" * 4096
h.shutdown()
