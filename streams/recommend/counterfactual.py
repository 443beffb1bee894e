"""A user's list as it would be without some items of the history, and after events that did not happen.

Nothing that is stored, learned or remembered changes: profiles move on copies, and no list is published. What
everybody's events taught, the user's among them, stays as it is. Called in the compute thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from streams.core.events import FUTURE_MS_MAX, Event
from streams.core.histories import Histories
from streams.core.profile import NO_ITEM
from streams.core.recommendations import Neighbour
from streams.core.updater import ProfileUpdate
from streams.core.what_if import Move, SupposedList, WhatIf, WhatIfRefusal
from streams.recommend.asked import rows_of, with_stored
from streams.recommend.explain import recommended_lists
from streams.recommend.rerank import ShortBecause
from streams.recommend.what_if import without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.core.what_if import SupposedEvent, WhatIfQuestion
    from streams.recommend.engine import Engine

COSINE_DIGITS = 6
MS_PER_S = 1000


def what_if(
    engine: Engine, user_id: str, question: WhatIfQuestion, now_ms: int, neighbours: int
) -> WhatIf | WhatIfRefusal:
    """The list of a user as the question supposes, beside the list now.

    Args:
        engine: as it is; of what it remembers, only caches may be refreshed.
        user_id: whose list.
        question: what to leave out and what to add.
        now_ms: epoch ms, of supposed events without a time of their own.
        neighbours: most neighbours in each list.
    """
    slot = engine.store.slot_of.get(user_id)
    if slot is None:
        return WhatIfRefusal(
            "unknown-user",
            "There is no profile of this user: no event of theirs has counted yet, or they were forgotten.",
        )
    stored = _stored(engine, slot)
    if (refusal := _refusal(engine, stored, question, now_ms)) is not None:
        return refusal
    now, then, left_out = stored, stored, 0
    if question.without:
        now = _encoded_anew(engine, stored)
        then, left_out = _left_out(engine, stored, question.without)
    if question.events:
        then = _after(engine, then, question.events, now_ms)
    list_now, list_then = (_list(engine, each, neighbours) for each in (now, then))
    ranks_now, ranks_then = _ranks(list_now), _ranks(list_then)
    both = [item for item in ranks_then if item in ranks_now]
    return WhatIf(
        user_id=user_id,
        answered_at=now_ms,
        model=engine.encoder.name,
        profile_events=int(stored.columns.events[0]),
        left_out=left_out,
        added=len(question.events),
        profile_cosine=_cosine(now, then),
        now=list_now,
        then=list_then,
        entered=[item for item in ranks_then if item not in ranks_now],
        left=[item for item in ranks_now if item not in ranks_then],
        moved=[Move(i, ranks_now[i], ranks_then[i]) for i in both if ranks_now[i] != ranks_then[i]],
    )


def _stored(engine: Engine, slot: int) -> ProfileUpdate:
    """The user as the store has them: an update by no event."""
    nothing = engine.prepare([], np.empty(0, np.int64), 0, lists=False, lessons=False).update
    return with_stored(nothing, np.array([slot], np.int32), engine.store, engine.encoder)


def _refusal(engine: Engine, stored: ProfileUpdate, question: WhatIfQuestion, now_ms: int) -> WhatIfRefusal | None:
    unknown = [event.item_id for event in question.events if event.item_id not in engine.catalogue.slot_of]
    if unknown:
        return WhatIfRefusal(
            "unknown-item",
            f"Expected items that are known, came {unknown[0]!r}, which is neither on the items topic nor in any "
            "event; is it spelled as there?",
        )
    latest_ms = now_ms + FUTURE_MS_MAX
    late = [event.timestamp for event in question.events if event.timestamp is not None and event.timestamp > latest_ms]
    if late:
        return WhatIfRefusal(
            "future-timestamp",
            f"Expected a timestamp at most an hour ahead of {now_ms}, came {late[0]}. Leave it out for an event now.",
        )
    remembered = _remembered(engine, stored)
    strangers = [item for item in question.without if item not in remembered]
    if strangers:
        which = f"remembered are events of {', '.join(remembered)}" if remembered else "no event is remembered"
        return WhatIfRefusal(
            "not-remembered",
            f"Expected items that the profile remembers, came {strangers[0]!r}; {which}.",
        )
    return None


def _remembered(engine: Engine, profile: ProfileUpdate) -> dict[str, None]:
    """The remembered items, newest first, each once."""
    columns = profile.columns
    newest_first = columns.recent_items[0, : columns.recent_count[0]][::-1].tolist()
    return dict.fromkeys(engine.catalogue.item_ids[slot] for slot in newest_first)


def _encoded_anew(engine: Engine, profile: ProfileUpdate) -> ProfileUpdate:
    """The profile as its remembered events alone make it."""
    columns = profile.columns.take(np.zeros(1, np.int32))
    engine.reencode(profile.users, columns)
    return replace(profile, columns=columns, vectors=engine.encoder.vectors(columns.state))


def _left_out(engine: Engine, profile: ProfileUpdate, items: Sequence[str]) -> tuple[ProfileUpdate, int]:
    """The profile as if these items had never been touched, and how many remembered events that takes out.

    They are no longer hidden from lists either, bought or not.
    """
    columns = profile.columns.take(np.zeros(1, np.int32))
    history, before = Histories.of(columns), int(columns.recent_count[0])
    slots = [engine.catalogue.slot_of[item] for item in items]
    removed = np.isin(history.items, slots) & (np.arange(history.items.shape[1]) < before)
    kept = without(history, removed)
    left = int(kept.counts[0])
    latest_s = history.times_s[0, :before].max()
    if left and kept.times_s[0, :left].max() < latest_s and columns.last_time_ms[0] // MS_PER_S <= latest_s:
        columns.last_time_ms[0] = int(kept.times_s[0, :left].max()) * MS_PER_S
    if not left:
        columns.events[0] = 0  # whoever comes next is the first
    kept.items[0, left:] = NO_ITEM
    columns.recent_items, columns.recent_types, columns.recent_times_s, columns.recent_count = kept
    columns.recent_total -= before - left
    excluded = tuple(item for item in profile.excluded[0] if item not in slots)
    return _encoded_anew(engine, replace(profile, columns=columns, excluded=[excluded])), before - left


def _after(engine: Engine, profile: ProfileUpdate, events: Sequence[SupposedEvent], now_ms: int) -> ProfileUpdate:
    """The profile after the supposed events, as if they were the next ones on the user's partition."""
    user_id, columns = profile.users[0], profile.columns
    first = int(columns.last_offset[0]) + 1
    coming = [
        Event(user_id, e.item_id, e.type, now_ms if e.timestamp is None else e.timestamp, value=e.value) for e in events
    ]
    offsets = np.arange(first, first + len(coming), dtype=np.int64)
    moved = engine.supposed(profile, coming, offsets, int(columns.partition[0]))
    return rows_of(moved, np.zeros(1, np.int32))


def _list(engine: Engine, profile: ProfileUpdate, neighbours: int) -> SupposedList:
    """In the words of the public message."""
    slots, similarities, ranking = engine.lists(profile)
    users = engine.store.user_ids
    near = [
        Neighbour(users[slot], round(float(similarity), COSINE_DIGITS))
        for slot, similarity in zip(slots[0, :neighbours].tolist(), similarities[0].tolist(), strict=False)
        if slot >= 0
    ]
    if ranking is None:
        return SupposedList(near, [])
    catalogue, groups = engine.catalogue, engine.store.facts.names_of(ranking.groups)
    items = recommended_lists(ranking, users, catalogue.item_ids, catalogue.facts.category_names, groups)[0]
    return SupposedList(near, items, ShortBecause(int(ranking.short_because[0])).word)


def _cosine(now: ProfileUpdate, then: ProfileUpdate) -> float | None:
    if not (now.vectors.any() and then.vectors.any()):
        return None
    return round(float(now.vectors[0] @ then.vectors[0]), COSINE_DIGITS)


def _ranks(list_: SupposedList) -> dict[str, int]:
    """Of the items, from 1, in their order."""
    return {item.item_id: rank for rank, item in enumerate(list_.items, 1)}
