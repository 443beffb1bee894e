"""The commands as other programs script them: JSON on stdout, words on stderr, an exit code that says how it went."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from streams.cli import main
from streams.config import Settings, load_settings
from streams.core.events import Event, EventType
from streams.feed import feed
from streams.kafka.clients import client_options
from streams.kafka.codec import encode_event
from streams.kafka.processes import free_ports
from streams.kafka.topics import Topics, create_topics
from streams.sources import open_source
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from streams.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
in_module_loop = pytest.mark.asyncio(loop_scope="module")

PARTITIONS = 3
EVENTS = 300
SHOP = {"events": EVENTS, "users": 40, "items": 50, "seed": 3}
COMMAND_S_MAX = 60.0
INTERRUPTED_S_MAX = 5.0
SEND_EVERY_S = 0.3
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
    """The same events under two prefixes, read by a worker each; the first one still runs."""

    command: str
    first: Settings
    second: Settings

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts `nearstream` in a process of its own."""
        return subprocess.Popen(
            [self.command, *arguments],
            env={**os.environ, "NEARSTREAM_BOOTSTRAP": self.first.bootstrap, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def run(self, *arguments: str) -> Ran:
        """Runs `nearstream` to its end."""
        process = self.start(*arguments)
        stdout, stderr = await asyncio.to_thread(process.communicate, timeout=COMMAND_S_MAX)
        return Ran(process.returncode, stdout, stderr)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(kafka: EmbeddedKafka, nearstream: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """The first prefix is made and fed through commands while its worker runs; the second is full before its own."""
    name = f"commands{os.getpid()}"
    first = load_settings(bootstrap=kafka.bootstrap, prefix=f"{name}a.", group=f"{name}a", partitions=PARTITIONS)
    second = first.model_copy(update={"prefix": f"{name}b.", "group": f"{name}b"})
    made, logs = Shop(nearstream, first, second), tmp_path_factory.mktemp("workers")
    await create_topics(second)
    created = await made.run("topics", "create", "--prefix", first.prefix, "--partitions", str(PARTITIONS), "--json")
    assert set(created.json["created"]) == set(Topics(first.prefix).definitions(PARTITIONS))
    await feed(open_source("synthetic", **SHOP), second)
    with (
        WorkerProcess("first", first, logs / "first.log") as one,
        WorkerProcess("second", second, logs / "second.log") as two,
    ):
        one.start()
        two.start()
        flags = [f"--{option}={value}" for option, value in SHOP.items()]
        fed = await made.run("feed", "synthetic", *flags, "--prefix", first.prefix, "--json")
        assert fed.json["events"] == EVENTS
        await drained(second, EVENTS)
        two.end(signal.SIGTERM)
        await drained(first, EVENTS)
        yield made


@in_module_loop
async def test_digest_is_equal_for_equal_events(shop: Shop) -> None:
    """The same events under two prefixes: equal counts and an equal hash; nothing but them is printed."""
    one, two = [await shop.run("digest", "--json", "--prefix", s.prefix) for s in (shop.first, shop.second)]
    assert (one.code, two.code, one.stderr) == (0, 0, "")
    assert list(one.json) == ["users", "events", "sha256"]
    assert one.json == two.json
    assert one.json["events"] == EVENTS


@in_module_loop
async def test_topics_list_names_each_topic_with_its_partitions(shop: Shop) -> None:
    """`topics list --json` is a mapping from name to partitions, of the prefix asked for only."""
    listed = await shop.run("topics", "list", "--json", "--prefix", shop.first.prefix)
    definitions = Topics(shop.first.prefix).definitions(PARTITIONS)
    assert listed.code == 0
    assert listed.json == {name: partitions for name, (partitions, _) in definitions.items()}


@in_module_loop
async def test_tail_and_show_tell_the_same_of_a_user(shop: Shop) -> None:
    """`tail --user U --limit 1 --json` ends with U's next list; `show U --json` has the profile and the last list."""
    prefix = ("--prefix", shop.first.prefix)
    following = shop.start("tail", "--user", USER, "--limit", "1", "--json", *prefix)
    sent = await _send_until_it_ends(shop, following)
    stdout, stderr = following.communicate(timeout=1)
    tailed = Ran(following.returncode, stdout, stderr)
    assert (tailed.code, tailed.stderr) == (0, "")
    assert tailed.json["user_id"] == USER
    assert 1 <= tailed.json["profile"]["events"] <= sent
    assert tailed.json["items"]
    assert all(item["reasons"] for item in tailed.json["items"])

    await drained(shop.first, EVENTS + sent)
    shown = (await shop.run("show", USER, "--json", *prefix)).json
    profile, list_ = shown["profile"], shown["recommendation"]
    assert profile["user_id"] == list_["user_id"] == USER
    assert profile["events"] == list_["profile"]["events"] == sent
    assert sum(x * x for x in profile["vector"]) == pytest.approx(1.0, abs=0.02)
    assert USER not in [neighbour["user_id"] for neighbour in list_["neighbours"]]


async def _send_until_it_ends(shop: Shop, following: subprocess.Popen[str]) -> int:
    """Sends an event of USER now and then: the tail sees those after it found the end of the topic."""
    sent = 0
    deadline = time.monotonic() + COMMAND_S_MAX
    async with AIOKafkaProducer(**client_options(shop.first)) as producer:
        while following.poll() is None:
            assert time.monotonic() < deadline, "no list of the user came"
            event = Event(USER, f"thing-{sent}", EventType.VIEW, time.time_ns() // 1_000_000)
            await producer.send_and_wait(Topics(shop.first.prefix).events, encode_event(event), USER.encode())
            sent += 1
            await asyncio.sleep(SEND_EVERY_S)
    return sent


@in_module_loop
async def test_show_for_people_gives_reasons_in_words(shop: Shop) -> None:
    """`tail --from-beginning` prints a line a list, `show` every item with its reasons."""
    prefix = ("--prefix", shop.first.prefix)
    listed = await shop.run("tail", "--from-beginning", "--limit", "2", *prefix)
    assert len(listed.stdout.splitlines()) == 2
    user = listed.stdout.split()[0]
    shown = await shop.run("show", user, *prefix)
    assert shown.code == 0
    assert shown.stdout.startswith(f"{user}: ")
    (best,) = [line for line in shown.stdout.splitlines() if line.startswith("  1. ")]
    assert any(word in best for word in ("similar users", "because of", "trending"))


@in_module_loop
async def test_ctrl_c_ends_tail_with_130(shop: Shop) -> None:
    """A reader that follows for ever leaves at once when interrupted, without a traceback."""
    following = shop.start("tail", "--from-beginning", "--prefix", shop.first.prefix)
    assert following.stdout is not None
    assert await asyncio.to_thread(following.stdout.readline), "it follows before it is interrupted"
    following.send_signal(signal.SIGINT)
    interrupted = time.monotonic()
    _, stderr = await asyncio.to_thread(following.communicate, timeout=COMMAND_S_MAX)
    assert time.monotonic() - interrupted < INTERRUPTED_S_MAX
    assert (following.returncode, stderr.strip()) == (130, "")


@pytest.fixture
def _calm_logging() -> Iterator[None]:
    """The command line silences the client's logger; other tests find it as it was."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def run_here(
    _calm_logging: None, kafka: EmbeddedKafka, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Runs the command's entry point in this process, which saves its start."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setenv("NEARSTREAM_BOOTSTRAP", kafka.bootstrap)
        monkeypatch.setattr(sys, "argv", ["nearstream", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("tail", "nonsense"), "nonsense"),
        (("tail", "--limit", "0"), "--limit"),
        (("show",), "USER"),
        (("digest", "--no-such-flag"), "--no-such-flag"),
        (("feed", "no-such-format"), "no-such-format"),
        (("demo", "--once"), "--events"),
        (("no-such-command",), "no-such-command"),
        (("digest", "--prefix", "absent."), "nearstream topics create"),
        (("show", "u1", "--prefix", "absent."), "nearstream topics create"),
        (("tail", "--prefix", "absent."), "nearstream topics create"),
    ],
)
def test_misuse_exits_2_and_says_what_was_wrong(run_here: Any, arguments: tuple[str, ...], complaint: str) -> None:
    """Nothing on stdout; on stderr the offending word, or the command that mends it."""
    ran = run_here(*arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert complaint in ran.stderr


def test_an_unknown_user_is_misuse(run_here: Any, shop: Shop) -> None:
    """`show` of a user without events exits 2 and names the user."""
    ran = run_here("show", "nobody-at-all", "--json", "--prefix", shop.first.prefix)
    assert (ran.code, ran.stdout) == (2, "")
    assert "nobody-at-all" in ran.stderr


def test_looking_creates_no_topic(run_here: Any) -> None:
    """A prefix without topics stays without: an empty mapping, and exit 0."""
    ran = run_here("topics", "list", "--prefix", "absent.", "--json")
    assert (ran.code, ran.json) == (0, {})


@pytest.mark.parametrize("arguments", [("digest", "--json"), ("tail",), ("show", "u1"), ("topics", "list")])
def test_without_kafka_a_command_exits_1_and_says_how_to_start_one(run_here: Any, arguments: tuple[str, ...]) -> None:
    """No broker is a failure with an answer, not a hang."""
    ran = run_here(*arguments, "--bootstrap", f"127.0.0.1:{free_ports(1)[0]}")
    assert (ran.code, ran.stdout) == (1, "")
    assert "nearstream kafka start" in ran.stderr
