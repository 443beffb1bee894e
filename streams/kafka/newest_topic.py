"""Follows a compacted topic into `NewestRecords`, and looks up in it what memory has no room for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from streams.core.errors import BrokerUnavailable
from streams.kafka.clients import mark_seen
from streams.kafka.lookback import look_back
from streams.kafka.newest import Entry, NewestRecords
from streams.kafka.tail import TopicTail
from streams.kafka.topics import missing_topics

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka import ConsumerRecord

    from streams.config import Settings

logger = logging.getLogger(__name__)

CONNECT_AGAIN_S = 1.0
LOOK_UP_S_MAX = 5.0
LOOK_UPS_MAX = 4
LOOK_UPS_WAITING_MAX = 200
NO_RECORD = Entry(-1, None)


class NewestTopic:
    """The newest value of each key of one topic."""

    def __init__(self, settings: Settings, topic: str, bytes_max: int) -> None:
        self._settings = settings
        self._topic = topic
        self._count = 0
        self._records = NewestRecords(bytes_max)
        self._is_read = False
        self.is_missing = False
        """Whether Kafka answered and had no such topic."""
        self._turns = asyncio.Semaphore(LOOK_UPS_MAX)
        self._look_ups: dict[bytes, asyncio.Task[Entry]] = {}
        self._following: asyncio.Task[None] | None = None

    async def start(self, partitions: int) -> None:
        """Begins to read the topic of so many partitions; returns once Kafka answered.

        Raises:
            KafkaError, OSError: it did not; then call it again.
        """
        tail = TopicTail(self._settings, self._topic, self._take, lambda *_: None)
        await tail.start(partitions)
        self._count = partitions
        self._following = asyncio.create_task(self._follow(tail), name=f"newest-{self._topic}")

    async def stop(self) -> None:
        """Stops in bounded time."""
        tasks = [task for task in (self._following, *self._look_ups.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def is_read(self) -> bool:
        """Whether all was read that the topic held when reading began. If reading itself broke, raises what broke."""
        if self._following is not None and self._following.done():
            self._following.result()
        return self._is_read

    def watch(self, key: bytes, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` after each new record of the key; returns what ends that."""
        return self._records.watch(key, wake)

    async def get(self, key: bytes) -> bytes | None:
        """The newest value; None: there is none.

        Raises:
            BrokerUnavailable: the topic is missing or was not read yet, or looking up what memory does not hold failed.
        """
        if self.is_missing:
            raise BrokerUnavailable(str(missing_topics([self._topic])))
        if not self.is_read:
            raise BrokerUnavailable(
                f"The topic {self._topic!r} is still being read, so the newest value is not known yet. Ask again in a "
                "moment; if this lasts, see whether Kafka answers and `nearstream topics list` shows the topic."
            )
        entry = self._records.get(key)
        if entry is None and not self._records.is_complete:
            entry = await self._look_up(key)
        return None if entry is None else entry.value

    async def _look_up(self, key: bytes) -> Entry:
        """One search a key, however many ask; few at the same time."""
        search = self._look_ups.get(key)
        if search is None:
            if len(self._look_ups) >= LOOK_UPS_WAITING_MAX:
                raise BrokerUnavailable(
                    f"{LOOK_UPS_WAITING_MAX} look-ups in {self._topic!r} wait already. Ask again later, or give the "
                    "page's process more memory with NEARSTREAM_API_MEMORY_MB."
                )
            search = self._look_ups[key] = asyncio.create_task(self._search(key), name="look-up")
            search.add_done_callback(mark_seen)
        return await asyncio.shield(search)

    async def _search(self, key: bytes) -> Entry:
        try:
            async with self._turns:
                found = await look_back(
                    self._settings, self._topic, self._count, key, records_max=1, limit_s=LOOK_UP_S_MAX
                )
        except (KafkaError, OSError) as error:
            raise BrokerUnavailable(f"Kafka did not answer a look-up in {self._topic!r} ({error!r}).") from error
        finally:
            del self._look_ups[key]
        if not found.records and not found.finished:
            raise BrokerUnavailable(
                f"A look-up in {self._topic!r} took longer than {LOOK_UP_S_MAX:g} s. Ask again, or give the page's "
                "process more memory with NEARSTREAM_API_MEMORY_MB."
            )
        newest = Entry(found.records[-1].offset, found.records[-1].value) if found.records else NO_RECORD
        return self._records.found(key, newest)

    async def _take(self, records: list[ConsumerRecord]) -> None:
        self._records.read(records)

    async def _follow(self, tail: TopicTail) -> None:
        """Until the tail fails, which is a fault of the program."""
        try:
            catching_up = asyncio.create_task(self._catch_up(tail))
            try:
                await tail.failure
            finally:
                catching_up.cancel()
        finally:
            await tail.stop()

    async def _catch_up(self, tail: TopicTail) -> None:
        while not self._is_read:
            try:
                await tail.catch_up()
                self._is_read = True
            except (KafkaError, OSError) as error:
                logger.info("%s cannot be read yet: %r", self._topic, error)
                await asyncio.sleep(CONNECT_AGAIN_S)
