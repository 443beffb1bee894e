"""A ranking in the words of the public message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streams.core.recommendations import BecauseOf, Reason, RecommendedItem, SimilarUsers, Trending
from streams.recommend.request import VOTERS_SHOWN, Ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MILLIONTHS = 1_000_000
SHARE_MIN_MILLIONTHS = 10_000
"""A reason below one per cent is noise to a reader: its share goes to the largest."""


def recommended_lists(
    ranking: Ranking, user_ids: Sequence[str], item_ids: Sequence[str]
) -> list[list[RecommendedItem]]:
    """The list of each row, ready to be published. `user_ids` and `item_ids` are indexed by slot.

    Scores and shares have six decimals; the shares of an item sum to 1, the largest reason comes first, and none is
    below .01.
    """
    scores = np.maximum(np.rint(ranking.scores.astype(np.float64) * MILLIONTHS), 1) / MILLIONTHS
    shares = _rounded(ranking.shares)
    # One flat list a row and column: thousands of small lists would wake the garbage collector.
    rows = zip(
        ranking.items.tolist(),
        scores.tolist(),
        *(shares[:, :, source].tolist() for source in range(3)),
        *(ranking.voters[:, :, rank].tolist() for rank in range(VOTERS_SHOWN)),
        ranking.anchors.tolist(),
        strict=True,
    )
    return [_items(row, user_ids, item_ids) for row in rows]


def recommended_items(
    ranking: Ranking, row: int, user_ids: Sequence[str], item_ids: Sequence[str]
) -> list[RecommendedItem]:
    """The list of one row; for a batch, `recommended_lists` is many times faster."""
    rows = slice(row, row + 1)
    alone = Ranking(
        items=ranking.items[rows],
        scores=ranking.scores[rows],
        shares=ranking.shares[rows],
        voters=ranking.voters[rows],
        anchors=ranking.anchors[rows],
    )
    return recommended_lists(alone, user_ids, item_ids)[0]


def _rounded(shares: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shares of whole millionths, small ones folded into the largest, so that decimal digits sum to 1 exactly."""
    millionths = np.rint(shares.astype(np.float64) * MILLIONTHS).astype(np.int64)
    largest = millionths.argmax(axis=-1)[..., None]
    millionths[millionths < SHARE_MIN_MILLIONTHS] = 0
    np.put_along_axis(millionths, largest, 0, axis=-1)
    np.put_along_axis(millionths, largest, MILLIONTHS - millionths.sum(axis=-1, keepdims=True), axis=-1)
    return millionths / MILLIONTHS


def _items(columns: tuple[Any, ...], user_ids: Sequence[str], item_ids: Sequence[str]) -> list[RecommendedItem]:
    """One list. Runs for every list published, so it looks up and allocates no more than it must."""
    found: list[RecommendedItem] = []
    for item, score, similar, content, trend, first, second, third, anchor in zip(*columns, strict=True):
        if item < 0:
            break
        reasons: list[Reason] = []
        if similar:
            users = [user_ids[first]]
            if second >= 0:
                users.append(user_ids[second])
            if third >= 0:
                users.append(user_ids[third])
            reasons.append(SimilarUsers(users, similar))
        if content:
            reasons.insert(similar >= content, BecauseOf(item_ids[anchor], content))
        if trend:
            reasons.insert((similar >= trend) + (content >= trend), Trending(trend))
        found.append(RecommendedItem(item_ids[item], score, reasons))
    return found
