"""Bytes in, bytes out: what one micro-batch of input records becomes, before any of it is sent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from streams.core.errors import RejectReason
from streams.core.events import EVENT_TYPES
from streams.core.recommendations import (
    IndexSummary,
    Neighbour,
    ProfileSummary,
    Recommendation,
    Source,
)
from streams.core.updater import ACCEPTED, DUPLICATE
from streams.kafka.changelog import decode_profile, encode_profiles, load_profiles
from streams.kafka.codec import RawRecord, Rejected, decode_events, decode_items, encode_recommendation
from streams.kafka.dead_letter import DeadLetterBound, OutRecord, dead_letter
from streams.kafka.partitioner import murmur2_partition
from streams.recommend.explain import recommended_lists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.events import Event
    from streams.core.updater import ProfileUpdate
    from streams.recommend.engine import Engine, Refresh

Keyed = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Output:
    """Everything that one transaction carries, and what to do once it is committed."""

    lists: list[Keyed]
    profiles: list[Keyed]
    dead_letters: list[OutRecord]
    refresh: Refresh | None
    """None when no record of the batch was a readable event."""
    accepted: NDArray[np.int64]
    """Positions in the batch of the events that counted."""
    lists_newest: NDArray[np.int64]
    """Position in the batch of the last event of each list."""
    duplicates: int
    reject_reasons: Counter[str]
    types: Counter[str]
    """Events that counted, by type."""
    stage_s: dict[str, float] = field(default_factory=dict)


class StageClock:
    """Seconds between laps, by stage, as `seconds` counts them."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.stage_s: dict[str, float] = {}
        self._seconds = seconds
        self._then = seconds()

    def lap(self, stage: str) -> None:
        """Ends a stage."""
        now = self._seconds()
        self.stage_s[stage] = self.stage_s.get(stage, 0.0) + now - self._then
        self._then = now


