"""Sends mended dead letters back to `events`, each at most once, whatever happens in between.

Each transaction that sends letters back also appends receipts to the dead letters' own partitions. A run first fences
every other replay by the shared transactional id, then reads all receipts, then sends what none of them lists. So a
letter was sent if and only if its receipt is there, and letters of one reason can go while others wait.
A group's committed offset could not say that: it knows one position per partition.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced

from streams.core.errors import PartitionLost, RejectedRecord, RejectReason
from streams.kafka.access import diagnosed
from streams.kafka.clients import client_options, close_producer
from streams.kafka.codec import decode_events
from streams.kafka.dead_letter import REPLAYED_FROM, TRUNCATED, OutRecord, without_verdict
from streams.kafka.dlq_read import (
    EXAMPLES_PER_REASON,
    DeadLetter,
    DeadLetterReader,
    DeadLetterReport,
    Receipts,
    dead_letter_reader,
    receipt,
)
from streams.kafka.topics import Topics

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.kafka.mend import Mend

LetterMend = Callable[[bytes | None, bytes | None], tuple[bytes | None, bytes | None]]
"""Key and value of a letter to those to send; may raise RejectedRecord. `Mend` is one."""

LETTERS_PER_TRANSACTION_MAX = 500
TRANSACTION_BYTES_MAX = 4 << 20


@dataclass(slots=True)
class ReplayReport:
    """What a replay sent, by the reason that the letters had, and what still waits and why it cannot count."""

    topic: str
    dry_run: bool
    replayed: Counter[str] = field(default_factory=Counter)
    remaining: DeadLetterReport = field(default_factory=lambda: DeadLetterReport(""))


async def replay_dead_letters(
    settings: Settings, mend: Mend, reason: str | None = None, dry_run: bool = False
) -> ReplayReport:
    """Mends the waiting letters, sends those that then count back to `events`, and reports the rest.

    A letter is sent at most once over all runs. Its producer's headers go with it, and `errors.replayed-from`
    names the dead letter. Letters of other reasons than `reason` are left alone and not reported.

    Raises:
        UsageError: a topic does not exist.
        PartitionLost: another replay took over; what was committed until then counts.
        BrokerUnavailable: Kafka does not answer, or a transaction of somebody else stays open.
    """
    topics = Topics(settings.prefix)
    report = ReplayReport(topics.dead_letters, dry_run, remaining=DeadLetterReport(topics.dead_letters))
    async with AsyncExitStack() as stack:
        sender = None if dry_run else await stack.enter_async_context(letter_sender(settings, topics))
        reader = await stack.enter_async_context(dead_letter_reader(settings, fenced=sender is not None))
        await reader.read_receipts()
        await _replay(reader, mend, reason, report, sender)
    return report


async def _replay(
    reader: DeadLetterReader, mend: Mend, reason: str | None, report: ReplayReport, sender: LetterSender | None
) -> None:
    async for letter in reader.letters():
        if reason not in {None, letter.reason}:
            continue
        if (letter.found_partition, letter.found_offset) in reader.receipts:
            report.remaining.replayed_before += 1
            continue
        try:
            mended = mended_record(letter, mend, int(time.time() * 1000))
        except RejectedRecord as rejected:
            report.remaining.add(
                letter._replace(reason=str(rejected.reason), message=rejected.message), EXAMPLES_PER_REASON
            )
            continue
        if sender is not None:
            await sender.add(letter, mended)
        report.replayed[letter.reason] += 1
    if sender is not None:
        await sender.flush()


def mended_record(letter: DeadLetter, mend: LetterMend, now_ms: int) -> OutRecord:
    """The event to send back for a letter.

    Raises:
        RejectedRecord: it would still be a dead letter.
    """
    if any(name == TRUNCATED for name, _ in letter.record.headers):
        raise RejectedRecord(
            RejectReason.OVERSIZED,
            f"Expected the whole record, came the beginning of one too large for a dead letter. It may still lie at "
            f"{letter.topic}/{letter.partition}/{letter.offset}; send the event again by hand.",
        )
    key, value = mend(letter.record.key, letter.record.value)
    mended = _Mended(key, value, letter.found_offset, now_ms, ())
    rejects = decode_events([mended], now_ms).rejects
    if rejects:
        raise RejectedRecord(rejects[0].reason, rejects[0].message)
    position = f"{letter.record.topic}/{letter.found_partition}/{letter.found_offset}"
    return OutRecord(key, value, [*without_verdict(letter.record.headers), (REPLAYED_FROM, position.encode())])


class _Mended(NamedTuple):
    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...]


class LetterSender:
    """Sends letters back in bounded transactions, each with its receipts."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics) -> None:
        self._producer = producer
        self._topics = topics
        self._batch: list[tuple[DeadLetter, OutRecord]] = []
        self._batch_bytes = 0

    async def add(self, letter: DeadLetter, mended: OutRecord) -> None:
        """Takes a letter for this or the next transaction."""
        self._batch.append((letter, mended))
        self._batch_bytes += len(mended.value or b"")
        if len(self._batch) >= LETTERS_PER_TRANSACTION_MAX or self._batch_bytes >= TRANSACTION_BYTES_MAX:
            await self.flush()

    async def flush(self) -> None:
        """Commits what was taken; on return it is sent and its receipts are written."""
        if not self._batch:
            return
        try:
            async with self._producer.transaction():
                await self._send_all()
        except ProducerFenced as error:
            raise PartitionLost(
                "Another `nearstream dlq replay` started and took over. What this one had committed counts; "
                "run it again for the rest."
            ) from error
        self._batch, self._batch_bytes = [], 0

    async def _send_all(self) -> None:
        """Returns once everything is written: aiokafka commits even when a send failed."""
        sends: list[asyncio.Future[Any]] = []
        refused: IllegalOperation | None = None
        try:
            for topic, partition, record in self._outgoing():
                sends.append(await self._producer.send(topic, partition=partition, **record._asdict()))
        except IllegalOperation as error:  # the transaction is over already: what ended it is said of the sends before
            refused = error
        finally:
            outcomes = await asyncio.gather(*sends, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        if refused is not None:
            raise refused

    def _outgoing(self) -> Iterator[tuple[str, int | None, OutRecord]]:
        """Topic, partition (None: the key's) and record: the events, then the receipts."""
        sent = Receipts()
        for letter, mended in self._batch:
            sent.add(letter.found_partition, [(letter.found_offset, letter.found_offset)])
            yield self._topics.events, None, mended
        for partition in sorted({letter.found_partition for letter, _ in self._batch}):
            yield self._topics.dead_letters, partition, receipt(sent, partition)


@asynccontextmanager
async def letter_sender(settings: Settings, topics: Topics) -> AsyncIterator[LetterSender]:
    """A sender that fenced every replay before it, whichever group or person started it."""
    producer = AIOKafkaProducer(
        **client_options(settings),
        transactional_id=f"{topics.dead_letters}-replay",
        transaction_timeout_ms=settings.transaction_timeout_ms,
    )
    try:
        await producer.start()
        yield LetterSender(producer, topics)
    except (KafkaError, OSError) as error:
        raise await diagnosed(settings, error) from error
    finally:
        await close_producer(producer)
