"""How the model was trained, what its switch changed, rules and workers' settings, in a real headless Chromium."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from playwright.async_api import expect

from streams.core.observation import Observation, PartitionOffsets
from streams.core.status import ModelStatus, SwapOverlap, WorkerTotals
from tests.e2e.test_page_tabs import AXE, clock
from tests.fakes import START_MS, FakeObserver, observation, worker_status
from tests.fakes_status import rules_report, trained_report, worker_details

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser, Page, Route

    from streams.core.worker_details import WorkerDetails

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

OVERLAP = SwapOverlap("decayed-mean@1", 256, 10, 0.314, 0.627)
FOLDER = ModelStatus("models/shop", False, None, None, 0.0, 1, 0, 12.0, 3.0, OVERLAP)
TOTALS = WorkerTotals(1000, 900, 2, {}, 50, 0, short_lists={"catalogue-exhausted": 18, "rules": 9})
PROBLEM = (
    "rules.toml is not usable, nothing of it is used:\n"
    "  line 14, [caps], key category: expected a number of items from 1, got 'many'"
)


def seen(*details: WorkerDetails | None) -> Observation:
    """A worker for each, all of them in good order."""
    model = trained_report().name
    workers = [
        worker_status(f"w{n}", {n: (900, 1000)}, details=each, folder=FOLDER, totals=TOTALS, model=model)
        for n, each in enumerate(details, 1)
    ]
    return observation([PartitionOffsets(n, 0, 1000, 900, START_MS) for n in range(1, len(details) + 1)], workers)


TWO = seen(worker_details(), worker_details(list_items=30))


async def test_the_training_of_the_model_and_of_the_one_before(tab: Page, serve: Any) -> None:
    """Facts and curves of what the folder told; the built-in one says that it was not trained."""
    async with serve(FakeObserver(TWO), clock=clock) as url:
        await tab.goto(f"{url}#/model")
        serving, before = (
            tab.locator("#training-panel .model-facts").nth(0),
            tab.locator("#training-panel .model-facts").nth(1),
        )
        await expect(serving).to_contain_text("In service: gated-recurrence@0a1b2c3d4e5f")
        await expect(serving).to_contain_text("44 s of CPU")
        await expect(serving).to_contain_text("shop.jsonl: 120,000 events of 3,000 users and 800 items, the last of ")
        await expect(serving).to_contain_text("NDCG@10 0.124, hit rate @10 0.231 at step 192 of 256")
        await expect(serving).to_contain_text("gated-recurrence, 64 numbers")
        await expect(before).to_contain_text("Before it: decayed-mean@1")
        await expect(before).to_contain_text("it was not trained")
        loss, validation = tab.locator("#training-panel figure").nth(0), tab.locator("#training-panel figure").nth(1)
        await expect(loss).to_have_attribute("aria-label", "Training loss by step; at the end loss 4.50.")
        await expect(validation).to_have_attribute(
            "aria-label", "Validation by step; at the end hit rate @10 0.220, NDCG@10 0.120."
        )
        await loss.locator(".u-over").hover(position={"x": 2, "y": 20})
        await expect(loss.locator(".tooltip")).to_have_text("step 64loss: 6.50")


async def test_two_trained_models_are_drawn_together(tab: Page, serve: Any) -> None:
    """The one before is dashed and named so; a folder that kept no curve says that."""
    older = trained_report("gated-recurrence@ffffffffffff", metrics={"ndcg@10": 0.1})
    details = worker_details(models=[trained_report(), older])
    bare = trained_report("gated-recurrence@000000000000", curve=None, trained_at=None, events=None, cpu_s=None)
    observer = FakeObserver(seen(details, worker_details(models=[bare])))
    async with serve(observer, clock=clock) as url:
        await tab.goto(f"{url}#/model")
        legend = tab.locator("#training-panel .legend").nth(1).locator("li")
        await expect(legend).to_have_text(["hit rate @10", "NDCG@10", "hit rate @10, before", "NDCG@10, before"])
        await expect(tab.locator("#training-panel h3").first).to_have_text("w1")
        third = tab.locator('[data-model="gated-recurrence@000000000000"]')
        await expect(third).to_contain_text("No curves: the program that wrote this folder kept none.")
        await expect(third).to_contain_text("the folder does not say when")


async def test_what_the_switch_changed(tab: Page, serve: Any) -> None:
    """Overlap of neighbours and items, over how many users, after which model."""
    async with serve(FakeObserver(TWO), clock=clock) as url:
        await tab.goto(f"{url}#/model")
        cell = tab.locator('#models [data-label="Same lists"]').first
        await expect(cell.locator('[data-overlap="neighbours"]')).to_have_text("31% of neighbours")
        await expect(cell.locator('[data-overlap="items"]')).to_have_text("63% of items")
        await expect(cell).to_contain_text("256 users, after decayed-mean@1")


async def test_rules_in_force_and_short_lists(tab: Page, serve: Any) -> None:
    """The file, a sentence for each table, warnings, and how often lists were short, summed over the workers."""
    async with serve(FakeObserver(TWO), clock=clock) as url:
        await tab.goto(f"{url}#/model")
        panel = tab.locator("#rules-panel")
        await expect(panel.locator(".state")).to_have_text("in force")
        await expect(panel.locator("#rules-sentences > li")).to_have_text(
            [f"{s.table}{s.text}" for s in rules_report().sentences]
        )
        await expect(panel.locator("#rules-warnings")).to_contain_text("no item has the provider 'garage-label' yet")
        await expect(panel.locator("#short-lists")).to_have_text(
            "54 of 1,800 lists since the workers' start had fewer items than asked for (3.0%)."
        )
        await expect(panel.locator('[data-short="catalogue-exhausted"]')).to_have_text("36")
        await expect(panel.locator('[data-short="rules"]')).to_have_text("18")


async def test_a_refused_rules_file_shows_why_and_what_serves(tab: Page, serve: Any) -> None:
    """With the line, as soon as the worker tells it."""
    observer = FakeObserver(TWO)
    async with serve(observer, clock=clock) as url:
        await tab.goto(f"{url}#/model")
        await expect(tab.locator("#rules-panel .state")).to_have_text("in force")
        observer.observation = seen(worker_details(rules=rules_report(problem=PROBLEM)))
        await expect(tab.locator("#rules-panel .state")).to_have_text("refused", timeout=10_000)
        await expect(tab.locator("#rules-problem")).to_contain_text("line 14, [caps], key category")
        await expect(tab.locator("#rules-panel")).to_contain_text("the rules of before serve")
        await expect(tab.locator("#rules-sentences > li")).to_have_count(2)


async def test_workers_settings_stand_together_and_differences_are_marked(tab: Page, serve: Any) -> None:
    """Secrets hidden; those of the page's own server are a press away."""
    async with serve(FakeObserver(TWO), clock=clock) as url:
        await tab.goto(f"{url}#/streams")
        rows = tab.locator("#settings-rows > tr")
        await expect(rows).to_have_count(4)
        await expect(tab.locator("#settings-note")).to_have_text("of 2 workers, 1 differs")
        differing = tab.locator('#settings-rows [data-key="list_items"]')
        await expect(differing.locator(".differs")).to_have_text("differs")
        await expect(differing.locator('[data-label="Value"]')).to_have_text("20default · w130nearstream.toml · w2")
        await expect(differing.locator('[data-label="Meaning"]')).to_have_text("Items in each list.")
        await expect(tab.locator(".differs")).to_have_count(1)
        await expect(tab.locator('#settings-rows [data-key="sasl_password"]')).to_contain_text("hidden")
        await tab.get_by_role("button", name="all", exact=True).click()
        await expect(rows).to_have_count(5)
        await tab.get_by_role("button", name="this page's server").click()
        await expect(tab.locator('#settings-rows [data-key="dashboard_port"]')).to_contain_text("flag")