class Processor:
    """Turns micro-batches into outputs, and committed outputs into memory. Called from the compute thread only."""

    def __init__(
        self,
        engine: Engine,
        topic: str,
        partitions: int,
        neighbours: int,
        new_bound: Callable[[], DeadLetterBound],
        stage_clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.engine = engine
        self._stage_clock = stage_clock
        self._topic = topic
        self._partitions = partitions
        self._neighbours = neighbours
        self._new_bound = new_bound
        self._bounds: dict[int, DeadLetterBound] = {}

    def prepare(self, records: Sequence[RawRecord], partition: int, now_ms: int) -> Output:
        """What the records become. Nothing in memory changes.

        Raises:
            DeadLetterLimit: too many records of this partition are dead letters; nothing may be committed.
        """
        clock = StageClock(self._stage_clock)
        decoded = decode_events(records, now_ms)
        events, positions, rejects = self._check_partition(
            decoded.events, decoded.positions, decoded.rejects, partition
        )
        bound = self._bounds.get(partition) or self._bounds.setdefault(partition, self._new_bound())
        clock.lap("decode")
        if not events:
            refresh, accepted, lists_newest, duplicates = None, np.empty(0, np.int64), np.empty(0, np.int64), 0
            lists, profiles = [], []
        else:
            offsets = np.fromiter((records[p].offset for p in positions.tolist()), np.int64, len(positions))
            refresh = self.engine.prepare(events, offsets, partition, clock.lap)
            verdicts = refresh.update.verdicts
            accepted, duplicates = positions[verdicts == ACCEPTED], int((verdicts == DUPLICATE).sum())
            lists_newest = positions[refresh.update.last_events]
            lists = self._lists(refresh, events, partition, now_ms)
            values = encode_profiles(refresh.update, self.engine.catalogue, self.engine.encoder.name)
            profiles = [(user.encode(), value) for user, value in zip(refresh.update.users, values, strict=True)]
        dead_letters = [dead_letter(records[r.position], self._topic, partition, r) for r in rejects]
        bound.check(len(records), rejects, records)
        clock.lap("serialise")
        return Output(
            lists,
            profiles,
            dead_letters,
            refresh,
            accepted,
            lists_newest,
            duplicates,
            Counter(str(r.reason) for r in rejects),
            Counter() if refresh is None else _accepted_types(refresh.update),
            clock.stage_s,
        )

    def apply(self, output: Output) -> None:
        """Takes a committed output into memory and index."""
        if output.refresh is not None:
            self.engine.apply(output.refresh)

    def load_profiles(self, records: Sequence[RawRecord]) -> None:
        """Follows the changelog. The last record of a user wins; a tombstone forgets what came before it.

        Raises:
            CorruptState: a record cannot be read.
        """
        newest = {record.key: record.value for record in records if record.key is not None}
        # Also those who came back within these records: their versions start anew, below the one in memory.
        gone = dict.fromkeys(record.key for record in records if record.key is not None and record.value is None)
        if gone:
            self.engine.forget([key.decode() for key in gone])
        present = [decode_profile(value) for value in newest.values() if value is not None]
        if present:
            engine = self.engine
            loaded = load_profiles(present, engine.catalogue, engine.store.layout, engine.encoder.name)
            if loaded.foreign_model.any():
                rows = np.flatnonzero(loaded.foreign_model).astype(np.int32)
                foreign = loaded.columns.take(rows)
                engine.reencode(foreign)
                loaded.columns.put(rows, foreign)
            engine.load(loaded.user_ids, loaded.columns, loaded.excluded)

    def load_items(self, records: Sequence[RawRecord]) -> int:
        """Follows the items topic; returns how many records could not be read."""
        decoded = decode_items(records)
        if decoded.upserts:
            self.engine.describe(decoded.upserts)
        self.engine.catalogue.withdraw(decoded.tombstones)
        return len(decoded.rejects)

    def forget_bound(self, partition: int) -> None:
        """Starts counting dead letters anew, as after a restart."""
        self._bounds.pop(partition, None)

    def _check_partition(
        self, events: list[Event], positions: NDArray[np.int64], rejects: list[Rejected], partition: int
    ) -> tuple[list[Event], NDArray[np.int64], list[Rejected]]:
        """Rejects events whose producer did not partition by murmur2.

        One user on two partitions would have two profiles and no order. Hashing is slow, so it is left out for
        users whose profile says that they belong here: they passed when they were new.
        """
        store = self.engine.store
        users = list({event.user_id for event in events})
        slots = store.slots(users)
        unproven = np.flatnonzero((slots < 0) | (store.columns.partition[slots] != partition)).tolist()
        misplaced = {users[row] for row in unproven if murmur2_partition(users[row], self._partitions) != partition}
        if not misplaced:
            return events, positions, rejects
        kept = [row for row, event in enumerate(events) if event.user_id not in misplaced]
        wrong = [row for row, event in enumerate(events) if event.user_id in misplaced]
        misplacements = [
            Rejected(
                int(positions[row]),
                RejectReason.WRONG_PARTITION,
                f"Expected this key on partition {murmur2_partition(events[row].user_id, self._partitions)} "
                f"(murmur2), it came on {partition}. Set the producer's partitioner to murmur2 "
                "(librdkafka: partitioner=murmur2_random).",
            )
            for row in wrong
        ]
        together = sorted([*rejects, *misplacements], key=lambda rejected: rejected.position)
        return [events[row] for row in kept], positions[kept], together

    def _lists(self, refresh: Refresh, events: list[Event], partition: int, now_ms: int) -> list[Keyed]:
        """The encoded list of each touched user."""
        update, ranking = refresh.update, refresh.ranking
        engine = self.engine
        users, items = engine.store.user_ids, engine.catalogue.item_ids
        model = engine.encoder.name
        index = IndexSummary(engine.epoch, len(engine.index))
        counts, versions = update.columns.events.tolist(), update.columns.version.tolist()
        last = update.last_events.tolist()
        offsets = update.events.offsets
        nearest = refresh.neighbour_slots[:, : self._neighbours].tolist()
        cosines = np.round(refresh.similarities[:, : self._neighbours].astype(np.float64), 6).tolist()
        ranked = [[] for _ in update.users] if ranking is None else recommended_lists(ranking, users, items)
        lists = []
        for row, user in enumerate(update.users):
            offset = int(offsets[last[row]])
            recommendation = Recommendation(
                rec_id=f"{partition}-{offset}",
                user_id=user,
                generated_at=now_ms,
                cause="event",
                source=Source(self._topic, partition, offset, events[last[row]].timestamp),
                profile=ProfileSummary(counts[row], versions[row], model),
                index=index,
                neighbours=[
                    Neighbour(users[slot], cosine)
                    for slot, cosine in zip(nearest[row], cosines[row], strict=True)
                    if slot >= 0
                ],
                items=ranked[row],
            )
            lists.append((user.encode(), encode_recommendation(recommendation)))
        return lists


def _accepted_types(update: ProfileUpdate) -> Counter[str]:
    counts = np.bincount(update.events.types[update.verdicts == ACCEPTED], minlength=len(EVENT_TYPES))
    return Counter({str(EVENT_TYPES[code]): int(counts[code]) for code in np.flatnonzero(counts).tolist()})
