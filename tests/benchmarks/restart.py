"""Seconds until a worker's memory is complete again: from its saved memory, and from the whole changelog.

`python tests/benchmarks/restart.py --users 200000` prints JSON. Workers are fresh processes on an embedded Kafka, with
full profiles (32 recent items, 24 event ids, ids as long as a UUID); seconds run from the start of the process to the
log's word that the changelog is read, and to `/readyz`. The killed worker had saved; then `--after` profiles were
written anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from aiokafka import AIOKafkaProducer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from streams.bench.report import machine  # noqa: E402
from streams.config import Settings, load_settings  # noqa: E402
from streams.core.profile import ProfileColumns, ProfileLayout  # noqa: E402
from streams.core.updater import EventColumns, ProfileUpdate  # noqa: E402
from streams.kafka.broker import EmbeddedKafka  # noqa: E402
from streams.kafka.changelog import encode_profiles  # noqa: E402
from streams.kafka.clients import client_options  # noqa: E402
from streams.kafka.partitioner import murmur2_partition  # noqa: E402
from streams.kafka.topics import Topics, create_topics  # noqa: E402
from streams.wiring import build_engine  # noqa: E402
from tests.integration.storm import WorkerProcess  # noqa: E402

if TYPE_CHECKING:
    from streams.recommend.engine import Engine

ITEMS, CENTRES, PIECE = 12_000, 200, 5000
START_S = 1_700_000_000
WAIT_S_MAX = 900.0
INTERVAL = "NEARSTREAM_SNAPSHOT_INTERVAL_S"


def say(text: str) -> None:
    """Progress for the person who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def full_profiles(users: range, version: int, layout: ProfileLayout, engine: Engine) -> ProfileUpdate:
    """Profiles with every place in use, around a few hundred tastes; the same for the same users and version."""
    rng = np.random.default_rng([users.start, version])
    count = len(users)
    columns = ProfileColumns.empty(count, layout)
    columns.events[:] = columns.version[:] = 40 + version
    columns.last_offset[:], columns.last_time_ms[:] = users.stop, START_S * 1000
    columns.recent_total[:], columns.recent_count[:] = 40 + version, layout.recent_items
    columns.recent_items[:] = rng.integers(0, ITEMS, columns.recent_items.shape)
    columns.recent_times_s[:] = START_S + np.arange(layout.recent_items)
    columns.event_id_count[:] = layout.event_id_window
    columns.event_ids[:] = rng.integers(1, 2**63, columns.event_ids.shape)
    centres = np.random.default_rng(0).standard_normal((CENTRES, layout.state_width))
    states = centres[rng.integers(0, CENTRES, count)] + 0.6 * rng.standard_normal((count, layout.state_width))
    columns.state[:] = states.astype(np.float32)
    nobody = np.empty(0, np.int32)
    events = EventColumns([], nobody, nobody, nobody.astype(np.uint8), *[nobody.astype(np.int64)] * 3, nobody)  # type: ignore[arg-type]
    return ProfileUpdate(
        users=[f"user-{user:031d}" for user in users],
        slots=np.full(count, -1, np.int32),
        columns=columns,
        vectors=engine.encoder.vectors(columns.state),
        excluded=[()] * count,
        last_events=nobody,
        verdicts=nobody.astype(np.uint8),
        events=events,
    )


async def write_changelog(settings: Settings, users: int, version: int) -> None:
    """One record a user, as workers write them."""
    engine = build_engine(settings, ranking=False)
    engine.catalogue.slots([f"item-{item}" for item in range(ITEMS)])
    producer = AIOKafkaProducer(**client_options(settings), linger_ms=50, max_batch_size=1 << 20)
    await producer.start()
    try:
        for first in range(0, users, PIECE):
            part = range(first, min(first + PIECE, users))
            update = full_profiles(part, version, engine.store.layout, engine)
            values = encode_profiles(update, engine.catalogue, engine.encoder.name)
            for user, value in zip(update.users, values, strict=True):
                partition = murmur2_partition(user, settings.partitions)
                await producer.send(Topics(settings.prefix).profiles, value, user.encode(), partition)
            await producer.flush()
    finally:
        await producer.stop()


