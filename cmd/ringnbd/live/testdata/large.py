# Requests of up to 64 MiB, twice what a client may expect, aligned and not, one by one and several at once.
import random
from case import *

h = connect(strict=True)
r = random.Random(3)
for offset, length in ((0, 32 * MiB), (1, 32 * MiB), (4095, 32 * MiB - 1), (512, 32 * MiB - 512), (1, 64 * MiB)):
    if length > h.get_block_size(nbd.SIZE_MAXIMUM) > 0:
        continue  # another server
    data = r.randbytes(length)
    h.pwrite(data, offset)
    assert h.pread(length, offset) == data, (offset, length)
data = [r.randbytes(32 * MiB) for _ in range(2)]
for i, d in enumerate(data):
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(d)), i * 32 * MiB)
while h.aio_in_flight() > 0:
    h.poll(-1)
back = [nbd.Buffer(32 * MiB) for _ in data]
cookies = [h.aio_pread(b, i * 32 * MiB) for i, b in enumerate(back)]
while h.aio_in_flight() > 0:
    h.poll(-1)
for c, b, d in zip(cookies, back, data):
    assert h.aio_command_completed(c)
    assert b.to_bytearray() == d
h.shutdown()
