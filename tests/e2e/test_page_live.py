"""The page beside a real worker on a real Kafka: it shows what the topics hold, and notices when the worker is gone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from playwright.async_api import expect

from streams.config import Settings, load_settings
from streams.core.status import WorkerStatus
from streams.feed import feed
from streams.kafka.clients import client_options
from streams.kafka.digest import digest_of, read_profiles
from streams.kafka.records import read_all
from streams.kafka.topics import Topics, create_topics
from streams.sources import open_source
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.async_api import Locator, Page

    from streams.kafka.broker import EmbeddedKafka

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


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    """Fresh topics' names and a group of their own."""
    return load_settings(bootstrap=kafka.bootstrap, prefix=prefix, group=prefix.strip("."), partitions=PARTITIONS)


@pytest.fixture
def worker(settings: Settings, tmp_path: Path) -> Iterator[WorkerProcess]:
    """A real worker, not started yet."""
    with WorkerProcess("worker-1", settings, tmp_path / "worker.log") as process:
        yield process


@pytest.fixture
def dashboard(settings: Settings, nearstream: str, tmp_path: Path) -> Iterator[str]:
    """Address of a `nearstream dashboard` process; a stop by SIGTERM must be clean."""
    command = [nearstream, "dashboard", "--bootstrap", settings.bootstrap, "--prefix", settings.prefix]
    with (tmp_path / "dashboard.log").open("wb") as log:
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
            assert address.startswith("http://"), (tmp_path / "dashboard.log").read_text()
            yield address
            process.terminate()
            assert process.wait(READY_S_MAX) == 0
        finally:
            process.kill()


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
    for reason, count in counted.items():
        await expect(_row(tab, "dead-reasons", reason).locator("b")).to_have_text(str(count))
    assert digest_of(await read_profiles(settings)) == digest

    busiest = max((await read_profiles(settings)).values(), key=lambda profile: profile.events)
    await tab.locator("#user-id").fill(busiest.user_id)
    await tab.keyboard.press("Enter")
    await expect(tab.locator("#person-facts")).to_contain_text(f"{busiest.events} events in the profile")
    await expect(tab.locator("#person-events > li")).to_have_count(min(20, busiest.events))
    worker.end(signal.SIGTERM)
    await expect(_cell(_row(tab, "workers", "worker-1"), "State")).to_contain_text("stopped", timeout=SHOWN_MS_MAX)


async def test_a_killed_worker_is_noticed_and_its_return_too(
    settings: Settings, worker: WorkerProcess, dashboard: str, tab: Page
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
