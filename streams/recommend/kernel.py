"""How loops that numpy cannot vectorise are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compiles at the first call and keeps the machine code beside the source; runs without the GIL.

    A cached kernel is rebuilt only when its own file changes, so a kernel calls kernels of its own file only.
    Sums may be reordered for SIMD: the same input gives the same bits on the same machine, not on another one.
    """
    compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})(function)
    return cast("F", compiled)
