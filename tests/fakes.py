"""Stand-ins that tests hand in where the program takes a port."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from streams.core.observation import (
    Connection,
    DeadLetter,
    DeadLetterTally,
    Observation,
    PartitionOffsets,
    SeenRecord,
    TailRecord,
    TailTopic,
    UserObservation,
)
from streams.core.recommendations import (
    BecauseOf,
    IndexSummary,
    Neighbour,
    ProfileSummary,
    Recommendation,
    RecommendedItem,
    SimilarUsers,
    Source,
    Trending,
)
from streams.core.status import PartitionStatus, Quantiles, WorkerStatus, WorkerTotals

START_MS = 1_700_000_000_000


@dataclass
class FakeObserver:
    """Shows what it is given. Change the attributes to make something happen."""

    observation: Observation = field(default_factory=lambda: Observation(Connection("connecting", "kafka:9092", 0)))
    users: dict[str, UserObservation] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    newest_lists: list[SeenRecord] = field(default_factory=list)
    tails: dict[TailTopic, list[TailRecord]] = field(default_factory=dict)

    def snapshot(self) -> Observation:
        """What was set."""
        return self.observation

    def user(self, user_id: str) -> UserObservation:
        """What was set, or a search that found nothing."""
        return self.users.get(user_id, UserObservation(user_id, search="finished"))

    def title(self, item_id: str) -> str | None:
        """What was set."""
        return self.titles.get(item_id)

    def lists(self, count: int) -> list[SeenRecord]:
        """What was set."""
        return self.newest_lists[:count]

    def tail(self, topic: TailTopic, after: int) -> list[TailRecord]:
        """What was set."""
        return [record for record in self.tails.get(topic, []) if record.number > after]


def connected(since: int = START_MS) -> Connection:
    """A connection in good order."""
    return Connection("connected", "kafka:9092", since)


def worker_status(
    name: str = "w1", partitions: dict[int, tuple[int, int]] | None = None, now_ms: int = START_MS, **changes: object
) -> WorkerStatus:
    """A running worker; `partitions` maps each partition to its position and high watermark."""
    held = [
        PartitionStatus(p, "running", position, end, end - position, 0.0)
        for p, (position, end) in (partitions or {}).items()
    ]
    status = WorkerStatus(
        worker=name,
        group="nearstream",
        state="running",
        started_at=now_ms - 60_000,
        reported_at=now_ms,
        web_url=None,
        partitions=held,
        totals=WorkerTotals(events=1000, lists=900, duplicates=2, dead_letters={}, batches=50, restarts=0),
        events_per_s=120.0,
        lists_per_s=80.0,
        freshness_ms=Quantiles(42.0, 180.0),
        stages_ms={"fetch": 2.5, "decode": 1.0, "encode": 3.0, "search": 6.5, "rank": 4.0, "transaction": 18.0},
        index_users=1895,
        index_epoch=77,
        items=3047,
        model="decayed-mean@1",
        rss_bytes=210_000_000,
    )
    return msgspec.structs.replace(status, **changes)


def dead_letter(offset: int = 9, reason: str = "not-json") -> DeadLetter:
    """A dead letter of partition 1."""
    return DeadLetter(reason, "Expected JSON.", "events", 1, offset, START_MS, "u7", "{oops")


def observation(
    partitions: list[PartitionOffsets], workers: list[WorkerStatus], now_ms: int = START_MS, **changes: object
) -> Observation:
    """A poll at `now_ms` over a good connection."""
    seen = Observation(connected(), now_ms, partitions, workers, DeadLetterTally(complete=True))
    return msgspec.structs.replace(seen, **changes)


def recommendation(user_id: str = "u1", events: int = 42, rec_id: str = "r-1") -> Recommendation:
    """A list with a reason of each kind."""
    return Recommendation(
        rec_id=rec_id,
        user_id=user_id,
        generated_at=START_MS,
        cause="event",
        source=Source("events", 3, 1881, START_MS - 90),
        profile=ProfileSummary(events, events, "decayed-mean@1"),
        index=IndexSummary(7, 1895),
        neighbours=[Neighbour("u9", 0.93), Neighbour("u12", 0.871)],
        items=[
            RecommendedItem("i5", 0.81, [SimilarUsers(["u9", "u12", "u30"], 0.6), BecauseOf("i2", 0.4)]),
            RecommendedItem("i6", 0.4, [Trending(1.0)]),
        ],
    )


def list_record(found: Recommendation, offset: int = 500) -> SeenRecord:
    """The list as it stands in its topic."""
    return SeenRecord("recommendations", 3, offset, START_MS, msgspec.json.encode(found))


def event_record(offset: int, item_id: str = "i2", kind: str = "view", **fields: object) -> SeenRecord:
    """An input record as a producer sends it."""
    sent = {"user_id": "u1", "item_id": item_id, "type": kind, "timestamp": START_MS - 60_000, **fields}
    return SeenRecord("events", 3, offset, START_MS - 60_000, msgspec.json.encode(sent))
