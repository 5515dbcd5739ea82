"""The memory that a program's intermediate values live in: anonymous pages, resident only once they are touched.

A guarded arena stands between inaccessible pages, and its end, where an overrun starts, is the end of a page; it is filled with a
pattern, so that what was written can be told afterwards. It is for tests and for hunting a kernel that writes where it must not.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap

import numpy as np

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.plan import ALIGNMENT

CANARY = 0xDB5C_A11A_57ED_7E57
PAGE = mmap.PAGESIZE
HUGE = 4 << 20  # from this size on, huge pages are asked for: fewer misses in the translation buffer


class Arena:
    """One block that grows: `reserve` may move it, which raises `generation`; its content does not survive that."""

    def __init__(self, guarded: bool = False):
        self.guarded = guarded
        self.address = 0
        self.size = 0
        self.generation = 0
        self._keep: object = None

    def reserve(self, size: int) -> None:
        """Have at least `size` bytes, at a multiple of 64. Refused with a Diagnostic where the system has no room."""
        size = -(-size // ALIGNMENT) * ALIGNMENT
        if size <= self.size:
            return
        self._keep, self.address, self.size = None, 0, 0  # the old block goes first: both at once might not fit
        self.generation += 1
        span = -(-size // PAGE) * PAGE
        try:
            # private, for mmap's default is memory that a process shares with its children after a fork
            pages = mmap.mmap(-1, span + 2 * PAGE if self.guarded else span, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, ValueError, OverflowError) as error:
            raise DiagnosticError(
                Diagnostic("DL0660", f"there is no room for {size:,} bytes of intermediate values: {error}", hint="take a smaller batch")
            ) from error
        if not self.guarded and span >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without huge pages
                pages.madvise(mmap.MADV_HUGEPAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        self._keep, self.address, self.size = pages, start, size
        if self.guarded:
            self.address = start + PAGE + span - size
            self.fill()
            _protect(start, PAGE)
            _protect(start + PAGE + span, PAGE)

    def fill(self) -> None:
        """Write the pattern everywhere (guarded arenas)."""
        self._words()[:] = CANARY

    def touched_high_water(self) -> int:
        """One past the last byte that differs from the pattern; what lies before the arena is checked too."""
        if not self.guarded or not self.size:
            raise ValueError("only a guarded arena that is in use knows what was touched")
        raw = self._words().view(np.uint8)
        changed = np.flatnonzero(raw != np.resize(np.array([CANARY], np.uint64).view(np.uint8), raw.size))
        return int(changed[-1]) + 1 if changed.size else 0

    def intact_before(self) -> bool:
        """Whether nothing was written between the first guard page and the arena (guarded arenas)."""
        start = self.address // PAGE * PAGE
        return bytes(self.address - start) == ctypes.string_at(start, self.address - start)

    def _words(self) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        return np.ctypeslib.as_array((ctypes.c_uint64 * (self.size // 8)).from_address(self.address))


def _protect(address: int, size: int) -> None:
    if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
