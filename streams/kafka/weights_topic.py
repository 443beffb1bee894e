"""The topic `weights`: what each worker has learned of the sources, and what was commanded about it.

MessagePack records (schema 1), schema number first; key: the worker's name, or `command`. Written outside the
transaction: weights are advice, not truth. One that is lost costs the lessons of half a minute, never an event or a
list, and the next start takes the record of before. For the same reason a record that cannot be read is passed over.

Nobody writes tombstones. Whoever has been silent for a day is not read any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from aiokafka.errors import KafkaError

from streams.core.errors import CorruptState
from streams.kafka.access import diagnosed
from streams.kafka.clients import close_producer, started_producer
from streams.kafka.records import read_all
from streams.kafka.topics import DAY_MS, Topics
from streams.recommend.fusion import HISTORY_SEGMENTS, TYPE_SEGMENTS, FusionWeights
from streams.recommend.position_bias import PositionBias

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

    from streams.config import Settings
    from streams.recommend.fusion import Doubles

SCHEMA = 1
COMMAND_KEY = "command"
SILENT_MS_MAX = DAY_MS
SEGMENT_ROWS = (1, HISTORY_SEGMENTS, TYPE_SEGMENTS)
"""Rows of (S, 2) weights in each array of `FusionWeights`."""


class WeightsCommand(msgspec.Struct, array_like=True, frozen=True):
    """What all workers do; the newest counts. Times are epoch ms."""

    schema: int = SCHEMA
    asked_ms: int = 0
    reset_ms: int = 0
    """Weights that began before this are given up; 0: never reset."""
    frozen: bool = False

    def reset(self, now_ms: int) -> WeightsCommand:
        """Begin anew, later than ever before, whatever the clocks say; frozen stays frozen."""
        return WeightsCommand(SCHEMA, now_ms, max(now_ms, self.reset_ms + 1), self.frozen)

    def freeze(self, now_ms: int) -> WeightsCommand:
        """Judge lessons and learn nothing from them."""
        return WeightsCommand(SCHEMA, now_ms, self.reset_ms, frozen=True)

    def thaw(self, now_ms: int) -> WeightsCommand:
        """Learn on."""
        return WeightsCommand(SCHEMA, now_ms, self.reset_ms, frozen=False)


class WeightsRecord(msgspec.Struct, array_like=True, frozen=True):
    """One worker's weights as they lie on the topic. Arrays are those of `FusionWeights`, little-endian float64."""

    schema: int
    sources: list[str]
    shared: bytes
    by_history: bytes
    by_type: bytes
    lessons: int
    written_ms: int
    reset_ms: int
    """The reset that these weights began with, 0 without one."""
    frozen: bool
    reactions: bytes = b""
    """The counts of `PositionBias`; empty where places make no difference, and in records of before there were any."""
    exploration: float = 0.0


class Learned(NamedTuple):
    """What a worker has learned. Times are epoch ms."""

    sources: tuple[str, ...]
    weights: FusionWeights
    lessons: int
    written_ms: int
    reset_ms: int
    frozen: bool
    reactions: Doubles | None = None
    """The counts of `PositionBias`; None where places make no difference."""
    exploration: float = 0.0
    """Share of the lists that try a pair of items."""


class Mean(NamedTuple):
    """Weights of several workers as one."""

    weights: FusionWeights
    """Of the sources that were asked for."""
    lessons: int
    """Of one of those workers, on average: what everybody begins with must not count for all of them together."""
    workers: int
    reactions: Doubles | None = None
    """Of those workers that count any, as many as one of them has."""


class WeightsState(NamedTuple):
    """What the topic says now."""

    command: WeightsCommand
    workers: dict[str, Learned]
    """By name, without those who were silent for a day."""
    unreadable: int


_decode_weights = msgspec.msgpack.Decoder(WeightsRecord).decode
_decode_command = msgspec.msgpack.Decoder(WeightsCommand).decode


def encode_weights(learned: Learned) -> bytes:
    """The record of these weights."""
    shared, by_history, by_type = (np.ascontiguousarray(part, "<f8").tobytes() for part in learned.weights)
    record = WeightsRecord(
        schema=SCHEMA,
        sources=list(learned.sources),
        shared=shared,
        by_history=by_history,
        by_type=by_type,
        lessons=learned.lessons,
        written_ms=learned.written_ms,
        reset_ms=learned.reset_ms,
        frozen=learned.frozen,
        reactions=b"" if learned.reactions is None else np.ascontiguousarray(learned.reactions, "<f8").tobytes(),
        exploration=learned.exploration,
    )
    return msgspec.msgpack.encode(record)


def decode_weights(value: bytes) -> Learned:
    """The weights of a record.

    Raises:
        CorruptState: the bytes are no such record, of a newer schema, or their weights are not finite.
    """
    try:
        record = _decode_weights(value)
    except msgspec.DecodeError as error:
        raise CorruptState(f"Expected a record of weights, came {value[:40]!r} ({error}). Reset the weights.") from None
    _check_schema(record.schema)
    sources = len(record.sources)
    parts = (record.shared, record.by_history, record.by_type)
    expected = [8 * 2 * sources * rows for rows in SEGMENT_ROWS]
    if [len(part) for part in parts] != expected:
        raise CorruptState(
            f"Expected weights of {sources} sources in {expected} bytes, came {[len(part) for part in parts]}."
        )
    shared, by_history, by_type = (np.frombuffer(part, "<f8").astype(np.float64) for part in parts)
    weights = FusionWeights(
        shared.reshape(sources, 2), by_history.reshape(-1, sources, 2), by_type.reshape(-1, sources, 2)
    )
    if not all(np.isfinite(part).all() for part in weights) or record.lessons < 0:
        raise CorruptState("Expected finite weights and no less than 0 lessons, came others. Reset the weights.")
    return Learned(
        tuple(record.sources),
        weights,
        record.lessons,
        record.written_ms,
        record.reset_ms,
        record.frozen,
        _reactions_of(record.reactions),
        record.exploration,
    )


