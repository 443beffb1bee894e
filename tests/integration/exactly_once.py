"""The judge of exactly-once: compares what lies on the topics with a plain re-count of the input."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from streams.core.recommendations import Recommendation
from streams.kafka.clients import client_options
from streams.kafka.digest import digest_of, read_profiles
from streams.kafka.records import read_all
from streams.kafka.topics import Topics

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

    from streams.config import Settings
    from streams.kafka.changelog import ProfileRecord

VECTOR_TOLERANCE = 1e-5


@dataclass
class Verdict:
    """Every field but the first four must be zero, and the digests equal."""

    events: int = 0
    users: int = 0
    lists: int = 0
    late_lists: int = 0
    """Of users whom no event of the batch touched: reverse refreshes, and lists that were shed before."""
    profiles_wrong: int = 0
    lists_for_same_offset: int = 0
    lists_of_same_name: int = 0
    lists_on_wrong_partition: int = 0
    coverage_gaps: int = 0
    final_lists_wrong: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing lost, nothing doubled."""
        return self.events > 0 and not (
            self.profiles_wrong
            + self.lists_for_same_offset
            + self.lists_of_same_name
            + self.lists_on_wrong_partition
            + self.coverage_gaps
            + self.final_lists_wrong
        )

    def note(self, text: str) -> None:
        """Keeps the first few findings."""
        if len(self.examples) < 10:
            self.examples.append(text)

    def as_dict(self) -> dict[str, object]:
        """For the report."""
        return asdict(self)


class ExpectedUser:
    """The accepted events of one user, counted the plain way."""

    def __init__(self, window: int) -> None:
        self.offsets: list[int] = []
        self.partition = -1
        self._known: deque[str] = deque(maxlen=window)

    def add(self, record: ConsumerRecord) -> None:
        """Counts the record unless its event_id is in the window."""
        event_id = msgspec.json.decode(record.value).get("event_id")
        self.partition = record.partition
        if event_id is not None:
            if event_id in self._known:
                return
            self._known.append(event_id)
        self.offsets.append(record.offset)


async def expected_users(settings: Settings) -> dict[str, ExpectedUser]:
    """A re-count of the input topic. The input must hold sound events only."""
    users: dict[str, ExpectedUser] = defaultdict(lambda: ExpectedUser(settings.event_id_window))
    async for record in read_all(settings, Topics(settings.prefix).events):
        users[record.key.decode()].add(record)
    return dict(users)


async def judge(settings: Settings) -> Verdict:
    """Reads input, lists and profiles and compares them event by event."""
    expected = await expected_users(settings)
    verdict = Verdict(events=sum(len(u.offsets) for u in expected.values()), users=len(expected))
    profiles = await read_profiles(settings)
    for user in expected.keys() | profiles.keys():
        want = len(expected[user].offsets) if user in expected else 0
        got = profiles[user].events if user in profiles else 0
        if want != got:
            verdict.profiles_wrong += 1
            verdict.note(f"profile of {user}: {got} events, expected {want}")
    await _judge_lists(settings, expected, verdict)
    return verdict


async def _judge_lists(settings: Settings, expected: dict[str, ExpectedUser], verdict: Verdict) -> None:
    """Each list must continue its predecessor: the events between their source offsets, each once.

    A late list may repeat what its predecessor covers, but it has a name of its own and never falls behind.
    """
    seen: set[tuple[int, int]] = set()
    names: set[str] = set()
    covered: dict[str, int] = defaultdict(int)
    async for record in read_all(settings, Topics(settings.prefix).recommendations):
        list_ = msgspec.json.decode(record.value, type=Recommendation)
        verdict.lists += 1
        place = (list_.source.partition, list_.source.offset)
        is_late = list_.rec_id != f"{place[0]}-{place[1]}"
        verdict.late_lists += is_late
        verdict.lists_of_same_name += list_.rec_id in names
        names.add(list_.rec_id)
        if place in seen and not is_late:
            verdict.lists_for_same_offset += 1
            verdict.note(f"two lists for {place}")
        if not is_late:
            seen.add(place)
        user = expected[list_.user_id]
        if list_.source.partition != user.partition or record.partition != user.partition:
            verdict.lists_on_wrong_partition += 1
        upto = sum(1 for offset in user.offsets[covered[list_.user_id] :] if offset <= list_.source.offset)
        covered[list_.user_id] += upto
        if (upto == 0 and not is_late) or list_.profile.events != covered[list_.user_id]:
            verdict.coverage_gaps += 1
            verdict.note(
                f"{list_.user_id} at {place}: {list_.profile.events} events, {covered[list_.user_id]} expected"
            )
    for name, user in expected.items():
        if covered[name] != len(user.offsets):
            verdict.final_lists_wrong += 1
            verdict.note(f"last list of {name} covers {covered[name]} of {len(user.offsets)}")


async def copy_inputs(settings: Settings, copy: Settings) -> int:
    """The same items and events, in the same partitions and order, under another prefix; returns the events."""
    producer = AIOKafkaProducer(**client_options(settings), enable_idempotence=True, linger_ms=20)
    await producer.start()
    try:
        count = 0
        for name in ("items", "events"):
            source, target = getattr(Topics(settings.prefix), name), getattr(Topics(copy.prefix), name)
            sends = []
            async for record in read_all(settings, source):
                sends.append(
                    await producer.send(
                        target,
                        key=record.key,
                        value=record.value,
                        partition=record.partition,
                        timestamp_ms=record.timestamp,
                    )
                )
                count += name == "events"
            for send in sends:
                await send
        return count
    finally:
        await producer.stop()


@dataclass(frozen=True)
class Comparison:
    """Two runs over the same events."""

    digests_equal: bool
    vector_error_max: float

    @property
    def equal(self) -> bool:
        """Integers exact, vectors within 1e-5."""
        return self.digests_equal and self.vector_error_max <= VECTOR_TOLERANCE


async def compare(settings: Settings, undisturbed: Settings) -> Comparison:
    """Compares all profiles of two prefixes."""
    one, two = await read_profiles(settings), await read_profiles(undisturbed)
    error = max((_vector_error(one[user], two[user]) for user in one.keys() & two.keys()), default=0.0)
    return Comparison(digest_of(one) == digest_of(two), error)


def _vector_error(one: ProfileRecord, two: ProfileRecord) -> float:
    return float(np.abs(_unit(one.state) - _unit(two.state)).max())


def _unit(state: bytes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = np.frombuffer(state, "<f4").astype(np.float64)
    return values / (np.linalg.norm(values) or 1.0)
