# Zero, write, ask: what was answered before the question counts. Two connections take turns, over blocks that share extents.
import os, random

from case import *

random.seed(7)
a, b = connect(contexts=["base:allocation"]), connect(contexts=["base:allocation"])
size = a.get_size()
assert a.can_meta_context("base:allocation")
unit = 4096
data = os.urandom(unit)
written = set()
for turn in range(3000):
    block = random.randrange(256)
    writer, asker = (a, b) if turn % 2 else (b, a)
    if random.random() < 0.5:
        writer.pwrite(data, block * unit)
        written.add(block)
    elif random.random() < 0.5:
        writer.zero(unit, block * unit, nbd.CMD_FLAG_NO_HOLE if turn % 3 else 0)
        written.discard(block)
    else:
        writer.trim(unit, block * unit)
        written.discard(block)
    first = max(0, block - 8)
    found = []
    asker.block_status(17 * unit, first * unit, lambda context, offset, entries, error: found.append((context, offset, entries)))
    (context, offset, entries), = found
    assert context == "base:allocation" and offset == first * unit, found
    at = offset
    for length, status in zip(entries[::2], entries[1::2]):
        assert length > 0, entries
        for w in range(at // unit, min((at + length + unit - 1) // unit, 256)):
            assert not (w in written and status & 2), "block %d was written and is said to be zero: %s" % (w, entries)
        at += length
    assert at <= offset + 17 * unit, entries
one = []
a.block_status(size, 0, lambda c, o, entries, e: one.append(entries), nbd.CMD_FLAG_REQ_ONE)
assert len(one) == 1 and len(one[0]) == 2 and one[0][0] <= size, one
