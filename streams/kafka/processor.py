"""Bytes in, bytes out: what one micro-batch of input records becomes, before any of it is sent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np

from streams.core.errors import RejectReason
from streams.core.events import EVENT_TYPES
from streams.core.recommendations import (
    IndexSummary,
    Neighbour,
    ProfileSummary,
    Recommendation,
    RecommendedItem,
    Source,
)
from streams.core.updater import ACCEPTED, DUPLICATE
from streams.kafka.changelog import decode_profile, encode_profiles, load_profiles
from streams.kafka.codec import RawRecord, Rejected, decode_events, decode_items, decode_users, encode_recommendation
from streams.kafka.dead_letter import DeadLetterBound, OutRecord, dead_letter
from streams.kafka.forgetting import Forgetting, known_users
from streams.kafka.late_lists import ALL_LISTED, OWED_MAX, LateLists
from streams.kafka.partitioner import murmur2_partition
from streams.recommend.asked import NO_EVENT
from streams.recommend.explain import recommended_lists
from streams.recommend.rerank import ShortBecause
from streams.recommend.reverse import ReverseRefreshes
from streams.recommend.shown_lists import list_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka import ConsumerRecord
    from numpy.typing import NDArray

    from streams.core.events import Event
    from streams.core.updater import ProfileUpdate
    from streams.kafka.forgetting import Tombstone
    from streams.kafka.late_lists import Choice, Late, Plan
    from streams.recommend.engine import Engine, Refresh

Keyed = tuple[bytes, bytes | None]
"""None is a tombstone."""


@dataclass(frozen=True, slots=True)
class Output:
    """Everything that one transaction carries, and what to do once it is committed."""

    partition: int
    lists: list[Keyed]
    profiles: list[Keyed]
    dead_letters: list[OutRecord]
    refresh: Refresh | None
    """None when no record of the batch was a readable event, and no late list was allowed."""
    accepted: NDArray[np.int64]
    """Positions in the batch of the events that counted."""
    answered: NDArray[np.int64]
    """Those of them whose user gets a list in this transaction."""
    lists_newest: NDArray[np.int64]
    """Position in the batch of the last event of each list that has one."""
    duplicates: int
    reject_reasons: Counter[str]
    types: Counter[str]
    """Events that counted, by type."""
    late: Late
    stage_s: dict[str, float] = field(default_factory=dict)
    forgotten: Sequence[Tombstone] = ()
    """Users whose profile and list are tombstones in it."""


class _Batch(NamedTuple):
    """Records of one partition, decoded."""

    records: Sequence[RawRecord]
    partition: int
    now_ms: int
    events: list[Event]
    positions: NDArray[np.int64]
    """(e,) of the events among the records."""
    rejects: list[Rejected]


class _Witness(NamedTuple):
    """What a list reflects."""

    rec_id: str
    cause: Literal["event", "neighbour"]
    offset: int
    event_time_ms: int


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
        reverse_per_s: float = 0.0,
        owed_max: int = OWED_MAX,
    ) -> None:
        self.engine = engine
        self.late = LateLists(engine, owed_max)
        self.forgetting = Forgetting()
        self._stage_clock = stage_clock
        self._topic = topic
        self._partitions = partitions
        self._neighbours = neighbours
        self._new_bound = new_bound
        self._bounds: dict[int, DeadLetterBound] = {}
        if reverse_per_s:
            engine.reverse = ReverseRefreshes(neighbours, reverse_per_s)

    def prepare(self, records: Sequence[RawRecord], partition: int, now_ms: int, plan: Plan = ALL_LISTED) -> Output:
        """What the records become, none perhaps, and the late lists of the plan. Nothing in memory changes.

        Raises:
            DeadLetterLimit: too many records of this partition are dead letters; nothing may be committed.
        """
        clock = StageClock(self._stage_clock)
        decoded = self.forgetting.without_late(decode_events(records, now_ms), records)
        checked = self._check_partition(decoded.events, decoded.positions, decoded.rejects, partition)
        batch = _Batch(records, partition, now_ms, *checked)
        bound = self._bounds.get(partition) or self._bounds.setdefault(partition, self._new_bound())
        clock.lap("decode")
        bound.check(len(records), batch.rejects, records)
        if batch.events or plan.late_lists_max:
            return self._answered(batch, plan, clock)
        return self._unanswered(batch, clock)

    def apply(self, output: Output) -> int:
        """Takes a committed output into memory and index; returns how many lists its partition owes now."""
        if output.forgotten:
            self.engine.forget([tombstone.user_id for tombstone in output.forgotten])
            self.forgetting.done(output.partition, output.forgotten)
        if output.refresh is not None:
            self.engine.apply(output.refresh, output.late.numbered_from)
        listed = [] if output.refresh is None else output.refresh.listed.users
        return self.late.apply(output.late, listed, output.partition)

    def prepare_forget(self, partition: int) -> Output:
        """The tombstones of those whose turn it is to be forgotten. Nothing in memory changes.

        Without any when none of them has a profile: then nothing need be committed before `apply`.
        """
        forgotten = self.forgetting.next(partition)
        users = known_users(forgotten, self.engine.store, partition)
        gone: list[Keyed] = [(user.encode(), None) for user in users]
        nothing = self._unanswered(_Batch((), partition, 0, [], np.empty(0, np.int64), []), StageClock(lambda: 0.0))
        late = self._noted(nothing.late, partition, forgotten)
        return replace(nothing, lists=gone, profiles=gone, forgotten=forgotten, late=late)

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
                engine.reencode([loaded.user_ids[row] for row in rows.tolist()], foreign)
                loaded.columns.put(rows, foreign)
            engine.load(loaded.user_ids, loaded.columns, loaded.excluded)

    def load_items(self, records: Sequence[RawRecord]) -> int:
        """Follows the items topic; returns how many records could not be read."""
        decoded = decode_items(records)
        if decoded.upserts:
            self.engine.describe(decoded.upserts)
        self.engine.withdraw(decoded.tombstones)
        return len(decoded.rejects)

    def load_users(self, records: Sequence[ConsumerRecord]) -> int:
        """Follows the users topic; returns how many records could not be read. Who has a tombstone loses the
        attributes here, and the profile when the owner of the partition has committed that (`prepare_forget`).
        """
        decoded = decode_users(records)
        self.engine.describe_users(decoded.upserts, decoded.tombstones)
        self.forgetting.heard(records)
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

    def _answered(self, batch: _Batch, plan: Plan, clock: StageClock) -> Output:
        choices: list[Choice] = []

        def choose(update: ProfileUpdate) -> ProfileUpdate:
            choices.append(self.late.choose(update, batch.partition, batch.now_ms, plan))
            return choices[0].listed

        positions = batch.positions.tolist()
        offsets = np.fromiter((batch.records[p].offset for p in positions), np.int64, len(positions))
        refresh = self.engine.prepare(batch.events, offsets, batch.partition, clock.lap, choose=choose)
        update, choice = refresh.update, choices[0]
        late = self.late.after(choice, update, batch.partition, [batch.records[p].timestamp for p in positions])
        late = self._noted(late, batch.partition)
        values = encode_profiles(update, self.engine.catalogue, self.engine.encoder.name)
        output = Output(
            partition=batch.partition,
            lists=self._lists(refresh, batch, late),
            profiles=[(user.encode(), value) for user, value in zip(update.users, values, strict=True)],
            dead_letters=self._dead_letters(batch),
            refresh=refresh,
            accepted=batch.positions[update.verdicts == ACCEPTED],
            answered=batch.positions[_answered_events(update, choice)],
            lists_newest=batch.positions[update.last_events[choice.answered]],
            duplicates=int((update.verdicts == DUPLICATE).sum()),
            reject_reasons=_reasons(batch),
            types=_accepted_types(update),
            late=late,
            stage_s=clock.stage_s,
        )
        clock.lap("serialise")
        return output

    def _unanswered(self, batch: _Batch, clock: StageClock) -> Output:
        nowhere = np.empty(0, np.int64)
        output = Output(
            partition=batch.partition,
            lists=[],
            profiles=[],
            dead_letters=self._dead_letters(batch),
            refresh=None,
            accepted=nowhere,
            answered=nowhere,
            lists_newest=nowhere,
            duplicates=0,
            reject_reasons=_reasons(batch),
            types=Counter(),
            late=self._noted(self.late.unchanged(batch.partition), batch.partition),
            stage_s=clock.stage_s,
        )
        clock.lap("serialise")
        return output

    def _noted(self, late: Late, partition: int, forgotten: Sequence[Tombstone] = ()) -> Late:
        """With how far the tombstones of `users` are done once this is committed."""
        users_offset = self.forgetting.done_before(partition, forgotten)
        return replace(late, note=msgspec.structs.replace(late.note, users_offset=users_offset))

    def _dead_letters(self, batch: _Batch) -> list[OutRecord]:
        return [dead_letter(batch.records[r.position], self._topic, batch.partition, r) for r in batch.rejects]

    def _lists(self, refresh: Refresh, batch: _Batch, late: Late) -> list[Keyed]:
        """The encoded list of each user who gets one."""
        listed, ranking = refresh.listed, refresh.ranking
        engine = self.engine
        users, items = engine.store.user_ids, engine.catalogue.item_ids
        model = engine.encoder.name
        index = IndexSummary(engine.epoch, len(engine.index))
        counts, versions = listed.columns.events.tolist(), listed.columns.version.tolist()
        nearest = refresh.neighbour_slots[:, : self._neighbours].tolist()
        cosines = np.round(refresh.similarities[:, : self._neighbours].astype(np.float64), 6).tolist()
        categories = engine.catalogue.facts.category_names
        ranked: list[list[RecommendedItem]] = [[] for _ in listed.users]
        short: list[int] = [ShortBecause.NOT for _ in listed.users]
        if ranking is not None:
            ranked = recommended_lists(ranking, users, items, categories, engine.store.facts.names_of(ranking.groups))
            short = ranking.short_because.tolist()
        lists: list[Keyed] = []
        for row, witness in enumerate(_witnesses(listed, batch, late)):
            recommendation = Recommendation(
                rec_id=witness.rec_id,
                user_id=listed.users[row],
                generated_at=batch.now_ms,
                cause=witness.cause,
                source=Source(self._topic, batch.partition, witness.offset, witness.event_time_ms),
                profile=ProfileSummary(counts[row], versions[row], model),
                index=index,
                neighbours=[
                    Neighbour(users[slot], cosine)
                    for slot, cosine in zip(nearest[row], cosines[row], strict=True)
                    if slot >= 0
                ],
                items=ranked[row],
                short_because=ShortBecause(short[row]).word or msgspec.UNSET,
            )
            lists.append((listed.users[row].encode(), encode_recommendation(recommendation)))
        return lists


def _witnesses(listed: ProfileUpdate, batch: _Batch, late: Late) -> list[_Witness]:
    """A list of an event is named by its offset; a late one, which may repeat that offset, by its number too."""
    reverse, number = set(late.reverse), late.numbered_from
    offsets, latest_ms = listed.columns.last_offset.tolist(), listed.columns.last_time_ms.tolist()
    slots = listed.slots.tolist()
    found = []
    for row, last in enumerate(listed.last_events.tolist()):
        if last != NO_EVENT:
            name = list_name(batch.partition, offsets[row])
            found.append(_Witness(name, "event", offsets[row], batch.events[last].timestamp))
            continue
        cause: Literal["event", "neighbour"] = "neighbour" if slots[row] in reverse else "event"
        name = list_name(batch.partition, offsets[row], number)
        found.append(_Witness(name, cause, offsets[row], latest_ms[row]))
        number += 1
    return found


def _answered_events(update: ProfileUpdate, choice: Choice) -> NDArray[np.bool_]:
    """(e,) accepted events of users who get a list now."""
    events = update.events
    is_answered = np.zeros(len(events.users), np.bool_)
    is_answered[events.rows[update.last_events[choice.answered]]] = True
    accepted: NDArray[np.bool_] = update.verdicts == ACCEPTED
    return accepted & is_answered[events.rows]


def _reasons(batch: _Batch) -> Counter[str]:
    return Counter(str(rejected.reason) for rejected in batch.rejects)


def _accepted_types(update: ProfileUpdate) -> Counter[str]:
    counts = np.bincount(update.events.types[update.verdicts == ACCEPTED], minlength=len(EVENT_TYPES))
    return Counter({str(EVENT_TYPES[code]): int(counts[code]) for code in np.flatnonzero(counts).tolist()})
