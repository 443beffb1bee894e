"""What an index answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import RejectReason

Floats = NDArray[np.float32]
VectorId = str | int


class Matches(NamedTuple):
    """Search results, best first. Both (queries, k); short rows are padded with None and NaN."""

    ids: NDArray[np.object_]
    similarities: Floats


class RejectedRow(NamedTuple):
    """A row of an upsert that did not go in, by its position in the call."""

    position: int
    reason: RejectReason


class UpsertReport(NamedTuple):
    """What became of an upsert's rows; `added` and `moved` count distinct ids."""

    added: int
    moved: int
    rejected: tuple[RejectedRow, ...]


class IndexStats(NamedTuple):
    """Size in vectors, room before the next growth, bytes held, and the number of calls that changed something."""

    size: int
    capacity: int
    memory_bytes: int
    epoch: int
