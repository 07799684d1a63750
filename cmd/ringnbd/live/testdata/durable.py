# FUA and FLUSH: every command takes FUA, and the data is in the image file
# (argv[2]) when the reply is there.
from case import *

h = connect(strict=True)
FUA = nbd.CMD_FLAG_FUA
assert h.can_fua() and h.can_flush()
with open(sys.argv[2], "rb", buffering=0) as image:
    def on_disk(offset, length):
        image.seek(offset)
        return image.read(length)

    h.pwrite(b"\x77" * 16384, 8192, FUA)
    assert on_disk(8192, 16384) == b"\x77" * 16384
    h.pwrite(b"\x78" * 100, 8192 + 50, FUA)
    assert on_disk(8192, 200) == b"\x77" * 50 + b"\x78" * 100 + b"\x77" * 50
    if h.can_zero():
        h.zero(4096, 8192, FUA)
        assert on_disk(8192, 4096) == bytes(4096)
    if h.can_trim():
        h.trim(4096, 12288, FUA)
    h.pwrite(b"\x79" * 4096, 65536)
    h.flush()
    assert on_disk(65536, 4096) == b"\x79" * 4096
assert h.pread(4096, 16384) == b"\x77" * 4096
h.set_strict_mode(0)  # allowed on the wire, not by a strict libnbd
h.pread(512, 0, FUA)
h.flush(FUA)
h.shutdown()
