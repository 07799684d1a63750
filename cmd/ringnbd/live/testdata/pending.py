# Leaving with requests in flight: abruptly, and by DISC behind 100 writes, which
# are all on the disk afterwards. The server goes on serving.
import time
from case import *

for abrupt in (True, False):
    h = connect(strict=True)
    for i in range(64):
        h.aio_pread(nbd.Buffer(256 * 1024), i * 256 * 1024)
        h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"p" * 65536)), i * 65536)
    if abrupt:
        del h
    else:
        h.shutdown(nbd.SHUTDOWN_ABANDON_PENDING)

h = connect(strict=True)
h.pwrite(bytes(100 * 4096), 1 * MiB)
buffers = [nbd.Buffer.from_bytearray(bytearray([i + 1] * 4096)) for i in range(100)]
for i, b in enumerate(buffers):
    h.aio_pwrite(b, 1 * MiB + i * 4096)
h.aio_disconnect()  # DISC goes out behind the writes
deadline = time.time() + 30
while not (h.aio_is_closed() or h.aio_is_dead()):
    assert time.time() < deadline, "the server did not close after DISC"
    h.poll(1000)
g = connect(strict=True)
want = b"".join(bytes([i + 1]) * 4096 for i in range(100))
assert g.pread(100 * 4096, 1 * MiB) == want
g.shutdown()
