"""What the newest lists are like together: how much of the catalogue they reach, and how much goes to the few. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.core.observation import SeenRecord

SAMPLE_LISTS = 200
TOP_SHARE = 0.01
"""Of the items that are shown, and of the users that are named, those that count as popular: the most frequent one in a
hundred, at least one."""
COLD_EVENTS_MAX = 5
"""A user with fewer events is new."""


class _Id(msgspec.Struct):
    item_id: str


class _User(msgspec.Struct):
    user_id: str


class _Profile(msgspec.Struct):
    events: int


class _ListOutline(msgspec.Struct):
    items: list[_Id]
    neighbours: list[_User]
    profile: _Profile


class ListFigures(msgspec.Struct, frozen=True):
    """Of the newest `lists`. Shares run from 0 to 1 and are None where there is nothing to share.

    `coverage` is the share of the catalogue that is on one of them, `popularity_share` that of the places which the
    most shown hundredth of the items on them takes, `hub_share` the same of neighbours; `cold_share` is that of new
    users.
    """

    lists: int
    coverage: float | None
    popularity_share: float | None
    hub_share: float | None
    cold_share: float | None


def list_figures(records: Iterable[SeenRecord], catalogue_items: int) -> ListFigures:
    """Of these records of `recommendations`; tombstones and records that cannot be read do not count."""
    items: Counter[str] = Counter()
    neighbours: Counter[str] = Counter()
    lists = cold = 0
    for record in records:
        try:
            outline = msgspec.json.decode(record.value or b"", type=_ListOutline)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        lists += 1
        cold += outline.profile.events < COLD_EVENTS_MAX
        items.update(item.item_id for item in outline.items)
        neighbours.update(user.user_id for user in outline.neighbours)
    return ListFigures(
        lists,
        round(min(1.0, len(items) / catalogue_items), 4) if catalogue_items and lists else None,
        _top_share(items),
        _top_share(neighbours),
        round(cold / lists, 4) if lists else None,
    )


def _top_share(counts: Counter[str]) -> float | None:
    total = counts.total()
    if not total:
        return None
    top = counts.most_common(max(1, round(TOP_SHARE * len(counts))))
    return round(sum(count for _, count in top) / total, 4)
