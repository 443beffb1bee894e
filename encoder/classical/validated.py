"""Learning from the validation part too, once nothing is left to be chosen by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from encoder.dataset import EventTable, Queries, Split
from encoder.evaluate import Recommender


class LearnsValidation:
    """A recommender that learns the validation part as well, as one that learns from the stream would have.

    Only for recommenders whose settings are fixed beforehand: one that chooses by the validation part would be
    choosing by what it has learned.
    """

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    @property
    def name(self) -> str:
        """The recommender's name and what it learned from besides."""
        return f"{self._recommender.name}+valid"

    def fit(self, table: EventTable, split: Split) -> None:
        """Fits the recommender on the training and the validation part, never on a row that the test asks for."""
        self._recommender.fit(table, with_validation(split))

    def scores(self, table: EventTable, queries: Queries) -> NDArray[np.float32]:
        """(q, i), the recommender's."""
        return self._recommender.scores(table, queries)


def with_validation(split: Split) -> Split:
    """The same split, but each user's events up to the last validation query may be learned from."""
    train_ends = split.train_ends.copy()
    np.maximum.at(train_ends, split.valid.users, split.valid.positions + 1)
    return replace(split, train_ends=train_ends)