async def test_what_nobody_has_told_is_said(tab: Page, serve: Any) -> None:
    """Older workers tell no details; without workers there are none; without rules lists are the ranking's."""
    observer = FakeObserver(seen(None))
    async with serve(observer, clock=clock) as url:
        await tab.goto(f"{url}#/model")
        for panel in ("training", "rules"):
            await expect(tab.locator(f"#{panel}-empty")).to_contain_text("nothing came yet")
        await tab.goto(f"{url}#/streams")
        await tab.get_by_role("button", name="workers", exact=True).click()
        await expect(tab.locator("#settings-unheard")).to_contain_text("Not told yet by w1")
        await expect(tab.locator("#settings-empty")).to_have_text("No worker has told its settings.")
        await tab.goto(f"{url}#/model")
        observer.observation = observation([PartitionOffsets(1, 0, 0, None)], [])
        await expect(tab.locator("#rules-empty")).to_have_text("No worker reports.", timeout=10_000)
        await expect(tab.locator("#short-lists")).to_have_text("No list was published yet.")
        observer.observation = seen(worker_details(rules=None))
        await expect(tab.locator("#rules-none")).to_contain_text("lists are as the ranking makes them", timeout=10_000)


async def test_a_server_that_refuses_is_quoted(chromium: Browser, serve: Any) -> None:
    """On both tabs, and the rest of them goes on."""

    async def refuse(route: Route) -> None:
        await route.fulfill(status=500, body=json.dumps({"error": "It broke."}), content_type="application/json")

    page = await chromium.new_page()
    await page.route("**/api/workers", refuse)
    async with serve(FakeObserver(TWO), clock=clock) as url:
        await page.goto(f"{url}#/model")
        await expect(page.locator("#training-panel [role=alert]")).to_have_text("It broke.")
        await expect(page.locator("#rules-panel [role=alert]")).to_have_text("It broke.")
        await expect(page.locator("#models > tr")).to_have_count(2)
        await page.goto(f"{url}#/streams")
        await expect(page.locator('#settings-rows [data-key="dashboard_port"]')).to_be_visible()
        await page.get_by_role("button", name="workers", exact=True).click()
        await expect(page.locator("#settings-panel [role=alert]")).to_have_text("It broke.")
        await page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("tab_name", ["model", "streams"])
