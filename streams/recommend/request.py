"""What the ranker is asked and what it answers.

Shapes: u users, d dimensions, R recent items, k neighbours, n items in a list, S sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.fusion import FusionConfig, Segments
from streams.recommend.interests import INTERESTS_MAX, Interests
from streams.recommend.kernel import PLAIN

VOTERS_SHOWN = 3
NO_TYPE = 255


class Source(IntEnum):
    """Who proposes items, in the order of the shares. The trends come last, one for each half-life."""

    NEIGHBOURS = 0
    """What the nearest users had lately."""
    PROFILE = 1
    """Likeness of the item's vector to the user's."""
    TOGETHER = 2
    """What people had shortly before or after the user's last items."""
    CATEGORY = 3
    """What is popular in the categories of the user's last items."""
    REPEAT = 4
    """The user's own recent items; silent unless repeats are on."""
    GROUP = 5
    """What is popular among people of the same age, gender, occupation, country, ...; for users with few events."""
    RISING = 6
    """What is popular of late much more than it ever was: new or waking up."""
    NEWCOMER = 7
    """What nobody had yet in the categories of the user's last items."""
    INTERESTS = 8
    """Likeness of the item's vector to the nearest taste of a user who has several."""
    TREND = 9
    """What is popular with everybody; the first of several half-lives."""


def source_names(half_lives_s: Sequence[float]) -> tuple[str, ...]:
    """Names of all sources, in the order of the shares."""
    trends = tuple(f"trend-{half_life_s / 3600:g}h" for half_life_s in half_lives_s)
    return (*(source.name.lower() for source in Source if source is not Source.TREND), *trends)


class RankRequest(NamedTuple):
    """The users of one batch, as they are after it."""

    slots: Slots
    """(u,) slots in the profile store, -1 for users not stored yet."""
    vectors: Floats
    """(u, d) unit profile vectors; zeros for a user without direction."""
    recent_items: Slots
    """(u, R) the user's own recent items, oldest first, left-aligned, padded with NO_ITEM."""
    recent_types: NDArray[np.uint8]
    """(u, R) event type codes of the recent items."""
    recent_count: NDArray[np.int32]
    """(u,) how many of the R places are in use."""
    history_events: NDArray[np.int64]
    """(u,) events that ever entered the recent items."""
    bought_offsets: NDArray[np.int32]
    """(u + 1,) where each user's part of `bought_items` begins."""
    bought_items: NDArray[np.int32]
    """(b,) catalogue slots that the users bought."""
    neighbour_slots: Slots
    """(u, k) slots in the profile store, best first, padded with -1."""
    neighbour_similarities: Floats
    """(u, k) cosines, padded with NaN."""
    group_codes: Slots | None = None
    """(u, g) groups of the users who have few events, padded with -1; None: nothing is known of anybody."""
    interest_vectors: Floats | None = None
    """(u, m, d) see `Interests`, as the next two; None: everybody has one taste."""
    interest_weights: NDArray[np.float64] | None = None
    """(u, m)"""
    interest_members: NDArray[np.int8] | None = None
    """(u, R)"""

    @property
    def interests(self) -> Interests | None:
        """The tastes of the users; None when they are not looked at."""
        if self.interest_vectors is None or self.interest_weights is None or self.interest_members is None:
            return None
        return Interests(self.interest_vectors, self.interest_weights, self.interest_members)

    def joined(self, other: RankRequest) -> RankRequest:
        """The users of both, those of the other one last. The same columns are there in both."""
        offsets = np.concatenate([self.bought_offsets, self.bought_offsets[-1] + other.bought_offsets[1:]])
        columns: dict[str, Any] = {
            name: None if mine is None else np.concatenate([mine, others])
            for name, mine, others in zip(self._fields, self, other, strict=True)
            if name != "bought_offsets"
        }
        return RankRequest(bought_offsets=offsets, **columns)

    def rows(self, first: int, end: int | None) -> RankRequest:
        """Some of the users; views."""
        rows = slice(first, end)
        offsets = self.bought_offsets[first : None if end is None else end + 1]
        columns: dict[str, Any] = {
            name: None if column is None else column[rows]
            for name, column in self._asdict().items()
            if name not in ("bought_offsets", "bought_items")
        }
        bought = self.bought_items[offsets[0] : offsets[-1]]
        return RankRequest(bought_offsets=offsets - offsets[0], bought_items=bought, **columns)


