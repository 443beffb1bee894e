"""The profile store against a plain model: batches, retries, replays, aborts, forgetting and a second store."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.config import DEFAULT_TYPE_WEIGHTS
from streams.core.events import EVENT_TYPES, Event, EventType
from streams.core.ports import Floats
from streams.core.updater import ACCEPTED, APPLIED_BEFORE, DUPLICATE, ProfileUpdate, hash_event_id
from streams.kafka.changelog import decode_profile, encode_profiles, load_profiles
from tests.fakes_core import DAY_MS, DIM, START_MS, World, contents, event, stepped, world

RECENT, WINDOW, EXCLUDED, PARTITION = 4, 3, 2, 6
HALF_LIFE_MS = 3_600_000
USERS = ["u1", "u2", "ü 3", "👤"]
ITEMS = ["a", "b", "ç", "商", "e", "f"]


@dataclass
class ModelUser:
    """What a profile should be."""

    events: int = 0
    last_offset: int = -1
    last_time_ms: int = 0
    recents: list[tuple[str, int, int]] = field(default_factory=list)
    recent_total: int = 0
    ids: list[int] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    state: Floats = field(default_factory=lambda: np.zeros(DIM, np.float32))

    def take(self, seen: Event, offset: int, vector: Floats) -> int:
        """One event; returns the verdict."""
        if offset <= self.last_offset:
            return APPLIED_BEFORE
        if seen.event_id:
            hashed = hash_event_id(seen.event_id)
            if hashed in self.ids:
                return DUPLICATE
            self.ids = [*self.ids, hashed][-WINDOW:]
        gap_s = max(0, seen.timestamp - self.last_time_ms) / 1000 if self.events else 0.0
        weight = weight_of(seen)
        self.state = stepped(self.state, vector, weight, np.float32(gap_s))
        self.last_offset, self.last_time_ms = offset, max(self.last_time_ms, seen.timestamp)
        self.events += 1
        if weight > 0:
            kept = (seen.item_id, EVENT_TYPES.index(seen.type), seen.timestamp // 1000)
            self.recents = [*self.recents, kept][-RECENT:]
            self.recent_total += 1
        if seen.type in {EventType.PURCHASE, EventType.DISLIKE}:
            self.excluded = [*(item for item in self.excluded if item != seen.item_id), seen.item_id][-EXCLUDED:]
        return ACCEPTED

    def row(self) -> dict[str, object]:
        """As `contents` shows a stored profile."""
        unused = RECENT - len(self.recents)
        items, types, times_s = zip(*self.recents, strict=True) if self.recents else ((), (), ())
        return {
            "events": self.events,
            "version": self.events,
            "last_offset": self.last_offset,
            "last_time_ms": self.last_time_ms,
            "partition": PARTITION if self.events else -1,
            "recent_total": self.recent_total,
            "recent_count": len(self.recents),
            "recent_items": [*items, *[None] * unused],
            "recent_types": [*types, *[0] * unused],
            "recent_times_s": [*times_s, *[0] * unused],
            "event_id_count": len(self.ids),
            "event_ids": [*self.ids, *[0] * (WINDOW - len(self.ids))],
            "state": self.state.tobytes(),
            "excluded": self.excluded,
        }


def weight_of(seen: Event) -> np.float32:
    """The weight of a type; of a rating by its value, between one star's worth of repulsion and all of it."""
    weight = np.float32(DEFAULT_TYPE_WEIGHTS[seen.type])
    if seen.type is not EventType.RATING or seen.value is None:
        return weight
    return np.float32(float(weight) * min(1.0, max(-1.0, (seen.value - 2.5) / 2.5)))


def mass(weight: float, time_ms: float) -> float:
    """What an event adds to the popularity of its item at the start time."""
    return float(weight) * 2.0 ** ((time_ms - START_MS) / HALF_LIFE_MS) if weight > 0 else 0.0


events = st.builds(
    event,
    st.sampled_from(USERS),
    st.sampled_from(ITEMS),
    st.sampled_from(EVENT_TYPES),
    st.one_of(st.integers(-20_000, 20_000), st.integers(-DAY_MS, DAY_MS)).map(lambda ms: ms / 1000),
    st.none() | st.sampled_from(["", *map(str, range(6))]),
    st.none() | st.sampled_from([0.0, 1.0, 2.5, 4.5, 5.0, 99.0]),
)
batches = st.lists(events, max_size=9)


