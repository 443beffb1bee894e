"""The page beside a real worker on a real Kafka: it shows what the topics hold, and notices when the worker is gone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from playwright.async_api import expect

from streams.config import Settings, load_settings
from streams.core.status import WorkerStatus
from streams.feed import feed
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.clients import client_options
from streams.kafka.digest import digest_of, read_profiles
from streams.kafka.records import read_all
from streams.kafka.topics import Topics, create_topics
from streams.sources import open_source
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from playwright.async_api import Locator, Page

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]

PARTITIONS = 3
EVENTS = 600
POISON = {b"{nope": "not-json", b'{"user_id": 7}': "invalid-schema", b"\xff\xfe": "invalid-utf8"}
POISON_COUNTS = {"not-json": 300, "invalid-schema": 40, "invalid-utf8": 7}
SHOWN_MS_MAX = 30_000
REPORT_S = 1.0
SILENCE_S_MAX = 5.0
READY_S_MAX = 30.0
NOTICED_MS_MAX = 5000
NODE = 1


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    """Fresh topics' names and a group of their own."""
    return load_settings(bootstrap=kafka.bootstrap, prefix=prefix, group=prefix.strip("."), partitions=PARTITIONS)


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[WorkerProcess]:
    """A real worker, not started yet."""
    with WorkerProcess("worker-1", settings, tmp_path / "worker.log") as process:
        yield process


