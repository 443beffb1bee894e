"""Latency of the API under an open load: `nearstream dashboard` on one core, the client on another.

`python tests/benchmarks/api_load.py --rate 1000 --seconds 30` prints JSON. The lists and profiles of `--users` users
lie on an embedded Kafka; requests for the list, profile, neighbours and reasons of users drawn at random arrive at
random moments, whether the ones before are answered or not, and are timed from the moment at which they were due. With
`--updates` that many new lists a second are written meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import uvloop
from aiokafka import AIOKafkaProducer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from streams.bench.report import machine  # noqa: E402
from streams.config import Settings, load_settings  # noqa: E402
from streams.core.recommendations import (  # noqa: E402
    BecauseOf,
    IndexSummary,
    Neighbour,
    ProfileSummary,
    Recommendation,
    RecommendedItem,
    SimilarUsers,
    Source,
    Trending,
)
from streams.kafka.broker import EmbeddedKafka  # noqa: E402
from streams.kafka.changelog import SCHEMA, ProfileRecord  # noqa: E402
from streams.kafka.clients import client_options  # noqa: E402
from streams.kafka.partitioner import murmur2_partition  # noqa: E402
from streams.kafka.processes import free_ports  # noqa: E402
from streams.kafka.topics import Topics, create_topics  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

ITEMS, NEIGHBOURS, PER_LIST, DIM = 50_000, 10, 20, 64
START_MS = 1_700_000_000_000
CONNECTIONS = 32
READY_S_MAX = 120.0
WARM_UP_S = 2.0
DRAIN_S_MAX = 10.0
WANTED = ("list", "list", "list", "profile", "neighbours", "explain")
P99_MS_MAX = 10.0


def say(text: str) -> None:
    """Progress for the person who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def user_name(number: int) -> str:
    """As long as ids usually are."""
    return f"user-{number:08d}-{number * 2654435761 % 2**32:08x}"


def items_of(user: int) -> list[str]:
    """The items of a user's list, best first."""
    return [f"item-{(user * 7919 + place * 104_729) % ITEMS:06d}" for place in range(PER_LIST)]


def list_of(user: int, version: int, users: int) -> bytes:
    """A list with ten neighbours and twenty items of two or three reasons each."""
    near = [user_name((user * 31 + place * 977 + 1) % users) for place in range(NEIGHBOURS)]
    items = [
        RecommendedItem(
            item,
            round(0.9 - place / 50, 6),
            [SimilarUsers(near[:3], 0.5), BecauseOf(f"item-{place:06d}", 0.3), Trending(0.2)][: 2 + place % 2],
        )
        for place, item in enumerate(items_of(user))
    ]
    return msgspec.json.encode(
        Recommendation(
            rec_id=f"{user:x}-{version}",
            user_id=user_name(user),
            generated_at=START_MS + version,
            cause="event",
            source=Source("events", user % 8, user, START_MS),
            profile=ProfileSummary(42, 42, "decayed-mean@1"),
            index=IndexSummary(version, users),
            neighbours=[Neighbour(name, round(0.95 - place / 100, 6)) for place, name in enumerate(near)],
            items=items,
        )
    )


