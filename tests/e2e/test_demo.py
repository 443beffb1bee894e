"""`nearstream demo` as a stranger runs it: what it says, what the page shows, and that nothing of it stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from playwright.async_api import expect

from streams.demo import HISTORY_EVENTS_MAX
from streams.kafka.processes import WATCHDOG_GRACE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.async_api import Locator, Page

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

START_S_MAX = 90.0
INTERRUPT_S_MAX = 10.0
CLEANUP_S_MAX = WATCHDOG_GRACE_S + 4.0
"""Whoever does not heed SIGTERM is killed after the grace; the rest is for a busy machine."""
SHOWN_MS_MAX = 20_000
PICTURED_EVENTS = 20_000
"""About a minute: the shop is known by then, and every sparkline is full."""
POLL_S = 0.1
DESKDROP = Path(__file__).resolve().parents[2] / "../shared/data/deskdrop"
REASON = re.compile(
    r"similar user|^(Resembles|Often goes together with) “.+”, which this user had\.|^Many people have it right now\.|"
    r"^Many more people have it lately|^(Popular|New) in “.+”, which this user looks at\.|"
    r"^Popular among people with “.+”, as this user\."
)


@dataclass
class Demo:
    """One `nearstream demo` in a process of its own, which may write nowhere but into `home`."""

    process: subprocess.Popen[bytes]
    home: Path

    @property
    def said(self) -> str:
        """What it wrote on stderr up to now."""
        return (self.home / "stderr").read_text()

    @property
    def printed(self) -> str:
        """What it wrote on stdout up to now."""
        return (self.home / "stdout").read_text()

    def family(self) -> list[psutil.Process]:
        """Itself and everything it started that still runs, known by the environment handed down."""
        return [p for p in psutil.process_iter() if _environment(p).get("TMPDIR") == str(self.home)]

    def temporary_folders(self) -> list[Path]:
        """What it left on the disk."""
        return [path for path in self.home.iterdir() if path.is_dir()]

    async def wait_until_it_says(self, pattern: str) -> re.Match[str]:
        """The first match on stderr."""
        deadline = time.monotonic() + START_S_MAX
        while (found := re.search(pattern, self.said)) is None:
            assert self.process.poll() is None, f"the demo ended by itself:\n{self.said}"
            assert time.monotonic() < deadline, f"nothing like {pattern!r} in:\n{self.said}"
            await asyncio.sleep(POLL_S)
        return found

    async def wait_until_gone(self, limit_s: float) -> None:
        """Waits for the last of its processes to end."""
        deadline = time.monotonic() + limit_s
        while left := self.family():
            assert time.monotonic() < deadline, f"{limit_s} s later these still run: {list(map(_command, left))}"
            await asyncio.sleep(POLL_S)

    def end(self) -> None:
        """Kills what a failed test left running."""
        left = self.family()
        for process in left:
            process.kill()
        psutil.wait_procs(left, CLEANUP_S_MAX)
        self.process.wait()


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return {} if process.status() == psutil.STATUS_ZOMBIE else process.environ()
    except psutil.Error:
        return {}


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture
def start_demo(nearstream: str) -> Iterator[Callable[..., Demo]]:
    """Starts a demo; whatever a failed test leaves of it is ended."""
    with tempfile.TemporaryDirectory(prefix="demo-home-") as folder:
        home = Path(folder)
        started: list[Demo] = []

        def start(*arguments: str) -> Demo:
            with (home / "stdout").open("wb") as stdout, (home / "stderr").open("wb") as stderr:
                process = subprocess.Popen(
                    [nearstream, "demo", "--no-browser", "--port", "0", *arguments],
                    env={**os.environ, "TMPDIR": str(home)},
                    stdout=stdout,
                    stderr=stderr,
                )
            started.append(Demo(process, home))
            return started[-1]

        yield start
        for demo in started:
            demo.end()


def check_summary(demo: Demo, events: int) -> None:
    """The result of `--once`: one JSON object on stdout and figures that fit each other."""
    assert demo.process.returncode == 0, demo.said
    lines = demo.printed.splitlines()
    assert len(lines) == 1
    summary: dict[str, Any] = json.loads(lines[0])
    names = ["events", "lists", "users", "dead_letters", "freshness_ms", "events_per_s", "lag"]
    assert list(summary) == names
    assert (summary["events"], summary["dead_letters"], summary["lag"]) == (events, 0, 0)
    assert 0 < summary["users"] <= summary["lists"] <= events
    assert 0 < summary["freshness_ms"]["p50"] <= summary["freshness_ms"]["p99"]
    assert summary["events_per_s"] > 0


async def test_once_prints_one_summary_and_leaves_nothing(start_demo: Callable[..., Demo]) -> None:
    """`--once` exits 0 with a JSON object on stdout; broker, worker, watchdogs and folder are gone by then."""
    demo = start_demo("--no-train", "--once", "--events", "3000", "--rate", "1500")
    await demo.wait_until_it_says("live page: http://127.0.0.1:")
    commands = list(map(_command, demo.family()))
    for part in ("kafka.Kafka", "streams worker"):
        assert any(part in command for command in commands), f"the test would not see {part} left behind"
    await asyncio.to_thread(demo.process.wait, START_S_MAX)
    check_summary(demo, events=3000)
    await demo.wait_until_gone(1.0)
    assert demo.temporary_folders() == []


@pytest.mark.logs
@pytest.mark.skipif(not DESKDROP.exists(), reason="../shared/data/deskdrop is missing")
async def test_plays_a_real_log(start_demo: Callable[..., Demo]) -> None:
    """`--format deskdrop --data FOLDER` plays the log at the rate asked for; every event counts."""
    demo = start_demo(
        "--format", "deskdrop", "--data", str(DESKDROP.resolve()), "--once", "--events", "2000", "--rate", "2000"
    )
    await asyncio.to_thread(demo.process.wait, START_S_MAX)
    check_summary(demo, events=2000)


async def _digest(nearstream: str, port: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        nearstream, "digest", "--json", "--bootstrap", f"127.0.0.1:{port}", stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(printed)
    return found


@pytest.mark.timeout(300)
async def test_trains_on_the_past_and_serves_the_model(start_demo: Callable[..., Demo], nearstream: str) -> None:
    """The worker serves what was trained, the past's people have profiles, and Ctrl-C leaves nothing of it."""
    demo = start_demo("--users", "200", "--items", "200", "--rate", "100")
    await demo.wait_until_it_says(r"(?m)^best NDCG@10 in validation: 0\.\d*[1-9]")
    await demo.wait_until_it_says(r"(?m)^running$")
    await demo.wait_until_it_says(r"(?m)^model: gated-recurrence@[0-9a-f]+$")
    port = (await demo.wait_until_it_says(r"on port (\d+)")).group(1)
    deadline = time.monotonic() + START_S_MAX
    while (await _digest(nearstream, port))["events"] <= HISTORY_EVENTS_MAX:
        assert time.monotonic() < deadline, "the past was not published whole, or nothing live came after it"
        await asyncio.sleep(POLL_S)
    demo.process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(demo.process.wait, 2 * INTERRUPT_S_MAX) == 130
    await demo.wait_until_gone(1.0)
    assert demo.temporary_folders() == []


