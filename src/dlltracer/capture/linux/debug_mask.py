"""Finds, patches and proves the two words inside glibc's ld.so that switch its log on in the running process.

LD_DEBUG is read once at start, but all it sets is `_rtld_global_ro._dl_debug_mask`, which the loader consults at every
event; the text goes to the descriptor in `_rtld_global_ro._dl_debug_fd`. Both can be written after start, once the page
is made writable (it is read-only after relocation). Source: sysdeps/generic/ldsodefs.h and elf/rtld.c of glibc.
"""

from __future__ import annotations

import os
import sys

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from ...errors import BackendUnavailable
from ..backend import NO_PYDLL, USE_RUN

DL_DEBUG_LIBS = 1
DL_DEBUG_IMPCALLS = 2
DL_DEBUG_FILES = 64
WANTED = DL_DEBUG_LIBS | DL_DEBUG_IMPCALLS | DL_DEBUG_FILES

_PROT_READ, _PROT_WRITE = 1, 2
SCANNED_WORDS = 64
"""How many ints of the structure are searched; the descriptor was at the 16th (glibc 2.31) or 18th (2.36 to 2.43)."""

USE_SNAPSHOT = "Use backend='snapshot', which sees less"


class DebugWords:
    """The places of the two words that switch the loader log on.

    Attributes: `mask` and `fd`, their indexes among the ints of `_rtld_global_ro`; `note`, how they were found if not
    by their pattern.
    """

    __slots__ = ("fd", "mask", "note")

    def __init__(self, mask: int, fd: int, note: str | None = None) -> None:
        self.mask = mask
        self.fd = fd
        self.note = note


class DebugMaskPatch:
    """The debug mask and descriptor of this process's ld.so.

    Finds them on construction and changes nothing; raises `BackendUnavailable` with the reason when they cannot be had.

    Arguments: `words`, where they lie, if that is known already.
    Attributes: `words`, where they lie.
    """

    def __init__(self, words: DebugWords | None = None) -> None:
        try:
            import ctypes

            # PyDLL keeps the GIL: between mprotect and the write nothing of Python may run.
            self._libc = ctypes.PyDLL(None)
            self._libc_without_gil = ctypes.CDLL(None)
        except (ImportError, OSError) as error:
            raise BackendUnavailable("rtld", f"this Python cannot call C functions ({error})") from error
        except AttributeError:
            raise BackendUnavailable("rtld", NO_PYDLL, USE_RUN) from None
        self._ctypes = ctypes
        try:
            start = ctypes.addressof(ctypes.c_char.in_dll(self._libc, "_rtld_global_ro"))
        except ValueError:
            raise BackendUnavailable(
                "rtld", "no _rtld_global_ro symbol: this is not glibc (musl?), or a static Python", USE_SNAPSHOT
            ) from None
        self._start = start
        self.words = words or self._find_words()
        self._mask = ctypes.c_int.from_address(start + 4 * self.words.mask)
        self._fd = ctypes.c_int.from_address(start + 4 * self.words.fd)
        page = os.sysconf("SC_PAGE_SIZE")
        ends = sorted((ctypes.addressof(self._mask), ctypes.addressof(self._fd)))
        self._first_page = ends[0] & -page
        self._length = (ends[1] + 3 & -page) + page - self._first_page
        self._before = (self._mask.value, self._fd.value)
        self._protection: int | None = None

    def _find_words(self) -> DebugWords:
        try:
            fd = find_debug_fd(tuple((self._ctypes.c_int * SCANNED_WORDS).from_address(self._start)))
        except BackendUnavailable as error:
            return self.compare_starts(error.reason)
        return DebugWords(0, fd)

    def compare_starts(self, reason: str) -> DebugWords:
        """Find the words by starting the interpreter three times.

        Arguments: `reason`, why their pattern does not do. Raises `BackendUnavailable`.
        """
        from .compared_starts import compare_starts

        try:
            mask, fd = compare_starts(find_mapping(self._start)[1])
        except BackendUnavailable as error:
            raise BackendUnavailable("rtld", f"{reason}; {error.reason}", error.remedy) from None
        words = DebugWords(mask, fd, f"{reason}: its place was found by starting the interpreter three times")
        values = [self._ctypes.c_int.from_address(self._start + 4 * at).value for at in (mask, fd)]
        if not all(0 <= value < 1 << 16 for value in values):
            raise BackendUnavailable("rtld", f"{reason}; the words found by comparison hold {values}", USE_SNAPSHOT)
        return words

    def protection(self) -> int:
        """Return the PROT_ bits of the page of both words. Raises `BackendUnavailable` where they cannot be read.

        They are read once: the loader sets them at the start of the program and never again (`_dl_protect_relro`,
        elf/dl-reloc.c). At the end of a trace the list of mappings is long, and /proc may be gone after a chroot.
        """
        if self._protection is None:
            self._protection = page_protection(self._first_page)
        return self._protection

    @property
    def before(self) -> tuple[int, int]:
        """Mask and descriptor as they were when this object was made."""
        return self._before

    def write(self, mask: int, fd: int) -> None:
        """Set both words: the bits of the mask, and the descriptor to write to. Restores the protection of their page.

        Raises `BackendUnavailable` when the system does not allow the page to be written (a hardened one).
        """
        protection = self.protection()
        if not protection & _PROT_WRITE:
            self._protect(protection | _PROT_WRITE)
        try:
            # The descriptor first: a loader that sees the mask must not write to the old descriptor.
            if mask & WANTED:
                self._fd.value, self._mask.value = fd, mask
            else:
                self._mask.value, self._fd.value = mask, fd
        finally:
            if not protection & _PROT_WRITE:
                self._protect(protection)

    def restore(self) -> None:
        """Put both words back."""
        self.write(*self._before)

    def _protect(self, protection: int) -> None:
        mprotect = self._libc.mprotect
        mprotect.argtypes = (self._ctypes.c_void_p, self._ctypes.c_size_t, self._ctypes.c_int)
        if mprotect(self._first_page, self._length, protection) != 0:
            raise BackendUnavailable("rtld", "the system does not let the loader's page be written", USE_SNAPSHOT)

    def barrier(self) -> None:
        """Wait until no other thread is inside dlopen or dlclose, and leave a few lines in the log.

        A dlopen of an image that is loaded already takes the loader's lock. The GIL is released meanwhile, so that a
        thread which holds the lock and runs Python in an initialiser can finish.
        """
        libc = self._libc_without_gil
        libc.dlopen.argtypes, libc.dlopen.restype = (self._ctypes.c_char_p, self._ctypes.c_int), self._ctypes.c_void_p
        libc.dlclose.argtypes = (self._ctypes.c_void_p,)
        handle = libc.dlopen(b"libc.so.6", _RTLD_LAZY | _RTLD_NOLOAD)
        if handle:
            libc.dlclose(handle)

    def prove(self, fd: int) -> bool:
        """Return whether text arrives at the end of `fd` (a readable file); the text is left there.

        If it does not, everything is restored, and so it is when this raises `BackendUnavailable`.
        """
        end = os.fstat(fd).st_size
        self.write(self._before[0] | WANTED, fd)
        try:
            self.barrier()
            arrived = b"libc.so.6" in os.pread(fd, 4096, end)
        except BaseException:
            self.restore()
            raise
        if not arrived:
            self.restore()
        return arrived


