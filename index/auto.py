"""Exact while that is cheaper, graphs above, and back: the index to use when nobody wants to choose."""

from __future__ import annotations

from index.build import Tuning
from index.config import IndexConfig
from index.hnsw import HnswIndex

BACK_SHARE = 0.75
"""Of `graph_min`: below it the graphs go. The gap keeps a size that wavers from building again and again."""
COST_SHARE_MAX = 0.8
"""A graph goes into service when its query costs less than this share of a scan's."""
TRY_AGAIN_GROWTH = 1.5


class AutoIndex(HnswIndex):
    """`ExactIndex` below `graph_min` vectors, `HnswIndex` above where that was measured to be cheaper.

    The first graph is built beside the scans that go on answering; both switches are one assignment, and no call
    waits for them. On data where a graph needs so wide a beam that a scan is cheaper, the index stays exact and
    tries again when it has grown by half.
    """

    def __init__(self, config: IndexConfig) -> None:
        super().__init__(config)
        self._size_tried = config.graph_min

    def _graph_is_wanted(self) -> bool:
        return len(self) >= self._size_tried

    def _graph_is_too_much(self) -> bool:
        return len(self) < BACK_SHARE * self.config.graph_min

    def _pays(self, tuning: Tuning) -> bool:
        pays = tuning.graph_s < COST_SHARE_MAX * tuning.scan_s
        self._size_tried = self.config.graph_min if pays else int(tuning.rows * TRY_AGAIN_GROWTH)
        if not pays and self._graphs:  # a graph in service no longer pays: the data became harder
            with self._table.guard.write():
                self._drop_graphs()
                self._publish()
        return pays
