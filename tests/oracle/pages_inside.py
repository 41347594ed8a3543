"""Runs inside a root: load files by a loader that takes the pages of memory to have another size; print what it says.

The size is a word of `_rtld_global_ro` (AT_PAGESZ, getauxval(3)), which the loader compares with the segments of a file
before it maps them. Arguments: the size in bytes, then the files.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
from dataclasses import replace

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from dlltracer.capture.linux.debug_mask import page_protection  # noqa: E402
from dlltracer.host.filesystem import HostFilesystem  # noqa: E402
from dlltracer.host.linux import read_linux_context  # noqa: E402
from dlltracer.resolve.linux import resolve_linux  # noqa: E402

PAGES = (4096, 16384, 65536)


def set_page_size(size: int) -> None:
    """Change the only word that holds the page size, of those before the words of the debug log."""
    start = ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(None), "_rtld_global_ro"))
    words = (ctypes.c_size_t * 16).from_address(start)
    (place,) = (at for at, word in enumerate(words) if word in PAGES)
    page = start + place * ctypes.sizeof(ctypes.c_size_t) & -mmap.PAGESIZE
    mprotect = ctypes.CDLL(None).mprotect
    mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    protection = page_protection(page)
    assert mprotect(page, mmap.PAGESIZE, protection | mmap.PROT_WRITE) == 0
    words[place] = size
    assert mprotect(page, mmap.PAGESIZE, protection) == 0


size = int(sys.argv[1])
output, ours = {}, {}
context = read_linux_context(environment={})
for path in sys.argv[2:]:
    tree = resolve_linux(path, replace(context, page_size=size), HostFilesystem())
    ours[path] = tree.missing[0].reason if tree.missing else None
for path in sys.argv[2:]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        set_page_size(size)
        try:
            ctypes.CDLL(path)
        except OSError as error:
            os.write(writer, str(error).partition(": ")[2].encode())
        os._exit(0)
    os.close(writer)
    # A file that the loader took may kill the child: the pages do not have that size.
    output[path] = os.read(reader, 4096).decode() or None
    os.waitpid(child, 0)
print(json.dumps({"loader": output, "ours": ours}))
