"""One arm of the ingest measurement, in a process of its own: drains a filled topic and says what that cost.

`bare` is the rival: an aiokafka consumer that fetches and parses JSON and does nothing else. `road` is the worker
without model, search and ranking: it validates, counts, keeps histories, commits lists and changelog. `full` is the
worker as it is.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from streams.config import Settings, load_settings
from streams.core.ports import EncoderEvents, Floats
from streams.kafka.clients import client_options
from streams.kafka.topics import Topics
from streams.kafka.worker import Worker
from streams.metrics import Metrics
from streams.wiring import build_engine

if TYPE_CHECKING:
    from streams.kafka.processor import Output

POLL_S = 0.02
PROGRESS_S_MAX = 120.0
COMPUTE_STAGES = ("decode", "encode", "search", "rank", "serialise")


class ArmResult(msgspec.Struct, frozen=True):
    """`cpu_s` is user and system time of the process while it drained; `stage_cpu_us` its parts per event: stages of
    the compute thread, and the event loop's fetching, sending and committing as the rest."""

    arm: str
    events: int
    seconds: float
    cpu_s: float
    lists: int = 0
    batches: int = 0
    stage_cpu_us: dict[str, float] = {}

    @property
    def events_per_s(self) -> float:
        """Drained events per second of wall time."""
        return self.events / self.seconds


class _NoModel:
    """An encoder that keeps nothing (a state is one unused number) and gives no direction."""

    name = "none"
    state_width = 1

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def step(self, states: Floats, events: EncoderEvents) -> None:
        """Moves nothing."""

    def vectors(self, states: Floats) -> Floats:
        """No direction: nobody enters the index."""
        return np.zeros((len(states), self.dim), np.float32)


class _Tally:
    """Counts what the worker commits."""

    def __init__(self) -> None:
        self.handled = self.lists = self.batches = 0
        self.stage_s: defaultdict[str, float] = defaultdict(float)
        self.last_s = 0.0
        self.failure: BaseException | None = None

    def committed(self, records: list[ConsumerRecord], output: Output, stage_s: dict[str, float]) -> None:
        """One committed batch."""
        self.handled += len(records)
        self.lists += len(output.lists)
        self.batches += 1
        for stage, seconds in stage_s.items():
            self.stage_s[stage] += seconds
        self.last_s = time.perf_counter()

    def restarted(self, partition: int, error: BaseException) -> None:  # noqa: ARG002 - the first error is enough
        """A restart spoils the measurement."""
        self.failure = error


async def _bare(settings: Settings, events: int) -> ArmResult:
    topic = Topics(settings.prefix).events
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=100
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(settings.partitions)])
        seen, parse = 0, orjson.loads
        started, cpu = time.perf_counter(), _cpu_s()
        while seen < events:
            for records in (await consumer.getmany(timeout_ms=500, max_records=settings.batch_events_max)).values():
                for record in records:
                    parse(record.value)
                seen += len(records)
        return ArmResult("bare", seen, time.perf_counter() - started, _cpu_s() - cpu)
    finally:
        await consumer.stop()


async def _worker(settings: Settings, events: int, *, ranking: bool) -> ArmResult:
    engine = build_engine(settings) if ranking else build_engine(settings, model=_NoModel(settings.dim), ranking=False)
    tally = _Tally()
    worker = Worker(settings, engine, Metrics(), listener=tally, stage_clock=time.thread_time)
    await worker.start()
    try:
        while not worker.some_run:  # noqa: ASYNC110 - the worker announces nothing to a rival
            await asyncio.sleep(POLL_S)
        started, cpu = time.perf_counter(), _cpu_s()
        deadline = started + PROGRESS_S_MAX
        while tally.handled < events:
            await asyncio.sleep(POLL_S)
            if tally.failure is not None:
                raise tally.failure
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{tally.handled} of {events} events after {PROGRESS_S_MAX} s")
        seconds, cpu_s = tally.last_s - started, _cpu_s() - cpu
    finally:
        await worker.stop()
    stages = {name: tally.stage_s[name] for name in COMPUTE_STAGES}
    stages["event loop and commit"] = cpu_s - sum(stages.values())
    per_event_us = {name: round(1e6 * total / tally.handled, 2) for name, total in stages.items()}
    return ArmResult(
        "full" if ranking else "road", tally.handled, seconds, cpu_s, tally.lists, tally.batches, per_event_us
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """`python -m streams.bench.arm ARM EVENTS`, with the settings in the environment."""
    arm, events = sys.argv[1], int(sys.argv[2])
    # All lists of all events: what is measured must not be shed, nor made more.
    settings = load_settings(freshness_target_ms=0, reverse_refreshes_per_s=0.0)
    run = _bare(settings, events) if arm == "bare" else _worker(settings, events, ranking=arm == "full")
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run)))


if __name__ == "__main__":
    main()