@pytest.mark.logs
@pytest.mark.timeout(300)
@pytest.mark.skipif(not DESKDROP.exists(), reason="../shared/data/deskdrop is missing")
async def test_trains_on_a_log_when_asked(start_demo: Callable[..., Demo]) -> None:
    """`--train` learns the first half of a log; `--once` then counts events of the second half alone."""
    demo = start_demo("--format", "deskdrop", "--data", str(DESKDROP.resolve()), "--train", "--once", "--events", "500")
    await asyncio.to_thread(demo.process.wait, 2 * START_S_MAX)
    check_summary(demo, events=500)
    assert "model: gated-recurrence@" in demo.said
    assert re.search(r"(?m)^trained on the first [\d,]+ events; ", demo.said)


async def test_ctrl_c_ends_a_training(start_demo: Callable[..., Demo]) -> None:
    """SIGINT while the model is trained exits 130 within seconds; Kafka, which started beside it, goes too."""
    demo = start_demo()
    await demo.wait_until_it_says(r"(?m)^training$")
    await demo.wait_until_it_says(r"starting Apache Kafka")
    demo.process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(demo.process.wait, START_S_MAX) == 130
    assert "running" not in demo.said
    assert demo.printed == ""
    await demo.wait_until_gone(1.0)
    assert demo.temporary_folders() == []


