"""The commands as other programs script them: JSON on stdout, words on stderr, and an exit code that says how it went."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from streams.config import Settings, load_settings
from streams.kafka.processes import free_ports
from streams.kafka.topics import Topics
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from streams.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

PARTITIONS = 3
EVENTS = 300
SHOP = ("feed", "synthetic", "--events", str(EVENTS), "--users", "40", "--items", "50", "--days", "5")
COMMAND_S_MAX = 60.0
INTERRUPTED_S_MAX = 5.0
USER = "grace"


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Its one line on stdout."""
        (line,) = self.stdout.splitlines()
        return json.loads(line)


@dataclass(frozen=True)
class Shop:
    """Two prefixes on one Kafka that were fed the same events, each read by a worker of its own."""

    command: str
    prefixes: tuple[str, str]
    settings: Settings

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Starts `nearstream` with nothing but an address."""
        return subprocess.Popen(
            [self.command, *arguments],
            env={**os.environ, "NEARSTREAM_BOOTSTRAP": self.settings.bootstrap, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def run(self, *arguments: str, prefix: int | None = 0) -> Ran:
        """Runs `nearstream` to its end, by default under the first prefix."""
        where = () if prefix is None else ("--prefix", self.prefixes[prefix])
        process = self.start(*arguments, *where)
        stdout, stderr = await asyncio.to_thread(process.communicate, timeout=COMMAND_S_MAX)
        return Ran(process.returncode, stdout, stderr)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(kafka: EmbeddedKafka, nearstream: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """Topics made, fed and read through commands only."""
    logs: Path = tmp_path_factory.mktemp("workers")
    name = f"c{os.getpid()}"
    first = load_settings(bootstrap=kafka.bootstrap, prefix=f"{name}a.", group=f"{name}a", partitions=PARTITIONS)
    second = first.model_copy(update={"prefix": f"{name}b.", "group": f"{name}b"})
    made = Shop(nearstream, (first.prefix, second.prefix), first)
    with (
        WorkerProcess("first", first, logs / "first.log") as one,
        WorkerProcess("second", second, logs / "second.log") as two,
    ):
        for number, worker in enumerate((one, two)):
            created = await made.run("topics", "create", "--partitions", str(PARTITIONS), "--json", prefix=number)
            assert Topics(made.prefixes[number]).events in created.json["created"]
            worker.start()
            fed = await made.run(*SHOP, "--json", prefix=number)
            assert fed.json["events"] == EVENTS
        await drained(first, EVENTS)
        await drained(second, EVENTS)
        two.end(signal.SIGTERM)
        yield made


async def test_digest_is_equal_for_equal_events(shop: Shop) -> None:
    """The same events under two prefixes, in other batches: equal counts and an equal hash."""
    one, two = await asyncio.gather(shop.run("digest", "--json", prefix=0), shop.run("digest", "--json", prefix=1))
    assert (one.code, two.code) == (0, 0)
    assert list(one.json) == ["users", "events", "sha256"]
    assert one.json == two.json
    assert one.json["events"] == EVENTS
    assert one.stderr == ""


async def test_topics_list_names_each_topic_with_its_partitions(shop: Shop) -> None:
    """`topics list --json` is a mapping from name to partitions, of our prefix only."""
    listed = await shop.run("topics", "list", "--json")
    prefix = shop.prefixes[0]
    assert listed.code == 0
    assert listed.json == {name: count for name, (count, _) in Topics(prefix).definitions(PARTITIONS).items()}


async def test_tail_waits_for_the_next_list_of_a_user(shop: Shop) -> None:
    """`tail --user U --limit 1 --json` ends with that user's next list, `show U --json` then tells the same."""
    following = shop.start("tail", "--user", USER, "--limit", "1", "--json", "--prefix", shop.prefixes[0])
    sent = 0
    deadline = time.monotonic() + COMMAND_S_MAX
    while following.poll() is None and time.monotonic() < deadline:  # until it listens and one of them comes
        event = {"user_id": USER, "item_id": f"thing-{sent}", "type": "view", "timestamp": time.time_ns() // 10**6}
        await _publish(shop, USER, event)
        sent += 1
    stdout, stderr = following.communicate(timeout=1)
    tailed = Ran(following.returncode, stdout, stderr)
    assert (tailed.code, tailed.stderr) == (0, "")
    assert tailed.json["user_id"] == USER
    assert 1 <= tailed.json["profile"]["events"] <= sent
    assert tailed.json["items"]
    assert all(item["reasons"] for item in tailed.json["items"])

    await drained(shop.settings, EVENTS + sent)
    shown = (await shop.run("show", USER, "--json")).json
    assert shown["profile"]["user_id"] == USER
    assert shown["profile"]["events"] == shown["recommendation"]["profile"]["events"] == sent
    assert len(shown["vector" if "vector" in shown else "profile"]) > 0
    assert sum(x * x for x in shown["profile"]["vector"]) == pytest.approx(1.0, abs=0.02)
    assert USER not in [neighbour["user_id"] for neighbour in shown["recommendation"]["neighbours"]]


async def _publish(shop: Shop, user: str, event: dict[str, object]) -> None:
    """One event through `feed jsonl -`, as a shell script would send it."""
    process = await asyncio.create_subprocess_exec(
        shop.command, "feed", "jsonl", "-", "--prefix", shop.prefixes[0], "--bootstrap", shop.settings.bootstrap,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, complaints = await process.communicate(json.dumps(event).encode() + b"\n")
    assert process.returncode == 0, complaints.decode()


async def test_show_for_people_gives_reasons_in_words(shop: Shop) -> None:
    """`show` prints who is near and every item with its reasons; `tail --from-beginning` one line a list."""
    listed = await shop.run("tail", "--from-beginning", "--limit", "1")
    user = listed.stdout.split()[0]
    shown = await shop.run("show", user)
    assert shown.code == 0
    first, *_ = [line for line in shown.stdout.splitlines() if line.startswith("  1. ")]
    assert any(word in first for word in ("similar users", "because of", "trending"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("tail", "nonsense"), "nonsense"),
        (("tail", "--limit", "0"), "--limit"),
        (("show", "nobody-at-all"), "nobody-at-all"),
        (("show",), "USER"),
        (("digest", "--no-such-flag"), "--no-such-flag"),
        (("feed", "no-such-format"), "no-such-format"),
        (("no-such-command",), "no-such-command"),
    ],
)
async def test_misuse_exits_2_and_says_what_was_wrong(shop: Shop, arguments: tuple[str, ...], complaint: str) -> None:
    """Nothing on stdout, the offending word on stderr, no traceback."""
    ran = await shop.run(*arguments, prefix=0 if arguments[0] in {"show", "digest"} else None)
    assert (ran.code, ran.stdout) == (2, "")
    assert complaint in ran.stderr
    assert "Traceback" not in ran.stderr


async def test_without_topics_the_command_that_makes_them_is_named(shop: Shop) -> None:
    """Reading a prefix that has no topics is misuse, and creates none."""
    for arguments in (("digest",), ("show", "u1"), ("tail",)):
        process = shop.start(*arguments, "--prefix", "absent.")
        stdout, stderr = await asyncio.to_thread(process.communicate, timeout=COMMAND_S_MAX)
        assert (process.returncode, stdout) == (2, "")
        assert "nearstream topics create" in stderr
    listed = shop.start("topics", "list", "--prefix", "absent.", "--json")
    stdout, _ = await asyncio.to_thread(listed.communicate, timeout=COMMAND_S_MAX)
    assert json.loads(stdout) == {}


@pytest.mark.parametrize("arguments", [("digest", "--json"), ("tail",), ("show", "u1"), ("topics", "list")])
async def test_without_kafka_a_command_exits_1_and_says_how_to_start_one(
    shop: Shop, arguments: tuple[str, ...]
) -> None:
    """No broker is a failure with an answer, not a hang and not a traceback."""
    process = shop.start(*arguments, "--bootstrap", f"127.0.0.1:{free_ports(1)[0]}")
    stdout, stderr = await asyncio.to_thread(process.communicate, timeout=COMMAND_S_MAX)
    assert (process.returncode, stdout) == (1, "")
    assert "nearstream kafka start" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("number", [signal.SIGINT], ids=["ctrl-c"])
async def test_ctrl_c_ends_tail_with_130(shop: Shop, number: signal.Signals) -> None:
    """A reader that follows for ever leaves at once when interrupted, without a traceback."""
    following = shop.start("tail", "--from-beginning", "--prefix", shop.prefixes[0])
    assert following.stdout is not None
    assert await asyncio.to_thread(following.stdout.readline), "it follows before it is interrupted"
    following.send_signal(number)
    interrupted = time.monotonic()
    _, stderr = await asyncio.to_thread(following.communicate, timeout=COMMAND_S_MAX)
    assert time.monotonic() - interrupted < INTERRUPTED_S_MAX
    assert (following.returncode, stderr) == (130, "")
