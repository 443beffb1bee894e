"""The API on a real Kafka, and a client that waits for its answers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from streams.dashboard.server import serve_dashboard
from streams.kafka.api_backend import KafkaBackend
from tests.fakes import FakeObserver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from streams.config import Settings

ANSWER_S_MAX = 60.0


@asynccontextmanager
async def api(settings: Settings, **changes: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a page with its API, on the topics of the settings."""
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
    own = settings.model_copy(update={"dashboard_port": 0, **changes})
    async with KafkaBackend(own) as backend, asyncio.TaskGroup() as group:
        group.create_task(serve_dashboard(FakeObserver(), own, ready=address.set_result, stop=stop, backend=backend))
        async with aiohttp.ClientSession(await address) as client:
            try:
                yield client
            finally:
                stop.set()


async def answer(
    client: aiohttp.ClientSession, path: str, status: int, body: Any = None, wait_s_max: float = ANSWER_S_MAX
) -> Any:
    """The JSON at a path, once it has this status; with a body it is posted."""
    method = "GET" if body is None else "POST"
    async with asyncio.timeout(wait_s_max):
        while True:
            async with client.request(method, path, json=body) as response:
                if response.status == status:
                    return await response.json()
            await asyncio.sleep(0.1)
