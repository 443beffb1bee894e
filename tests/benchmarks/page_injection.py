"""Milliseconds from pressing Send on the page until the list that knows the event is drawn, in headless Chromium.

`python tests/benchmarks/page_injection.py --injections 20` prints JSON: an embedded Kafka, a worker and the page as
processes of their own, a synthetic shop fed at `--rate`, and one user's events sent by the page's own form, each after
the list of the one before was seen. Also first contentful paint, and what three tabs hold over `--left-open-s`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from playwright.async_api import Page, async_playwright, expect

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from streams.bench.report import machine  # noqa: E402
from streams.config import Settings, load_settings  # noqa: E402
from streams.feed import feed  # noqa: E402
from streams.kafka.broker import EmbeddedKafka  # noqa: E402
from streams.kafka.digest import read_profiles  # noqa: E402
from streams.kafka.processes import free_ports  # noqa: E402
from streams.kafka.topics import create_topics  # noqa: E402
from streams.sources import open_source  # noqa: E402
from tests.integration.storm import WorkerProcess, drained  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOP = {"users": 500, "items": 500}
PAST = 5000
LEFT_OPEN = ("overview", "model", "streams")
WAIT_MS = 30_000
BAR_MS = 1000


async def injected_ms(page: Page, number: int) -> float:
    """One event by the form; what the page measured, from the press to the list."""
    result = page.locator("#try-result")
    before = await result.inner_text()
    await page.locator("#try-item").fill(f"i{number % SHOP['items']}")
    await page.locator("#try-send").click()
    await expect(result).not_to_have_text(before, timeout=WAIT_MS)
    await expect(result).to_contain_text("was here after", timeout=WAIT_MS)
    return float(await result.get_attribute("data-seen-ms") or "nan")


async def held(page: Page) -> dict[str, float]:
    """What the page's scripts hold after a collection: MB of heap, nodes of the document, listeners."""
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.collectGarbage")
    used = (await session.send("Runtime.getHeapUsage"))["usedSize"]
    counters = await session.send("Memory.getDOMCounters")
    await session.detach()
    return {
        "heap_mb": round(used / 1e6, 2),
        "dom_nodes": counters["nodes"],
        "listeners": counters["jsEventListeners"],
    }


async def left_open(pages: dict[str, Page], seconds: int, every_s: int) -> dict[str, dict[str, list[float]]]:
    """What each of the pages holds, by moments, while nobody touches them."""
    moments = [{tab: await held(page) for tab, page in pages.items()}]
    for _ in range(seconds // every_s):
        await asyncio.sleep(every_s)
        moments.append({tab: await held(page) for tab, page in pages.items()})
    return {tab: {name: [moment[tab][name] for moment in moments] for name in moments[0][tab]} for tab in pages}


async def measure(settings: Settings, address: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Opens the busiest user and injects; then leaves tabs open."""
    busiest = max((await read_profiles(settings)).values(), key=lambda profile: profile.events).user_id
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = await browser.new_page(viewport={"width": 1280, "height": 900})
        await page.goto(f"{address}#/person/{busiest}")
        await expect(page.locator("#person-items .item-head").first).to_be_visible(timeout=WAIT_MS)
        paint = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        spent = [await injected_ms(page, number) for number in range(arguments.injections)]
        pages = {tab: await browser.new_page(viewport={"width": 1280, "height": 900}) for tab in LEFT_OPEN}
        for tab, each in pages.items():
            await each.goto(f"{address}#/{tab}")
            await expect(each.locator(".panel").first).to_be_visible(timeout=WAIT_MS)
        opened = await left_open(pages, arguments.left_open_s, arguments.every_s)
        await browser.close()
    p50, p95 = np.percentile(spent, [50, 95])
    return {
        "injections": len(spent),
        "changed_list_ms": {"p50": round(p50), "p95": round(p95), "max": round(max(spent)), "bar_p95": BAR_MS},
        "first_contentful_paint_ms": round(paint),
        "left_open": opened,
    }


@contextmanager
def serving(bootstrap: str) -> Iterator[str]:
    """Address of a `nearstream dashboard` in a process of its own."""
    command = [sys.executable, "-m", "streams", "dashboard", "--bootstrap", bootstrap, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kafka, worker, page; a steady stream beside the injections."""
    with EmbeddedKafka(folder / "kafka", brokers=1, port=free_ports(1)[0], die_with_owner=True) as kafka:
        settings = load_settings(bootstrap=kafka.bootstrap, partitions=4)
        await create_topics(settings)
        await feed(open_source("synthetic", events=PAST, **SHOP), settings)
        with ExitStack() as stack:
            stack.enter_context(WorkerProcess("worker-1", settings, folder / "worker.log")).start()
            await drained(settings, PAST)
            address = stack.enter_context(serving(kafka.bootstrap))
            stream = asyncio.create_task(
                feed(open_source("synthetic", events=10**6, seed=2, **SHOP), settings, rate=arguments.rate)
            )
            try:
                return await measure(settings, address, arguments)
            finally:
                stream.cancel()
                await asyncio.wait({stream})


def main() -> None:
    """Prints the figures as JSON with their conditions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--injections", type=int, default=20)
    parser.add_argument("--rate", type=float, default=50.0, help="Events a second of other users beside it.")
    parser.add_argument("--left-open-s", type=int, default=0)
    parser.add_argument("--every-s", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(run(arguments, Path(folder)))
    print(json.dumps({"conditions": {**machine(), "rate": arguments.rate}, **found}, indent=1))


if __name__ == "__main__":
    main()
