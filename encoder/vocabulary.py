"""Which row of an embedding belongs to which word: items, attributes of items and users, event types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from encoder.dataset import EventTable

ATTRIBUTES_MAX = 20_000
"""The most frequent tokens of a log are embedded; a table of them is then at most 5 MB at 64 dimensions."""
ATTRIBUTES_PER_OWNER_MAX = 16
"""Further tokens of one item or user are not read."""
ATTRIBUTE_OWNERS_MIN = 2
"""A token of one owner alone says no more than the owner's id."""
NO_ATTRIBUTE = 0
UNKNOWN_TYPE = 0


@dataclass(frozen=True)
class Vocabulary:
    """Rows are positions in these lists, and never change: what is new is appended.

    Attribute rows start at 1, for 0 means none; type rows too, for 0 is a type that training never saw.
    """

    items: list[str]
    item_attributes: list[str]
    user_attributes: list[str]
    types: list[str]
    item_rows: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("items", "item_attributes", "user_attributes", "types"):
            words = getattr(self, name)
            if len(set(words)) != len(words):
                raise ValueError(f"The vocabulary names one of its {name} twice.")
        object.__setattr__(self, "item_rows", dict(zip(self.items, range(len(self.items)), strict=True)))

    @classmethod
    def of(cls, table: EventTable) -> Self:
        """The words of a log."""
        return cls(
            items=list(table.item_ids),
            item_attributes=_frequent(table.item_attributes),
            user_attributes=_frequent(table.user_attributes),
            types=list(table.type_names),
        )

    def extended(self, table: EventTable) -> Self:
        """This vocabulary with the words of `table` that it lacks, at the end.

        Raises:
            ValueError: the table's items do not begin with these, in this order.
        """
        if table.item_ids[: len(self.items)] != self.items:
            raise ValueError("The table was not built on this vocabulary: its first items are others.")
        return type(self)(
            items=list(table.item_ids),
            item_attributes=_appended(self.item_attributes, _frequent(table.item_attributes), ATTRIBUTES_MAX),
            user_attributes=_appended(self.user_attributes, _frequent(table.user_attributes), ATTRIBUTES_MAX),
            types=_appended(self.types, table.type_names, len(self.types) + len(table.type_names)),
        )

    def item_attribute_rows(self, owners: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """(n, a) rows of the tokens of each owner that are known, padded with 0."""
        return _padded(owners, self._item_attribute_row)

    def user_attribute_rows(self, owners: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """(n, a) rows of the tokens of each owner that are known, padded with 0."""
        return _padded(owners, self._user_attribute_row)

    @cached_property
    def _item_attribute_row(self) -> dict[str, int]:
        return _rows(self.item_attributes)

    @cached_property
    def _user_attribute_row(self) -> dict[str, int]:
        return _rows(self.user_attributes)

    def type_rows(self, names: Sequence[str]) -> NDArray[np.int64]:
        """(n,) rows of event types; 0 for one that training never saw."""
        row_of = _rows(self.types)
        return np.array([row_of.get(name, UNKNOWN_TYPE) for name in names], np.int64)


def mean_of_rows(table: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    """(n, d) mean of the embeddings at rows (n, a) that are not 0; `table`'s row 0 is zeros. Zeros where all are 0."""
    known = (rows != NO_ATTRIBUTE).sum(axis=1, keepdims=True)
    mean: NDArray[np.floating[Any]] = table[rows].sum(axis=1) / np.maximum(1, known)
    return mean


def _frequent(owners: Sequence[Sequence[str]]) -> list[str]:
    counts = Counter(token for tokens in owners for token in dict.fromkeys(tokens[:ATTRIBUTES_PER_OWNER_MAX]))
    often = [token for token, count in counts.most_common(ATTRIBUTES_MAX) if count >= ATTRIBUTE_OWNERS_MIN]
    return sorted(often)


def _appended(known: list[str], words: Iterable[str], most: int) -> list[str]:
    return list(dict.fromkeys([*known, *words]))[: max(most, len(known))]


def _rows(words: Sequence[str]) -> dict[str, int]:
    return {word: row for row, word in enumerate(words, 1)}


def _padded(owners: Sequence[Sequence[str]], row_of: Mapping[str, int]) -> NDArray[np.int64]:
    found = [[row_of[t] for t in tokens[:ATTRIBUTES_PER_OWNER_MAX] if t in row_of] for tokens in owners]
    rows = np.full((len(found), max(map(len, found), default=0) or 1), NO_ATTRIBUTE, np.int64)
    for owner, known in enumerate(found):
        rows[owner, : len(known)] = known
    return rows