def checked(request: RankRequest, dim: int) -> RankRequest:
    """The request with the types and the memory order that the kernels are compiled for; vectors of `dim` numbers.

    Raises:
        ValueError: the arrays do not fit each other.
    """
    users, recent = len(request.slots), request.recent_items.shape[1:]
    shapes = {
        "vectors": (users, dim),
        "recent_items": (users, *recent),
        "recent_types": (users, *recent),
        "recent_count": (users,),
        "history_events": (users,),
        "bought_offsets": (users + 1,),
        "neighbour_slots": (users, *request.neighbour_similarities.shape[1:]),
        "neighbour_similarities": (users, *request.neighbour_slots.shape[1:]),
    }
    for name, shape in shapes.items():
        if getattr(request, name).shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {getattr(request, name).shape}")
    ends = int(request.bought_offsets[0]), int(request.bought_offsets[-1])
    if ends != (0, len(request.bought_items)):
        raise ValueError(f"bought_offsets must go from 0 to {len(request.bought_items)}, the number bought, got {ends}")
    groups = request.group_codes
    if groups is not None and (groups.ndim != 2 or len(groups) != users):
        raise ValueError(f"group_codes must have a row for each of {users} users, got the shape {groups.shape}")
    if request.recent_count.max(initial=0) > request.recent_items.shape[1]:
        raise ValueError(
            f"recent_count must be at most {request.recent_items.shape[1]}, the places there are, "
            f"got {request.recent_count.max()}"
        )
    return request._replace(
        slots=np.require(request.slots, np.int32, PLAIN),
        vectors=np.require(request.vectors, np.float32, PLAIN),
        recent_items=np.require(request.recent_items, np.int32, PLAIN),
        recent_types=np.require(request.recent_types, np.uint8, PLAIN),
        recent_count=np.require(request.recent_count, np.int32, PLAIN),
        history_events=np.require(request.history_events, np.int64, PLAIN),
        bought_offsets=np.require(request.bought_offsets, np.int32, PLAIN),
        bought_items=np.require(request.bought_items, np.int32, PLAIN),
        neighbour_slots=np.require(request.neighbour_slots, np.int32, PLAIN),
        neighbour_similarities=np.require(request.neighbour_similarities, np.float32, PLAIN),
        group_codes=None if groups is None or (groups < 0).all() else np.require(groups, np.int32, PLAIN),
    )


def segments_of(request: RankRequest) -> Segments:
    """Which weights count for each user."""
    last = request.recent_types[np.arange(len(request.slots)), np.maximum(request.recent_count - 1, 0)]
    return Segments.of(request.history_events, np.where(request.recent_count > 0, last, NO_TYPE).astype(np.uint8))


class Ranking(NamedTuple):
    """One list a user. The places past the end of a short list hold -1 and zeros."""

    items: Slots
    """(u, n) catalogue slots, best first, no item twice in a row."""
    scores: Floats
    """(u, n) in (0, 1], descending."""
    shares: Floats
    """(u, n, S) parts of the score by source: >= 0, their sum is 1."""
    short_because: NDArray[np.uint8]
    """(u,) a `streams.recommend.rerank.ShortBecause` each: why the list is not full."""
    voters: Slots
    """(u, n, 3) store slots of the neighbours that added most to the first part, padded with -1."""
    anchors: Slots
    """(u, n) the user's own recent item most like this one; -1 when either has no words. Present where the profile's
    part is above 0."""
    companions: Slots
    """(u, n) the user's own recent item that is most often near this one; -1 where the part of `TOGETHER` is 0."""
    groups: NDArray[np.int32]
    """(u, n) code of the user's group that says most for the item; -1 where the part of `GROUP` is 0."""
    categories: NDArray[np.int32]
    """(u, n) code of the category in which the item is most popular, or new; -1 where the parts of `CATEGORY` and
    `NEWCOMER` are 0."""


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
    candidates: int = 30
    """Items that each source proposes; at least `list_items` are."""
    similarity_temperature: float = 0.2
    """A neighbour this much less similar than the nearest has 1/e of its voice."""
    content_temperature: float = 0.1
    """An item this much less similar than the most similar is worth 1/e of it."""
    interests: int = 1
    """Tastes of a user that are looked at apart; with 1 the profile is the only one."""
    type_weights: tuple[float, ...] = ()
    """Weight of each event type, by its code: what a neighbour did counts only where it is positive. Empty: all."""

    fusion: FusionConfig = field(default_factory=FusionConfig)
    """How the sources are weighed."""

    def __post_init__(self) -> None:
        if self.list_items < 1 or self.candidates < 1:
            raise ValueError(
                f"list_items and candidates must be at least 1, got {self.list_items} and {self.candidates}"
            )
        if not 1 <= self.interests <= INTERESTS_MAX:
            raise ValueError(f"interests must be 1 to {INTERESTS_MAX}, got {self.interests}")
        if not (self.similarity_temperature > 0 and self.content_temperature > 0):
            raise ValueError(
                "temperatures must be above 0, got "
                f"{self.similarity_temperature} for users and {self.content_temperature} for items"
            )
