"""Which workers run, and where they are asked: from their newest status records."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.core.errors import BrokerUnavailable
from streams.core.status import WorkerState
from streams.kafka.partitioner import murmur2_partition
from streams.kafka.reader import reader
from streams.kafka.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streams.config import Settings

RECORDS_MAX = 500
"""Read back from the end: ten seconds of fifty workers."""
SILENT_S_MAX = 10.0
READ_S_MAX = 5.0
KEPT_S = 2.0
POLL_MS = 200


class _Held(msgspec.Struct):
    partition: int


class _Status(msgspec.Struct):
    """As much of a `WorkerStatus` as finding a worker takes."""

    worker: str
    group: str
    state: WorkerState
    reported_at: int
    web_url: str | None
    partitions: list[_Held]


_decode = msgspec.json.Decoder(_Status).decode


class WorkerAddress(msgspec.Struct, frozen=True):
    """A worker that runs: its name, its web address without a path, and the input partitions that it owns."""

    name: str
    url: str
    partitions: frozenset[int]


class WorkerDirectory:
    """Looks workers up in the topic `status`; what it found serves for two seconds."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._turn = asyncio.Lock()
        self._found: list[WorkerAddress] = []
        self._read_at_s = -KEPT_S

    async def running(self, user_id: str) -> list[WorkerAddress]:
        """Workers of the group of the settings that run: whoever owns the user's partition first, then by name.

        Raises:
            BrokerUnavailable: Kafka does not answer.
        """
        async with self._turn:
            now_s = self._clock()
            if not 0 <= now_s - self._read_at_s < KEPT_S:
                values = await _newest_values(self._settings, Topics(self._settings.prefix).status)
                self._found = addresses(values, self._settings.group, int(now_s * 1000))
                self._read_at_s = now_s
            return owner_first(self._found, user_id)


def owner_first(workers: Iterable[WorkerAddress], user_id: str) -> list[WorkerAddress]:
    """The workers, whoever owns the user's partition in front; partitions are counted by those that are owned."""
    by_name = sorted(workers, key=lambda worker: worker.name)
    owned = frozenset[int]().union(*(worker.partitions for worker in by_name))
    if not owned:
        return by_name
    own = murmur2_partition(user_id, max(owned) + 1)
    return sorted(by_name, key=lambda worker: own not in worker.partitions)


def addresses(values: Iterable[bytes], group: str, now_ms: int) -> list[WorkerAddress]:
    """Of the workers whose last record, of these in order, says that they run, and is not ten seconds old.

    Records that cannot be read are passed over, as are addresses that are none.
    """
    newest: dict[str, _Status] = {}
    for value in values:
        try:
            status = _decode(value)
        except msgspec.MsgspecError:
            continue  # another version's, or another kind of record
        newest[status.worker] = status
    return [
        WorkerAddress(
            status.worker, status.web_url.rstrip("/"), frozenset(held.partition for held in status.partitions)
        )
        for status in newest.values()
        if status.group == group
        and status.state in {"running", "rebalancing"}
        and now_ms - status.reported_at <= SILENT_S_MAX * 1000
        and status.web_url is not None
        and _is_address(status.web_url)
    ]


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


async def _newest_values(settings: Settings, topic: str) -> list[bytes]:
    """The last records of the topic's one partition, oldest first."""
    tp, values = TopicPartition(topic, 0), []
    try:
        async with asyncio.timeout(READ_S_MAX), reader(settings, isolation_level="read_committed") as consumer:
            consumer.assign([tp])
            begin, end = (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]
            consumer.seek(tp, max(begin, end - RECORDS_MAX))
            while await consumer.position(tp) < end:
                fetched = await consumer.getmany(tp, timeout_ms=POLL_MS)
                values += [record.value for record in fetched.get(tp, ()) if record.value is not None]
    except (KafkaError, TimeoutError, OSError) as error:
        raise BrokerUnavailable(
            f"Kafka at {settings.bootstrap} did not say in time which workers run ({error!r}). Ask again in a moment."
        ) from error
    return values
