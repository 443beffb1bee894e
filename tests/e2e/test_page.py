"""The page in a real headless Chromium: it shows what was observed, lives, and says when it does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import pytest
from playwright.async_api import expect

from streams.core.observation import Connection, DeadLetterTally, Observation, PartitionOffsets, UserObservation
from streams.core.recommendations import SHORT_SENTENCES
from streams.core.status import IndexWarning
from tests.fakes import (
    START_MS,
    FakeObserver,
    dead_letter,
    event_record,
    list_record,
    observation,
    recommendation,
    worker_status,
)
from tests.fakes_status import index_status, scanned_status

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


PLACES = {
    "#/overview": "#partitions > tr",
    "?user=u1": "#person-items > li",
    "#/model": "#indexes > tr",
    "#/streams": "#dead-last > li",
}
"""Every tab's address, and a sign that it is drawn; the second is an address of before the tabs."""


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> float:
        return self.now_ms / 1000


def poll(clock: Clock, lags: list[int], **changes: Any) -> Observation:
    """All partitions at 5,000 with these lags, held by w1; the next record of each is 2.5 s old."""
    rows = [PartitionOffsets(p, 0, 5000, 5000 - lag, clock.now_ms - 2500) for p, lag in enumerate(lags)]
    worker = worker_status("w1", {p: (5000 - lag, 5000) for p, lag in enumerate(lags)}, clock.now_ms)
    return observation(rows, [worker], clock.now_ms, **changes)


def row(page: Page, table: str, key: str) -> Locator:
    """A row of a table by its key."""
    return page.locator(f'#{table} > [data-key="{key}"]')


def cell(line: Locator, label: str) -> Locator:
    """A cell of a row by its column."""
    return line.locator(f'[data-label="{label}"]')


async def test_shows_the_values_that_were_observed(tab: Page, serve: Any) -> None:
    """Strip, partitions, workers and dead letters carry the numbers given, grouped and with units."""
    clock = Clock()
    tally = DeadLetterTally({"not-json": 40, "key-mismatch": 2}, [dead_letter(9)], complete=True)
    async with serve(FakeObserver(poll(clock, [1234, 0], dead_letters=tally)), clock=clock) as url:
        await tab.goto(url)
        await expect(tab.locator("#verdict")).to_have_text("OK")
        await expect(tab.locator("#lag")).to_have_text("1,234")
        await expect(tab.locator("#lag-s")).to_have_text("2.5 s behind")
        await expect(tab.locator("#lists-per-s")).to_have_text("80")
        await expect(tab.locator("#freshness-p50")).to_have_text("42 ms")
        await expect(tab.locator("#freshness-p99")).to_have_text("180 ms")
        await expect(tab.locator("#dead-total")).to_have_text("42")
        first = row(tab, "partitions", "0")
        for label in ("Position", "Committed"):
            await expect(cell(first, label)).to_have_text("3,766")
        for label, text in {"Owner": "w1", "End": "5,000", "Lag": "1,234", "Lag, time": "2.5 s"}.items():
            await expect(cell(first, label)).to_have_text(text)
        await expect(cell(row(tab, "workers", "w1"), "Partitions")).to_have_text("0–1")
        await expect(cell(row(tab, "workers", "w1"), "Stages")).to_contain_text("transaction 18 ms")
        await expect(tab.locator("#dead-top")).to_have_text("mostly not-json")
        await tab.locator("#dead-top").click()
        await expect(row(tab, "dead-reasons", "not-json")).to_contain_text("40")
        await expect(row(tab, "dead-last", "events/1/9")).to_contain_text("{oops")


async def test_numbers_move_without_a_reload(tab: Page, serve: Any) -> None:
    """A new poll changes the text of the same nodes; a dead worker turns silent and its partition STOP."""
    clock = Clock()
    observer = FakeObserver(poll(clock, [3]))
    async with serve(observer, clock=clock) as url:
        await tab.goto(url)
        await expect(tab.locator("#lag")).to_have_text("3")
        await tab.evaluate("window.sameDocument = true")
        report = observer.observation.workers[0]
        for lag in range(10, 22):
            clock.now_ms += 1000
            observer.observation = msgspec.structs.replace(
                observation([PartitionOffsets(0, 0, 4997 + lag, 4997, START_MS)], [report], clock.now_ms)
            )
            await expect(tab.locator("#lag")).to_have_text(str(lag))
        await expect(row(tab, "partitions", "0").locator(".verdict")).to_have_text("STOP")
        await expect(tab.locator("#verdict")).to_have_text("ERR")
        await expect(tab.locator("#verdict-sentence")).to_have_text("1 STOP of 1 partitions.")
        await expect(cell(row(tab, "partitions", "0"), "Owner")).to_contain_text("w1, silent for 12 s")
        await expect(cell(row(tab, "workers", "w1"), "Last report")).to_have_text("silent for 12 s")
        assert await tab.evaluate("window.sameDocument") is True


