# A quick request overtakes a slow one on the same connection: in one of several
# attempts the reply of a small read, sent last, comes first. Slow is allocating
# and persisting zeroes; a big read would not do, the quick one would wait for the
# same disk.
from case import *

h = connect(strict=True)
slow_bytes = 128 * MiB
for attempt in range(20):
    slow = h.aio_zero(slow_bytes, attempt * slow_bytes, flags=nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
    quick = h.aio_pread(nbd.Buffer(512), h.get_size() - 512)
    first = 0
    while first == 0:
        h.poll(-1)
        first = h.aio_peek_command_completed()
    overtaken = first == quick and h.aio_in_flight() == 1
    while h.aio_in_flight() > 0:
        h.poll(-1)
    assert h.aio_command_completed(slow)
    assert h.aio_command_completed(quick)
    if overtaken:
        break
else:
    raise AssertionError("in 20 attempts no reply overtook another")
h.shutdown()