def profile_of(user: int) -> bytes:
    """A profile with 32 recent items."""
    recent = (items_of(user) * 2)[:32]
    vector = np.random.default_rng(user).integers(-127, 128, DIM, np.int8)
    times = np.full(32, START_MS // 1000, "<u4").tobytes()
    counters = (42, 42, user % 8, user, START_MS, 42)
    return msgspec.msgpack.encode(
        ProfileRecord(
            SCHEMA, user_name(user), *counters, recent, bytes(32), times, bytes(8 * 24), [], "decayed-mean@1",
            1 / 127, vector.tobytes(), bytes(4 * DIM),
        )
    )  # fmt: skip


async def write(settings: Settings, users: Sequence[int], version: int, users_total: int, per_s: float = 0) -> None:
    """Lists, and with the first version profiles too, at a rate or as fast as can be."""
    topics = Topics(settings.prefix)
    producer = AIOKafkaProducer(**client_options(settings), linger_ms=20, max_batch_size=1 << 18)
    await producer.start()
    try:
        began = time.monotonic()
        for sent, user in enumerate(users):
            key = user_name(user).encode()
            place = {"key": key, "partition": murmur2_partition(key.decode(), settings.partitions)}
            await producer.send(topics.recommendations, value=list_of(user, version, users_total), **place)
            if version == 0:
                await producer.send(topics.profiles, value=profile_of(user), **place)
            if per_s and (ahead_s := sent / per_s - (time.monotonic() - began)) > 0:
                await asyncio.sleep(ahead_s)
        await producer.flush()
    finally:
        await producer.stop()


class Connection(asyncio.Protocol):
    """One kept connection; answers are read only as far as status and length."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._due = 0.0
        self._needed = 0
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        self._load.free(self)

    def ask(self, request: bytes, due: float) -> None:
        """Sends the next request."""
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Counts an answer once it is whole."""
        self._buffer += data
        if not self._needed:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            lines = bytes(self._buffer[:head]).lower()
            self._status = int(lines[9:12])
            self._needed = head + 4 + int(lines.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(self._buffer) >= self._needed:
            self._load.answered(self._status, self._due, len(self._buffer))
            self._buffer.clear()
            self._needed = 0
            self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Never, while the server is in order."""
        self._load.lost()


class Load:
    """Requests that are due, connections that are free, and what came of it."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.bytes = 0
        self.waiting_max = 0
        self._free: list[Connection] = []
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._measures = False

    def start_measuring(self) -> None:
        """What came before was to warm up."""
        self._measures = True

    def ask(self, request: bytes, due: float) -> None:
        """Now, or as soon as a connection is free."""
        if self._free:
            self._free.pop().ask(request, due)
        else:
            self._waiting.append((request, due))
            self.waiting_max = max(self.waiting_max, len(self._waiting))

    def free(self, connection: Connection) -> None:
        """Takes the next request to it."""
        if self._waiting:
            connection.ask(*self._waiting.popleft())
        else:
            self._free.append(connection)

    def answered(self, status: int, due: float, size: int) -> None:
        """From the moment it was due."""
        if self._measures:
            self.latencies_ms.append((time.perf_counter() - due) * 1000)
            self.statuses[str(status)] += 1
            self.bytes += size

    def lost(self) -> None:
        """A connection that was closed."""
        if self._measures:
            self.statuses["connection lost"] += 1


def requests_of(rng: np.random.Generator, count: int, users: int, host: str) -> list[bytes]:
    """Of users and kinds drawn at random."""
    found = []
    for user, kind in zip(rng.integers(0, users, count).tolist(), rng.integers(0, len(WANTED), count), strict=True):
        path = f"/v1/users/{user_name(user)}/{WANTED[kind]}"
        query = f"?item_id={items_of(user)[user % PER_LIST]}" if WANTED[kind] == "explain" else ""
        found.append(f"GET {path}{query} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return found


async def drive(port: int, rate: float, seconds: float, users: int, seed: int) -> dict[str, Any]:
    """The client's part: sends what is due, waits for all answers, and reports."""
    loop, load, rng = asyncio.get_running_loop(), Load(), np.random.default_rng(seed)
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    count = int(rate * (seconds + WARM_UP_S))
    due_s = np.cumsum(rng.exponential(1 / rate, count))
    requests = requests_of(rng, count, users, f"127.0.0.1:{port}")
    began, late_ms, measured = time.perf_counter() + 0.1, [], 0
    for request, due in zip(requests, (began + due_s).tolist(), strict=True):
        if (wait_s := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        if not measured and due - began > WARM_UP_S:
            load.start_measuring()
            measured = 1
        late_ms.append((time.perf_counter() - due) * 1000)
        load.ask(request, due)
    wanted, until = int((due_s > WARM_UP_S).sum()), time.perf_counter() + DRAIN_S_MAX
    while load.statuses.total() < wanted and time.perf_counter() < until:
        await asyncio.sleep(0.05)
    return report(load, wanted, seconds, late_ms)


def report(load: Load, wanted: int, seconds: float, late_ms: list[float]) -> dict[str, Any]:
    """Figures of a run; requests that were never answered are errors."""
    p50, p90, p99, p999 = np.percentile(load.latencies_ms, [50, 90, 99, 99.9]).round(3).tolist()
    return {
        "requests": wanted,
        "requests_per_s": round(wanted / seconds, 1),
        "errors": wanted - load.statuses["200"],
        "statuses": dict(load.statuses),
        "latency_ms": {"p50": p50, "p90": p90, "p99": p99, "p99.9": p999, "max": round(max(load.latencies_ms), 3)},
        "mean_answer_bytes": round(load.bytes / max(1, len(load.latencies_ms))),
        "client_late_ms_p99": round(float(np.percentile(late_ms, 99)), 3),
        "waiting_for_a_connection_max": load.waiting_max,
    }


def pinned(core: int, *, first: bool) -> list[str]:
    """The beginning of a command line that runs on one core only, before all others there if `first`."""
    return [*(["chrt", "--rr", "1"] if first else []), "taskset", "--cpu-list", str(core)]


def server(settings: Settings, core: int, first: bool) -> tuple[subprocess.Popen[str], int]:
    """`nearstream dashboard` on one core, once it has read the topics; its process and port."""
    environment = {
        **os.environ,
        "NEARSTREAM_BOOTSTRAP": settings.bootstrap,
        "NEARSTREAM_API_REQUESTS_PER_S": "100000",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [*pinned(core, first=first), sys.executable, "-m", "streams", "dashboard", "--port", "0"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    return process, int(address.rstrip("/").rpartition(":")[2])


async def until_read(port: int, users: int) -> None:
    """Until the server answers for the last user that was written."""
    path = f"/v1/users/{user_name(users - 1)}/list"
    async with asyncio.timeout(READY_S_MAX):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            if answer.startswith(b"HTTP/1.1 200"):
                return
            await asyncio.sleep(0.2)


def used_s(process: subprocess.Popen[str]) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fills the topics, starts the server and drives it from a process of its own."""
    await create_topics(settings)
    await write(settings, range(arguments.users), 0, arguments.users)
    say(f"{arguments.users} lists and profiles are written")
    process, port = await asyncio.to_thread(server, settings, arguments.server_core, arguments.first)
    try:
        await until_read(port, arguments.users)
        say("the server has read them")
        before_s = used_s(process)
        drive_it = [__file__, "--drive", str(port), "--rate", str(arguments.rate), "--seconds", str(arguments.seconds)]
        client = await asyncio.create_subprocess_exec(
            *pinned(arguments.client_core, first=arguments.first),
            *(sys.executable, *drive_it),
            *("--users", str(arguments.users), "--seed", str(arguments.seed)),
            stdout=asyncio.subprocess.PIPE,
        )
        writing = asyncio.create_task(_update(settings, arguments))
        output, _ = await client.communicate()
        writing.cancel()
        used = used_s(process) - before_s
        memory_kb = Path(f"/proc/{process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]
    finally:
        process.terminate()
        process.wait(10)
    found: dict[str, Any] = json.loads(output)
    found["server_core_share"] = round(used / (arguments.seconds + WARM_UP_S), 3)
    found["server_memory_mb"] = round(int(memory_kb) / 1000)
    return found


async def _update(settings: Settings, arguments: argparse.Namespace) -> None:
    if arguments.updates:
        rng = np.random.default_rng(arguments.seed)
        count = int(arguments.updates * (arguments.seconds + WARM_UP_S + DRAIN_S_MAX))
        users = rng.integers(0, arguments.users, count).tolist()
        await write(settings, users, 1, arguments.users, arguments.updates)


def main(arguments: argparse.Namespace) -> int:
    """Prints the figures; 1 where a bar is missed."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the first sends find no leader yet, and say so
    if arguments.drive is not None:
        drive_it = drive(arguments.drive, arguments.rate, arguments.seconds, arguments.users, arguments.seed)
        print(json.dumps(uvloop.run(drive_it)))
        return 0
    settings = load_settings(partitions=8)
    with tempfile.TemporaryDirectory(prefix="nearstream-api-load-") as folder:
        broker = EmbeddedKafka(
            Path(folder), brokers=1, port=free_ports(1)[0], die_with_owner=True,
            jars_dir=settings.data_dir / "kafka" / "jars",
        )  # fmt: skip
        with broker:
            settings = settings.model_copy(update={"bootstrap": broker.bootstrap})
            found = asyncio.run(measure(settings, arguments))
    asked = ("users", "rate", "seconds", "updates", "first")
    conditions = {**{name: getattr(arguments, name) for name in asked}, **machine()}
    found["holds"] = found["errors"] == 0 and found["latency_ms"]["p99"] < P99_MS_MAX
    print(json.dumps({"conditions": conditions, **found}))
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=1000.0, help="Requests a second.")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--updates", type=float, default=0.0, help="New lists a second meanwhile.")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1)
    parser.add_argument("--first", action="store_true", help="On a busy machine: before all others, by chrt.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", type=int, metavar="PORT", help="Be the client of the server at this port.")
    sys.exit(main(parser.parse_args()))
