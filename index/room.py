"""Arrays with room to grow that takes no memory until it is written.

`np.zeros` promises that only where malloc maps fresh pages. Once glibc has freed a large array it serves requests of up
to that size from its heap, where zeroing them touches every page, and a freed one is a hole that stays.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

MAPPED_BYTES_MIN = 131_072
"""Smaller arrays are not worth pages of their own."""
HUGE_BYTES_MIN = 1 << 22
"""As numpy does: from this size on, pages of 2 MB where the system has them; random rows then cost fewer page walks."""


def zeroed(rows: int, row: DTypeLike) -> NDArray[Any]:
    """Zeros: `rows` times the form of one row. What was never written is not resident, and all goes with the array."""
    form = np.dtype(row)
    size = rows * form.itemsize
    if size < MAPPED_BYTES_MIN:
        return np.zeros(rows, form)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_BYTES_MIN and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.ndarray(rows, form, pages)