class ProfileMachine(RuleBasedStateMachine):
    """One owner of a partition and one worker that follows its changelog."""

    def __init__(self) -> None:
        super().__init__()
        self.owner, self.follower = self._world(), self._world()
        self.follower.catalogue.slots(list(reversed(ITEMS)))
        self.model: dict[str, ModelUser] = {}
        self.log: list[tuple[int, Event]] = []
        self.changelog: list[tuple[str, bytes]] = []
        self.popularity: Counter[str] = Counter()
        self.popularity_followed: Counter[str] = Counter()

    @rule(batch=batches, followed=st.booleans())
    def commit(self, batch: list[Event], followed: bool) -> None:
        """New events are applied; the other worker reads them now or with a later batch."""
        first = len(self.log)
        numbered = list(enumerate(batch, first))
        self.log += numbered
        self._apply(numbered, followed=followed)

    @precondition(lambda self: self.log)
    @rule(data=st.data(), batch=batches)
    def replay(self, data: st.DataObject, batch: list[Event]) -> None:
        """A stretch of the log comes again, with its offsets, and runs on into new events."""
        start = data.draw(st.integers(max(0, len(self.log) - 12), len(self.log) - 1))
        numbered = [*self.log[start:], *enumerate(batch, len(self.log))]
        self.log += numbered[len(self.log) - start :]
        self._apply(numbered, followed=True)

    @rule(batch=batches)
    def abort(self, batch: list[Event]) -> None:
        """A batch that is prepared and thrown away changes nothing."""
        before = contents(self.owner)
        self._prepare(list(enumerate(batch, len(self.log))))
        assert contents(self.owner) == before

    @rule(user=st.sampled_from(USERS))
    def forget(self, user: str) -> None:
        """Both workers drop the user."""
        for worker in (self.owner, self.follower):
            worker.engine.forget([user])
        self.model.pop(user, None)
        self.changelog = [(name, value) for name, value in self.changelog if name != user]

    @precondition(lambda self: self.changelog)
    @rule(data=st.data())
    def read_again(self, data: st.DataObject) -> None:
        """Old records of the changelog, in any order, change neither worker once the newest are known."""
        self._follow(self.changelog)
        again = data.draw(st.lists(st.sampled_from(self.changelog), max_size=6))
        before = contents(self.owner), contents(self.follower)
        for worker in (self.owner, self.follower):
            for record in again:
                load(worker, [record])
        assert (contents(self.owner), contents(self.follower)) == before

    @invariant()
    def owner_is_as_the_model_says(self) -> None:
        """Every integer, and the state bit for bit."""
        held = contents(self.owner)
        assert held["profiles"] == {user: model.row() for user, model in self.model.items()}
        directed = {user for user, model in self.model.items() if np.linalg.norm(model.state) > 1e-6}
        assert set(held["index"]) == directed
        assert_close(held["trend"], self.popularity)

    def teardown(self) -> None:
        """In the end the follower has read everything, and is the owner's equal."""
        self._follow(self.changelog)
        owner, follower = contents(self.owner), contents(self.follower)
        known = {user: row for user, row in owner["profiles"].items() if row["events"]}
        assert {user: row for user, row in follower["profiles"].items() if row["events"]} == known
        assert follower["index"] == owner["index"]

    @staticmethod
    def _world() -> World:
        return world(RECENT, WINDOW, EXCLUDED, ranking=False)

    def _prepare(self, numbered: list[tuple[int, Event]]) -> ProfileUpdate:
        found = np.array([offset for offset, _ in numbered], np.int64)
        return self.owner.updater.prepare([seen for _, seen in numbered], found, PARTITION)

    def _apply(self, numbered: list[tuple[int, Event]], *, followed: bool) -> None:
        found = np.array([offset for offset, _ in numbered], np.int64)
        refresh = self.owner.engine.prepare([seen for _, seen in numbered], found, PARTITION)
        update = refresh.update
        values = encode_profiles(update, self.owner.catalogue, self.owner.encoder.name)
        self.owner.engine.apply(refresh)
        before = {user: model.recent_total for user, model in self.model.items()}
        assert update.verdicts.tolist() == [self._judge(offset, seen) for offset, seen in numbered]
        for user, model in self.model.items():
            entered = min(model.recent_total - before.get(user, 0), len(model.recents))
            for item, code, time_s in model.recents[len(model.recents) - entered :]:
                self.popularity[item] += mass(DEFAULT_TYPE_WEIGHTS[EVENT_TYPES[code]], time_s * 1000)
        self.changelog += zip(update.users, values, strict=True)
        if followed:
            self._follow(self.changelog[len(self.changelog) - len(values) :])

    def _judge(self, offset: int, seen: Event) -> int:
        """Tells the model, which adds the user when an event counts."""
        user = self.model.get(seen.user_id, ModelUser())
        catalogue = self.owner.catalogue
        verdict = user.take(seen, offset, catalogue.vectors[catalogue.slot_of[seen.item_id]])
        if verdict == ACCEPTED:
            self.model[seen.user_id] = user
        return verdict

    def _follow(self, records: list[tuple[str, bytes]]) -> None:
        """The follower reads; what it may not have had yet is what the trend must gain."""
        newest = list(dict(records).items())
        before = {user: self.follower.profile(user)["recent_total"] for user, _ in newest}
        load(self.follower, newest)
        for user, _ in newest:
            row = contents(self.follower)["profiles"][user]
            fresh = min(row["recent_total"] - before[user], row["recent_count"])
            end = row["recent_count"]
            for place in range(end - fresh, end):
                weight = DEFAULT_TYPE_WEIGHTS[EVENT_TYPES[row["recent_types"][place]]]
                self.popularity_followed[row["recent_items"][place]] += mass(
                    weight, row["recent_times_s"][place] * 1000
                )
        assert_close(self.follower.popularity(), self.popularity_followed)


def load(worker: World, records: list[tuple[str, bytes]]) -> None:
    """Reads changelog records, the newest of each user, in one call."""
    decoded = [decode_profile(value) for value in dict(records).values()]
    loaded = load_profiles(decoded, worker.catalogue, worker.layout, worker.encoder.name)
    worker.engine.load(loaded.user_ids, loaded.columns, loaded.excluded)


def assert_close(found: dict[str, float], expected: dict[str, float]) -> None:
    """Popularities are sums of logarithms: equal up to rounding."""
    for item in {*found, *expected}:
        assert math.isclose(found.get(item, 0.0), expected.get(item, 0.0), rel_tol=1e-6, abs_tol=1e-12), item


ProfileMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=20, deadline=None)
TestProfileMachine = ProfileMachine.TestCase
