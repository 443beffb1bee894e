"""Forgetting people: a tombstone on the topic `users` takes a user's profile and list out of log, memory and index.

Who owns the user's partition of the events writes tombstones to `profiles` and `recommendations`, in a transaction
that also notes how far the tombstones of `users` are done (`CommitNote.users_offset`): each takes effect exactly once,
so that who comes back later is not forgotten again by a restart. The other workers learn of it from `profiles`.

What was sent to the events before the tombstone does not bring the profile back, though a worker reads it later: it is
passed over by the times of the two records. The lists of others, which may name a forgotten user as a neighbour, lose
the name with their next refresh.

`users` has a partition for each of the events', and the same keys in it: murmur2 decides both.
"""

from __future__ import annotations

import logging
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from aiokafka import TopicPartition

from streams.core.errors import RejectedRecord
from streams.kafka.codec import DecodedBatch
from streams.kafka.examine import checked_tombstone
from streams.kafka.reader import reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka import ConsumerRecord

    from streams.config import Settings
    from streams.core.profile import ProfileStore
    from streams.kafka.codec import RawRecord

logger = logging.getLogger(__name__)

FORGET_AT_ONCE = 500
"""Users of one transaction."""
GONE_MAX = 10_000
"""Tombstones that are remembered by name, the newest: 2 MB."""
POLL_MS = 200


class Tombstone(NamedTuple):
    """Somebody asked to be forgotten."""

    offset: int
    """In the user's partition of `users`."""
    user_id: str
    sent_ms: int
    """When Kafka got it, or the producer sent it, epoch ms."""


class Unread(NamedTuple):
    """Offsets of a partition of `users` whose tombstones nobody remembers."""

    first: int
    end: int


class Forgetting:
    """Whom a worker has still to forget, by partition. Called from the compute thread only, but for `is_due`."""

    def __init__(self) -> None:
        self.late_events = 0
        """Events that were sent before their user's tombstone, read after it, and passed over."""
        self._read: dict[int, int] = {}
        self._pending: dict[int, deque[Tombstone]] = {}
        self._done: dict[int, int] = {}
        """By partition that is taken up, the offset before which everything was done then."""
        self._gone: dict[str, int] = {}

    def heard(self, records: Sequence[ConsumerRecord]) -> None:
        """Follows the topic: all partitions, each in order, from the beginning."""
        for record in records:
            self._read[record.partition] = record.offset + 1
        for partition, tombstone in tombstones_of(records):
            self._gone.pop(tombstone.user_id, None)
            self._gone[tombstone.user_id] = tombstone.sent_ms
            if partition in self._pending and tombstone.offset >= self._done[partition]:
                self._pending[partition].append(tombstone)
        for user_id in list(islice(self._gone, max(0, len(self._gone) - GONE_MAX))):
            del self._gone[user_id]

    def take_up(self, partition: int, done: int | None) -> Unread | None:
        """Begins with a partition that this worker owns now; from here on what is heard of it waits to be done.

        `done` is what the log says, None where nothing was ever done. What lies between that and what was heard so
        far is to be read, and given to `add`.
        """
        self._pending[partition] = deque()
        self._done[partition] = done or 0
        unread = Unread(done or 0, self._read.get(partition, 0))
        return unread if unread.first < unread.end else None

    def add(self, partition: int, unread: Iterable[Tombstone]) -> None:
        """Tombstones from before `take_up`, to be done first."""
        self._pending[partition].extendleft(reversed(list(unread)))

    def give_up(self, partition: int) -> None:
        """The next owner reads from the log what is left to do."""
        self._pending.pop(partition, None)

    def is_due(self, partition: int) -> bool:
        """Whether somebody waits to be forgotten; from any thread."""
        return bool(self._pending.get(partition))

    def next(self, partition: int) -> list[Tombstone]:
        """Those whose turn it is, at most 500."""
        return list(islice(self._pending.get(partition, ()), FORGET_AT_ONCE))

    def done(self, partition: int, tombstones: Sequence[Tombstone]) -> None:
        """These, which `next` gave last, are forgotten by log and memory."""
        if pending := self._pending.get(partition):
            for _ in range(min(len(tombstones), len(pending))):
                pending.popleft()

    def done_before(self, partition: int, tombstones: Sequence[Tombstone] = ()) -> int | None:
        """The offset of `users` before which nothing is left to do once these are done; None: nothing was heard."""
        pending = self._pending.get(partition, deque())
        if len(pending) > len(tombstones):
            return pending[len(tombstones)].offset
        return self._read.get(partition)

    def without_late(self, decoded: DecodedBatch, records: Sequence[RawRecord]) -> DecodedBatch:
        """Without the events that were sent before their user's tombstone: they must not bring a profile back."""
        if not self._gone:
            return decoded
        places = decoded.positions.tolist()
        kept = [
            row
            for row, event in enumerate(decoded.events)
            if records[places[row]].timestamp > self._gone.get(event.user_id, -1)
        ]
        if len(kept) == len(places):
            return decoded
        self.late_events += len(places) - len(kept)
        return DecodedBatch(
            [decoded.events[row] for row in kept], decoded.positions[np.array(kept, np.int64)], decoded.rejects
        )


def tombstones_of(records: Iterable[ConsumerRecord]) -> Iterable[tuple[int, Tombstone]]:
    """Those that name a user, with their partitions."""
    for record in records:
        if record.value is None:
            try:
                user_id = checked_tombstone(record.key, "user_id")
            except RejectedRecord:
                continue  # counted among the unreadable ones by whoever decodes the topic
            yield record.partition, Tombstone(record.offset, user_id, record.timestamp)


def known_users(tombstones: Iterable[Tombstone], store: ProfileStore, partition: int) -> list[str]:
    """Those who have a profile, each once. One of another partition is left alone: only its owner may write to it."""
    users = list(dict.fromkeys(tombstone.user_id for tombstone in tombstones))
    slots = store.slots(users)
    is_here = store.columns.partition[slots] == partition
    strays = np.flatnonzero((slots >= 0) & ~is_here).tolist()
    if strays:
        logger.warning(
            "%d users are not forgotten: their tombstones came on partition %d, their events come on another one (%r). "
            "Set the partitioner of whoever writes the users topic to murmur2 (librdkafka: murmur2_random).",
            len(strays),
            partition,
            users[strays[0]],
        )
    return [users[row] for row in np.flatnonzero((slots >= 0) & is_here).tolist()]


async def read_tombstones(settings: Settings, topic: str, partition: int, unread: Unread) -> list[Tombstone]:
    """The tombstones at these offsets.

    Raises:
        KafkaError, TimeoutError: Kafka does not answer.
    """
    found: list[Tombstone] = []
    tp = TopicPartition(topic, partition)
    async with reader(settings, isolation_level="read_committed") as consumer:
        consumer.assign([tp])
        consumer.seek(tp, unread.first)
        while await consumer.position(tp) < unread.end:
            records = (await consumer.getmany(tp, timeout_ms=POLL_MS)).get(tp, [])
            found += [tombstone for _, tombstone in tombstones_of(records) if tombstone.offset < unread.end]
    return found
