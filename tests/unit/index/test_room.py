"""Room to grow is zero, writable, and takes no memory before it is written."""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np
import pytest

from index.room import MAPPED_BYTES_MIN, zeroed
from index.table import float_row


@pytest.mark.parametrize("rows", [0, 1, MAPPED_BYTES_MIN // 256 - 1, MAPPED_BYTES_MIN // 256, 100_000])
def test_it_is_an_array_of_zeros_like_any_other(rows: int) -> None:
    """Below and above the size from which it has pages of its own; rows may be vectors or records."""
    vectors = zeroed(rows, float_row(64))
    assert (vectors.shape, vectors.dtype) == ((rows, 64), np.float32)
    assert not vectors.any()
    vectors[:] = 1.0
    assert vectors.sum() == 64 * rows
    record = np.dtype([("factor", np.float32), ("codes", np.int8, (64,))], align=True)
    coded = zeroed(rows, record)
    assert (coded.shape, coded.dtype) == ((rows,), record)


def resident_share(array: np.ndarray) -> float:
    """Share of the pages between the array's ends that are in memory."""
    first = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    pages = -(-(array.ctypes.data + array.nbytes - first) // mmap.PAGESIZE)
    seen = (ctypes.c_ubyte * pages)()
    assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(first), ctypes.c_size_t(array.nbytes), seen) == 0
    return sum(page & 1 for page in seen) / pages


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which pages are in memory")
def test_what_is_not_written_is_not_resident() -> None:
    """Even after malloc has freed an array of that size, from which on np.zeros would touch every page of the next."""
    size = 24 << 20
    for _ in range(2):
        np.ones(size, np.int8)
    room = zeroed(size, np.int8)
    room[-1] = 1
    assert 0 < resident_share(room) < 0.2
    room[:] = 1
    assert resident_share(room) == 1.0