@contextmanager
def serving(settings: Settings, nearstream: str, folder: Path) -> Iterator[str]:
    """Address of a `nearstream dashboard` process; a stop by SIGTERM must be clean."""
    command = [nearstream, "dashboard", "--bootstrap", settings.bootstrap, "--prefix", settings.prefix]
    with (folder / "dashboard.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--group", settings.group, "--port", "0"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    with process:
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://"), (folder / "dashboard.log").read_text()
            yield address
            process.terminate()
            assert process.wait(READY_S_MAX) == 0
        finally:
            process.kill()


@pytest.fixture
def dashboard(settings: Settings, nearstream: str, tmp_path: Path) -> Iterator[str]:
    """The page of this test's topics."""
    with serving(settings, nearstream, tmp_path) as address:
        yield address


@pytest.fixture
def picture(tab: Page, screenshots: Path | None) -> Callable[[str], Awaitable[None]]:
    """Keeps what the tab shows now under a name, when pictures are asked for."""

    async def taken(name: str) -> None:
        if screenshots is not None:
            await tab.screenshot(path=screenshots / f"{name}.png")

    return taken


def _row(page: Page, table: str, key: object) -> Locator:
    return page.locator(f'#{table} > [data-key="{key}"]')


def _cell(line: Locator, label: str) -> Locator:
    return line.locator(f'[data-label="{label}"]')


async def _column_sums_to(page: Page, label: str, total: int) -> None:
    """Waits until a column of the partitions adds up to `total`."""
    deadline = time.monotonic() + SHOWN_MS_MAX / 1000
    shown = -1
    while shown != total:
        assert time.monotonic() < deadline, f"{label} adds up to {shown}, expected {total}"
        await asyncio.sleep(0.1)
        cells = await page.locator(f'#partitions [data-label="{label}"]').all_inner_texts()
        shown = sum(int(text.replace(",", "")) for text in cells if text[:1].isdigit())


async def _reasons(settings: Settings) -> Counter[str]:
    """Dead letters by reason, counted on the topic."""
    reasons: Counter[str] = Counter()
    async for record in read_all(settings, Topics(settings.prefix).dead_letters):
        reasons[dict(record.headers)["errors.reason"].decode()] += 1
    return reasons


async def _send_poison(settings: Settings) -> None:
    """Records that cannot count, spread over the partitions: fewer than stop a worker."""
    async with AIOKafkaProducer(**client_options(settings)) as producer:
        sends = [
            await producer.send(Topics(settings.prefix).events, value, b"somebody", partition=number % PARTITIONS)
            for value, reason in POISON.items()
            for number in range(POISON_COUNTS[reason])
        ]
        await asyncio.gather(*sends)


async def test_shows_what_the_topics_hold(settings: Settings, worker: WorkerProcess, dashboard: str, tab: Page) -> None:
    """End offsets, users, one user's events and a flood of poison by reason equal a re-count of the topics."""
    await tab.goto(dashboard)
    await expect(tab.locator("#notice")).to_contain_text("topics create", timeout=SHOWN_MS_MAX)
    await create_topics(settings)
    await feed(open_source("synthetic", events=EVENTS, users=80, items=60), settings)
    worker.start()
    await drained(settings, EVENTS)
    digest = digest_of(await read_profiles(settings))
    assert digest.events == EVENTS
    await expect(tab.locator("#index-users")).to_have_text(str(digest.users), timeout=SHOWN_MS_MAX)
    await expect(tab.locator("#lag")).to_have_text("0")
    for label in ("End", "Committed", "Position"):
        await _column_sums_to(tab, label, EVENTS)

    await _send_poison(settings)
    await drained(settings, EVENTS + sum(POISON_COUNTS.values()))
    counted = await _reasons(settings)
    assert counted == Counter(POISON_COUNTS)
    await expect(tab.locator("#dead-total")).to_have_text(str(counted.total()), timeout=SHOWN_MS_MAX)
    await expect(tab.locator("#dead-top")).to_have_text("mostly not-json")
    await tab.locator("#dead-top").click()
    for reason, count in counted.items():
        await expect(_row(tab, "dead-reasons", reason).locator("b")).to_have_text(str(count))
    assert digest_of(await read_profiles(settings)) == digest

    busiest = max((await read_profiles(settings)).values(), key=lambda profile: profile.events)
    await tab.locator("#user-id").fill(busiest.user_id)
    await tab.keyboard.press("Enter")
    await expect(tab.locator("#person-facts")).to_contain_text(f"{busiest.events} events in the profile")
    await expect(tab.locator("#person-events > li")).to_have_count(min(20, busiest.events))
    worker.end(signal.SIGTERM)
    await tab.get_by_role("link", name="Overview").click()
    await expect(_cell(_row(tab, "workers", "worker-1"), "State")).to_contain_text("stopped", timeout=SHOWN_MS_MAX)


async def test_a_killed_worker_is_noticed_and_its_return_too(
    settings: Settings,
    worker: WorkerProcess,
    dashboard: str,
    tab: Page,
    picture: Callable[[str], Awaitable[None]],
) -> None:
    """Within five seconds of the first report that does not come, the worker is silent on the page; lag then grows
    in the open, and after a restart everything is OK and read."""
    await create_topics(settings)
    shop = {"users": 80, "items": 60}
    await feed(open_source("synthetic", events=EVENTS, **shop), settings)
    worker.start()
    await drained(settings, EVENTS)
    await tab.goto(dashboard)
    line = _row(tab, "workers", "worker-1")
    await expect(_cell(line, "Last report")).to_contain_text(re.compile(r"^\d.* ago"), timeout=SHOWN_MS_MAX)
    await expect(tab.locator("#lag")).to_have_text("0")

    await asyncio.to_thread(worker.end, signal.SIGKILL)
    await expect(_cell(line, "Last report")).to_contain_text("silent for", timeout=SHOWN_MS_MAX)
    noticed_at = time.time()
    assert noticed_at - await _last_report_s(settings) < REPORT_S + SILENCE_S_MAX
    await expect(_cell(line, "State")).to_contain_text("silent")
    await expect(_cell(_row(tab, "partitions", 0), "Owner")).to_contain_text("worker-1, silent for")
    await expect(tab.locator("#verdict-sentence")).to_have_text(re.compile(r"^worker-1 is silent for \d+ s\.$"))
    await picture("noticed-killed-worker")

    await feed(open_source("synthetic", events=EVENTS, seed=2, **shop), settings)
    await expect(tab.locator("#lag")).to_have_text(str(EVENTS), timeout=SHOWN_MS_MAX)
    worker.start()
    await drained(settings, 2 * EVENTS)
    await expect(tab.locator("#lag")).to_have_text("0", timeout=SHOWN_MS_MAX)
    await expect(_cell(line, "Last report")).to_contain_text("ago", timeout=SHOWN_MS_MAX)
    await expect(tab.locator("#verdict")).to_have_text("OK", timeout=SHOWN_MS_MAX)
    for number in range(PARTITIONS):
        await expect(_cell(_row(tab, "partitions", number), "Owner")).to_have_text("worker-1", timeout=SHOWN_MS_MAX)


async def _last_report_s(settings: Settings) -> float:
    """When the worker last reported, in epoch seconds."""
    reports = [
        msgspec.json.decode(record.value, type=WorkerStatus).reported_at
        async for record in read_all(settings, Topics(settings.prefix).status)
        if record.value is not None
    ]
    return max(reports) / 1000


async def _commit(settings: Settings, offsets: dict[int, int]) -> None:
    """Moves the group as a worker would: by committed offsets."""
    topic = Topics(settings.prefix).events
    async with AIOKafkaConsumer(
        **client_options(settings), group_id=settings.group, enable_auto_commit=False
    ) as consumer:
        consumer.assign([TopicPartition(topic, number) for number in offsets])
        await consumer.commit({TopicPartition(topic, number): offset for number, offset in offsets.items()})


async def test_a_stopped_producer_is_noticed(
    settings: Settings, dashboard: str, tab: Page, picture: Callable[[str], Awaitable[None]]
) -> None:
    """While events come nothing is said; within five seconds of the last one the page says for how long none came."""
    await create_topics(settings)
    await tab.goto(dashboard)
    await expect(tab.locator("#partitions > tr")).to_have_count(PARTITIONS, timeout=SHOWN_MS_MAX)
    stop = asyncio.Event()

    async def produce() -> None:
        async with AIOKafkaProducer(**client_options(settings)) as producer:
            while not stop.is_set():
                await producer.send_and_wait(Topics(settings.prefix).events, b"{}", b"somebody", partition=0)
                await asyncio.sleep(0.05)

    producing = asyncio.create_task(produce())
    await expect(tab.locator("#events-per-s")).to_have_text(re.compile(r"^[1-9]"), timeout=SHOWN_MS_MAX)
    await expect(tab.locator("#quiet")).to_be_hidden()
    stop.set()
    await producing
    await expect(tab.locator("#quiet")).to_be_visible(timeout=NOTICED_MS_MAX)
    await expect(tab.locator("#quiet")).to_have_text(re.compile(r"^none for [2-9]"))
    await picture("noticed-stopped-producer")


async def test_a_slow_partition_is_noticed(
    settings: Settings, dashboard: str, tab: Page, picture: Callable[[str], Awaitable[None]]
) -> None:
    """Within five seconds of being left behind the partition is named, with its seconds; afterwards all keep up."""
    await create_topics(settings)
    async with AIOKafkaProducer(**client_options(settings)) as producer:
        for number in range(PARTITIONS):
            await producer.send_and_wait(Topics(settings.prefix).events, b"{}", b"somebody", partition=number)
        await _commit(settings, dict.fromkeys(range(PARTITIONS), 1))
        await tab.goto(dashboard)
        await expect(tab.locator("#verdict-sentence")).to_have_text("All 3 partitions keep up.", timeout=SHOWN_MS_MAX)
        for _ in range(50):
            await producer.send_and_wait(Topics(settings.prefix).events, b"{}", b"somebody", partition=1)
    await expect(tab.locator("#verdict-sentence")).to_have_text(
        re.compile(r"Partition 1 is \d s behind, the others 0\.0 s at most\."), timeout=NOTICED_MS_MAX
    )
    await expect(_cell(_row(tab, "partitions", 1), "Lag")).to_have_text("50")
    await picture("noticed-slow-partition")
    await _commit(settings, {1: 51})
    await expect(tab.locator("#verdict-sentence")).to_have_text("All 3 partitions keep up.", timeout=SHOWN_MS_MAX)


async def test_a_flood_of_poison_is_noticed(
    settings: Settings,
    worker: WorkerProcess,
    dashboard: str,
    tab: Page,
    picture: Callable[[str], Awaitable[None]],
) -> None:
    """Within five seconds of the worker's commit all of it is counted, by reason, and can be read and mended."""
    await create_topics(settings)
    await feed(open_source("synthetic", events=EVENTS, users=80, items=60), settings)
    worker.start()
    await drained(settings, EVENTS)
    await tab.goto(dashboard)
    await expect(tab.locator("#dead-total")).to_have_text("0", timeout=SHOWN_MS_MAX)
    await _send_poison(settings)
    await drained(settings, EVENTS + sum(POISON_COUNTS.values()))
    await expect(tab.locator("#dead-total")).to_have_text(str(sum(POISON_COUNTS.values())), timeout=NOTICED_MS_MAX)
    await picture("noticed-poison-flood")
    await tab.locator("#dead-top").click()
    await tab.locator("#dead-reasons button", has_text="invalid-schema").click()
    await tab.locator("#mend").click()
    letters = tab.locator("#mendable > li")
    await expect(letters.first).to_contain_text("invalid-schema", timeout=SHOWN_MS_MAX)
    good = {"user_id": "somebody", "item_id": "i1", "type": "view", "timestamp": int(time.time() * 1000)}
    await letters.first.locator("textarea").fill(json.dumps(good))
    await letters.first.get_by_role("button", name="Replay mended").click()
    await expect(letters.first).to_contain_text("Sent to the input again.", timeout=SHOWN_MS_MAX)
    async with asyncio.timeout(SHOWN_MS_MAX / 1000):
        while digest_of(await read_profiles(settings)).events != EVENTS + 1:
            await asyncio.sleep(0.2)


async def test_a_broker_that_goes_down_is_noticed(
    nearstream: str,
    tab: Page,
    tmp_path_factory: pytest.TempPathFactory,
    jars_dir: Path,
    prefix: str,
    picture: Callable[[str], Awaitable[None]],
) -> None:
    """Within five seconds of its death the page says so over the last figures; it goes on by itself afterwards."""
    folder = tmp_path_factory.mktemp("dying")
    broker = EmbeddedKafka(folder, brokers=1, port=0, die_with_owner=True, jars_dir=jars_dir)
    with broker:
        own = load_settings(bootstrap=broker.bootstrap, prefix=prefix, group="group", partitions=PARTITIONS)
        await create_topics(own)
        with serving(own, nearstream, folder) as address:
            await tab.goto(address)
            await expect(tab.locator("#partitions > tr")).to_have_count(PARTITIONS, timeout=SHOWN_MS_MAX)
            await asyncio.to_thread(broker.kill, NODE)
            await expect(tab.locator("#notice")).to_contain_text("Kafka unreachable since", timeout=NOTICED_MS_MAX)
            await expect(tab.locator("#partitions > tr")).to_have_count(PARTITIONS)
            await picture("noticed-broker-down")
            await asyncio.to_thread(broker.start_node, NODE)
            await expect(tab.locator("#notice")).to_be_hidden(timeout=SHOWN_MS_MAX)


async def test_a_tried_event_changes_the_list_and_forgetting_takes_it_away(
    settings: Settings, worker: WorkerProcess, dashboard: str, tab: Page
) -> None:
    """What the form sends is in the topic and the new list says so, within the bar; forgetting has a receipt."""
    await create_topics(settings)
    await feed(open_source("synthetic", events=EVENTS, users=40, items=60), settings)
    worker.start()
    await drained(settings, EVENTS)
    busiest = max((await read_profiles(settings)).values(), key=lambda profile: profile.events)
    await tab.goto(f"{dashboard}#/person/{busiest.user_id}")
    await expect(tab.locator("#person-facts")).to_contain_text(f"{busiest.events} events", timeout=SHOWN_MS_MAX)
    await expect(tab.locator("#person-items > li .reasons").first).to_be_visible()
    await tab.locator("#try-item").fill("i7")
    await tab.locator("#try-type").select_option("purchase")
    await tab.locator("#try-send").click()
    await expect(tab.locator("#try-result")).to_contain_text("was here after", timeout=SHOWN_MS_MAX)
    await expect(tab.locator("#person-facts")).to_contain_text(f"{busiest.events + 1} events")
    await expect(tab.locator("#person-events > li").first).to_contain_text("purchase")
    await expect(tab.locator("#change-panel")).to_contain_text(f"{busiest.events} → {busiest.events + 1} events")
    assert (await read_profiles(settings))[busiest.user_id].events == busiest.events + 1
    await expect(tab.locator("#interests-panel figcaption")).to_contain_text(
        f"After event {busiest.events + 1}", timeout=SHOWN_MS_MAX
    )

    await tab.locator("#forget").click()
    await tab.locator("#forget-yes").click()
    await expect(tab.locator("#receipt")).to_contain_text("deadline", timeout=SHOWN_MS_MAX)
    await tab.get_by_role("button", name="Close").click()
    await expect(tab.locator("#person-message")).to_have_text(
        "The list of this user was deleted.", timeout=SHOWN_MS_MAX
    )
    assert busiest.user_id not in await read_profiles(settings)
