# READ in chunks: data and holes, DF, and errors that end no connection.
import os

from case import *

h = connect()
assert h.get_structured_replies_negotiated() and h.can_df()
size = h.get_size()
data = os.urandom(256 * 1024)
h.pwrite(data, 1 << 20)

def read(n, off, flags=0):
    chunks = []
    def chunk(buf, offset, status, error):
        chunks.append((offset, len(buf), status))
    got = bytes(h.pread_structured(n, off, chunk, flags))
    return got, sorted(chunks)

want = bytes(1 << 20) + data + bytes(768 * 1024)
got, chunks = read(2 << 20, 0)
assert got == want
kinds = [status for _, _, status in chunks]
assert kinds == [nbd.READ_HOLE, nbd.READ_DATA, nbd.READ_HOLE], chunks
assert chunks[1][:2] == (1 << 20, len(data)), chunks
got, chunks = read(2 << 20, 0, nbd.CMD_FLAG_DF)
assert got == want and len(chunks) == 1 and chunks[0][2] == nbd.READ_DATA, chunks
got, chunks = read(len(data), 1 << 20)
assert got == data and len(chunks) == 1, chunks
got, chunks = read(512, 4 << 20)
assert chunks == [(4 << 20, 512, nbd.READ_HOLE)], chunks
for n, off in ((512, size), (512, 2**63)):
    try:
        h.pread(n, off)
        assert False, "a read beyond the end succeeded"
    except nbd.Error as e:
        assert e.errno == "EINVAL", e
assert h.pread(len(data), 1 << 20) == data
