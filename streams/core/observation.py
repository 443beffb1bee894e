"""What an observer of the topics sees: plain values that pass from the Kafka side to the page. Times are epoch ms."""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.core.status import WorkerStatus

ConnectionState = Literal["connecting", "connected", "no-topics", "unreachable"]
TailTopic = Literal["events", "recommendations", "dead-letters"]
SearchState = Literal["none", "searching", "finished", "timed-out", "busy", "failed"]


class Connection(msgspec.Struct, frozen=True):
    """How the observer stands with Kafka; `since` is when this state began."""

    state: ConnectionState
    bootstrap: str
    since: int
    error: str | None = None
    missing_topics: list[str] = []


class PartitionOffsets(msgspec.Struct, frozen=True):
    """One input partition, polled apart from any worker, so that a dead worker stays visible.

    `committed` is None before the group's first commit. `next_offset` and `next_timestamp` are of the next unprocessed
    record: both None while it is not known yet; where there is none, since only markers of transactions are left,
    `next_offset` is `end`.
    """

    partition: int
    begin: int
    end: int
    committed: int | None
    next_timestamp: int | None = None
    next_offset: int | None = None

    @property
    def lag(self) -> int:
        """Records behind: end minus the next one to be read; a group without a commit starts at the beginning."""
        done = self.begin if self.committed is None else max(self.committed, self.begin)
        return max(0, self.end - (done if self.next_offset is None else self.next_offset))


class DeadLetter(msgspec.Struct, frozen=True):
    """One dead letter, shortened for reading: where it came from and why it could not count."""

    reason: str
    message: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: str | None
    excerpt: str


class DeadLetterTally(msgspec.Struct, frozen=True):
    """Dead letters kept in the topic; `complete` is False while the topic is still being counted."""

    by_reason: dict[str, int] = {}
    last: list[DeadLetter] = []
    complete: bool = False


class Observation(msgspec.Struct, frozen=True):
    """Everything about the group at one moment. While Kafka is away the last known figures stay, `polled_at` tells
    from when (None before the first poll). `workers` holds the last report of each worker of the group, with the
    details that it told last since its start; `recent_users` a few users whose lists changed last, newest first."""

    connection: Connection
    polled_at: int | None = None
    partitions: list[PartitionOffsets] = []
    workers: list[WorkerStatus] = []
    dead_letters: DeadLetterTally = DeadLetterTally()
    recent_users: list[str] = []


class SeenRecord(msgspec.Struct, frozen=True):
    """A raw record of a topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None


class TailRecord(msgspec.Struct, frozen=True):
    """A record of a topic as the live tail shows it, shortened for reading; `number` grows with each of the topic."""

    number: int
    partition: int
    offset: int
    timestamp: int
    key: str | None
    value: str | None
    headers: dict[str, str] = {}


class ProfileMoment(msgspec.Struct, frozen=True):
    """A user's profile as it was after `events` events: its unit vector, and the item that it took in last."""

    offset: int
    timestamp: int
    events: int
    model: str
    vector: list[float]
    last_item: str | None = None


class UserObservation(msgspec.Struct, frozen=True):
    """What the topics hold about one user. `events` are the user's newest input records, oldest first, as they were
    sent, so some may be dead letters; `recommendation` is the last record of the user's list, with the value None
    for a tombstone, `before` the one that it replaced, where it is still known. `profiles` are the profile's last
    moments that the topic still holds, oldest first, known a little after the rest. `search` tells how far looking
    back into the topics has come when memory did not have it."""

    user_id: str
    events: list[SeenRecord] = []
    recommendation: SeenRecord | None = None
    search: SearchState = "none"
    before: SeenRecord | None = None
    profiles: list[ProfileMoment] = []

    @property
    def revision(self) -> tuple[int, int, int, SearchState]:
        """Differs whenever there is something new to show."""
        newest = self.events[-1].offset if self.events else -1
        current = self.recommendation.offset if self.recommendation else -1
        moment = self.profiles[-1].offset if self.profiles else -1
        return newest, current, moment, self.search