async def test_looks_a_user_up_by_keyboard_and_shows_reasons_as_sentences(tab: Page, serve: Any) -> None:
    """`/` goes to the field; events stand beside the list; a changed list shows by itself."""
    clock = Clock()
    observer = FakeObserver(poll(clock, [0]), titles={"i5": "Gloves", "i2": "Wool scarf"})
    observer.users["u1"] = UserObservation("u1", [event_record(7)], list_record(recommendation()))
    async with serve(observer, clock=clock) as url:
        await tab.goto(url)
        await tab.keyboard.press("/")
        await tab.keyboard.type("u1")
        await tab.keyboard.press("Enter")
        items = tab.locator("#person-items > li")
        await expect(items).to_have_count(2)
        await expect(items.first).to_contain_text("Gloves")
        await expect(items.first).to_contain_text("u9, u12 and 1 more similar users had it.")
        await expect(items.first).to_contain_text("Resembles “Wool scarf”, which this user had.")
        await expect(items.first).to_contain_text("60%")
        await expect(tab.locator("#person-events")).to_contain_text("Wool scarf")
        await expect(tab.locator("#person-neighbours li").first).to_have_text("u90.93")
        await expect(tab.locator("#person-facts")).to_contain_text("42 events in the profile")
        await expect(tab.locator("#person-short")).to_be_hidden()
        assert urlsplit(tab.url).fragment == "/person/u1"
        short = msgspec.structs.replace(recommendation(events=43), short_because="caps")
        observer.users["u1"] = UserObservation(
            "u1", [event_record(7), event_record(8, "i9", "purchase")], list_record(short, 501)
        )
        await expect(tab.locator("#person-short")).to_have_text(SHORT_SENTENCES["caps"])
        await expect(tab.locator("#person-facts")).to_contain_text("43 events in the profile")
        await expect(tab.locator("#person-events li").first).to_contain_text("purchase")


async def test_a_neighbour_is_a_link_and_back_returns(tab: Page, serve: Any) -> None:
    """A deep link opens a user, a click the neighbour, the browser's back button the first one again."""
    clock = Clock()
    observer = FakeObserver(poll(clock, [0]))
    observer.users["u1"] = UserObservation("u1", [], list_record(recommendation("u1")))
    observer.users["u9"] = UserObservation("u9", search="searching")
    async with serve(observer, clock=clock) as url:
        await tab.goto(f"{url}?user=u1")
        await tab.get_by_role("link", name="u9").click()
        await expect(tab.locator("#person-id")).to_have_text("u9")
        await expect(tab.locator("#person-message")).to_contain_text("Looking back")
        await expect(tab.locator("#person-items")).to_have_text("No list.")
        await tab.go_back()
        await expect(tab.locator("#person-id")).to_have_text("u1")
        await expect(tab.locator("#person-items > li")).to_have_count(2)
        await tab.get_by_role("link", name="Close").click()
        await expect(tab.locator("#person")).to_be_hidden()


async def test_text_from_topics_is_never_markup(tab: Page, serve: Any) -> None:
    """A hostile id, title or dead letter shows as it was sent and runs nothing."""
    clock = Clock()
    hostile = '<img src=x onerror="document.title=1">'
    tally = DeadLetterTally({hostile: 1}, [msgspec.structs.replace(dead_letter(), excerpt=hostile)], complete=True)
    observer = FakeObserver(poll(clock, [0], dead_letters=tally), titles={"i5": hostile})
    observer.users[hostile] = UserObservation(hostile, [event_record(1)], list_record(recommendation(hostile)))
    async with serve(observer, clock=clock) as url:
        await tab.goto(url)
        await tab.locator("#user-id").fill(hostile)
        await tab.keyboard.press("Enter")
        await expect(tab.locator("#person-id")).to_have_text(hostile)
        await expect(tab.locator("#person-items > li").first).to_contain_text(hostile)
        await tab.get_by_role("link", name="Streams").click()
        await expect(tab.locator("#dead-last")).to_contain_text(hostile)
        assert await tab.locator("img").count() == 0


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        (Connection("connecting", "kafka:9092", START_MS), "Connecting to Kafka at kafka:9092"),
        (
            Connection("unreachable", "kafka:9092", START_MS - 63_000, "refused"),
            r"Kafka unreachable since .*1 min 3 s.*",
        ),
        (
            Connection("no-topics", "kafka:9092", START_MS, None, ["events"]),
            "Topics are missing: events. .*topics create",
        ),
    ],
)
async def test_says_what_is_wrong_with_kafka(tab: Page, serve: Any, connection: Connection, words: str) -> None:
    """Each state of the connection has its notice, which goes away by itself."""
    clock = Clock()
    observer = FakeObserver(Observation(connection))
    async with serve(observer, clock=clock) as url:
        await tab.goto(url)
        await expect(tab.locator("#notice")).to_have_text(re.compile(words))
        observer.observation = poll(clock, [0])
        await expect(tab.locator("#notice")).to_be_hidden()
        await expect(tab.locator("#verdict")).to_have_text("OK")


