"""Ciao: reviews of products, and who trusts whose reviews."""

from __future__ import annotations

import io
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streams.core.errors import UsageError
from streams.core.events import PERSON_CATEGORY, PERSON_PREFIX, Event, EventType, Item
from streams.sources.extras import library
from streams.sources.files import find_beside, find_file, open_bytes
from streams.sources.layout import row_id
from streams.sources.ordering import by_time
from streams.sources.port import Description, Skips
from streams.sources.timestamps import nth_day

if TYPE_CHECKING:
    from collections.abc import Iterator

Matrix = NDArray[np.int64]

RATING_FILES = ("ciao_rating.mat", "rating.mat")
TRUST_FILES = ("ciao_trustnetwork.mat", "trustnetwork.mat")
RATING_COLUMNS = 5
"""User, product, category, stars, helpfulness."""
TRUST_COLUMNS = 2
"""The user who trusts, the user who is trusted."""
STARS_MIN, STARS_MAX = 1, 5


class Ciao:
    """The folder, or `ciao_rating.mat`; trust is read from `ciao_trustnetwork.mat` beside it, where it is there.

    A review is a `rating`, one whose stars lie outside 1 to 5 a `comment` without value. An edge of trust is a
    `follow` of the item `user:<id>`, so that people can be recommended and never collide with products. The
    log has no times: a user's n-th review and n-th edge both stand on day n (`nth_day`), the edge first. A row
    that repeats another one exactly is the same event, at the same time. The files are held in memory.
    """

    def __init__(self, path: str) -> None:
        self.name = "ciao"
        self.skips = Skips()
        self._path = find_file(path, RATING_FILES)
        self._trust = find_beside(self._path, TRUST_FILES)

    def describe(self) -> Description:
        """Exact, by loading the files."""
        return Description(events=len(self._ratings) + len(self._edges), order_only=True)

    def items(self) -> Iterator[Item]:
        """Products with the category of their first review, then the people who are trusted."""
        ratings = self._ratings
        _, first = np.unique(ratings[:, 1], return_index=True)
        for product, category in ratings[np.sort(first), 1:3].tolist():
            yield Item(item_id=str(product), categories=[str(category)])
        for person in np.unique(self._edges[:, 1]).tolist():
            yield Item(item_id=f"{PERSON_PREFIX}{person}", categories=[PERSON_CATEGORY])

    def users(self) -> Iterator[Any]:
        """None: the log tells nothing about its users."""
        return iter(())

    def events(self) -> Iterator[Event]:
        """Reviews and edges, day by day."""
        return by_time(chain(self._follows(), self._reviews()))

    def _follows(self) -> Iterator[Event]:
        edges = self._edges
        for row, day in zip(edges.tolist(), _days(edges).tolist(), strict=True):
            user, person = row
            yield Event(
                str(user), f"{PERSON_PREFIX}{person}", EventType.FOLLOW, nth_day(day), row_id(["trust", *map(str, row)])
            )

    def _reviews(self) -> Iterator[Event]:
        ratings = self._ratings
        for row, day in zip(ratings.tolist(), _days(ratings).tolist(), strict=True):
            user, product, _, stars, _ = row
            rated = STARS_MIN <= stars <= STARS_MAX
            yield Event(
                user_id=str(user),
                item_id=str(product),
                type=EventType.RATING if rated else EventType.COMMENT,
                timestamp=nth_day(day),
                event_id=row_id([str(cell) for cell in row]),
                value=float(stars) if rated else None,
            )

    @cached_property
    def _ratings(self) -> Matrix:
        return _matrix(self._path, "rating", RATING_COLUMNS)

    @cached_property
    def _edges(self) -> Matrix:
        if self._trust is None:
            return np.empty((0, TRUST_COLUMNS), np.int64)
        return _matrix(self._trust, "trustnetwork", TRUST_COLUMNS)


def _matrix(path: str, name: str, columns: int) -> Matrix:
    """The whole numbers (rows, columns) of a MATLAB file. Raises UsageError."""
    scipy_io = library("scipy.io", "Reading .mat files")
    with open_bytes(path) as stream:
        content = io.BytesIO(stream.read())
    try:
        matrix = scipy_io.loadmat(content).get(name)
    except Exception as error:  # scipy raises whatever a damaged byte leads to
        raise UsageError(f"{path} is damaged or no MATLAB file: {error}. Fetch it again.") from error
    if matrix is None or matrix.ndim != 2 or matrix.shape[1] != columns or matrix.dtype.kind not in "iu":
        raise UsageError(f"{path} holds no matrix {name!r} of whole numbers in {columns} columns. Is it Ciao's file?")
    return np.asarray(matrix, np.int64)


def _days(rows: Matrix) -> NDArray[np.int64]:
    """How many other rows of the same user, column 0, come before each row (rows,); a repeat has its first's day."""
    if not len(rows):
        return np.empty(0, np.int64)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    original = first[inverse.reshape(-1)]
    by_user = np.argsort(rows[:, 0], kind="stable")
    is_new = (original == np.arange(len(rows)))[by_user]
    new_before = np.cumsum(is_new) - is_new
    user = rows[by_user, 0]
    opens = np.flatnonzero(np.diff(user, prepend=user[0] - 1))
    place = np.empty(len(rows), np.int64)
    place[by_user] = new_before - np.repeat(new_before[opens], np.diff(opens, append=len(rows)))
    return place[original]
