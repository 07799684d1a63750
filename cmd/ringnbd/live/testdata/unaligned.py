# Any offset, any length: random reads and writes against a model of the disk.
import random
from case import *

h = connect(strict=True)
r = random.Random(7)
span = 256 * 1024
base = 64 * 1024 + 1
model = bytearray(span)
h.pwrite(bytes(span), base)
for i in range(1500):
    length = r.choice((1, 2, 3, 511, 512, 513, 4095, 4096, 4097, r.randrange(1, 20000)))
    offset = r.randrange(0, span - length)
    if r.random() < 0.6:
        data = r.randbytes(length)
        h.pwrite(data, base + offset)
        model[offset:offset + length] = data
    else:
        assert h.pread(length, base + offset) == model[offset:offset + length], (i, offset, length)
assert h.pread(span, base) == model
h.shutdown()
