"""Mutated events by the thousand through a real Kafka and a real worker: each counts, repeats or is a dead letter.

    python tests/benchmarks/fuzz_pipeline.py --messages 100000 --seed 7

prints totals as JSON and exits 1 unless the worker is alive and the totals add up. The suite runs a short form.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import msgspec
from aiokafka import AIOKafkaProducer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from streams.config import Settings, load_settings  # noqa: E402
from streams.core.status import WorkerStatus, WorkerTotals  # noqa: E402
from streams.kafka.broker import EmbeddedKafka  # noqa: E402
from streams.kafka.clients import client_options  # noqa: E402
from streams.kafka.codec import decode_events  # noqa: E402
from streams.kafka.digest import read_profiles  # noqa: E402
from streams.kafka.processes import free_ports  # noqa: E402
from streams.kafka.records import read_all  # noqa: E402
from streams.kafka.topics import Topics, create_topics  # noqa: E402
from tests.benchmarks.fuzz_events import BATCH_RECORDS, fuzz_messages  # noqa: E402
from tests.integration.storm import WorkerProcess, drained, say  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = 4
REQUEST_BYTES_MAX = 4_000_000
"""Of a record before compression. The largest mutation has a million characters in key and value each; compressed
it passes the broker, so the worker has to cope with it."""
NO_BOUND = {"NEARSTREAM_DEAD_LETTER_SHARE_MAX": "1", "NEARSTREAM_DEAD_LETTER_RUN_MAX": "1000000"}
SEND_EVERY = 1000


class Recount(NamedTuple):
    """What must become of the messages, counted the plain way, without Kafka."""

    events_by_user: Counter[str]
    duplicates: int
    reasons: Counter[str]


class Letters(NamedTuple):
    """What lies on the topic of dead letters."""

    reasons: Counter[str]
    repeated: int
    """Dead letters of a record that has one already."""


def recount(messages: int, seed: int, window: int, now_ms: int) -> Recount:
    """Decodes all messages in order and keeps the last `window` event ids of each user; an empty id is none."""
    known: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=window))
    counted = Recount(Counter(), 0, Counter())
    duplicates = 0
    stream = fuzz_messages(messages, seed)
    while batch := list(islice(stream, BATCH_RECORDS)):
        decoded = decode_events(batch, now_ms)
        counted.reasons.update(str(rejected.reason) for rejected in decoded.rejects)
        for event in decoded.events:
            ids = known[event.user_id]
            if event.event_id and event.event_id in ids:
                duplicates += 1
                continue
            if event.event_id:
                ids.append(event.event_id)
            counted.events_by_user[event.user_id] += 1
    return counted._replace(duplicates=duplicates)


async def send(settings: Settings, messages: int, seed: int) -> None:
    """Publishes the messages in order; keyed ones by murmur2, those without a key in turn."""
    topic = Topics(settings.prefix).events
    options = {"enable_idempotence": True, "compression_type": "gzip", "max_request_size": REQUEST_BYTES_MAX}
    async with AIOKafkaProducer(**client_options(settings), **options) as producer:
        waiting = []
        for record in fuzz_messages(messages, seed):
            partition = record.offset % settings.partitions if record.key is None else None
            waiting.append(await producer.send(topic, record.value, record.key, partition=partition))
            if len(waiting) == SEND_EVERY:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)


async def read_letters(settings: Settings) -> Letters:
    """Counts the dead letters by reason and those of the same input record."""
    reasons: Counter[str] = Counter()
    places: Counter[tuple[bytes, bytes]] = Counter()
    async for record in read_all(settings, Topics(settings.prefix).dead_letters):
        headers = dict(record.headers)
        reasons[headers["errors.reason"].decode()] += 1
        places[headers["errors.partition"], headers["errors.offset"]] += 1
    return Letters(reasons, places.total() - len(places))


async def last_totals(settings: Settings) -> WorkerTotals:
    """The farewell of the worker."""
    reports = [record.value async for record in read_all(settings, Topics(settings.prefix).status)]
    return msgspec.json.decode(reports[-1], type=WorkerStatus).totals


async def fuzz(settings: Settings, messages: int, seed: int, log: Path) -> dict[str, Any]:
    """Sends the messages to fresh topics while a worker reads them; returns what became of them."""
    started = time.monotonic()
    await create_topics(settings)
    with patch.dict(os.environ, NO_BOUND), WorkerProcess("fuzzed", settings, log) as worker:
        worker.start()
        await send(settings, messages, seed)
        say(f"{messages} messages sent after {time.monotonic() - started:.0f} s; draining")
        await drained(settings, messages)
        assert worker.process is not None
        alive = worker.process.poll() is None
        worker.end(signal.SIGTERM)
    took_s = time.monotonic() - started
    totals, letters, profiles = await last_totals(settings), await read_letters(settings), await read_profiles(settings)
    expected = recount(messages, seed, settings.event_id_window, time.time_ns() // 1_000_000)
    events = sum(profile.events for profile in profiles.values())
    return {
        "messages": messages,
        "seed": seed,
        "events": events,
        "duplicates": totals.duplicates,
        "dead_letters": dict(letters.reasons.most_common()),
        "adds_up": events + totals.duplicates + letters.reasons.total() == messages,
        "as_expected": letters.reasons == expected.reasons and totals.duplicates == expected.duplicates,
        "users": len(profiles),
        "profiles_wrong": len(dict(_counts(profiles)).items() ^ expected.events_by_user.items()),
        "dead_letters_repeated": letters.repeated,
        "worker_alive": alive,
        "worker_restarts": totals.restarts,
        "seconds": round(took_s, 1),
    }


def _counts(profiles: dict[str, Any]) -> Iterator[tuple[str, int]]:
    return ((user, profile.events) for user, profile in profiles.items())


def sound(report: dict[str, Any]) -> bool:
    """Nothing lost, nothing doubled, and the worker none the worse for it."""
    faults = report["profiles_wrong"] + report["dead_letters_repeated"] + report["worker_restarts"]
    return bool(report["adds_up"] and report["as_expected"] and report["worker_alive"] and not faults)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Send mutated events through Kafka and a worker; count what comes out."
    )
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    jars = load_settings().data_dir / "kafka" / "jars"
    with (
        tempfile.TemporaryDirectory(prefix="nearstream-fuzz-") as folder,
        EmbeddedKafka(Path(folder), 1, free_ports(1)[0], die_with_owner=True, jars_dir=jars) as broker,
    ):
        settings = load_settings(bootstrap=broker.bootstrap, prefix="fuzz.", group="fuzz", partitions=PARTITIONS)
        report = asyncio.run(fuzz(settings, arguments.messages, arguments.seed, Path(folder) / "worker.log"))
    print(json.dumps(report, indent=2))
    return 0 if sound(report) else 1


if __name__ == "__main__":
    sys.exit(main())
