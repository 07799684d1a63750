# What all scripts of this folder share: a connection to the URI in argv[1] that
# checks nothing on the client's side, and expectations about errors.
import sys
import nbd

MiB = 1 << 20


def connect(strict=False, uri=None, contexts=()):
    h = nbd.NBD()
    if not strict:
        h.set_strict_mode(0)
    for context in contexts:
        h.add_meta_context(context)
    h.connect_uri(uri or sys.argv[1])
    return h


def refused(names, call, *arguments):
    """call must fail with one of the errors, by name, and leave the connection up."""
    try:
        call(*arguments)
    except nbd.Error as e:
        assert e.errno in names, f"{call.__name__}{arguments[1:]}: {e.errno}, expected {names}: {e.string}"
        return
    raise AssertionError(f"{call.__name__}{arguments[1:]} succeeded, expected {names}")


def alive(h):
    """the connection still answers."""
    assert len(h.pread(512, 0)) == 512
