"""What a list would be, on a real Kafka: a worker answers the API and the command, and nothing changes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import orjson
import pytest

from streams.config import Settings, load_settings
from streams.core.what_if import WhatIf
from streams.kafka.digest import digest_of, read_profiles
from streams.kafka.records import read_all
from streams.kafka.topics import Topics, create_topics
from tests.integration.api_client import answer, api
from tests.integration.storm import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from streams.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]
WAIT_S_MAX = 150.0
until = partial(answer, wait_s_max=WAIT_S_MAX)
ASKED = {"without": ["i1"], "events": [{"type": "purchase", "item_id": "i5"}]}


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> Settings:
    """Fresh topics' names on the session's broker; no refresh that nobody asked for comes between two looks."""
    return load_settings(
        bootstrap=kafka.bootstrap,
        prefix=prefix,
        group=prefix.strip("."),
        partitions=3,
        data_dir=tmp_path,
        reverse_refreshes_per_s=0,
    )


async def send(client: aiohttp.ClientSession, user_id: str, items: list[str], kind: str = "view") -> None:
    """Events of one user, and their list."""
    now_ms = int(time.time() * 1000)
    events = [{"user_id": user_id, "item_id": item, "type": kind, "timestamp": now_ms} for item in items]
    async with client.post("/v1/events", json=events) as response:
        assert response.status == 202, await response.text()


async def committed(settings: Settings) -> tuple[Any, list[int]]:
    """Digest of the profiles, and how much lies in each topic that a question must not write to."""
    topics = Topics(settings.prefix)
    counts = [len([r async for r in read_all(settings, t)]) for t in (topics.events, topics.recommendations)]
    return digest_of(await read_profiles(settings)), counts


async def test_a_worker_answers_and_nothing_changes(settings: Settings, tmp_path: Path, nearstream: str) -> None:
    """The answer is that of the state; digest and topics stay; what then comes gives the list that was foretold."""
    await create_topics(settings)
    async with api(settings) as client:
        missing = await until(client, "/v1/users/u1/what-if", 503, {})
        assert "No worker of the group" in missing["error"]
        with WorkerProcess("worker", settings, tmp_path / "worker.log") as worker:
            worker.start()
            for number in range(5):
                await send(client, f"u{number}", [f"i{number}", f"i{number + 1}", f"i{number + 2}"])
            for number in range(5):
                await until(client, f"/v1/users/u{number}/list", 200)
            async with asyncio.timeout(WAIT_S_MAX):
                while (await until(client, "/v1/users/u1/list", 200))["profile"]["events"] < 3:
                    await asyncio.sleep(0.1)
            before = await committed(settings)
            answer = await until(client, "/v1/users/u1/what-if", 200, ASKED)
            found = msgspec.convert(answer, WhatIf)
            assert (found.user_id, found.left_out, found.added, found.profile_events) == ("u1", 1, 1, 3)
            assert "i1" in found.entered
            assert "i5" not in [item.item_id for item in found.then.items]
            assert all(item.reasons for item in found.then.items)
            for body, status in (({"without": ["i4"]}, 400), ({"events": [{"type": "view", "item_id": "no"}]}, 400)):
                assert "reason" in await until(client, "/v1/users/u1/what-if", status, body)
            await until(client, "/v1/users/nobody/what-if", 404, {})
            took_ms = []
            for _ in range(20):
                began = time.perf_counter()
                await until(client, "/v1/users/u1/what-if", 200, ASKED)
                took_ms.append(1000 * (time.perf_counter() - began))
            took_ms.sort()
            print(f"asked by HTTP through the API: median {took_ms[10]:.1f} ms, worst {took_ms[-1]:.1f} ms")
            told = await asyncio.to_thread(
                subprocess.run,
                [nearstream, "what-if", "u1", "--without", "i1", "--event", "purchase:i5", "--json",
                 "--bootstrap", settings.bootstrap, "--prefix", settings.prefix],
                env={"NEARSTREAM_GROUP": settings.group, "PATH": "", "HOME": str(tmp_path)},
                capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            assert told.returncode == 0, told.stderr
            again = msgspec.json.decode(told.stdout, type=WhatIf)  # a moment later, so that similarities have decayed
            assert (again.entered, again.left, again.moved) == (found.entered, found.left, found.moved)
            assert [item.item_id for item in again.then.items] == [item.item_id for item in found.then.items]
            assert await committed(settings) == before
            coming = {"events": [{"type": "purchase", "item_id": "i5"}]}
            foretold = msgspec.convert(await until(client, "/v1/users/u1/what-if", 200, coming), WhatIf)
            await send(client, "u1", ["i5"], "purchase")
            async with asyncio.timeout(WAIT_S_MAX):
                while (real := await until(client, "/v1/users/u1/list", 200))["profile"]["events"] < 4:
                    await asyncio.sleep(0.05)
            assert [item["item_id"] for item in real["items"]] == [item.item_id for item in foretold.then.items]
            assert [n["user_id"] for n in real["neighbours"]] == [n.user_id for n in foretold.then.neighbours]
            async with aiohttp.ClientSession() as direct:
                url = f"http://127.0.0.1:{worker.web_port}/what-if"
                async with direct.post(url, json={"user_id": "u1"}) as response:
                    assert response.status == 200
                async with direct.post(url, json={"user_id": "u1"}, headers={"Host": "evil.example"}) as response:
                    assert response.status == 403
                async with direct.get(f"http://127.0.0.1:{worker.web_port}/metrics") as response:
                    assert "nearstream_what_if_seconds_count" in await response.text()
            worker.end(signal.SIGKILL)
            async with client.post("/v1/users/u1/what-if", json={}) as response:
                gone = await response.json()
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert "cannot be reached" in gone["error"] or "No worker of the group" in gone["error"]
        log = (tmp_path / "worker.log").read_text()
        assert "u1" not in log
        assert orjson.dumps(ASKED).decode() not in log
