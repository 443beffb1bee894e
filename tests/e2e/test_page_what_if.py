"""What a list would be, on the Person tab in a real headless Chromium."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from playwright.async_api import expect

from streams.core.events import EventType
from streams.core.serving import RecentItem
from streams.core.what_if import SupposedEvent, WhatIfQuestion, WhatIfRefusal
from tests.e2e.test_page_tabs import AXE, clock, observer
from tests.fakes import START_MS
from tests.fakes_api import FakeBackend, profile, supposition

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


def backend(**changes: Any) -> FakeBackend:
    """u1 remembers two items, and a worker knows what the list would be."""
    recent = [RecentItem("i2", "view", START_MS - 90_000), RecentItem("i9", "purchase", START_MS - 60_000)]
    known = msgspec.structs.replace(profile(), recent_items=[*recent, RecentItem("i2", "cart", START_MS - 30_000)])
    return FakeBackend(profiles={"u1": known}, suppositions={"u1": supposition()}, **changes)


async def opened(page: Page, url: str) -> None:
    """The question of u1, open."""
    await page.goto(f"{url}#/person/u1")
    await page.locator("#what-if-open > summary").click()
    await expect(page.locator(".tick")).to_have_count(2)


async def test_items_are_left_out_events_added_and_the_list_shows_what_changes(tab: Page, serve: Any) -> None:
    """By keyboard alone: titles, marks for what enters, leaves and moves, and the way back."""
    asked = backend()
    async with serve(observer(), clock=clock, backend=asked) as url:
        await opened(tab, url)
        await expect(tab.locator(".tick").first).to_contain_text("Wool scarf")
        await expect(tab.locator(".tick").first).to_contain_text("2 events, last cart")
        await expect(tab.locator("#what-if-ask")).to_be_disabled()
        await tab.locator('.tick input[data-item="i2"]').focus()
        await tab.keyboard.press("Space")
        await tab.locator("#what-if-type").select_option("view")
        await tab.locator("#what-if-item").fill("i9")
        await tab.locator("#what-if-value").fill("2.5")
        await tab.keyboard.press("Enter")
        await expect(tab.locator("#what-if-events > li")).to_contain_text(["viewi9 2.5"])
        await tab.locator("#what-if-ask").focus()
        await tab.keyboard.press("Enter")
        await expect(tab.locator("#what-if-result")).to_contain_text("1 would enter, 1 would leave, 1 would move")
        await expect(tab.locator("#what-if-result")).to_contain_text("cosine 0.710 to what it is")
        await expect(tab.locator("#what-if-list .moved")).to_have_text(["=", "▲ 1", "new"])
        await expect(tab.locator("#what-if-list > li").nth(2)).to_contain_text("Hat")
        await expect(tab.locator("#what-if-left")).to_contain_text("i6")
        await expect(tab.locator("#what-if-left")).to_contain_text("was 2")
        await expect(tab.locator("#what-if-neighbours .moved")).to_have_text(["−0.43", "new"])
        question = WhatIfQuestion(without=["i2"], events=[SupposedEvent(item_id="i9", type=EventType.VIEW, value=2.5)])
        assert [(user, q.without, q.events) for user, q in asked.questions] == [
            ("u1", question.without, question.events)
        ]
        assert asked.sent == []
        await tab.locator("#what-if-clear").click()
        await expect(tab.locator("#what-if-list")).to_have_count(0)
        await expect(tab.locator("#what-if-result")).to_have_text("Tick an item or add an event, then ask.")


async def test_an_added_event_can_be_taken_out_again(tab: Page, serve: Any) -> None:
    """At most eight; an empty field adds none."""
    async with serve(observer(), clock=clock, backend=backend()) as url:
        await opened(tab, url)
        await tab.locator("#what-if-add").click()
        await expect(tab.locator("#what-if-events > li")).to_have_count(0)
        for number in range(8):
            await tab.locator("#what-if-item").fill(f"i{number}")
            await tab.locator("#what-if-add").click()
        await expect(tab.locator("#what-if-add")).to_be_disabled()
        await tab.get_by_role("button", name="Take out click of i3").click()
        await expect(tab.locator("#what-if-events > li")).to_have_count(7)
        await expect(tab.locator("#what-if-add")).to_be_enabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_and_it_fits_a_telephone(chromium: Browser, serve: Any, scheme: Any) -> None:
    """With a question asked and answered, in both schemes."""
    page = await chromium.new_page(viewport={"width": 1280, "height": 1400}, color_scheme=scheme)
    async with serve(observer(), clock=clock, backend=backend()) as url:
        await opened(page, url)
        await page.locator(".tick input").first.check()
        await page.locator("#what-if-item").fill("i9")
        await page.locator("#what-if-add").click()
        await page.locator("#what-if-ask").click()
        await expect(page.locator("#what-if-list")).to_be_visible()
        await page.evaluate(AXE.read_text())
        found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        await page.set_viewport_size({"width": 390, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
        await page.close()
    violations = [(v["id"], [node["html"][:120] for node in v["nodes"]][:3]) for v in found["violations"]]
    assert violations == []


async def test_what_cannot_be_answered_is_said(chromium: Browser, serve: Any) -> None:
    """No worker, an unknown item, nothing remembered, and a page without an API: a sentence each, and no list."""
    page = await chromium.new_page()
    silent = backend(has_worker=False)
    async with serve(observer(), clock=clock, backend=silent) as url:
        await opened(page, url)
        await page.locator(".tick input").first.check()
        await page.locator("#what-if-ask").click()
        await expect(page.locator("#what-if-result")).to_have_text("No worker of the group 'nearstream' runs.")
        await expect(page.locator("#what-if-result")).to_have_class("bad")
    refusing = backend()
    refusing.suppositions["u1"] = WhatIfRefusal("unknown-item", "Expected items that are known, came 'hut'.")
    refusing.profiles["u1"] = msgspec.structs.replace(profile(), recent_items=[])
    async with serve(observer(), clock=clock, backend=refusing) as url:
        await page.goto(f"{url}#/person/u1")
        await page.locator("#what-if-open > summary").click()
        await expect(page.locator(".what-if fieldset").first).to_contain_text("The profile remembers no item.")
        await page.locator("#what-if-item").fill("hut")
        await page.locator("#what-if-add").click()
        await page.locator("#what-if-ask").click()
        await expect(page.locator("#what-if-result")).to_have_text(
            "Expected items that are known, came 'hut'. (unknown-item)"
        )
        await expect(page.locator("#what-if-list")).to_have_count(0)
    async with serve(observer(), clock=clock) as url:
        await page.goto(f"{url}#/person/u1")
        await page.locator("#what-if-open > summary").click()
        await expect(page.locator("#what-if-history-error")).to_contain_text("There is nothing at this path")
    await page.close()
