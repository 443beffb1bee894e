"""A real headless Chromium, and the page served from a fake observer."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from streams.config import Settings
from streams.dashboard.server import serve_dashboard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from playwright.async_api import Browser, Page

    from streams.api.ports import Backend
    from streams.dashboard.view import Observer

    Serve = Callable[..., AbstractAsyncContextManager[str]]

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FRAME_S = 0.2


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium, headless, started once; every tab is in a profile of its own."""
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        pytest.skip(f"no Chromium on PATH (looked for {', '.join(CHROMIUM_NAMES)})")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def tab(chromium: Browser) -> AsyncIterator[Page]:
    """A fresh tab; an error in the console, such as a breach of the content policy, fails the test."""
    complaints: list[str] = []
    page = await chromium.new_page(viewport={"width": 1280, "height": 900})
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield page
    await page.close()
    unexpected = [text for text in complaints if "ERR_CONNECTION_REFUSED" not in text and "ERR_INCOMPLETE" not in text]
    assert unexpected == []


@pytest.fixture
def serve() -> Serve:
    """Serves the page of an observer, with an API if it is given a backend, and gives its address."""

    @asynccontextmanager
    async def served(
        observer: Observer, *, port: int = 0, clock: Callable[[], float], backend: Backend | None = None
    ) -> AsyncIterator[str]:
        stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
        settings = Settings(dashboard_port=port)
        serving = asyncio.create_task(
            serve_dashboard(
                observer,
                settings,
                ready=listening.set_result,
                stop=stop,
                clock=clock,
                frame_s=FRAME_S,
                backend=backend,
            )
        )
        await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        try:
            yield listening.result() if listening.done() else await serving
        finally:
            stop.set()
            await serving

    return served
