"""What is known of the items, as columns by catalogue slot: plain arrays, so that compiled loops can read them."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from streams.core.profile import GROWTH, ROWS_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.events import Item
    from streams.core.ports import Floats, Slots

CATEGORIES_KEPT = 4
"""Of an item with more, the first ones; its attributes name them all."""
UNKNOWN = -1

T = TypeVar("T", bound=np.generic)


class ItemFacts:
    """Categories, brand, provider and price of each item. Grows with the catalogue, which alone writes it.

    The arrays are views, valid until the next change of the catalogue. Not thread-safe: compute thread only.
    Memory: 40 bytes an item, and each name once.
    """

    def __init__(self) -> None:
        self._categories = np.full((ROWS_MIN, CATEGORIES_KEPT), UNKNOWN, np.int32)
        self._brand = np.full(ROWS_MIN, UNKNOWN, np.int32)
        self._provider = np.full(ROWS_MIN, UNKNOWN, np.int32)
        self._price = np.full(ROWS_MIN, np.nan, np.float32)
        self._changes = np.zeros(ROWS_MIN, np.int64)
        self._category_codes: dict[str, int] = {}
        self._brand_codes: dict[str, int] = {}
        self._provider_codes: dict[str, int] = {}
        self.change = 0
        """Grows with every call that changed something."""
        self.category_names: list[str] = []
        """By code, as `brand_names` and `provider_names`."""
        self.brand_names: list[str] = []
        self.provider_names: list[str] = []
        self.attributes: list[Sequence[str]] = []
        """(items,) the tokens of `Item.attributes`."""

    def __len__(self) -> int:
        return len(self.attributes)

    @property
    def categories(self) -> Slots:
        """(items, 4) codes of the first categories, each once, padded with -1."""
        return self._categories[: len(self)]

    @property
    def brand(self) -> Slots:
        """(items,) code, -1 where unknown."""
        return self._brand[: len(self)]

    @property
    def provider(self) -> Slots:
        """(items,) code, -1 where unknown."""
        return self._provider[: len(self)]

    @property
    def price(self) -> Floats:
        """(items,) in whatever currency, NaN where unknown."""
        return self._price[: len(self)]

    @property
    def changes(self) -> NDArray[np.int64]:
        """(items,) the value of `change` after the item's facts were written last: what a cache of them compares."""
        return self._changes[: len(self)]

    def extend(self, count: int) -> None:
        """So many items more, of which nothing is known."""
        if count == 0:
            return
        first, end = len(self), len(self) + count
        if end > len(self._price):
            rows = max(end, int(len(self._price) * GROWTH))
            self._categories = grown(self._categories, rows, UNKNOWN)
            self._brand = grown(self._brand, rows, UNKNOWN)
            self._provider = grown(self._provider, rows, UNKNOWN)
            self._price = grown(self._price, rows, np.nan)
            self._changes = grown(self._changes, rows, 0)
        self.change += 1
        self._changes[first:end] = self.change
        self.attributes.extend(repeat((), count))

    def put(self, slots: Slots, items: Sequence[Item], attributes: Sequence[Sequence[str]]) -> None:
        """Takes over what is now known of the items at these slots, and their attribute tokens."""
        self.change += 1
        self._changes[slots] = self.change
        self._brand[slots] = [_code(item.brand, self._brand_codes, self.brand_names) for item in items]
        self._provider[slots] = [_code(item.provider, self._provider_codes, self.provider_names) for item in items]
        prices = np.array([np.nan if item.price is None else item.price for item in items], np.float64)
        self._price[slots] = np.where(np.abs(prices) <= np.finfo(np.float32).max, prices, np.nan)
        for slot, item, tokens in zip(slots.tolist(), items, attributes, strict=True):
            names = [name for name in dict.fromkeys(item.categories) if name][:CATEGORIES_KEPT]
            codes = [_code(name, self._category_codes, self.category_names) for name in names]
            self._categories[slot] = codes + [UNKNOWN] * (CATEGORIES_KEPT - len(codes))
            self.attributes[slot] = tokens

    def category_codes(self, names: Sequence[str]) -> list[int]:
        """Codes of those names that an item had so far; the others are left out."""
        return [self._category_codes[name] for name in names if name in self._category_codes]

    def brand_codes(self, names: Sequence[str]) -> list[int]:
        """Codes of those names that an item had so far; the others are left out."""
        return [self._brand_codes[name] for name in names if name in self._brand_codes]

    def provider_codes(self, names: Sequence[str]) -> list[int]:
        """Codes of those names that an item had so far; the others are left out."""
        return [self._provider_codes[name] for name in names if name in self._provider_codes]


def grown(column: NDArray[T], rows: int, fill: float) -> NDArray[T]:
    """The column with room for `rows`, the new ones filled."""
    larger = np.full((rows, *column.shape[1:]), fill, column.dtype)
    larger[: len(column)] = column
    return larger


def _code(name: str | None, codes: dict[str, int], names: list[str]) -> int:
    if not name:
        return UNKNOWN
    code = codes.setdefault(name, len(names))
    if code == len(names):
        names.append(name)
    return code
