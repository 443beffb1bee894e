"""Throughput into committed lists, beside a bare consumer loop over the same topic in the same run."""

from __future__ import annotations

import asyncio
import statistics
import sys
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from streams.bench.arm import ArmResult
from streams.bench.report import Bar, Report, bar, machine
from streams.config import child_environment
from streams.core.errors import NearstreamError
from streams.feed import feed
from streams.kafka.topics import create_topics

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.sources import Source

ARMS = ("bare", "road", "full")
ROAD_SHARE_MUST = 0.4
FULL_EVENTS_PER_S_MUST = 5000.0

Say = Callable[[str], None]


async def measure_ingest(settings: Settings, sources: dict[str, Source], rounds: int, say: Say) -> Report:
    """Each source through each arm in turn, `rounds` times, interleaved; each arm on freshly filled topics."""
    bars: list[Bar] = []
    details: dict[str, object] = {}
    for name, source in sources.items():
        results: dict[str, list[ArmResult]] = {arm: [] for arm in ARMS}
        for number in range(rounds):
            for arm in ARMS:
                result = await _fill_and_drain(settings, source, arm)
                results[arm].append(result)
                say(f"{name}: round {number + 1} {arm}: {result.events_per_s:,.0f} events/s")
        bars += _bars(name, results)
        details[name] = {arm: [msgspec.to_builtins(r) for r in runs] for arm, runs in results.items()}
    conditions = {**machine(), "partitions": settings.partitions, "batch_events_max": settings.batch_events_max}
    return Report({**conditions, "rounds": rounds}, bars, details)


async def _fill_and_drain(settings: Settings, source: Source, arm: str) -> ArmResult:
    """Fills fresh topics, since profiles remember which offsets they hold, then drains them in a fresh process."""
    topics = settings.model_copy(update={"prefix": f"bench-{uuid.uuid4().hex[:6]}."})
    await create_topics(topics)
    events = (await feed(source, topics)).events
    environment = child_environment(
        bootstrap=topics.bootstrap,
        prefix=topics.prefix,
        partitions=topics.partitions,
        group=topics.prefix.rstrip("."),
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streams.bench.arm", arm, str(events), env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise NearstreamError(f"The arm {arm!r} failed with exit code {process.returncode}; its words are above.")
    return msgspec.json.decode(output, type=ArmResult)


def _bars(name: str, results: dict[str, list[ArmResult]]) -> list[Bar]:
    def median(arm: str) -> float:
        return statistics.median(r.events_per_s for r in results[arm])

    pairs = zip(results["road"], results["bare"], strict=True)
    ratio = statistics.median(road.events_per_s / bare.events_per_s for road, bare in pairs)
    return [
        bar(f"{name}: bare loop", median("bare"), "events/s"),
        bar(f"{name}: worker without search and ranking", median("road"), "events/s"),
        bar(f"{name}: the same / bare loop", ratio, "ratio", ROAD_SHARE_MUST),
        bar(f"{name}: worker, everything on", median("full"), "events/s", FULL_EVENTS_PER_S_MUST),
        bar(f"{name}: lists", statistics.median(r.lists / r.seconds for r in results["full"]), "lists/s"),
    ]
