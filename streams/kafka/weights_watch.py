"""One worker's weights on the topic `weights`: keeps its own there, begins with those of others, obeys commands."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.errors import KafkaError

from streams.core.errors import CorruptState, UsageError
from streams.core.status import ListQuality
from streams.kafka.clients import close_producer
from streams.kafka.weights_topic import (
    COMMAND_KEY,
    Learned,
    Mean,
    WeightsCommand,
    decode_command,
    decode_weights,
    encode_weights,
    mean_weights,
    send,
    weights_producer,
)

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

    from streams.config import Settings
    from streams.kafka.examine import RawRecord
    from streams.kafka.topics import Topics
    from streams.metrics import Metrics
    from streams.recommend.engine import Engine
    from streams.recommend.fusion import FusionWeights

logger = logging.getLogger(__name__)

INTERVAL_S = 30.0
UNCHANGED_S_MAX = 3600.0
"""A worker that learns nothing writes this often all the same, so that it does not count as silent."""
SEND_S = 3.0
GOODBYE_S = 0.5
WORKERS_MAX = 256
"""Workers whose weights a start takes into its mean, the latest to write."""

PARTS = ("a", "l")
"""The two opinions of a source that are weighed: see `streams.recommend.fusion`."""


class _Written(NamedTuple):
    lessons: int
    reset_ms: int
    frozen: bool


class WeightsWatch:
    """Obeys the newest command from the first record on; takes over a mean once, in `begin`; then writes its own.

    While it runs a worker learns from its own partitions alone: others' weights are read at the start only.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        worker: str,
        engine: Engine,
        compute: Callable[..., Awaitable[Any]],
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`compute` runs a function in the compute thread; with an `interval_s` of 0 nothing is written.

        Raises:
            UsageError: the worker has the name of the commands.
        """
        if worker == COMMAND_KEY:
            raise UsageError(f"worker_id may be any name but {COMMAND_KEY!r}, which is taken on the topic `weights`.")
        self._settings = settings
        self._topics = topics
        self._worker = worker
        self._engine = engine
        self._compute = compute
        self._interval_s = interval_s
        self._clock = clock
        self._command = WeightsCommand()
        self._heard: dict[bytes, Learned] | None = {}
        """Until the start is over."""
        self._commanded = asyncio.Event()
        self._producer: AIOKafkaProducer | None = None
        self._task: asyncio.Task[None] | None = None
        self._written: _Written | None = None
        self._written_s = 0.0

    async def hear(self, records: Sequence[RawRecord]) -> None:
        """Follows the topic. What cannot be read is passed over, said aloud."""
        newest = {record.key: record.value for record in records if record.key is not None}
        command = newest.pop(COMMAND_KEY.encode(), None)
        if self._heard is not None:
            for key, value in newest.items():
                self._hear_weights(self._heard, key, value)
        if command is not None:
            try:
                self._command = decode_command(command)
            except CorruptState as error:
                logger.warning("a command to the weights is passed over: %s", error)
                return
            await self._compute(self._obey, self._command)
            self._commanded.set()

    async def begin(self) -> Mean | None:
        """Ends the start: whoever has learned nothing goes on with the mean of the others, which is returned."""
        heard, self._heard = self._heard or {}, None
        if self._engine.lessons or not self._engine.sources:
            return None
        mean = mean_weights(heard.values(), self._engine.sources, self._command.reset_ms, self._now_ms())
        if mean is not None:
            await self._compute(self._engine.take_weights, mean.weights, mean.lessons, mean.reactions)
            logger.info("begins with the weights that %d workers have learned", mean.workers)
        return mean

    async def start_writing(self) -> None:
        """Connects and writes from now on. Raises aiokafka's KafkaError when Kafka does not answer."""
        if self._interval_s and self._engine.sources:
            self._producer = await weights_producer(self._settings)
            self._task = asyncio.create_task(self._run(), name="weights")

    async def stop(self) -> None:
        """Writes a last time and closes, in bounded time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            await self._write(GOODBYE_S)
        await close_producer(self._producer)

    def own(self) -> Learned | None:
        """A record of now, in the compute thread; None while the one of before says the same and is not old."""
        engine, weights, now_s = self._engine, self._engine.weights, self._clock()
        written = _Written(engine.lessons, engine.weights_reset_ms, engine.frozen)
        if weights is None or (written == self._written and now_s - self._written_s < UNCHANGED_S_MAX):
            return None
        return Learned(
            engine.sources,
            weights,
            engine.lessons,
            self._now_ms(),
            engine.weights_reset_ms,
            engine.frozen,
            engine.reactions,
            0.0 if engine.feedback is None else engine.feedback.exploration,
        )

    def wrote(self, learned: Learned) -> None:
        """The record is on the topic."""
        self._written = _Written(learned.lessons, learned.reset_ms, learned.frozen)
        self._written_s = self._clock()

    async def _run(self) -> None:
        while True:
            self._commanded.clear()
            await self._write(SEND_S)
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._commanded.wait()
            except TimeoutError:
                continue

    async def _write(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                learned: Learned | None = await self._compute(self.own)
                if learned is None or self._producer is None:
                    return
                await send(self._producer, self._topics, self._worker, encode_weights(learned))
        except (KafkaError, TimeoutError, OSError) as error:
            logger.warning("the weights are not kept this time, but the next: %r", error)
        else:
            self.wrote(learned)

    def _hear_weights(self, heard: dict[bytes, Learned], worker: bytes, value: bytes | None) -> None:
        heard.pop(worker, None)
        if value is None:
            return
        try:
            heard[worker] = decode_weights(value)
        except CorruptState as error:
            logger.warning("the weights of %r are passed over: %s", worker, error)
        if len(heard) > WORKERS_MAX:
            del heard[min(heard, key=lambda each: heard[each].written_ms)]

    def _obey(self, command: WeightsCommand) -> None:
        """In the compute thread."""
        engine = self._engine
        if command.frozen != engine.frozen:
            logger.info("the weights are %s by command", "frozen" if command.frozen else "learned again")
        engine.frozen = command.frozen
        if command.reset_ms > engine.weights_reset_ms:
            logger.info("the weights begin anew by command")
            engine.reset_weights(command.reset_ms)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def list_quality(engine: Engine) -> ListQuality | None:
    """For the status; None before the first lesson."""
    quality = engine.quality
    if quality.ndcg is None or quality.hit_rate is None:
        return None
    return ListQuality(
        ndcg=round(quality.ndcg, 4),
        hit_rate=round(quality.hit_rate, 4),
        lessons=quality.lessons,
        weights_lessons=engine.lessons,
        frozen=engine.frozen,
        weights={} if engine.weights is None else _by_source(engine.sources, engine.weights),
    )


def _by_source(sources: Sequence[str], weights: FusionWeights) -> dict[str, float]:
    return {source: round(float(sum(pair)), 3) for source, pair in zip(sources, weights.shared.tolist(), strict=True)}


def export_weights(metrics: Metrics, engine: Engine) -> None:
    """Live quality, and the weights that count for all users alike."""
    quality, weights = engine.quality, engine.weights
    for name, value in (("nearstream_list_ndcg", quality.ndcg), ("nearstream_list_hit_rate", quality.hit_rate)):
        metrics.gauge(name).set(math.nan if value is None else value)
    if weights is not None:
        for source, pair in zip(engine.sources, weights.shared.tolist(), strict=True):
            for part, weight in zip(PARTS, pair, strict=True):
                metrics.gauge("nearstream_source_weight", source=source, part=part).set(weight)