async def test_kill_9_takes_broker_and_worker_along(start_demo: Callable[..., Demo]) -> None:
    """A demo that dies without a chance to clean up orphans nothing: its watchdogs end broker and worker."""
    demo = start_demo("--no-train", "--rate", "300")
    await demo.wait_until_it_says(r"(?m)^running$")
    demo.process.kill()
    await asyncio.to_thread(demo.process.wait)
    await demo.wait_until_gone(CLEANUP_S_MAX)


async def test_a_worker_that_fails_is_explained(
    start_demo: Callable[..., Demo], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo exits 1 with the worker's own words instead of a traceback, and leaves nothing."""
    monkeypatch.setenv("NEARSTREAM_MODEL", "no-such-model")
    demo = start_demo("--once", "--events", "10")
    await asyncio.to_thread(demo.process.wait, START_S_MAX)
    assert demo.process.returncode == 1
    assert "There is no model 'no-such-model'" in demo.said
    assert "Traceback" not in demo.said
    assert demo.printed == ""
    await demo.wait_until_gone(1.0)
    assert demo.temporary_folders() == []


async def _number(cell: Locator) -> int:
    text = (await cell.inner_text()).replace(",", "")
    return int(text) if text.isdigit() else 0


async def _grows(cells: Locator, until: int) -> None:
    """Watches the sum of these cells grow past `until` in at least three steps, without a reload."""
    seen = [0]
    grown = time.monotonic()
    while len(seen) < 4 or seen[-1] < until:
        assert time.monotonic() - grown < SHOWN_MS_MAX / 1000, f"the page stands still at {seen[-1]}"
        total = sum([await _number(cell) for cell in await cells.all()])
        if total > seen[-1]:
            seen.append(total)
            grown = time.monotonic()
        await asyncio.sleep(POLL_S)


async def _look_up_somebody(page: Page) -> None:
    """Opens one of the users that the page suggests whose list is full."""
    await page.locator("#suggest-users a").first.click()
    await expect(page.locator("#person-items > li .reasons").first).to_be_visible(timeout=SHOWN_MS_MAX)


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="session")
async def test_the_page_moves_and_ctrl_c_ends_everything(
    start_demo: Callable[..., Demo], tab: Page, screenshots: Path | None
) -> None:
    """Numbers move on the page, a user's list has its reasons as sentences; SIGINT exits 130 with nothing left."""
    started = time.monotonic()
    demo = start_demo("--no-train", "--rate", "300")
    address = (await demo.wait_until_it_says(r"live page: (\S+)")).group(1)
    await tab.goto(address)
    committed = tab.locator('#partitions [data-label="Committed"]')
    await _grows(committed, until=1)
    assert time.monotonic() - started < START_S_MAX
    for tile in ("#events-per-s", "#lists-per-s", "#index-users"):
        await expect(tab.locator(tile)).to_have_text(re.compile(r"[1-9]"), timeout=SHOWN_MS_MAX)
    await expect(tab.locator("#verdict")).to_have_text("OK", timeout=SHOWN_MS_MAX)
    if screenshots is not None:
        await _grows(committed, until=PICTURED_EVENTS)
        await tab.screenshot(path=screenshots / "overview.png")

    await _look_up_somebody(tab)
    await expect(tab.locator("#person-events > li .chip").first).to_be_visible()
    await expect(tab.locator("#person-facts")).to_contain_text("events in the profile")
    await expect(tab.locator("#person-neighbours a").first).to_be_visible()
    sentences = await tab.locator("#person-items .reasons .grow").all_inner_texts()
    assert sentences
    assert [s for s in sentences if REASON.search(s) is None] == []
    if screenshots is not None:
        await tab.screenshot(path=screenshots / "person.png")

    interrupted = time.monotonic()
    demo.process.send_signal(signal.SIGINT)
    code = await asyncio.to_thread(demo.process.wait, 2 * INTERRUPT_S_MAX)
    assert code == 130
    assert time.monotonic() - interrupted < INTERRUPT_S_MAX
    assert demo.printed == ""
    await demo.wait_until_gone(1.0)
    assert demo.temporary_folders() == []
