"""A source as the table that training and evaluation read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from encoder.dataset import EventTable, EventTableBuilder
from encoder.errors import UnusableData
from streams.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streams.sources.port import Source

PROGRESS_EVENTS = 10_000
MS_PER_S = 1000


def event_table(
    source: Source,
    *,
    known_items: Sequence[str] = (),
    limit: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> EventTable:
    """All events of a source, or the first `limit`, with what the log knows of items and users.

    Items that the log describes enter even without events. Where a log tells an order only, all times are 0: gaps
    then say nothing, and a split in time is refused.

    Args:
        source: the log.
        known_items: the vocabulary of a model that is to be trained on; these items keep their rows.
        limit: read no more events than this.
        on_progress: called with the number of events read, now and then.

    Raises:
        UsageError: the log cannot be read, or nothing can be learned from it.
    """
    has_times = not source.describe().order_only
    builder = EventTableBuilder(known_items)
    try:
        for event in source.events():
            if limit is not None and len(builder) >= limit:
                break
            time_s = event.timestamp // MS_PER_S if has_times else 0
            builder.add(event.user_id, event.item_id, event.type.value, time_s, event.value)
            if len(builder) % PROGRESS_EVENTS == 0:
                on_progress(len(builder))
        for item in source.items():
            builder.describe_item(item.item_id, item.description(), item.attributes())
        for user in source.users():
            builder.describe_user(user.user_id, user.tokens())
        on_progress(len(builder))
        return builder.build()
    except UnusableData as error:
        raise UsageError(str(error)) from error
