"""Reads the dead letters: which wait, why, and which were sent back already.

The dead letters themselves never change. What was sent back is written beside them, in *receipts*: records with the
header `errors.receipt` and no reason, whose JSON value lists ranges of offsets of their own partition.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from streams.core.errors import CorruptState
from streams.kafka.access import diagnosed
from streams.kafka.dead_letter import MESSAGE, OFFSET, PARTITION, REASON, RECEIPT, TOPIC, OutRecord, is_receipt
from streams.kafka.reader import reader
from streams.kafka.records import read_until
from streams.kafka.topics import Topics, list_topics, missing_topics

if TYPE_CHECKING:
    from streams.config import Settings

RECEIPT_VERSION = b"1"
UNKNOWN_REASON = "unknown"
EXAMPLES_PER_REASON = 3


class DeadLetter(NamedTuple):
    """A dead letter as found on the topic; `topic`, `partition` and `offset` say where the record came from."""

    reason: str
    message: str
    topic: str
    partition: int
    offset: int
    found_partition: int
    found_offset: int
    record: ConsumerRecord


class Example(NamedTuple):
    """One letter of a report: where its record lay, its key as text, and what is wrong with it."""

    reason: str
    topic: str
    partition: int
    offset: int
    key: str | None
    message: str


@dataclass(slots=True)
class DeadLetterReport:
    """The letters that wait, by reason, with the first few of each reason; and how many were sent back before."""

    topic: str
    replayed_before: int = 0
    waiting: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    def add(self, letter: DeadLetter, examples_max: int) -> None:
        """Counts a waiting letter."""
        self.waiting[letter.reason] += 1
        if self.waiting[letter.reason] <= examples_max:
            key = letter.record.key
            shown = None if key is None else key.decode(errors="backslashreplace")
            self.examples.append(
                Example(letter.reason, letter.topic, letter.partition, letter.offset, shown, letter.message)
            )


class _Receipt(msgspec.Struct):
    replayed: list[tuple[int, int]]


class Receipts:
    """Which offsets of the dead letters were sent back, as ranges per partition."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}

    def add(self, partition: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Adds ranges, both ends included, and joins those that touch."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted([*self.ranges(partition), *ranges]):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(joined[-1][1], last))
            else:
                joined.append((first, last))
        self._ranges[partition] = joined

    def ranges(self, partition: int) -> list[tuple[int, int]]:
        """The ranges of one partition, in order."""
        return self._ranges.get(partition, [])

    def __contains__(self, position: tuple[int, int]) -> bool:
        partition, offset = position
        ranges = self.ranges(partition)
        after = bisect_right(ranges, offset, key=lambda pair: pair[0])
        return after > 0 and offset <= ranges[after - 1][1]


async def list_dead_letters(
    settings: Settings, reason: str | None = None, examples_max: int = EXAMPLES_PER_REASON
) -> DeadLetterReport:
    """Counts the letters that wait, with examples.

    Raises:
        UsageError: the topic does not exist.
        BrokerUnavailable: Kafka does not answer.
    """
    report = DeadLetterReport(Topics(settings.prefix).dead_letters)
    async with dead_letter_reader(settings) as letters:
        await letters.read_receipts()
        async for letter in letters.letters():
            if (letter.found_partition, letter.found_offset) in letters.receipts:
                report.replayed_before += 1
            elif reason in {None, letter.reason}:
                report.add(letter, examples_max)
    return report


def receipt(sent: Receipts, partition: int) -> OutRecord:
    """The record that says, on this partition of the dead letters, which of its offsets were sent back."""
    return OutRecord(None, msgspec.json.encode(_Receipt(sent.ranges(partition))), [(RECEIPT, RECEIPT_VERSION)])


class DeadLetterReader:
    """Reads the dead letters from the first to those present at the start, twice: receipts, then letters."""

    def __init__(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> None:
        self.receipts = Receipts()
        self._consumer = consumer
        self._ends = ends

    async def read_receipts(self) -> None:
        """Learns what was sent back."""
        async for record in read_until(self._consumer, self._ends):
            if is_receipt(record.headers):
                self.receipts.add(record.partition, _sent(record))

    async def letters(self) -> AsyncIterator[DeadLetter]:
        """Every dead letter, sent back or not."""
        async for record in read_until(self._consumer, self._ends):
            if not is_receipt(record.headers):
                yield _letter(record)


@asynccontextmanager
async def dead_letter_reader(settings: Settings, fenced: bool = False) -> AsyncIterator[DeadLetterReader]:
    """A reader of the committed records up to now.

    `fenced`: of all records up to now, waiting for open transactions to end. Receipts may lie behind the first
    record of a worker's open transaction, where `read_committed` cannot see them yet.

    Raises:
        UsageError: `events` or its dead letters do not exist.
        BrokerUnavailable: Kafka does not answer.
    """
    topics = Topics(settings.prefix)
    topic = topics.dead_letters
    counts = await list_topics(settings)
    if missing := [needed for needed in (topics.events, topic) if needed not in counts]:
        raise missing_topics(missing)
    partitions = [TopicPartition(topic, number) for number in range(counts[topic])]
    level = "read_uncommitted" if fenced else "read_committed"
    try:
        async with (
            reader(settings, isolation_level="read_committed") as consumer,
            reader(settings, isolation_level=level) as watermarks,
        ):
            consumer.assign(partitions)
            yield DeadLetterReader(consumer, await watermarks.end_offsets(partitions))
    except (KafkaError, TimeoutError, OSError) as error:
        raise await diagnosed(settings, error) from error


def _header(record: ConsumerRecord, name: str) -> str | None:
    """The last header of that name: a verdict is added after whatever the producer sent."""
    values = [value for header, value in record.headers if header == name]
    return values[-1].decode(errors="backslashreplace") if values and values[-1] is not None else None


def _sent(record: ConsumerRecord) -> list[tuple[int, int]]:
    try:
        ranges = msgspec.json.decode(record.value or b"", type=_Receipt).replayed
    except msgspec.DecodeError as error:
        raise CorruptState(
            f"Expected a receipt of replayed letters at {record.topic}/{record.partition}/{record.offset}, "
            f"came {error}. "
            "Without it nobody knows what was sent back; replay by hand, or with the version that wrote it."
        ) from error
    return ranges


def _letter(record: ConsumerRecord) -> DeadLetter:
    return DeadLetter(
        _header(record, REASON) or UNKNOWN_REASON,
        _header(record, MESSAGE) or "",
        _header(record, TOPIC) or record.topic,
        _number(_header(record, PARTITION), record.partition),
        _number(_header(record, OFFSET), record.offset),
        record.partition,
        record.offset,
        record,
    )


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else otherwise
