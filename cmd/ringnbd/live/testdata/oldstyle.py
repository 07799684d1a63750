# A session without negotiation: what libnbd finds out, reads and writes.
import sys, nbd

uri, image = sys.argv[1:]
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(uri)
assert h.get_protocol() == "oldstyle", h.get_protocol()
assert not h.get_structured_replies_negotiated() and not h.get_tls_negotiated()
assert not h.can_meta_context("base:allocation") and not h.can_df()
assert not h.is_read_only() and h.can_flush() and h.can_fua() and h.can_zero() and h.can_multi_conn()
with open(image, "rb") as f:
    want = f.read()
assert h.get_size() == len(want)
for offset, length in [(0, 1), (511, 2), (4095, 70000), (len(want) - 1, 1), (0, 8 << 20)]:
    assert h.pread(length, offset) == want[offset:offset + length], (offset, length)
h.pwrite(b"x" * 5000, 12345, nbd.CMD_FLAG_FUA)
h.zero(1000, 13000)
h.flush()
want = b"x" * 655 + bytes(1000) + b"x" * 3345
assert h.pread(5000, 12345) == want
with open(image, "rb") as f:
    f.seek(12345)
    assert f.read(5000) == want

h.set_strict_mode(0)
try:
    h.pread(512, h.get_size())
    assert False, "a read beyond the end succeeded"
except nbd.Error as e:
    assert e.errno == "EINVAL", e
assert h.pread(3, 12345) == b"xxx"

# Requests in flight side by side.
buffers = [nbd.Buffer(4096) for _ in range(64)]
cookies = [h.aio_pread(b, i * 8192) for i, b in enumerate(buffers)]
for c in cookies:
    while not h.aio_command_completed(c):
        h.poll(-1)
h.shutdown()
