"""From an event's sending to its list in the hands of a `read_committed` reader, at a steady rate."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from subprocess import Popen
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from streams.bench.report import Bar, Report, bar, machine
from streams.config import child_environment
from streams.core.errors import NearstreamError
from streams.core.recommendations import ProfileSummary
from streams.core.status import WorkerStatus
from streams.feed import feed
from streams.kafka.processes import free_ports
from streams.kafka.records import open_topic
from streams.kafka.topics import Topics, create_topics
from streams.sources import open_source

if TYPE_CHECKING:
    from streams.config import Settings

P50_MS_MUST, P99_MS_MUST = 100.0, 400.0
WARM_S = 5.0
WORKER_START_S_MAX = 60.0
DRAIN_S_MAX = 30.0
POLL_MS = 50

Say = Callable[[str], None]


class _ListHead(msgspec.Struct):
    """The part of a list that tells which events it covers."""

    user_id: str
    profile: ProfileSummary


class _EventHead(msgspec.Struct):
    user_id: str
    timestamp: int


@dataclass
class _Clocked:
    """Pairs the events of each user, in order, with the first list that covers them."""

    sent_ms: dict[str, deque[int]] = field(default_factory=lambda: defaultdict(deque))
    covered: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    arrived_early: dict[str, deque[tuple[int, float]]] = field(default_factory=lambda: defaultdict(deque))
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """(sent, latency), both ms."""

    def event(self, user: str, sent_ms: int) -> None:
        """An event as its reader sees it; its list may have been seen already."""
        self.sent_ms[user].append(sent_ms)
        while self.arrived_early[user]:
            events, seen_ms = self.arrived_early[user][0]
            if not self._cover(user, events, seen_ms):
                return
            self.arrived_early[user].popleft()

    def list_(self, user: str, events: int, seen_ms: float) -> None:
        """A list that covers the first `events` events of the user."""
        if self.arrived_early[user] or not self._cover(user, events, seen_ms):
            self.arrived_early[user].append((events, seen_ms))

    def _cover(self, user: str, events: int, seen_ms: float) -> bool:
        waiting = self.sent_ms[user]
        while self.covered[user] < events and waiting:
            sent = waiting.popleft()
            self.latencies.append((sent, seen_ms - sent))
            self.covered[user] += 1
        return self.covered[user] >= events


async def measure_latency(settings: Settings, rates: list[float], seconds: float, say: Say) -> Report:
    """One fresh worker per rate. The first five seconds warm up and do not count."""
    bars: list[Bar] = []
    details: dict[str, object] = {}
    for rate in rates:
        topics = settings.model_copy(
            update={"prefix": f"latency-{uuid.uuid4().hex[:6]}.", "group": f"latency-{uuid.uuid4().hex[:6]}"}
        )
        await create_topics(topics)
        with _worker(topics):
            clocked, stages_ms = await _run(topics, rate, seconds + WARM_S)
        figures = _figures(clocked, rate, seconds, bars)
        details[f"{rate:g} events/s"] = {**figures, "stages_ms": stages_ms}
        say(f"{rate:g} events/s: {figures}")
    conditions = {
        **machine(),
        "partitions": settings.partitions,
        "linger_ms": settings.linger_ms,
        "seconds": seconds,
        "data": "synthetic shop, seed 0",
    }
    return Report(conditions, bars, details)


def _figures(clocked: _Clocked, rate: float, seconds: float, bars: list[Bar]) -> dict[str, float]:
    first = min(sent for sent, _ in clocked.latencies)
    latencies = np.array([ms for sent, ms in clocked.latencies if sent >= first + WARM_S * 1000])
    p50, p99, worst = np.percentile(latencies, [50, 99, 100])
    bars.append(bar(f"{rate:g} events/s: p50", float(p50), "ms", P50_MS_MUST, "at most"))
    bars.append(bar(f"{rate:g} events/s: p99", float(p99), "ms", P99_MS_MUST, "at most"))
    return {
        "events": len(latencies),
        "events_per_s": round(len(latencies) / seconds, 1),
        "mean_ms": round(float(latencies.mean()), 1),
        "max_ms": round(float(worst), 1),
    }


async def _run(settings: Settings, rate: float, seconds: float) -> tuple[_Clocked, dict[str, float]]:
    """Feeds and reads at once; returns when every event is covered by a list."""
    clocked = _Clocked()
    stages: list[dict[str, float]] = []
    topics = Topics(settings.prefix)
    source = open_source("synthetic", endless=True, seed=0)
    limit = int(rate * seconds)

    def on_list(value: bytes) -> None:
        head = msgspec.json.decode(value, type=_ListHead)
        clocked.list_(head.user_id, head.profile.events, time.time() * 1000)

    def on_event(value: bytes) -> None:
        head = msgspec.json.decode(value, type=_EventHead)
        clocked.event(head.user_id, head.timestamp)

    def on_status(value: bytes) -> None:
        status = msgspec.json.decode(value, type=WorkerStatus)
        ready.set() if any(p.state == "running" for p in status.partitions) else None
        if status.events_per_s > rate / 2:
            stages.append(status.stages_ms)

    ready = asyncio.Event()
    readers = [
        asyncio.create_task(_read(settings, topic, handle))
        for topic, handle in ((topics.recommendations, on_list), (topics.events, on_event), (topics.status, on_status))
    ]
    try:
        await asyncio.wait_for(ready.wait(), WORKER_START_S_MAX)
        await feed(source, settings, rate=rate, limit=limit, time_mode="now")
        deadline = time.monotonic() + DRAIN_S_MAX
        while len(clocked.latencies) < limit:
            for reader in readers:
                if reader.done():
                    reader.result()
            if time.monotonic() > deadline:
                raise NearstreamError(f"{len(clocked.latencies)} of {limit} events were covered by a list in time.")
            await asyncio.sleep(POLL_MS / 1000)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
    return clocked, _mean_stages(stages)


async def _read(settings: Settings, topic: str, handle: Callable[[bytes], None]) -> None:
    """Gives every committed record to `handle`, from now on."""
    async with open_topic(settings, topic) as (consumer, partitions):
        await consumer.seek_to_beginning(*partitions)
        while True:
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    handle(record.value)


def _mean_stages(stages: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for stage in stages for name in stage)
    return {name: round(statistics.fmean(s.get(name, 0.0) for s in stages), 2) for name in names}


@contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    environment = child_environment(
        bootstrap=settings.bootstrap,
        prefix=settings.prefix,
        group=settings.group,
        linger_ms=settings.linger_ms,
        web_port=free_ports(1)[0],
        log_level="warning",
    )
    process = Popen([sys.executable, "-m", "streams", "worker"], env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
