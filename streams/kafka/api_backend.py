"""What the API's `Backend` port asks for, from a real Kafka."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import numpy as np
from aiokafka.errors import KafkaError

from streams.core.errors import BrokerUnavailable, CorruptState, NearstreamError
from streams.core.events import EVENT_TYPES
from streams.core.serving import ForgetReceipt, RecentItem, ServedProfile
from streams.kafka.changelog import decode_profile
from streams.kafka.dead_letter_desk import replay_named, waiting_letters
from streams.kafka.event_sender import EventSender
from streams.kafka.newest_topic import CONNECT_AGAIN_S, NewestTopic
from streams.kafka.topics import Topics, list_topics
from streams.kafka.worker_directory import WorkerDirectory
from streams.kafka.worker_questions import ask_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence
    from types import TracebackType

    from streams.config import Settings
    from streams.core.serving import Place, RefusedEvent, ReplayedLetters, WaitingLetters
    from streams.core.what_if import WhatIfQuestion, WhatIfRefusal
    from streams.kafka.changelog import ProfileRecord

logger = logging.getLogger(__name__)

BYTES_PER_MB = 1_000_000
DEAD_LETTER_REQUESTS_MAX = 8
LISTS_SHARE = 0.75
"""Of the memory; a list is several times as long as a profile."""


class KafkaBackend:
    """Newest lists and profiles at hand, and a producer. Use it as an async context manager."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._topics = Topics(settings.prefix)
        lists_bytes_max = int(settings.api_memory_mb * BYTES_PER_MB * LISTS_SHARE)
        self._lists = NewestTopic(settings, self._topics.recommendations, lists_bytes_max)
        self._profiles = NewestTopic(
            settings, self._topics.profiles, settings.api_memory_mb * BYTES_PER_MB - lists_bytes_max
        )
        self._sender = EventSender(settings)
        self._workers = WorkerDirectory(settings, clock)
        self._letters_turn = asyncio.Lock()
        self._letters_waiting = 0
        self._starting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Starts to read the topics; returns at once, whether Kafka answers or not."""
        self._starting = asyncio.create_task(self._start(), name="api-topics")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops within a few seconds, also while Kafka is away."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        await asyncio.gather(self._lists.stop(), self._profiles.stop(), self._sender.close())

    @property
    def is_ready(self) -> bool:
        """Whether both topics were read once. Raises what broke, if reading itself broke."""
        return self._lists.is_read and self._profiles.is_read

    async def newest_list(self, user_id: str) -> bytes | None:
        """The user's newest list as published; None: there is none.

        Raises:
            BrokerUnavailable: the topic was not read yet, or Kafka did not answer a look-up.
        """
        return await self._lists.get(user_id.encode())

    async def profile(self, user_id: str) -> ServedProfile | None:
        """The user's profile as last committed; None: there is none.

        Raises:
            BrokerUnavailable: the topic was not read yet, or Kafka did not answer a look-up.
        """
        value = await self._profiles.get(user_id.encode())
        if value is None:
            return None
        try:
            return _served(decode_profile(value))
        except CorruptState as error:
            raise BrokerUnavailable(f"The profile cannot be read by this version: {error}") from error

    def watch_list(self, user_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` after each new list of the user; returns what ends that."""
        return self._lists.watch(user_id.encode(), wake)

    async def what_if(self, user_id: str, question: WhatIfQuestion) -> bytes | WhatIfRefusal:
        """What a running worker answers, a `WhatIf` as JSON.

        Raises:
            WorkerUnavailable: none runs, or none answers.
            BrokerUnavailable: Kafka does not say which workers run.
        """
        return await ask_workers(self._settings, self._workers, user_id, question)

    async def send_events(self, values: Sequence[bytes]) -> list[Place] | RefusedEvent:
        """Sends events; returns where they lie once all replicas have them, or why one of them cannot count.

        Raises:
            BrokerUnavailable: Kafka did not acknowledge in time; some may have been written.
            UsageError: the topic does not exist.
        """
        return await self._sender.send(values, self._now_ms())

    async def forget(self, user_id: str) -> ForgetReceipt:
        """Asks the workers to forget the user; returns once all replicas have the request.

        Raises:
            BrokerUnavailable: Kafka did not acknowledge in time; asking again is right.
            UsageError: the topic does not exist.
        """
        requested_at = self._now_ms()
        place = await self._sender.forget(user_id)
        deadline = requested_at + int(self._settings.forget_deadline_s * 1000)
        return ForgetReceipt(user_id, self._topics.users, place.partition, place.offset, requested_at, deadline)

    async def dead_letters(self, reason: str | None, letters_max: int) -> WaitingLetters:
        """The newest dead letters that wait; one request at a time reads the topic.

        Raises:
            BrokerUnavailable: Kafka does not answer.
            UsageError: the topic does not exist.
        """
        async with self._turn_at_the_letters():
            return await waiting_letters(self._settings, reason, letters_max)

    async def replay(self, places: Collection[Place], value: tuple[bytes, bytes] | None) -> ReplayedLetters:
        """Sends dead letters back to the events, each at most once; with `value` as key and value instead of its own.

        Raises:
            BrokerUnavailable: Kafka does not answer.
            PartitionLost: another replay took over.
            UsageError: a topic does not exist.
        """
        async with self._turn_at_the_letters():
            return await replay_named(self._settings, places, None if value is None else lambda *_: value)

    @asynccontextmanager
    async def _turn_at_the_letters(self) -> AsyncIterator[None]:
        """One at a time: each reads the whole topic."""
        if self._letters_waiting >= DEAD_LETTER_REQUESTS_MAX:
            raise BrokerUnavailable(
                f"{DEAD_LETTER_REQUESTS_MAX} requests wait for the dead letters already. Ask again in a moment."
            )
        self._letters_waiting += 1
        try:
            async with self._letters_turn:
                yield
        finally:
            self._letters_waiting -= 1

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    async def _start(self) -> None:
        """Until both topics are followed, however long Kafka or its topics stay away."""
        waiting = {self._topics.recommendations: self._lists, self._topics.profiles: self._profiles}
        while waiting:
            try:
                counts = await list_topics(self._settings)
                for topic, newest in list(waiting.items()):
                    newest.is_missing = topic not in counts
                    if not newest.is_missing:
                        await newest.start(counts[topic])
                        del waiting[topic]
            except (NearstreamError, KafkaError, OSError) as error:
                logger.info("the API's topics cannot be read yet: %r", error)
            if waiting:
                await asyncio.sleep(CONNECT_AGAIN_S)


def _served(record: ProfileRecord) -> ServedProfile:
    times_s = np.frombuffer(record.recent_times_s, "<u4").tolist()
    recent = zip(record.recent_items, record.recent_types, times_s, strict=True)
    vector = np.frombuffer(record.vector, np.int8) * np.float32(record.scale)
    return ServedProfile(
        record.user_id,
        record.events,
        record.version,
        record.model,
        record.last_time_ms,
        [RecentItem(item, _type_name(code), 1000 * time_s) for item, code, time_s in recent],
        [round(x, 5) for x in vector.astype(float).tolist()],
    )


def _type_name(code: int) -> str | None:
    return str(EVENT_TYPES[code]) if code < len(EVENT_TYPES) else None
