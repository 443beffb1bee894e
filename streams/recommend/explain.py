"""A ranking in the words of the public message."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from streams.core.recommendations import (
    Again,
    BecauseOf,
    NewIn,
    PopularAmong,
    PopularIn,
    Reason,
    RecommendedItem,
    Rising,
    SimilarUsers,
    TogetherWith,
    Trending,
)
from streams.recommend.request import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from streams.core.ports import Floats, Slots
    from streams.recommend.request import Ranking

    Rows = NDArray[np.intp]

T = TypeVar("T")

MILLIONTHS = 1_000_000
SHARE_MIN_MILLIONTHS = 10_000
"""A reason below one per cent is noise to a reader: its share goes to the largest."""


class _Names(NamedTuple):
    """Ids by slot, names by code."""

    users: Sequence[str]
    items: Sequence[str]
    categories: Sequence[str]
    groups: Mapping[int, str]

    def of_items(self, slots: Slots) -> Iterator[str]:
        """One each."""
        return map(self.items.__getitem__, slots.tolist())


class _Columns(NamedTuple):
    """Items of all lists, one after the other, and what backs their reasons. i items."""

    voters: Slots
    """(i, 3) see `Ranking`, as the others, which are (i,)."""
    anchors: Slots
    companions: Slots
    groups: NDArray[np.int32]
    categories: NDArray[np.int32]


def recommended_lists(
    ranking: Ranking,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    category_names: Sequence[str],
    group_names: Mapping[int, str],
) -> list[list[RecommendedItem]]:
    """The list of each row, ready to be published. Ids are indexed by slot, names by code.

    Scores and shares have six decimals; the shares of an item sum to 1, the largest reason comes first, equal ones in
    the order of `Source`, and none is below .01.
    """
    # All reasons of a kind are made in one go by loops in C, not one by one: this runs for every list published.
    present = ranking.items >= 0
    names = _Names(user_ids, item_ids, category_names, group_names)
    columns = _Columns(
        ranking.voters[present],
        ranking.anchors[present],
        ranking.companions[present],
        ranking.groups[present],
        ranking.categories[present],
    )
    scores = np.maximum(np.rint(ranking.scores[present].astype(np.float64) * MILLIONTHS), 1) / MILLIONTHS
    reasons = _reasons(columns, _rounded(_by_kind(ranking.shares[present])), names)
    items = list(map(RecommendedItem, names.of_items(ranking.items[present]), scores.tolist(), reasons))
    return _split(items, present.sum(axis=1))


def _by_kind(shares: Floats) -> NDArray[np.float64]:
    """(i, kinds) of shares (i, S): trends are one kind, the last, and tastes speak by the item that a profile names."""
    by_kind = shares[:, : Source.TREND + 1].astype(np.float64)
    by_kind[:, Source.PROFILE] += by_kind[:, Source.INTERESTS]
    by_kind[:, Source.INTERESTS] = 0
    by_kind[:, Source.TREND] = shares[:, Source.TREND :].sum(axis=1, dtype=np.float64)
    return by_kind


def _rounded(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole millionths, small ones folded into the largest, so that decimal digits sum to 1 exactly."""
    millionths = np.rint(shares * MILLIONTHS).astype(np.int64)
    largest = millionths.argmax(axis=-1)[..., None]
    millionths[millionths < SHARE_MIN_MILLIONTHS] = 0
    np.put_along_axis(millionths, largest, 0, axis=-1)
    np.put_along_axis(millionths, largest, MILLIONTHS - millionths.sum(axis=-1, keepdims=True), axis=-1)
    return millionths


def _reasons(columns: _Columns, millionths: NDArray[np.int64], names: _Names) -> list[list[Reason]]:
    """Those of each item, the largest first."""
    by_size = np.argsort(-millionths, axis=1, kind="stable")
    sorted_ = np.take_along_axis(millionths, by_size, axis=1)
    rows, ranks = np.nonzero(sorted_)
    kinds, shares = by_size[rows, ranks], sorted_[rows, ranks] / MILLIONTHS
    reasons = np.empty(len(rows), np.object_)
    for kind in range(millionths.shape[1]):
        places = np.flatnonzero(kinds == kind)
        made = _made(kind, columns, rows[places], shares[places].tolist(), names)
        reasons[places] = np.fromiter(made, np.object_, len(places))
    return _split(reasons.tolist(), np.bincount(rows, minlength=len(millionths)))


def _split(flat: list[T], counts: NDArray[np.integer]) -> list[list[T]]:
    """So many in each list."""
    ends = np.cumsum(counts).tolist()
    return [flat[first:end] for first, end in pairwise([0, *ends])]


def _made(kind: int, columns: _Columns, rows: Rows, shares: list[float], names: _Names) -> Iterator[Reason]:
    """Reasons of one kind, for each of these rows one of this share."""
    match kind:
        case Source.NEIGHBOURS:
            return map(SimilarUsers, _voters(columns.voters[rows], names.users), shares)
        case Source.PROFILE | Source.INTERESTS:
            return map(BecauseOf, names.of_items(columns.anchors[rows]), shares)
        case Source.TOGETHER:
            return map(TogetherWith, names.of_items(columns.companions[rows]), shares)
        case Source.CATEGORY | Source.NEWCOMER:
            made = PopularIn if kind == Source.CATEGORY else NewIn
            return map(made, map(names.categories.__getitem__, columns.categories[rows].tolist()), shares)
        case Source.GROUP:
            return map(PopularAmong, (names.groups[code] for code in columns.groups[rows].tolist()), shares)
        case _:
            return map(_WITHOUT_NAMES[kind], shares)


_WITHOUT_NAMES: dict[int, Callable[[float], Reason]] = {
    Source.REPEAT: Again,
    Source.RISING: Rising,
    Source.TREND: Trending,
}


def _voters(slots: Slots, user_ids: Sequence[str]) -> Iterator[list[str]]:
    """The ids of one, two or three users in each row."""
    for first, second, third in slots.tolist():
        if second < 0:
            yield [user_ids[first]]
        elif third < 0:
            yield [user_ids[first], user_ids[second]]
        else:
            yield [user_ids[first], user_ids[second], user_ids[third]]