async def test_no_workers_and_no_dead_letters_have_their_words(tab: Page, serve: Any) -> None:
    """Empty tables say why they are empty and what to do."""
    clock = Clock()
    async with serve(FakeObserver(observation([PartitionOffsets(0, 0, 0, None)], [])), clock=clock) as url:
        await tab.goto(url)
        await expect(tab.locator("#workers-empty")).to_have_text("No workers yet. Start one with nearstream worker.")
        await expect(cell(row(tab, "partitions", "0"), "Committed")).to_have_text("none yet")
        await expect(cell(row(tab, "partitions", "0"), "Owner")).to_have_text("nobody")
        await tab.keyboard.press("4")
        await expect(tab.locator("#dead-empty")).to_contain_text("No dead letters")


def with_indexes(clock: Clock, **indexes: Any) -> Observation:
    """An idle partition, and a worker for each index, by its name."""
    workers = [worker_status(name, {}, clock.now_ms, index=index) for name, index in indexes.items()]
    return observation([PartitionOffsets(0, 0, 10, 10)], workers, clock.now_ms)


async def test_shows_the_health_of_the_index(tab: Page, serve: Any) -> None:
    """A graph with its recall against the bar, and a scanned index that has no graph and no recall yet."""
    clock = Clock()
    async with serve(FakeObserver(with_indexes(clock, w1=index_status(), w2=scanned_status())), clock=clock) as url:
        await tab.goto(f"{url}#/model")
        graph, scan = row(tab, "indexes", "w1"), row(tab, "indexes", "w2")
        for label, text in {
            "Answers by": "graph + delta100,000 rows, ef 64",
            "Users": "98,500",
            "Recall, live": "97.8%256 queries, 12 s ago",
            "Graph": "generation 4, 12 min 34 s oldbuilt in 8.4 s",
            "Delta": "3,2104,000 moved",
            "Segments": "2",
            "Dead": "1,5002%",
            "Memory": "84 MB",
        }.items():
            await expect(cell(graph, label)).to_have_text(text)
        for label, text in {
            "Answers by": "exact scan",
            "Users": "1,313",
            "Recall, live": "–not checked yet",
            "Graph": "none",
            "Delta": "–",
            "Memory": "0.4 MB",
        }.items():
            await expect(cell(scan, label)).to_have_text(text)
        await expect(tab.locator("#index-warnings > li")).to_have_count(0)
        await expect(graph.locator(".recall-bar")).not_to_have_class(re.compile("low"))
        at = await graph.locator(".recall-bar").evaluate(
            "bar => [bar.firstChild.style.width, bar.lastChild.style.left]"
        )
        assert [round(float(place.rstrip("%")), 1) for place in at] == [89.0, 75.0]
        await expect(scan.locator(".recall-bar")).to_be_hidden()
        await expect(graph.locator(".build-bar")).to_be_hidden()
        await expect(tab.locator("#indexes-empty")).to_be_hidden()


async def test_warns_of_the_index_while_a_trigger_fires(tab: Page, serve: Any) -> None:
    """The word, the sentence and whose it is; the build that cures it shows how far it is; then all is calm again."""
    clock = Clock()
    bad = index_status(
        recall=0.91,
        building=True,
        build_progress=0.43,
        erasures_pending=3,
        warnings=[IndexWarning("low-recall", 0.91, 0.95), IndexWarning("delta-full", 20_000, 16_384)],
    )
    observer = FakeObserver(with_indexes(clock, w1=bad, w2=index_status()))
    async with serve(observer, clock=clock) as url:
        await tab.goto(f"{url}#/model")
        lines = tab.locator("#index-warnings > li")
        await expect(lines).to_have_count(2)
        await expect(lines.first).to_contain_text("low-recall")
        await expect(lines.first).to_contain_text("searches find 91.0% of the exact neighbours")
        await expect(lines.first).to_contain_text("w1")
        await expect(tab.locator("#index-note")).to_have_text("3 forgotten users leave the graph with the next build")
        line = row(tab, "indexes", "w1")
        await expect(line.locator(".recall-bar")).to_have_class(re.compile("low"))
        await expect(cell(line, "Graph")).to_contain_text("building the next, 43%")
        assert await line.locator(".build-bar i").evaluate("bar => bar.style.width") == "43%"
        observer.observation = with_indexes(clock, w1=index_status(generation=5), w2=index_status())
        await expect(lines).to_have_count(0)
        await expect(cell(line, "Graph")).to_contain_text("generation 5")
        await expect(tab.locator("#index-note")).to_have_text("")


