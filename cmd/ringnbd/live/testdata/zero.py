# WRITE_ZEROES with every flag: exactly the range reads as zeroes, NO_HOLE leaves
# it allocated, FAST_ZERO is fast or refused with ENOTSUP and changes nothing.
import itertools
import os
from case import *

h = connect(strict=True)
assert h.can_zero()
flags = [nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA]
if h.can_fast_zero():
    flags.append(nbd.CMD_FLAG_FAST_ZERO)
span = 1 * MiB
ranges = ((0, span), (4096, 65536), (1, 1), (4095, 2), (513, 100000), (span - 7, 7), (8192, 4096))
for n in range(len(flags) + 1):
    for combination in itertools.combinations(flags, n):
        flag = sum(combination)
        for offset, length in ranges:
            h.pwrite(b"\xee" * span, 0)
            model = bytearray(b"\xee" * span)
            try:
                h.zero(length, offset, flag)
                model[offset:offset + length] = bytes(length)
            except nbd.Error as e:
                assert flag & nbd.CMD_FLAG_FAST_ZERO and e.errno == "ENOTSUP", (flag, offset, length, e.errno)
            assert h.pread(span, 0) == model, (flag, offset, length)
h.trim(4 * MiB, 4 * MiB)
h.zero(4 * MiB, 4 * MiB, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
allocated = os.stat(sys.argv[2]).st_blocks * 512
assert allocated >= 4 * MiB, f"NO_HOLE left only {allocated} bytes allocated"
assert h.pread(4 * MiB, 4 * MiB) == bytes(4 * MiB)
h.shutdown()
