"""Membership of the consumer group: which partitions this worker runs, and how it gives them up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from streams.kafka.clients import client_options, close_consumer, pace_metadata_updates
from streams.kafka.pipeline import FATAL, BatchListener, PartitionPipeline, PipelineHost

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.kafka.processor import Processor
    from streams.kafka.tail import TopicTail
    from streams.kafka.topics import Topics
    from streams.kafka.traces import Traces

logger = logging.getLogger(__name__)

HALT_SHARE_OF_REBALANCE = 0.6
CANCEL_WAIT_S = 2.0
FETCH_MAX_WAIT_MS = 20
"""aiokafka has one fetch under way per broker; a partition that it left out waits until that fetch returns."""
CLOSE_HALT_S = 3.0
GROUP_LEAVE_S = 2.5


class PipelineGroup(ConsumerRebalanceListener):  # type: ignore[misc]
    """Joins the group and runs one pipeline per assigned partition.

    `fatal` completes with the error when a pipeline ends by a verdict that must stop the worker.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        changelog: TopicTail,
        processor: Processor,
        compute: Callable[..., Awaitable[Any]],
        listener: BatchListener,
        traces: Traces | None = None,
    ) -> None:
        self.fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rebalancing = True
        self.pipelines: dict[TopicPartition, PartitionPipeline] = {}
        self._settings = settings
        self._topics = topics
        self._parked: dict[TopicPartition, PartitionPipeline] = {}
        self._clean_ups: set[asyncio.Task[None]] = set()
        self._closing = False
        self._consumer = self._new_consumer()
        self._host = PipelineHost(settings, topics, self._consumer, changelog, processor, compute, listener, traces)

    async def start(self) -> None:
        """Connects and subscribes; partitions arrive later. Raises aiokafka's KafkaError when nobody answers."""
        await self._consumer.start()
        pace_metadata_updates(self._consumer._client)  # aiokafka has no public way to the client
        self._consumer.subscribe([self._topics.events], listener=self)

    async def close(self) -> None:
        """Finishes running transactions, leaves the group and closes the producers, in bounded time."""
        self._closing = True
        pipelines = [*self.pipelines.values(), *self._parked.values()]
        await self._halt(self.pipelines.values(), CLOSE_HALT_S)
        closings = [close_consumer(self._consumer, GROUP_LEAVE_S), *(p.close() for p in pipelines)]
        await asyncio.gather(*closings)
        if self._clean_ups:
            await asyncio.wait(set(self._clean_ups), timeout=CANCEL_WAIT_S)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - eager: all go
        """Rule 13: stop all, then wait for all; park the clean ones, which often come back at once."""
        self.rebalancing = True
        pipelines, self.pipelines = list(self.pipelines.values()), {}
        started = time.monotonic()
        await self._halt(pipelines, HALT_SHARE_OF_REBALANCE * self._settings.rebalance_timeout_ms / 1000)
        for pipeline in pipelines:
            if pipeline.clean and not self._closing:
                self._parked[pipeline.partition] = pipeline
            else:
                self._clean_up(pipeline.close())
        logger.info("revoked %d partitions in %.3f s", len(pipelines), time.monotonic() - started)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Rule 13: returns at once, for no heartbeat is sent while it runs; aiokafka may call it while closing."""
        if self._closing:
            return
        partitions = sorted(assigned)
        self._consumer.pause(*partitions)
        for partition in partitions:
            pipeline = self._parked.pop(partition, None) or PartitionPipeline(self._host, partition)
            self.pipelines[partition] = pipeline
            pipeline.start()
            pipeline.task.add_done_callback(self._on_pipeline_end)
        while self._parked:
            self._clean_up(self._parked.popitem()[1].close())
        self.rebalancing = False
        logger.info("assigned partitions %s", [partition.partition for partition in partitions])

    def _new_consumer(self) -> AIOKafkaConsumer:
        settings = self._settings
        return AIOKafkaConsumer(
            **client_options(settings),
            group_id=settings.group,
            group_instance_id=settings.group_instance_id,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            rebalance_timeout_ms=settings.rebalance_timeout_ms,
            request_timeout_ms=max(40_000, settings.rebalance_timeout_ms + 5000),
            partition_assignment_strategy=[StickyPartitionAssignor],
        )

    async def _halt(self, pipelines: Iterable[PartitionPipeline], grace_s: float) -> None:
        """Lets each pipeline finish its transaction; past the grace it is cancelled and its outcome left open."""
        tasks = []
        for pipeline in pipelines:
            pipeline.request_stop()
            tasks.append(pipeline.task)
        if not tasks:
            return
        _, pending = await asyncio.wait(tasks, timeout=grace_s)
        for task in pending:
            task.cancel()
        if pending:
            logger.warning("%d pipelines did not finish in %.1f s and were cancelled", len(pending), grace_s)
            await asyncio.wait(pending, timeout=CANCEL_WAIT_S)

    def _on_pipeline_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, FATAL) and not self.fatal.done():
            self.fatal.set_exception(error)

    def _clean_up(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._clean_ups.add(task)
        task.add_done_callback(self._clean_ups.discard)
