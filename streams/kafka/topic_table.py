"""The topics `events`, `items` and `users` as the table that training reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from encoder.dataset import EventTable, EventTableBuilder
from encoder.errors import UnusableData
from streams.core.errors import UsageError
from streams.kafka.codec import decode_events, decode_items, decode_users
from streams.kafka.records import read_all
from streams.kafka.topics import Topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from streams.config import Settings
    from streams.kafka.examine import RawRecord

RECORDS_AT_ONCE = 2000
MS_PER_S = 1000


class TopicTable(NamedTuple):
    """What was read."""

    table: EventTable
    rejected: int
    """Records of `events` that are no event; a worker makes dead letters of them."""


async def topic_table(
    settings: Settings,
    *,
    known_items: Sequence[str] = (),
    limit: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> TopicTable:
    """All committed events up to now, or the first `limit`, with what the topics say of items and users.

    Who has a tombstone on `users` is left out: nothing is learned from the forgotten.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        UsageError: a topic does not exist, or nothing can be learned from the events.
    """
    topics = Topics(settings.prefix)
    builder, rejected = EventTableBuilder(known_items), 0
    forgotten: set[str] = set()
    async for records in _batches(settings, topics.users):
        decoded_users = decode_users(records)
        forgotten.difference_update(user.user_id for user in decoded_users.upserts)
        forgotten.update(decoded_users.tombstones)
        for user in decoded_users.upserts:
            builder.describe_user(user.user_id, user.tokens())
    now_ms = int(time.time() * MS_PER_S)
    async for records in _batches(settings, topics.events):
        decoded = decode_events(records, now_ms)
        rejected += len(decoded.rejects)
        known = [event for event in decoded.events if event.user_id not in forgotten]
        for event in known[: None if limit is None else limit - len(builder)]:
            builder.add(event.user_id, event.item_id, event.type.value, event.timestamp // MS_PER_S, event.value)
        on_progress(len(builder))
        if limit is not None and len(builder) >= limit:
            break
    async for records in _batches(settings, topics.items):
        for item in decode_items(records).upserts:
            builder.describe_item(item.item_id, item.description(), item.attributes())
    try:
        return TopicTable(builder.build(), rejected)
    except UnusableData as error:
        raise UsageError(str(error)) from error


async def _batches(settings: Settings, topic: str) -> AsyncIterator[list[RawRecord]]:
    batch: list[RawRecord] = []
    async for record in read_all(settings, topic):
        batch.append(record)
        if len(batch) == RECORDS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