async def test_everybody_can_read_it(
    chromium: Browser, serve: Any, scheme: Any, width: int, tab_name: str, screenshots: Path | None
) -> None:
    """No violation of axe-core's rules and no sideways scrolling, with a refused file and a difference in view."""
    page = await chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    older = trained_report("gated-recurrence@ffffffffffff", metrics={"ndcg@10": 0.1})
    curve = older.training.curve if older.training else None
    assert curve is not None
    weaker = msgspec.structs.replace(
        curve,
        losses=[6.9, 6.0, 5.6, 5.4],
        metrics={"hr@10": [0.08, 0.14, 0.19, 0.18], "ndcg@10": [0.04, 0.07, 0.1, 0.09]},
    )
    older = trained_report("gated-recurrence@ffffffffffff", metrics={"ndcg@10": 0.1}, curve=weaker)
    details = worker_details(models=[trained_report(), older], rules=rules_report(problem=PROBLEM))
    other = msgspec.structs.replace(details, settings=worker_details(list_items=30).settings)
    async with serve(FakeObserver(seen(details, other)), clock=clock) as url:
        await page.goto(f"{url}#/{tab_name}")
        shown = "#training-panel canvas" if tab_name == "model" else ".differs"
        await expect(page.locator(shown).first).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.evaluate(AXE.read_text())
        found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        if screenshots is not None and (width, scheme, tab_name) == (1280, "light", "model"):
            await page.locator("#training-panel").screenshot(path=screenshots / "training.png")
        await page.close()
    violations = [(v["id"], [node["html"][:120] for node in v["nodes"]][:3]) for v in found["violations"]]
    assert violations == []