async def test_without_an_index_the_panel_says_so(tab: Page, serve: Any) -> None:
    """A worker too old to report one, and no worker at all, have their words."""
    clock = Clock()
    observer = FakeObserver(poll(clock, [0]))
    async with serve(observer, clock=clock) as url:
        await tab.goto(f"{url}#/model")
        await expect(tab.locator("#indexes-empty")).to_have_text("No worker reports its index.")
        observer.observation = observation([PartitionOffsets(0, 0, 0, None)], [])
        await expect(tab.locator("#indexes-empty")).to_have_text("No workers yet.")


async def test_a_lost_server_is_said_and_found_again(tab: Page, serve: Any) -> None:
    """The last figures stay, dimmed, under a notice; the page goes on when the server is back."""
    clock = Clock()
    async with serve(FakeObserver(poll(clock, [77])), clock=clock) as url:
        await tab.goto(url)
        await expect(tab.locator("#lag")).to_have_text("77")
    await expect(tab.locator("#notice")).to_contain_text("Connection to the page's server lost")
    await expect(tab.locator("#lag")).to_have_text("77")
    await expect(tab.locator("body")).to_have_class("stale")
    async with serve(FakeObserver(poll(clock, [5])), clock=clock, port=urlsplit(url).port):
        await expect(tab.locator("#lag")).to_have_text("5", timeout=10_000)
        await expect(tab.locator("#notice")).to_be_hidden()
        await tab.close()


@pytest.mark.parametrize("width", [400, 720, 760, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_fits_the_window_in_both_schemes(
    chromium: Browser, serve: Any, width: int, scheme: Any, screenshots: Path | None
) -> None:
    """No sideways scrolling, and text that stands out from its background by at least 4.5 to 1."""
    clock = Clock()
    seen = poll(clock, [1234, 0], dead_letters=DeadLetterTally({"not-json": 1}, [dead_letter()], True))
    index = index_status(
        recall=0.938, building=True, build_progress=0.43, warnings=[IndexWarning("low-recall", 0.938, 0.95)]
    )
    (worker,) = seen.workers
    seen = msgspec.structs.replace(seen, workers=[msgspec.structs.replace(worker, index=index)])
    observer = FakeObserver(seen)
    observer.users["u1"] = UserObservation("u1", [event_record(7)], list_record(recommendation()))
    page = await chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    async with serve(observer, clock=clock) as url:
        faint = []
        for place, sign in PLACES.items():
            await page.goto(f"{url}{place}")
            await expect(page.locator(sign).first).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            faint += await page.evaluate(FAINT_TEXT)
            if screenshots is not None and (width, scheme, place) == (1280, "light", "#/model"):
                panel = page.locator("section", has=page.locator("#index-title"))
                await panel.screenshot(path=screenshots / "index.png")
        await page.close()
    assert faint == []


async def test_nothing_is_loaded_from_elsewhere(tab: Page, serve: Any) -> None:
    """The page works without a network: every request goes to its own server."""
    clock = Clock()
    requested: list[str] = []
    tab.on("request", lambda request: requested.append(request.url))
    async with serve(FakeObserver(poll(clock, [0])), clock=clock) as url:
        await tab.goto(url)
        await expect(tab.locator("#lag")).to_have_text("0")
        assert [address for address in requested if not address.startswith(url)] == []
        assert len(requested) >= 6


FAINT_TEXT = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const color = rgb(getComputedStyle(n).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((n) => n.checkVisibility() && [...n.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim()))
    .map((n) => {
      const [a, b] = [light(rgb(getComputedStyle(n).color)), light(ground(n))].sort((x, y) => y - x);
      return [`${n.id || n.className}: ${n.textContent.trim().slice(0, 30)}`, (a + 0.05) / (b + 0.05)];
    })
    .filter(([, contrast]) => contrast < 4.5);
}"""