def start(worker: WorkerProcess) -> dict[str, float]:
    """Starts it and waits until it is ready; what took how long."""
    read_from = worker.log.stat().st_size if worker.log.exists() else 0
    worker.start()
    started_s = time.monotonic()
    figures: dict[str, float] = {}
    while "ready_s" not in figures:
        said = worker.log.read_text()[read_from:]
        if "memory_complete_s" not in figures and re.search(r"restored \d+ records of \S*profiles", said):
            figures["memory_complete_s"] = round(time.monotonic() - started_s, 2)
        if "memory_complete_s" in figures and answers(worker.web_port):
            figures["ready_s"] = round(time.monotonic() - started_s, 2)
        if time.monotonic() - started_s > WAIT_S_MAX:
            raise TimeoutError(f"the worker is not ready after {WAIT_S_MAX} s:\n{said[-2000:]}")
        time.sleep(0.02)
    for name, pattern in {
        "users_from_file": r"restored (\d+) users",
        "file_s": r"restored \d+ users from .* in ([\d.]+) s",
        "changelog_records": r"restored (\d+) records of \S*profiles",
        "changelog_s": r"restored \d+ records of \S*profiles in ([\d.]+) s",
    }.items():
        if found := re.search(pattern, worker.log.read_text()[read_from:]):
            figures[name] = float(found[1])
    return figures


def answers(port: int) -> bool:
    """Whether the worker is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
            return True
    except OSError:
        return False


def saves(worker: WorkerProcess, settle_s: float) -> list[dict[str, float]]:
    """Waits for saves until none came for a while: a graph that is built late is saved late."""
    newest_s, seen = time.monotonic(), 0
    while not seen or time.monotonic() - newest_s < settle_s:
        found = re.findall(r"saved (\d+) users, ([\d.]+) MB in ([\d.]+) s", worker.log.read_text())
        if len(found) > seen:
            newest_s, seen = time.monotonic(), len(found)
        if time.monotonic() - newest_s > WAIT_S_MAX:
            raise TimeoutError("the worker does not save")
        time.sleep(0.2)
    return [{"users": float(users), "mb": float(mb), "seconds": float(seconds)} for users, mb, seconds in found]


def measure(settings: Settings, arguments: argparse.Namespace, out: Path) -> dict[str, object]:
    """The restarts, one after the other."""
    asyncio.run(create_topics(settings))
    say("writing the changelog")
    asyncio.run(write_changelog(settings, arguments.users, version=1))
    with WorkerProcess("worker", settings, out / "worker.log") as worker:
        os.environ[INTERVAL] = "0"
        say("from the changelog")
        changelog = start(worker)
        worker.end(signal.SIGKILL)
        os.environ[INTERVAL] = "2"
        say("saving")
        start(worker)
        saved = saves(worker, arguments.settle)
        worker.end(signal.SIGKILL)
        asyncio.run(write_changelog(settings, arguments.after, version=2))
        say("from the saved memory")
        os.environ[INTERVAL] = "3600"
        restarts = []
        for _ in range(arguments.rounds):
            restarts.append(start(worker))
            worker.end(signal.SIGKILL)
    return {
        **machine(),
        "users": arguments.users,
        "after": arguments.after,
        "from_changelog": changelog,
        "from_saved_memory": restarts,
        "saves": saved,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--after", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--settle", type=float, default=20.0, help="seconds without a save that count as settled")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    out = Path(tempfile.mkdtemp(prefix="nearstream-restart-"))
    jars = load_settings().data_dir / "kafka" / "jars"
    with EmbeddedKafka(out / "kafka", 1, die_with_owner=True, jars_dir=jars) as broker:
        settings = load_settings(bootstrap=broker.bootstrap, prefix="restart.", group="restart", partitions=8)
        print(json.dumps(measure(settings, arguments, out), indent=2))


if __name__ == "__main__":
    main()