def encode_command(command: WeightsCommand) -> bytes:
    """The record of a command."""
    return msgspec.msgpack.encode(command)


def decode_command(value: bytes) -> WeightsCommand:
    """The command of a record.

    Raises:
        CorruptState: the bytes are no command, or one of a newer schema.
    """
    try:
        command = _decode_command(value)
    except msgspec.DecodeError as error:
        raise CorruptState(f"Expected a command, came {value[:40]!r} ({error}). Give the command again.") from None
    _check_schema(command.schema)
    return command


def mean_weights(learned: Iterable[Learned], sources: tuple[str, ...], reset_ms: int, now_ms: int) -> Mean | None:
    """The mean by lessons over all who obeyed the last reset, spoke within a day and weigh some of these sources.

    Each source's weights are the mean of those who weigh it, whatever else they weigh: workers of an older version know
    others. A source that nobody weighs begins with 0; see `FusionWeights.for_sources`.
    """
    counted = [
        each
        for each in learned
        if each.reset_ms >= reset_ms
        and each.lessons
        and not is_silent(each, now_ms)
        and not set(sources).isdisjoint(each.sources)
    ]
    if not counted:
        return None
    lessons = np.array([each.lessons for each in counted], np.float64)
    weighs = np.array([[source in each.sources for source in sources] for each in counted])
    shares = np.where(weighs, lessons[:, None], 0.0)
    shares /= np.maximum(shares.sum(axis=0), 1.0)
    parts = zip(*(each.weights.for_sources(each.sources, sources) for each in counted), strict=True)
    weights = FusionWeights(*(np.einsum("ws,w...sf->...sf", shares, np.stack(part)) for part in parts))
    reactions = [each.reactions for each in counted if each.reactions is not None]
    mean_reactions = np.mean(reactions, axis=0) if reactions else None
    return Mean(weights, round(float(lessons.mean())), len(counted), mean_reactions)


def is_silent(learned: Learned, now_ms: int) -> bool:
    """Whether the worker has not written for a day."""
    return now_ms - learned.written_ms > SILENT_MS_MAX


async def read_weights(settings: Settings) -> WeightsState:
    """What the topic says now.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        UsageError: the topic does not exist.
    """
    values: dict[bytes, bytes | None] = {}
    async for record in read_all(settings, Topics(settings.prefix).weights):
        if record.key is not None:
            values[record.key] = record.value
    return state_of(values, int(time.time() * 1000))


def state_of(values: Mapping[bytes, bytes | None], now_ms: int) -> WeightsState:
    """What the newest value of each key says; None is a tombstone."""
    command, workers, unreadable = WeightsCommand(), {}, 0
    for key, value in values.items():
        if value is None:
            continue
        try:
            if key == COMMAND_KEY.encode():
                command = decode_command(value)
            elif not is_silent(learned := decode_weights(value), now_ms):
                workers[key.decode(errors="replace")] = learned
        except CorruptState:
            unreadable += 1
    return WeightsState(command, workers, unreadable)


async def give_command(settings: Settings, change: Callable[[WeightsCommand, int], WeightsCommand]) -> WeightsCommand:
    """Puts `change(command so far, epoch ms of now)` in force. Running workers obey within a second.

    Of two who command at the same time one counts.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        UsageError: the topic does not exist.
    """
    command = change((await read_weights(settings)).command, int(time.time() * 1000))
    try:
        producer = await weights_producer(settings)
        try:
            await send(producer, Topics(settings.prefix), COMMAND_KEY, encode_command(command))
        finally:
            await close_producer(producer)
    except (KafkaError, OSError) as error:
        raise await diagnosed(settings, error) from error
    return command


async def weights_producer(settings: Settings) -> AIOKafkaProducer:
    """See `started_producer`. Most weights of segments are 0: compressed, a record is a tenth of its size."""
    return await started_producer(settings, compression_type="gzip", request_timeout_ms=5000)


async def send(producer: AIOKafkaProducer, topics: Topics, key: str, value: bytes) -> None:
    """Returns when Kafka has the record. Raises aiokafka's KafkaError when it does not take it."""
    await producer.send_and_wait(topics.weights, value, key=key.encode(), partition=0)


def _reactions_of(written: bytes) -> Doubles | None:
    if not written:
        return None
    try:
        return PositionBias.of(np.frombuffer(written, "<f8").reshape(3, -1)).counts
    except ValueError as error:
        raise CorruptState(f"Expected counts of reactions, came others ({error}). Reset the weights.") from None


def _check_schema(schema: int) -> None:
    if schema != SCHEMA:
        raise CorruptState(f"Expected schema {SCHEMA} of the topic weights, came {schema}. Use a newer version.")