def prove_patch(patch: DebugMaskPatch, fd: int) -> DebugMaskPatch:
    """Return a patch that is switched on, with its proof at the end of `fd`: this one, or one with other words.

    Words that fit the pattern and produce no log are the wrong ones: then the starts are compared. Raises
    `BackendUnavailable`, with everything restored.
    """
    silent = "the loader's debug words were found, and produced no log"
    if patch.prove(fd):
        return patch
    if patch.words.note is None:
        patch = DebugMaskPatch(patch.compare_starts(silent))
        if patch.prove(fd):
            return patch
    raise BackendUnavailable("rtld", silent, USE_SNAPSHOT)


_RTLD_LAZY, _RTLD_NOLOAD = 1, 4


def find_debug_fd(words: tuple[int, ...]) -> int:
    """Return the index of `_dl_debug_fd` in `words`, the leading ints of `_rtld_global_ro`.

    Around it lie, in this order, `_dl_clktck` (AT_CLKTCK), `_dl_verbose` (0 or 1), itself (2, or what LD_DEBUG_OUTPUT
    made it), `_dl_lazy` (0 or 1). Raises `BackendUnavailable` unless exactly one place fits.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    fits = [
        at + 2
        for at in range(1, len(words) - 3)
        if words[at] == ticks and words[at + 1] in (0, 1) and 0 <= words[at + 2] < 1 << 16 and words[at + 3] in (0, 1)
    ]
    if len(fits) != 1:
        raise BackendUnavailable(
            "rtld", f"the loader's debug descriptor was not found ({len(fits)} places fit its pattern)", USE_SNAPSHOT
        )
    return fits[0]


def page_protection(address: int) -> int:
    """Return the PROT_ bits of the mapping around `address`. Raises `BackendUnavailable` where they cannot be read."""
    return find_mapping(address)[0]


def find_mapping(address: int) -> tuple[int, str]:
    """Return the PROT_ bits of the mapping around `address`, and its file as "device:inode" (/proc/self/maps, proc(5)).

    Raises `BackendUnavailable` where no mapping has the address, or the maps cannot be read.
    """
    try:
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                span, bits, _, device, inode = line.split(None, 5)[:5]
                low, high = span.split(b"-")
                if int(low, 16) <= address < int(high, 16):
                    protection = (bits[:1] == b"r") * _PROT_READ + (bits[1:2] == b"w") * _PROT_WRITE
                    return protection, f"{device.decode()}:{inode.decode()}"
    except OSError as error:
        raise BackendUnavailable("rtld", f"/proc/self/maps cannot be read ({error.strerror})", USE_SNAPSHOT) from error
    raise BackendUnavailable("rtld", "the loader's page is not in /proc/self/maps", USE_SNAPSHOT)
