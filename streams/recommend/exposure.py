"""How much of the lists' exposure each group had lately: what fairness floors are measured by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ExposureState(NamedTuple):
    """Copies that may be written."""

    window: NDArray[np.float64]
    """(lists, F + 1) a ring: exposure of each group in a list, and last of all its items."""
    totals: NDArray[np.float64]
    """(F + 1,) sums."""
    head: int
    """Where the next list goes."""
    held: int
    """Lists in the ring."""


class ExposureWindow:
    """The last lists that were published. Memory: 8 (F + 1) bytes a list."""

    def __init__(self, groups: int, lists: int) -> None:
        self._window = np.zeros((lists, groups + 1))
        self._head = 0
        self._held = 0

    def state(self) -> ExposureState:
        """The window as it is now."""
        return ExposureState(self._window.copy(), self._window.sum(axis=0), self._head, self._held)

    def shares(self) -> NDArray[np.float64]:
        """(F,) of each group; 0 before the first list."""
        totals = self._window.sum(axis=0)
        shares: NDArray[np.float64] = totals[:-1] / max(totals[-1], np.finfo(np.float64).tiny)
        return shares

    def least_shares(self, lists: int, exposure: float) -> NDArray[np.float64]:
        """(F,) of each group once so many more lists, each of this exposure, are published without it."""
        size = len(self._window)
        leaving = min(max(self._held + lists - size, 0), self._held)
        oldest = (self._head - self._held + np.arange(leaving)) % size
        totals = self._window.sum(axis=0) - self._window[oldest].sum(axis=0)
        all_of_it = totals[-1] + min(lists, size) * exposure
        shares: NDArray[np.float64] = totals[:-1] / max(all_of_it, np.finfo(np.float64).tiny)
        return shares

    def record(self, exposures: NDArray[np.float64]) -> None:
        """Counts lists (lists, F + 1) that were published, in their order; an empty one is none."""
        lists = len(self._window)
        shown = exposures[exposures[:, -1] > 0]
        kept = shown[-lists:]
        at = (self._head + len(shown) - len(kept) + np.arange(len(kept))) % lists
        self._window[at] = kept
        self._head = (self._head + len(shown)) % lists
        self._held = min(self._held + len(shown), lists)

    def saved(self) -> NDArray[np.float64]:
        """(held, F + 1) the lists, oldest first."""
        lists = len(self._window)
        return self._window[(self._head - self._held + np.arange(self._held)) % lists]
