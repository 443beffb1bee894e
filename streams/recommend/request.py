"""What the ranker is asked and what it answers.

Shapes: u users, d dimensions, R recent items, k neighbours, n items in a list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots

VOTERS_SHOWN = 3


class RankRequest(NamedTuple):
    """The users of one batch, as they are after it."""

    slots: Slots
    """(u,) slots in the profile store, -1 for users not stored yet."""
    vectors: Floats
    """(u, d) unit profile vectors; zeros for a user without direction."""
    recent_items: Slots
    """(u, R) the user's own recent items, oldest first, left-aligned, padded with NO_ITEM."""
    recent_count: NDArray[np.int32]
    """(u,) how many of the R places are in use."""
    bought_offsets: NDArray[np.int32]
    """(u + 1,) where each user's part of `bought_items` begins."""
    bought_items: NDArray[np.int32]
    """(b,) catalogue slots that the users bought."""
    neighbour_slots: Slots
    """(u, k) slots in the profile store, best first, padded with -1."""
    neighbour_similarities: Floats
    """(u, k) cosines, padded with NaN."""
    now_s: float
    """Largest event time seen, epoch seconds."""


class Ranking(NamedTuple):
    """One list a user. The places past the end of a short list hold -1 and zeros."""

    items: Slots
    """(u, n) catalogue slots, best first, no item twice in a row."""
    scores: Floats
    """(u, n) in (0, 1], descending."""
    shares: Floats
    """(u, n, 3) parts of the score from similar users, from content and from the trend: >= 0, their sum is 1."""
    voters: Slots
    """(u, n, 3) store slots of the neighbours that added most to the first part, padded with -1."""
    anchors: Slots
    """(u, n) the user's own recent item most like this one; -1 when either has no words. Present where the second
    part is above 0."""


@dataclass(frozen=True, slots=True)
class RankerConfig:
    """How lists are made. Weights need not sum to 1.

    Raises:
        ValueError: a number is out of its range.
    """

    list_items: int = 20
    """n: items in each list, fewer only where the catalogue has no more to offer."""
    repeats: bool = False
    """Recommend what the user has seen or bought."""
    similar_users: float = 0.45
    """Weight of the neighbours' recent items."""
    because_of: float = 0.2
    """Weight of the likeness to the profile vector."""
    trending: float = 0.35
    """Weight of the decayed popularity; above 0, because it fills the list of a user without history."""
    candidates: int = 50
    """Items that each source proposes; at least `list_items` are."""
    similarity_temperature: float = 0.2
    """A neighbour this much less similar than the nearest has 1/e of its voice."""
    content_temperature: float = 0.05
    """An item this much less similar than the most similar has 1/e of its part."""
    type_weights: tuple[float, ...] = ()
    """Weight of each event type, by its code: what a neighbour did counts only where it is positive. Empty: all."""

    def __post_init__(self) -> None:
        weights = (self.similar_users, self.because_of, self.trending)
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or self.trending == 0:
            raise ValueError(f"source weights must be >= 0 and the trend's above 0, got {weights}")
        if self.list_items < 1 or self.candidates < 1:
            raise ValueError(
                f"list_items and candidates must be at least 1, got {self.list_items} and {self.candidates}"
            )
        if not (self.similarity_temperature > 0 and self.content_temperature > 0):
            raise ValueError(
                "temperatures must be above 0, got "
                f"{self.similarity_temperature} for users and {self.content_temperature} for items"
            )
