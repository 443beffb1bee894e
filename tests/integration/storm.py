"""Kills and restarts workers, and the broker, at random while events flow; then judges what came out.

`python tests/integration/storm.py --events 50000` prints one JSON line per data set and exits 1 when anything was
lost or doubled. The suite runs a short form of the same functions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from streams.config import Settings, child_environment, load_settings  # noqa: E402
from streams.feed import feed  # noqa: E402
from streams.kafka.broker import EmbeddedKafka  # noqa: E402
from streams.kafka.clients import client_options  # noqa: E402
from streams.kafka.commit_note import CommitNote  # noqa: E402
from streams.kafka.processes import free_ports  # noqa: E402
from streams.kafka.topics import Topics, create_topics  # noqa: E402
from streams.sources.registry import open_source  # noqa: E402
from tests.integration.exactly_once import compare, copy_inputs, judge  # noqa: E402

if TYPE_CHECKING:
    from streams.sources.port import Source

SESSION_MS = 6000
DRAIN_S_MAX = 120.0
MOVE_S_MAX = 120.0
LOGS = ROOT.parent / "shared" / "data"


@dataclass
class WorkerProcess:
    """A real `nearstream worker` that can be killed and started again under the same name."""

    name: str
    settings: Settings
    log: Path
    process: subprocess.Popen[bytes] | None = None
    web_port: int = 0
    exit_s: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Starts it; it joins the group when it is ready."""
        self.web_port = free_ports(1)[0]
        environment = child_environment(
            bootstrap=self.settings.bootstrap,
            prefix=self.settings.prefix,
            group=self.settings.group,
            session_timeout_ms=SESSION_MS,
            reverse_refreshes_per_s=self.settings.reverse_refreshes_per_s,
            web_port=self.web_port,
            worker_id=self.name,
            data_dir=self.log.parent,
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streams", "worker"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def end(self, how: signal.Signals, timeout_s: float = 20.0) -> float:
        """Sends the signal and waits; returns the seconds until it was gone."""
        assert self.process is not None
        started = time.monotonic()
        self.process.send_signal(how)
        try:
            self.process.wait(timeout_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        took = time.monotonic() - started
        if how == signal.SIGTERM:
            self.exit_s.append(took)
        return took

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> WorkerProcess:
        return self


def say(text: str) -> None:
    """Progress for the person who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


async def end_offsets(settings: Settings) -> tuple[int, int]:
    """Sum of the input's end offsets and of the group's committed offsets."""
    consumer = AIOKafkaConsumer(**client_options(settings), group_id=settings.group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(Topics(settings.prefix).events, n) for n in range(settings.partitions)]
        ends = await consumer.end_offsets(partitions)
        committed = [await consumer.committed(partition) or 0 for partition in partitions]
        return sum(ends.values()), sum(committed)
    finally:
        await consumer.stop()


async def owes_lists(settings: Settings) -> bool:
    """Whether a note beside a committed offset says that lists are owed."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(settings.group)
        return any(CommitNote.decode(found.metadata).owed_since is not None for found in offsets.values())
    finally:
        await admin.close()


async def drained(settings: Settings, events: int) -> float:
    """Waits until every event is committed and no list is owed; returns the seconds, or raises TimeoutError."""
    started = time.monotonic()
    while time.monotonic() - started < DRAIN_S_MAX:
        end, committed = await end_offsets(settings)
        if end >= events and committed >= end and not await owes_lists(settings):
            return time.monotonic() - started
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{committed} of {end} events committed, or lists owed still, after {DRAIN_S_MAX} s")


async def moving(settings: Settings) -> None:
    """Waits until the group commits something more, so that each blow falls on a running system."""
    started = time.monotonic()
    ends, before = await end_offsets(settings)
    while time.monotonic() - started < MOVE_S_MAX:
        ends, committed = await end_offsets(settings)
        if committed > before or committed == ends:
            return
        await asyncio.sleep(0.3)
    raise TimeoutError(f"no commit within {MOVE_S_MAX} s: {before} of {ends}")


async def storm(
    settings: Settings,
    broker: EmbeddedKafka,
    source: Source,
    *,
    limit: int | None,
    rate: float,
    actions: int,
    broker_kill: bool,
    seed: int,
    out: Path,
) -> dict[str, object]:
    """Feeds `source` while workers come and go; returns the verdict after everything is drained."""
    chance = random.Random(seed)
    await create_topics(settings)
    feeding = asyncio.create_task(feed(source, settings, limit=limit, rate=rate))
    while not feeding.done() and (await end_offsets(settings))[0] == 0:
        await asyncio.sleep(0.2)
    first = WorkerProcess("worker-a", settings, out / "worker-a.log")
    second = WorkerProcess("worker-b", settings, out / "worker-b.log")
    loop = asyncio.get_running_loop()
    with first, second:
        first.start()
        second.start()
        await moving(settings)
        for number in range(actions):
            victim = chance.choice([first, second])
            how = chance.choice([signal.SIGKILL, signal.SIGTERM])
            took = await loop.run_in_executor(None, victim.end, how)
            pause = chance.choice([0.0, 1.0, 3.0, SESSION_MS / 1000 + 2.0])
            say(f"{number + 1}/{actions} {how.name} {victim.name} ({took:.1f} s), back in {pause:.0f} s")
            await asyncio.sleep(pause)
            victim.start()
            await moving(settings)
            await asyncio.sleep(chance.uniform(0.0, 4.0))
            if broker_kill and number == actions // 2:
                node = chance.randint(1, settings.replication)
                say(f"broker {node} SIGKILL, back in 4 s")
                await loop.run_in_executor(None, broker.kill, node)
                await asyncio.sleep(4)
                await loop.run_in_executor(None, broker.start_node, node)
                say("broker is back")
                await moving(settings)
        fed = await feeding
        say(f"fed {fed.events} events; draining")
        drain_s = await drained(settings, fed.events)
        for worker in (first, second):
            worker.end(signal.SIGTERM)
    verdict = await judge(settings)
    return {
        **verdict.as_dict(),
        "sound": verdict.sound,
        "actions": actions,
        "broker_kills": int(broker_kill),
        "drain_s": round(drain_s, 1),
        "sigterm_s_max": round(max([*first.exit_s, *second.exit_s], default=0.0), 2),
        "seed": seed,
    }


async def undisturbed(settings: Settings, out: Path) -> Settings:
    """One worker, left alone, over a copy of the same events; returns the settings to read its result."""
    calm = settings.model_copy(update={"prefix": f"{settings.prefix}calm.", "group": f"{settings.group}-calm"})
    await create_topics(calm)
    events = await copy_inputs(settings, calm)
    with WorkerProcess("worker-calm", calm, out / "worker-calm.log") as worker:
        worker.start()
        await drained(calm, events)
        worker.end(signal.SIGTERM)
    return calm


def settings_for(broker: EmbeddedKafka, partitions: int, replication: int = 1) -> Settings:
    """Fresh topics and a fresh group on the broker, or on each of its nodes."""
    name = uuid.uuid4().hex[:8]
    return load_settings(
        bootstrap=broker.bootstrap,
        prefix=f"storm-{name}.",
        group=f"storm-{name}",
        partitions=partitions,
        replication=replication,
    )


async def run(arguments: argparse.Namespace, broker: EmbeddedKafka, out: Path) -> bool:
    """Storms over the synthetic shop and, where its log is there, deskdrop."""
    sources: dict[str, Source] = {"synthetic": open_source("synthetic", events=arguments.events, seed=arguments.seed)}
    deskdrop = LOGS / "deskdrop" / "users_interactions.csv.xz"
    if deskdrop.exists():
        sources["deskdrop"] = open_source("deskdrop", str(deskdrop))
    sound = True
    for name, source in sources.items():
        if arguments.only and name != arguments.only:
            continue
        settings = settings_for(broker, arguments.partitions, arguments.brokers)
        (out / name).mkdir()
        result = await storm(
            settings,
            broker,
            source,
            limit=arguments.events,
            rate=arguments.rate,
            actions=arguments.actions,
            broker_kill=not arguments.no_broker_kill,
            seed=arguments.seed,
            out=out / name,
        )
        comparison = await compare(settings, await undisturbed(settings, out / name))
        result |= {
            "data": name,
            "digest_equal": comparison.digests_equal,
            "vector_error_max": comparison.vector_error_max,
            "partitions": arguments.partitions,
            "brokers": arguments.brokers,
        }
        print(json.dumps(result), flush=True)
        sound &= bool(result["sound"]) and comparison.equal
    return sound


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--actions", type=int, default=14)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", choices=["synthetic", "deskdrop"])
    parser.add_argument("--brokers", type=int, choices=[1, 3], default=1)
    parser.add_argument("--no-broker-kill", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the workers' logs and say where they are")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it floods while the broker is away
    out = Path(tempfile.mkdtemp(prefix="nearstream-storm-"))
    jars = load_settings().data_dir / "kafka" / "jars"
    with EmbeddedKafka(out / "data", arguments.brokers, die_with_owner=True, jars_dir=jars) as broker:
        sound = asyncio.run(run(arguments, broker, out))
    if arguments.keep:
        say(f"logs in {out}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
