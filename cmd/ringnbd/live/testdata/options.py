# Negotiation as libnbd can do it: list, info, an unknown export, then go; and the
# EXPORT_NAME of clients that know no other option.
from case import *

h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(sys.argv[1])
names = []
h.opt_list(lambda name, description: names.append((name, description)) or 0)
assert len(names) == 1, names
h.opt_info()
size = h.get_size()
h.set_export_name("no such export")
refused(("ENOENT",), h.opt_info)
refused(("ENOENT",), h.opt_go)
h.set_export_name("")
h.opt_go()
assert h.get_size() == size
assert h.get_block_size(nbd.SIZE_MAXIMUM) >= 32 * MiB
alive(h)
h.shutdown()

h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(sys.argv[1])
h.opt_abort()

for flags in (0, nbd.HANDSHAKE_FLAG_NO_ZEROES):
    old = nbd.NBD()
    old.set_handshake_flags(flags)
    old.connect_uri(sys.argv[1])
    assert old.get_size() == size
    old.pwrite(b"old", 3)
    assert old.pread(3, 3) == b"old"
    old.shutdown()
