"""The API's backend without a Kafka, and a server around it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest

from streams.api import stream
from streams.config import load_settings
from streams.core.errors import BrokerUnavailable, PartitionLost, WorkerUnavailable
from streams.core.recommendations import Neighbour, RecommendedItem, Trending
from streams.core.serving import (
    ForgetReceipt,
    Place,
    RecentItem,
    RefusedEvent,
    RefusedLetter,
    ReplayedLetters,
    ServedProfile,
    WaitingLetter,
    WaitingLetters,
)
from streams.core.what_if import Move, SupposedList, WhatIf, WhatIfQuestion, WhatIfRefusal
from streams.dashboard.server import serve_dashboard
from streams.kafka.event_sender import checked_events
from tests.fakes import START_MS, FakeObserver, recommendation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence


def profile(user_id: str = "u1", events: int = 42) -> ServedProfile:
    """A profile with one recent item."""
    recent = [RecentItem("i2", "view", START_MS)]
    return ServedProfile(user_id, events, events, "decayed-mean@1", START_MS, recent, [0.6, 0.8])


def list_value(user_id: str = "u1", rec_id: str = "r-1") -> bytes:
    """A list as it lies on the topic."""
    return msgspec.json.encode(recommendation(user_id, rec_id=rec_id))


def letter(offset: int, reason: str = "not-json") -> WaitingLetter:
    """A dead letter of partition 0."""
    source = {"topic": "events", "partition": 0, "offset": offset}
    return WaitingLetter(0, offset, reason, "Expected JSON.", START_MS, source, "u1", "{", False)


def supposition(user_id: str = "u1") -> WhatIf:
    """i5 stays in front, i9 enters, i6 leaves, i7 moves up."""
    now, then = (
        SupposedList(near, [RecommendedItem(item, 1 / rank, [Trending(1.0)]) for rank, item in enumerate(items, 1)])
        for near, items in (
            ([Neighbour("u9", 0.93)], ("i5", "i6", "i7")),
            ([Neighbour("u9", 0.5), Neighbour("u4", 0.4)], ("i5", "i7", "i9")),
        )
    )
    moved = [Move("i7", 3, 2)]
    return WhatIf(user_id, START_MS, "decayed-mean@1", 42, 2, 1, 0.71, now, then, ["i9"], ["i6"], moved)


@dataclass
class FakeBackend:
    """Answers from its attributes, and remembers what was written."""

    lists: dict[str, bytes] = field(default_factory=dict)
    profiles: dict[str, ServedProfile] = field(default_factory=dict)
    letters: list[WaitingLetter] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    replayed: list[Place] = field(default_factory=list)
    mended: tuple[bytes, bytes] | None = None
    suppositions: dict[str, WhatIf | WhatIfRefusal] = field(default_factory=dict)
    questions: list[tuple[str, WhatIfQuestion]] = field(default_factory=list)
    is_ready: bool = True
    has_worker: bool = True
    is_overtaken: bool = False
    watchers: dict[str, list[Callable[[], None]]] = field(default_factory=dict)

    def publish(self, user_id: str, value: bytes | None) -> None:
        """A new list of a user; None: a tombstone."""
        self.lists.pop(user_id, None)
        if value is not None:
            self.lists[user_id] = value
        for wake in self.watchers.get(user_id, []):
            wake()

    async def newest_list(self, user_id: str) -> bytes | None:
        """What was set."""
        self._check_ready()
        return self.lists.get(user_id)

    async def profile(self, user_id: str) -> ServedProfile | None:
        """What was set."""
        self._check_ready()
        return self.profiles.get(user_id)

    def watch_list(self, user_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Called by `publish`."""
        self.watchers.setdefault(user_id, []).append(wake)
        return lambda: self.watchers[user_id].remove(wake)

    async def what_if(self, user_id: str, question: WhatIfQuestion) -> bytes | WhatIfRefusal:
        """What was set, as a worker would send it; of whom nothing was set, there is no profile."""
        self.questions.append((user_id, question))
        if not self.has_worker:
            raise WorkerUnavailable("No worker of the group 'nearstream' runs.")
        found = self.suppositions.get(user_id) or WhatIfRefusal("unknown-user", "There is no profile of this user.")
        return found if isinstance(found, WhatIfRefusal) else msgspec.json.encode(found)

    async def send_events(self, values: Sequence[bytes]) -> list[Place] | RefusedEvent:
        """By the real rules of what counts."""
        checked = checked_events(values, START_MS)
        if isinstance(checked, RefusedEvent):
            return checked
        self.sent += values
        return [Place(0, offset) for offset in range(len(values))]

    async def forget(self, user_id: str) -> ForgetReceipt:
        """Remembers it, ironically."""
        self.forgotten.append(user_id)
        return ForgetReceipt(user_id, "users", 3, 17, START_MS, START_MS + 3_600_000)

    async def dead_letters(self, reason: str | None, letters_max: int) -> WaitingLetters:
        """Those that were set."""
        found = [one for one in self.letters if reason in {None, one.reason}]
        return WaitingLetters(len(found), {"not-json": len(found)} if found else {}, 0, found[-letters_max:])

    async def replay(self, places: Collection[Place], value: tuple[bytes, bytes] | None) -> ReplayedLetters:
        """Each letter once, if it is mended."""
        if self.is_overtaken:
            raise PartitionLost("Another replay started.")
        report = ReplayedLetters([], [], [], [])
        waiting = {(one.partition, one.offset) for one in self.letters}
        for place in places:
            if (place.partition, place.offset) not in waiting:
                report.unknown.append(place)
            elif place in self.replayed:
                report.already_replayed.append(place)
            elif value is None or isinstance(checked_events([value[1]], START_MS), RefusedEvent):
                report.refused.append(RefusedLetter(place.partition, place.offset, "not-json", "Still no JSON."))
            else:
                report.replayed.append(place)
        self.replayed += report.replayed
        self.mended = value
        return report

    def _check_ready(self) -> None:
        if not self.is_ready:
            raise BrokerUnavailable("The topic 'recommendations' is still being read.")


@asynccontextmanager
async def serving_api(backend: FakeBackend, keep_alive_s: float | None = None, **options: Any) -> AsyncIterator[Any]:
    """A client of a running page with its API; the options are settings."""
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
    settings = load_settings(**{"dashboard_port": 0, **options})
    with pytest.MonkeyPatch.context() as patch:
        if keep_alive_s is not None:
            patch.setattr(stream, "KEEP_ALIVE_S", keep_alive_s)
        task = asyncio.create_task(
            serve_dashboard(
                FakeObserver(),
                settings,
                ready=address.set_result,
                stop=stop,
                clock=lambda: START_MS / 1000,
                backend=backend,
            )
        )
        await asyncio.wait([task, address], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        async with aiohttp.ClientSession(_by_number(await address)) as client:
            yield client
            stop.set()
            await asyncio.wait_for(task, 5)


def _by_number(address: str) -> str:
    """Where to reach a server that listens on every address."""
    return address.replace("0.0.0.0", "127.0.0.1")
