"""What an event says beside its item, in numbers; the same in training and in serving."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from encoder.dataset import EventTable
from encoder.vocabulary import Vocabulary

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

EVENT_FEATURES = 4
SECONDS_PER_MONTH = 30 * 86_400.0
SESSION_GAP_S = 1800.0
"""Events further apart than this usually belong to two sessions."""
RATING_NEUTRAL, RATING_SPAN = 3.0, 2.0
RATING_ABS_MAX = 2.0


def event_features(gaps_s: NDArray[np.floating[Any]], ratings: NDArray[np.floating[Any]]) -> Floats:
    """(..., 4) of each event.

    Logarithm of the gap (a month is 1), whether a new session began, whether there was a gap at all, and how far the
    rating, where there is one, lies from a neutral 3 of 5 (-1 to 1, larger scales up to 2).

    Args:
        gaps_s: (...) seconds since the user's latest event before.
        ratings: (...) values of rating events, NaN for all others.
    """
    features = np.empty((*gaps_s.shape, EVENT_FEATURES), np.float32)
    features[..., 0] = np.log1p(gaps_s) / math.log1p(SECONDS_PER_MONTH)
    features[..., 1] = gaps_s > SESSION_GAP_S
    features[..., 2] = gaps_s > 0
    rated = np.nan_to_num((ratings - RATING_NEUTRAL) / RATING_SPAN, nan=0.0)
    features[..., 3] = np.clip(rated, -RATING_ABS_MAX, RATING_ABS_MAX)
    return features


@dataclass(frozen=True, slots=True)
class TableFeatures:
    """What a model is told of the items, users and types of a table."""

    items: Ints
    """(i,) rows of the vocabulary, -1 for an item it does not hold."""
    content: Floats | None
    """(i, c) frozen vectors of texts; None for a model without."""
    item_attributes: Ints
    """(i, a) rows of the vocabulary, 0 = none."""
    user_attributes: Ints
    """(u, a) rows of the vocabulary, 0 = none."""
    types: Ints
    """(types,) rows of the vocabulary, 0 = unknown."""
    events: Floats
    """(e, EVENT_FEATURES)"""
    images: NDArray[np.float16] | None = None
    """(i, m) frozen vectors of images, zeros where there are none; None for a model without."""

    @classmethod
    def of(
        cls,
        table: EventTable,
        vocabulary: Vocabulary,
        content: Floats | None,
        images: NDArray[np.float16] | None = None,
    ) -> Self:
        """The features of a table.

        Raises:
            ValueError: `content` or `images` has not one row per item.
        """
        for name, given in (("content", content), ("images", images)):
            if given is not None and len(given) != len(table.item_ids):
                raise ValueError(f"{name} has {len(given)} rows for {len(table.item_ids)} items; give one each.")
        return cls(
            items=np.array([vocabulary.item_rows.get(item, -1) for item in table.item_ids], np.int64),
            content=content,
            item_attributes=vocabulary.item_attribute_rows(table.item_attributes),
            user_attributes=vocabulary.user_attribute_rows(table.user_attributes),
            types=vocabulary.type_rows(table.type_names),
            events=event_features(table.gaps_s(), table.ratings()),
            images=images,
        )
