"""How loops that numpy cannot vectorise are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

from numba import njit

PLAIN: tuple[Literal["C_CONTIGUOUS"], Literal["WRITEABLE"]] = ("C_CONTIGUOUS", "WRITEABLE")
"""What `np.require` should ask for: one layout is one compiled kernel, a second one takes seconds to compile."""

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compiles at the first call, runs without the GIL, and keeps the machine code beside the source.

    Where the source is read-only numba writes into the user's cache folder; where neither can be written, each start
    compiles anew. A cached kernel is rebuilt only when its own file changes, so a kernel calls kernels of its own
    file only. Sums may be reordered for SIMD: the same input gives the same bits on the same machine, not on another.
    """
    try:
        return cast("F", _compiler(cache=True)(function))
    except RuntimeError:
        return cast("F", _compiler(cache=False)(function))


def _compiler(*, cache: bool) -> Callable[[F], Any]:
    return njit(cache=cache, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
