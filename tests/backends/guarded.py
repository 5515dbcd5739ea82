"""Arrays beside inaccessible pages: a kernel that reads or writes beyond them ends the process."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_kept: list[mmap.mmap] = []  # the pages live as long as the tests: protected memory cannot go back to the heap


def guarded(array: Array, at_end: bool) -> Array:
    """A copy that ends where a guard page starts, or starts where one ends."""
    page = mmap.PAGESIZE
    span = max(1, -(-array.nbytes // page)) * page
    pages = mmap.mmap(-1, span + 2 * page)
    _kept.append(pages)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for guard in (start, start + page + span):
        assert protect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
    offset = page + (span - array.nbytes if at_end else 0)
    copy: Array = np.frombuffer(pages, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy
