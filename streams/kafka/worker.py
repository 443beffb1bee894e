"""One worker: waits for Kafka, restores what the log says, joins the group, reports, leaves cleanly."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError

from streams.core.errors import AccessDenied, BrokerUnavailable, WorkerUnavailable
from streams.kafka.access import diagnosed
from streams.kafka.clients import bounded
from streams.kafka.consumer_group import PipelineGroup
from streams.kafka.dead_letter import DeadLetterBound
from streams.kafka.image_watch import ImageSource, ImageWatch
from streams.kafka.index_health import IndexHealth, watch_index
from streams.kafka.model_watch import ModelSource, ModelWatch
from streams.kafka.processor import Processor
from streams.kafka.recall import MemoryPlace, Recalled, memory_place, recall
from streams.kafka.rules_watch import RulesWatch
from streams.kafka.saver import MemorySaver
from streams.kafka.status import StatusReporter, WorkerFigures
from streams.kafka.tail import TopicTail
from streams.kafka.topics import Topics, check_topics, list_topics
from streams.kafka.traces import open_traces
from streams.kafka.weights_watch import INTERVAL_S, WeightsWatch
from streams.kafka.what_if_desk import WhatIfDesk

if TYPE_CHECKING:
    from pathlib import Path

    from streams.config import Settings
    from streams.core.ports import VectorIndex
    from streams.core.what_if import WhatIf, WhatIfQuestion, WhatIfRefusal
    from streams.kafka.pipeline import BatchListener
    from streams.metrics import Metrics
    from streams.recommend.engine import Engine

logger = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_S_MIN, RETRY_S_MAX = 0.5, 5.0
STOP_S_MAX = 4.5
GOODBYE_S = 1.0
"""Of a stop, kept for the last status and for closing the connections."""
GC_THRESHOLDS = (100_000, 20, 100)


class Worker:
    """The life of one worker process, without signals or web server.

    Memory begins with what a worker of this machine saved last, else with the changelog's beginning; `saver` is None
    while starting and where saving is switched off.
    `start` returns once the worker has joined its group; `failed` completes when it must not go on. A `listener`
    hears of the batches instead of the worker's own figures; `stage_clock` times the stages of the compute thread.
    A model that comes into the folder `models` is swapped in while the worker runs; one that sees images is shown those
    of `images`. What was learned of the sources is
    written every `weights_interval_s` seconds, never when that is 0.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        metrics: Metrics,
        listener: BatchListener | None = None,
        stage_clock: Callable[[], float] = time.perf_counter,
        models: ModelSource | None = None,
        images: ImageSource | None = None,
        weights_interval_s: float = INTERVAL_S,
    ) -> None:
        now_s = time.time()
        self.name = settings.worker_id or f"{socket.gethostname()}-{os.getpid()}"
        self.topics = Topics(settings.prefix)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        self._figures = WorkerFigures(metrics, now_s)
        self._stage_clock = stage_clock
        self._listener: BatchListener = self._figures if listener is None else listener
        self.reporter = StatusReporter(
            settings, self.topics, self.name, engine, self._figures, metrics, int(now_s * 1000)
        )
        # Rule 7: encoder, index and ranking run in one thread; the event loop only moves bytes.
        self._compute_thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._what_if = WhatIfDesk(engine, settings.neighbours, self._compute_thread, metrics)
        self.saver: MemorySaver | None = None
        self._traces = open_traces(settings, self.name)
        self._models = None if models is None else self._new_model_watch(models)
        self.reporter.models = self.reporter.details.models = self._models
        self._images = None if images is None else ImageWatch(images, engine, self._compute_thread, metrics)
        self.reporter.on_denied = self._fail
        self._index_health: IndexHealth | None = None
        self._tails: list[TopicTail] = []
        self._group: PipelineGroup | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._weights = WeightsWatch(settings, self.topics, self.name, engine, self._compute, weights_interval_s)
        self._rules = None if settings.rules is None else self._new_rules_watch(settings.rules)
        self.reporter.details.rules = self._rules
        self._watching: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Joined, every assigned partition is running, and Kafka answers."""
        group = self._group
        return (
            group is not None
            and not group.rebalancing
            and self.reporter.kafka_answers
            and all(pipeline.state == "running" for pipeline in group.pipelines.values())
        )

    @property
    def some_run(self) -> bool:
        """At least one partition is running."""
        return self._group is not None and any(p.state == "running" for p in self._group.pipelines.values())

    async def what_if(self, user_id: str, question: WhatIfQuestion) -> WhatIf | WhatIfRefusal:
        """What the user's list would be; nothing changes by asking.

        Raises:
            WorkerUnavailable: memory is not restored yet, or let go of already; or too much else is asked.
        """
        if self.reporter.state != "running":
            raise WorkerUnavailable(f"This worker is {self.reporter.state}. Ask again once it runs.")
        return await self._what_if.ask(user_id, question)

    async def start(self) -> None:
        """Restores and joins; waits for Kafka as long as it takes, saying so.

        Raises:
            UsageError: topics are missing or not co-partitioned.
            AccessDenied: Kafka answers and refuses us, or we do not trust it.
            CorruptState: the changelog cannot be read.
        """
        partitions = await self._when_kafka_answers(self._check_topics)
        await self._when_kafka_answers(self.reporter.start)
        self._reporting = asyncio.create_task(self.reporter.run(), name="status")
        self.reporter.state = "restoring"
        processor = self._new_processor(partitions[self.topics.events])
        place, recalled = await self._recalled(partitions[self.topics.profiles])
        weights = await self._share_weights(partitions.get(self.topics.weights, 0))
        items = await self._followed(
            self.topics.items,
            partitions[self.topics.items],
            self._counting_unreadable(processor.load_items, self.topics.items, "nearstream_unreadable_items_total"),
        )
        users = await self._followed(  # before the profiles, which begin where the attributes say
            self.topics.users,
            partitions[self.topics.users],
            self._counting_unreadable(processor.load_users, self.topics.users, "nearstream_unreadable_users_total"),
        )
        changelog = await self._followed(
            self.topics.profiles,
            partitions[self.topics.profiles],
            self._load_profiles_with(processor),
            None if recalled is None else recalled.offsets,
        )
        self.reporter.late = processor.late
        self._group = PipelineGroup(
            self._settings, self.topics, changelog, processor, self._compute, self._listener, self._traces
        )
        if self._rules is not None:
            await self._rules.look()
            self._watching = asyncio.create_task(self._rules.run(), name="rules-watch")
        calm_garbage_collector()
        self._index_health = self.reporter.index_health = watch_index(self._engine.index, self._settings, self._metrics)
        self._index_health.start()
        await self._when_kafka_answers(self._group.start)
        self.reporter.group = self._group
        self.reporter.state, self.reporter.message = "running", None
        if place is not None:
            self.saver = MemorySaver(self._settings, *place, self._engine, changelog, self._compute_thread)
            self.saver.start(recalled)
            self.reporter.saver = self.saver
        if self._models is not None:
            self._models.start()
        if self._images is not None:
            self._images.start()
        for future in (self._group.fatal, *(tail.failure for tail in (items, users, *weights, changelog))):
            future.add_done_callback(self._on_failure)

    async def stop(self) -> None:
        """Finishes running transactions, leaves the group, closes everything: under five seconds, whatever hangs."""
        failure = await bounded(self._close(), STOP_S_MAX)
        if failure is not None:
            logger.warning("closing was cut short: %r; the next owner settles what is open", failure)
        self._compute_thread.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._engine.index.close)  # a graph that is being built would hold the process up

    async def _close(self) -> None:
        started_s = time.monotonic()
        self.reporter.state = "stopping"
        if self._group is not None:
            await self._group.close()
        if self.saver is not None:
            await self.saver.stop(STOP_S_MAX - GOODBYE_S - (time.monotonic() - started_s))
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.wait({self._reporting})
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._models is not None:
            await asyncio.to_thread(self._models.stop)
        if self._images is not None:
            await asyncio.to_thread(self._images.stop)
        if self._index_health is not None:
            await asyncio.to_thread(self._index_health.stop)
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)
        await asyncio.gather(self.reporter.stop(), self._weights.stop(), *(tail.stop() for tail in self._tails))

    async def _recalled(self, partitions: int) -> tuple[MemoryPlace | None, Recalled | None]:
        """Memory as it was saved, and where it is saved from now on; nothing of either when that is switched off."""
        settings, engine = self._settings, self._engine
        if not settings.snapshot_interval_s:
            return None, None
        place = await self._when_kafka_answers(lambda: memory_place(settings, self.topics.profiles, engine))
        return place, await self._when_kafka_answers(lambda: recall(settings, place, partitions, engine, self._compute))

    async def _share_weights(self, partitions: int) -> list[TopicTail]:
        """Follows the weights, after memory was recalled; whoever has none of its own begins with those of others."""
        if not partitions:  # a Kafka whose topics were created before there was this one
            logger.warning("no topic %s: weights are not kept; see `nearstream topics create`", self.topics.weights)
            return []
        tail = await self._followed(self.topics.weights, partitions, self._weights.hear)
        await self._weights.begin()
        await self._when_kafka_answers(self._weights.start_writing)
        return [tail]

    async def _check_topics(self) -> dict[str, int]:
        counts = await list_topics(self._settings)
        check_topics(counts, self.topics)
        return counts

    async def _when_kafka_answers(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeats the attempt with backoff for as long as Kafka is unreachable."""
        delay_s = RETRY_S_MIN
        while True:
            try:
                return await attempt()
            except (KafkaError, BrokerUnavailable, OSError) as error:
                verdict = error if isinstance(error, BrokerUnavailable) else await diagnosed(self._settings, error)
                if isinstance(verdict, AccessDenied):
                    raise verdict from error
                state = self.reporter.state
                self.reporter.state = "broker-unreachable"
                self.reporter.message = str(verdict)
                logger.warning("%s Next try in %.1f s.", self.reporter.message, delay_s)
                await asyncio.sleep(delay_s)
                self.reporter.state = state
                delay_s = min(2 * delay_s, RETRY_S_MAX)

    async def _followed(
        self,
        topic: str,
        partitions: int,
        apply: Callable[[list[ConsumerRecord]], Awaitable[Any]],
        from_offsets: Mapping[int, int] | None = None,
    ) -> TopicTail:
        """A tail of the topic that has caught up with all that is there now."""
        tail = TopicTail(self._settings, topic, apply, self._on_progress)
        self._tails.append(tail)
        await self._when_kafka_answers(lambda: tail.start(partitions, from_offsets))
        started = time.monotonic()
        caught_up = asyncio.create_task(tail.catch_up())
        waiting: set[asyncio.Future[Any]] = {caught_up, tail.failure}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if tail.failure.done():
            caught_up.cancel()
            tail.failure.result()
        logger.info("restored %d records of %s in %.2f s", caught_up.result(), topic, time.monotonic() - started)
        return tail

    def _on_progress(self, topic: str, done: int, total: int) -> None:
        self.reporter.message = f"Restoring {topic}: {done:,} of {total:,}"
        logger.info("restoring %s: %d of %d", topic, done, total)

    def _on_failure(self, future: asyncio.Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.reporter.message = str(error)
            self.failed.set_exception(error)

    def _new_processor(self, partitions: int) -> Processor:
        settings = self._settings
        return Processor(
            self._engine,
            self.topics.events,
            partitions,
            settings.neighbours,
            lambda: DeadLetterBound(settings.dead_letter_share_max, settings.dead_letter_run_max),
            self._stage_clock,
            settings.reverse_refreshes_per_s,
        )

    def _new_rules_watch(self, path: Path) -> RulesWatch:
        return RulesWatch(path, self._settings.list_items, self._engine, self._compute)

    def _new_model_watch(self, models: ModelSource) -> ModelWatch:
        def follow(index: VectorIndex) -> None:
            if self._index_health is not None:
                self._index_health.follow(index)

        return ModelWatch(
            models,
            self._engine,
            self._compute_thread,
            interval_s=self._settings.model_check_interval_s,
            on_switch=follow,
        )

    def _load_profiles_with(self, processor: Processor) -> Callable[[list[ConsumerRecord]], Awaitable[Any]]:
        return lambda records: self._compute(processor.load_profiles, records)

    def _counting_unreadable(
        self, load: Callable[[list[ConsumerRecord]], int], topic: str, metric: str
    ) -> Callable[[list[ConsumerRecord]], Awaitable[Any]]:
        """Runs `load` in the compute thread; what it could not read is said aloud and counted."""

        async def load_and_count(records: list[ConsumerRecord]) -> None:
            unreadable = await self._compute(load, records)
            if unreadable:
                self._metrics.counter(metric).inc(unreadable)
                logger.warning("%d records of %s cannot be read and are passed over", unreadable, topic)

        return load_and_count

    def _compute(self, function: Callable[..., T], *arguments: object) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._compute_thread, function, *arguments)


def calm_garbage_collector() -> None:
    """Takes what is loaded and restored by now out of the cyclic collector's sight, and lets it run less often.

    Every batch makes thousands of records that reference counting frees; each of Python's default collections
    would scan all compiled kernels and profiles in between, a third of the event loop's time in a profile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
