"""Watches the topics for the page: polls offsets, tails topics into bounded memory, looks back for one user.

When Kafka goes away the last figures stay, the state says since when, and a new session starts once it answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams.core.errors import AccessDenied
from streams.core.observation import (
    Connection,
    ConnectionState,
    Observation,
    PartitionOffsets,
    SearchState,
    SeenRecord,
    TailRecord,
    TailTopic,
    UserObservation,
)
from streams.kafka.access import diagnosed
from streams.kafka.clients import CONSUMER_STOP_S, bounded, client_options, pace_metadata_updates
from streams.kafka.lookback import look_back
from streams.kafka.observed import EVENTS_MAX, EVENTS_SHOWN, LISTS_MAX, RECENT_USERS, Observed
from streams.kafka.offsets import OffsetPoller
from streams.kafka.profile_paths import ProfilePaths
from streams.kafka.reader import reader
from streams.kafka.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from aiokafka import AIOKafkaConsumer

    from streams.config import Settings

logger = logging.getLogger(__name__)

POLL_S = 1.0
POLL_S_MAX = 3.0
POLLS_PER_TOPIC_CHECK = 5
TAIL_MS = 200
TAIL_RECORDS_MAX = 1000
STATUS_RECORDS_KEPT = 2000
CONNECT_GRACE_S = 5.0
BACKOFF_S_FIRST = 0.5
BACKOFF_S_MAX = 2.0
SEARCH_S_MAX = 5.0
SEARCHES_MAX = 4
FOUND_USERS_MAX = 1000
SEARCH_AGAIN_S = 30.0
"""A look-back that ran out of time, or failed, is tried anew after this."""


class _TopicsChanged(Exception):
    """Topics appeared, went or grew: start over with what there is now."""


class _LookedBack(NamedTuple):
    state: SearchState
    ended_at: int
    events: list[SeenRecord]
    recommendation: SeenRecord | None


class KafkaObserver:
    """What the page's `Observer` port asks for, from a real Kafka. Use it as an async context manager.

    No method waits for Kafka. If the observer itself breaks, which is a fault of the program, `snapshot` raises
    what broke it.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._topics = Topics(settings.prefix)
        self._connection = Connection("connecting", settings.bootstrap, self._now_ms())
        self._polled_at: int | None = None
        self._offsets: list[PartitionOffsets] = []
        self._observed = Observed(self._topics, settings.group)
        self._dead_letters_counted = False
        self._partitions: dict[str, int] = {}
        self._looked_back: OrderedDict[str, _LookedBack] = OrderedDict()
        self._searches: dict[str, asyncio.Task[None]] = {}
        self._paths = ProfilePaths(settings, self._topics.profiles, self._now_ms)
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Starts watching; returns at once, whether Kafka answers or not."""
        self._running = asyncio.create_task(self._run(), name="observer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops within a few seconds, also while Kafka is away."""
        tasks = [task for task in (self._running, *self._searches.values(), *self._paths.reads) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def snapshot(self) -> Observation:
        """The group as last seen."""
        if self._running is not None and self._running.done():
            self._running.result()
        return Observation(
            self._connection,
            self._polled_at,
            self._offsets,
            list(self._observed.workers.values()),
            self._observed.dead_letters(complete=self._dead_letters_counted),
            self._observed.lists.newest(RECENT_USERS),
        )

    def title(self, item_id: str) -> str | None:
        """The title of an item, if the catalogue gave it one."""
        return self._observed.titles.get(item_id)

    def user(self, user_id: str) -> UserObservation:
        """What memory holds; begins to look back into the topics when that is not all that can be shown."""
        key = user_id.encode()
        events = self._observed.events.of(key)
        recommendation = self._observed.lists.get(key)
        before = self._observed.lists_before.get(key)
        search: SearchState = "none"
        if recommendation is None or len(events) < EVENTS_SHOWN:
            search = self._search_state(user_id)
            past = self._looked_back.get(user_id)
            if past is not None:
                oldest = events[0].offset if events else None
                events = [e for e in past.events if oldest is None or e.offset < oldest] + events
                before = before or past.recommendation
                recommendation = recommendation or past.recommendation
        if before is not None and recommendation is not None and before.offset >= recommendation.offset:
            before = None
        profiles = []
        if recommendation is not None and recommendation.value is not None:
            profiles = self._paths.of(user_id, recommendation.offset, self._partitions[self._topics.recommendations])
        return UserObservation(user_id, events[-EVENTS_SHOWN:], recommendation, search, before, profiles)

    def lists(self, count: int) -> list[SeenRecord]:
        """The newest lists of the users whose lists changed last, newest first."""
        return self._observed.lists.sample(count)

    def tail(self, topic: TailTopic, after: int) -> list[TailRecord]:
        """The newest records of a topic whose number is greater than `after`, oldest first."""
        return self._observed.tails[topic].after(after)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _mark(self, state: ConnectionState, error: str | None = None, missing: list[str] | None = None) -> None:
        before = self._connection
        since = before.since if before.state == state else self._now_ms()
        if before.state != state:
            logger.info("Kafka at %s: %s%s", before.bootstrap, state, f" ({error})" if error else "")
        self._connection = Connection(state, before.bootstrap, since, error, missing or [])

    def _mark_failed(self, error: KafkaError | OSError) -> None:
        starting = self._connection.state == "connecting"
        if starting and self._now_ms() - self._connection.since < CONNECT_GRACE_S * 1000:
            return  # a broker that has just started refuses a few requests first
        text = str(error)
        name = type(error).__name__
        self._mark("unreachable", text if text.startswith(name) else f"{name}: {text}".removesuffix(": "))

    async def _run(self) -> None:
        backoff_s = BACKOFF_S_FIRST
        while True:
            polled_at = self._polled_at
            try:
                await self._session()
            except _TopicsChanged:
                continue
            except (KafkaError, OSError) as error:
                self._mark_failed(error)
                verdict = await diagnosed(self._settings, error)
                if isinstance(verdict, AccessDenied):
                    self._mark("unreachable", str(verdict))
            backoff_s = BACKOFF_S_FIRST if polled_at != self._polled_at else min(2 * backoff_s, BACKOFF_S_MAX)
            await asyncio.sleep(backoff_s)

    async def _session(self) -> None:
        """Connects and watches until something breaks; never returns without raising."""
        async with AsyncExitStack() as stack:
            admin = AIOKafkaAdminClient(**client_options(self._settings))
            # admin.close() does nothing before a successful start
            stack.push_async_callback(lambda: bounded(admin._client.close(), CONSUMER_STOP_S))
            async with asyncio.timeout(POLL_S_MAX):
                await admin.start()
            pace_metadata_updates(admin._client)  # aiokafka has no public way to the client
            self._partitions = await self._wait_for_topics(admin)
            peeker = await stack.enter_async_context(
                reader(self._settings, isolation_level="read_uncommitted", max_partition_fetch_bytes=65_536)
            )
            tailer = await stack.enter_async_context(
                reader(self._settings, isolation_level="read_committed", max_partition_fetch_bytes=1 << 18)
            )
            poller = OffsetPoller(admin, peeker, self._topics.events, self._settings.group)
            poller.assign(self._partitions[self._topics.events])
            self._forget()
            try:
                await _first_failure(self._poll(admin, poller), self._tail(tailer))
            except (KafkaError, OSError) as error:
                self._mark_failed(error)  # now, because closing the clients takes seconds while Kafka is away
                raise

    def _forget(self) -> None:
        """A new session reads anew, so nothing is counted twice and nothing of a wiped topic stays."""
        self._observed = Observed(self._topics, self._settings.group)
        self._dead_letters_counted = False
        self._looked_back.clear()
        self._paths.clear()

    async def _wait_for_topics(self, admin: AIOKafkaAdminClient) -> dict[str, int]:
        """Partition counts of the topics that the page reads, once all of them exist."""
        while True:
            found = await self._present_topics(admin)
            missing = [name for name in self._names() if name not in found]
            if not missing:
                return found
            self._mark("no-topics", missing=missing)
            await asyncio.sleep(POLL_S)

    async def _present_topics(self, admin: AIOKafkaAdminClient) -> dict[str, int]:
        """Asks for existing topics only: asking for a missing one by name may create it."""
        async with asyncio.timeout(POLL_S_MAX):
            existing = set(await admin.list_topics()) & set(self._names())
            described = await admin.describe_topics(sorted(existing)) if existing else []
        return {t["topic"]: len(t["partitions"]) for t in described if t["error_code"] == 0}

    def _names(self) -> list[str]:
        topics = self._topics
        return [topics.events, topics.recommendations, topics.items, topics.status, topics.dead_letters]

    async def _poll(self, admin: AIOKafkaAdminClient, poller: OffsetPoller) -> None:
        polls = 0
        while True:
            async with asyncio.timeout(POLL_S_MAX):
                self._offsets = await poller.poll()
            self._polled_at = self._now_ms()
            self._mark("connected")
            polls += 1
            if polls % POLLS_PER_TOPIC_CHECK == 0 and await self._present_topics(admin) != self._partitions:
                raise _TopicsChanged
            await asyncio.sleep(POLL_S)

    async def _tail(self, consumer: AIOKafkaConsumer) -> None:
        ends = await self._seek_all(consumer)
        dead = {tp: end for tp, end in ends.items() if tp.topic == self._topics.dead_letters}
        while True:
            fetched = await consumer.getmany(timeout_ms=TAIL_MS, max_records=TAIL_RECORDS_MAX)
            for tp, records in fetched.items():
                self._observed.add(tp.topic, records)
            if not self._dead_letters_counted:
                dead = {tp: end for tp, end in dead.items() if await consumer.position(tp) < end}
                self._dead_letters_counted = not dead

    async def _seek_all(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        """Assigns every partition: the catalogue and the dead letters from the start, the rest from near the end."""
        counts = {name: self._partitions[name] for name in self._names()}
        partitions = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
        consumer.assign(partitions)
        begins = await consumer.beginning_offsets(partitions)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        kept = {
            self._topics.events: EVENTS_MAX,
            self._topics.recommendations: LISTS_MAX,
            self._topics.status: STATUS_RECORDS_KEPT,
        }
        for tp in partitions:
            records = kept.get(tp.topic)
            back = ends[tp] if records is None else records // counts[tp.topic]
            consumer.seek(tp, max(begins[tp], ends[tp] - back))
        return ends

    def _search_state(self, user_id: str) -> SearchState:
        """How far looking back for the user is; starts it when it has to be."""
        if user_id in self._searches:
            return "searching"
        past = self._looked_back.get(user_id)
        again = self._now_ms() - int(SEARCH_AGAIN_S * 1000)
        if past is not None and (past.state == "finished" or past.ended_at > again):
            return past.state
        if self._connection.state != "connected":
            return "failed" if past is None else past.state
        if len(self._searches) >= SEARCHES_MAX:
            return "busy"
        self._searches[user_id] = asyncio.create_task(self._search(user_id), name="look-back")
        return "searching"

    async def _search(self, user_id: str) -> None:
        key = user_id.encode()
        lists, events = self._topics.recommendations, self._topics.events
        try:
            found = await look_back(
                self._settings, lists, self._partitions[lists], key, records_max=1, limit_s=SEARCH_S_MAX
            )
            past = await look_back(
                self._settings, events, self._partitions[events], key, records_max=EVENTS_SHOWN, limit_s=SEARCH_S_MAX
            )
            state: SearchState = "finished" if found.finished and past.finished else "timed-out"
            result = _LookedBack(state, self._now_ms(), past.records, found.records[-1] if found.records else None)
        except (KafkaError, OSError) as error:
            logger.warning("looking back for a user failed: %r", error)
            result = _LookedBack("failed", self._now_ms(), [], None)
        finally:
            del self._searches[user_id]
        self._looked_back[user_id] = result
        if len(self._looked_back) > FOUND_USERS_MAX:
            self._looked_back.popitem(last=False)


async def _first_failure(*work: Coroutine[Any, Any, None]) -> None:
    """Runs coroutines side by side until one of them fails; cancels the others and raises its failure."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
