"""A question of what a list would be, and its answer, as the page's Person tab shows them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streams.core.recommendations import SHORT_SENTENCES
from streams.dashboard.person import ItemView, NeighbourView, ReasonView, reason_sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.core.serving import ServedProfile
    from streams.core.what_if import SupposedList, WhatIf

    Titles = Callable[[str], str | None]


class RememberedItem(msgspec.Struct, frozen=True):
    """An item of the history, with its newest remembered event; times are epoch ms."""

    item_id: str
    title: str | None
    type: str | None
    timestamp: int
    events: int


class SupposedListView(msgspec.Struct, frozen=True):
    """A list that nobody gets; `short_because` is a sentence."""

    neighbours: list[NeighbourView]
    items: list[ItemView]
    short_because: str | None


class WhatIfView(msgspec.Struct, frozen=True):
    """The list as it would be beside the list now; see `core.what_if.WhatIf`."""

    answered_at: int
    model: str
    left_out: int
    added: int
    profile_cosine: float | None
    now: SupposedListView
    then: SupposedListView


def remembered(profile: ServedProfile, title_of: Titles) -> list[RememberedItem]:
    """The items that can be left out, the one touched last first."""
    found: dict[str, RememberedItem] = {}
    for event in reversed(profile.recent_items):
        known = found.get(event.item_id)
        found[event.item_id] = (
            RememberedItem(event.item_id, title_of(event.item_id), event.type, event.timestamp, 1)
            if known is None
            else msgspec.structs.replace(known, events=known.events + 1)
        )
    return list(found.values())


def what_if_view(found: WhatIf, title_of: Titles) -> WhatIfView:
    """With titles, and each reason as a sentence."""
    return WhatIfView(
        found.answered_at,
        found.model,
        found.left_out,
        found.added,
        found.profile_cosine,
        _list_view(found.now, title_of),
        _list_view(found.then, title_of),
    )


def _list_view(list_: SupposedList, title_of: Titles) -> SupposedListView:
    return SupposedListView(
        [NeighbourView(near.user_id, near.similarity) for near in list_.neighbours],
        [
            ItemView(
                item.item_id,
                title_of(item.item_id),
                item.score,
                [ReasonView(str(r.__struct_config__.tag), reason_sentence(r, title_of), r.share) for r in item.reasons],
            )
            for item in list_.items
        ],
        None if list_.short_because is None else SHORT_SENTENCES[list_.short_because],
    )
