"""The API on a real Kafka: what is sent by HTTP changes the list that it pushes, and forgetting takes it away."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import orjson
import pytest
from aiokafka import AIOKafkaProducer

from streams.config import Settings, load_settings
from streams.core.errors import RejectReason
from streams.kafka.clients import client_options
from streams.kafka.codec import Rejected
from streams.kafka.dead_letter import dead_letter
from streams.kafka.partitioner import murmur2_partition
from streams.kafka.processes import free_ports
from streams.kafka.records import read_all, read_newest
from streams.kafka.topics import Topics, create_topics
from tests.benchmarks.fuzz_events import FuzzRecord
from tests.fakes import recommendation
from tests.integration.api_client import ANSWER_S_MAX, answer, api
from tests.integration.storm import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from streams.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
PARTITIONS = 3
ADA = "ada/the analyst"
ADA_PATH = "/v1/users/ada%2Fthe%20analyst"
EVENT = {"user_id": "u1", "item_id": "i1", "type": "view", "timestamp": 1_700_000_000_000}
TOKENS = {"read_token": "read-" + "r" * 20, "write_token": "write-" + "w" * 20}


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> Settings:
    """Fresh topics' names on the session's broker."""
    return load_settings(
        bootstrap=kafka.bootstrap, prefix=prefix, group=prefix.strip("."), partitions=PARTITIONS, data_dir=tmp_path
    )


async def send(client: aiohttp.ClientSession, *items: str) -> Any:
    """Ada views items; the answer."""
    events = [{"user_id": ADA, "item_id": item, "type": "view", "timestamp": int(time.time() * 1000)} for item in items]
    async with client.post("/v1/events", json=events) as response:
        assert response.status == 202, await response.text()
        return await response.json()


async def pushed(response: aiohttp.ClientResponse) -> tuple[str, Any]:
    """The next event of a stream."""
    while True:
        line = (await response.content.readline()).decode().strip()
        if line.startswith("event: "):
            data = (await response.content.readline()).removeprefix(b"data: ")
            return line.removeprefix("event: "), orjson.loads(data)


async def write(settings: Settings, topic: str, rows: list[tuple[str, bytes | None]]) -> None:
    """Records at their keys' partitions."""
    producer = AIOKafkaProducer(**client_options(settings))
    await producer.start()
    try:
        for key, value in rows:
            place = murmur2_partition(key, PARTITIONS)
            await producer.send(topic, key=key.encode(), value=value, partition=place)
        await producer.flush()
    finally:
        await producer.stop()


async def test_an_event_by_http_becomes_a_pushed_list_and_forgetting_takes_it_away(
    settings: Settings, tmp_path: Path
) -> None:
    """Every witness agrees with the topics; the receipt names a tombstone that is there."""
    await create_topics(settings)
    topics = Topics(settings.prefix)
    others = [
        msgspec.json.encode(
            {"user_id": f"u{n % 5}", "item_id": f"i{n % 7}", "type": "view", "timestamp": 1_700_000_000_000 + n}
        )
        for n in range(35)
    ]
    await write(settings, topics.events, [(orjson.loads(value)["user_id"], value) for value in others])
    async with api(settings) as client:
        with WorkerProcess("worker", settings, tmp_path / "worker.log") as worker:
            worker.start()
            await answer(client, "/v1/users/u1/list", 200)
            async with client.get(f"{ADA_PATH}/stream", timeout=aiohttp.ClientTimeout(ANSWER_S_MAX)) as stream:
                accepted = await send(client, "i1", "i2")
                assert accepted["accepted"] == 2
                event, first = await pushed(stream)
                while first["profile"]["events"] < 2:
                    event, first = await pushed(stream)
                assert (event, first["user_id"]) == ("list", ADA)
                place = {"partition": first["source"]["partition"], "offset": first["source"]["offset"]}
                assert place == accepted["events"][-1]
                began = time.monotonic()
                await send(client, "i3")
                while first["profile"]["events"] < 3:
                    event, first = await pushed(stream)
                print(f"event sent by HTTP -> list pushed: {1000 * (time.monotonic() - began):.0f} ms")
                async with client.get(f"{ADA_PATH}/list") as response:
                    assert await response.read() == await read_newest(settings, topics.recommendations, ADA)
                profile = await answer(client, f"{ADA_PATH}/profile", 200)
                assert (profile["events"], [item["item_id"] for item in profile["recent_items"]]) == (
                    3,
                    ["i1", "i2", "i3"],
                )
                near = await answer(client, f"{ADA_PATH}/neighbours", 200)
                assert near["neighbours"] == first["neighbours"]
                item = first["items"][0]
                why = await answer(client, f"{ADA_PATH}/explain?item_id={item['item_id']}", 200)
                assert [reason["message"] for reason in why["reasons"]] == item["reasons"]
                assert all(reason["sentence"] for reason in why["reasons"])
                async with client.delete(ADA_PATH) as response:
                    receipt = await response.json()
                    assert (response.status, receipt["topic"]) == (202, topics.users)
                while event != "gone":
                    event, _ = await pushed(stream)
            for part in ("list", "profile"):
                await answer(client, f"{ADA_PATH}/{part}", 404)
            tombstones = [r async for r in read_all(settings, topics.users)]
            assert [(r.key, r.value, r.partition, r.offset) for r in tombstones] == [
                (ADA.encode(), None, receipt["partition"], receipt["offset"])
            ]


async def test_what_memory_has_no_room_for_is_looked_up_in_the_topic(settings: Settings) -> None:
    """Old lists, users who are gone, and users who never were: each as the topic says."""
    await create_topics(settings)
    topic = Topics(settings.prefix).recommendations
    lists = {f"u{n}": msgspec.json.encode(recommendation(f"u{n}", events=n)) for n in range(2500)}
    assert sum(map(len, lists.values())) > 1_000_000
    await write(settings, topic, [*lists.items(), ("u7", None)])
    async with api(settings, api_memory_mb=1) as client:
        await answer(client, "/v1/users/u2499/list", 200)
        for user in ("u0", "u1234", "u2499"):
            async with client.get(f"/v1/users/{user}/list") as response:
                assert await response.read() == lists[user]
        for user in ("u7", "nobody"):
            await answer(client, f"/v1/users/{user}/list", 404)
        body = {"user_ids": ["u1", "u2", "nobody"]}
        async with client.post("/v1/users", json=body) as response:
            users = (await response.json())["users"]
        assert (users["u1"]["list"], users["nobody"]) == (orjson.loads(lists["u1"]), None)
        await write(settings, topic, [("u1", lists["u2"])])
        async with asyncio.timeout(ANSWER_S_MAX):
            while (await answer(client, "/v1/users/u1/list", 200))["user_id"] != "u2":
                await asyncio.sleep(0.05)


async def test_a_dead_letter_is_mended_and_sent_back_once(settings: Settings) -> None:
    """Listed by its own place; refused while it is still bad; the second time it is told so."""
    await create_topics(settings)
    topics = Topics(settings.prefix)
    rejected = Rejected(0, RejectReason.NOT_JSON, "Expected JSON, came a brace.")
    bad = dead_letter(FuzzRecord(b"u1", b"{", 41, 1_700_000_000_000, ()), topics.events, 0, rejected)
    producer = AIOKafkaProducer(**client_options(settings))
    await producer.start()
    await producer.send_and_wait(topics.dead_letters, partition=1, **bad._asdict())
    await producer.stop()
    async with api(settings) as client:
        found = await answer(client, "/v1/dead-letters?reason=not-json", 200)
        assert (found["waiting"], found["letters"][0]["value"], found["letters"][0]["source"]["offset"]) == (1, "{", 41)
        ids = [{"partition": found["letters"][0]["partition"], "offset": found["letters"][0]["offset"]}]
        assert ids == [{"partition": 1, "offset": 0}]
        outcomes = []
        for body in ({"ids": ids}, {"ids": ids, "value": EVENT}, {"ids": ids, "value": EVENT}):
            async with client.post("/v1/dead-letters/replay", json=body) as response:
                report = await response.json()
                outcomes.append((response.status, [part for part in report if part != "error" and report[part]]))
        assert outcomes == [(409, ["refused"]), (202, ["replayed"]), (409, ["already_replayed"])]
        assert (await answer(client, "/v1/dead-letters", 200))["replayed_before"] == 1
    assert [orjson.loads(r.value) async for r in read_all(settings, topics.events)] == [EVENT]


async def test_a_missing_topic_is_named_until_it_is_there(settings: Settings) -> None:
    """Reading and writing say which one, and go on once it was created."""
    topics = Topics(settings.prefix)
    async with api(settings) as client:
        async with client.post("/v1/events", json=EVENT) as response:
            assert (response.status, topics.events in (await response.json())["error"]) == (503, True)
        async with asyncio.timeout(ANSWER_S_MAX):
            while topics.recommendations not in (said := (await answer(client, "/v1/users/u1/list", 503))["error"]):
                await asyncio.sleep(0.1)
        assert said.endswith("Create what is missing with `nearstream topics create`.")
        await create_topics(settings)
        assert await answer(client, "/v1/users/u1/list", 404)
        async with client.post("/v1/events", json=EVENT) as response:
            assert response.status == 202


async def test_without_kafka_every_answer_is_503_and_none_takes_long(settings: Settings) -> None:
    """And the server stops in time."""
    away = settings.model_copy(update={"bootstrap": f"127.0.0.1:{free_ports(1)[0]}"})
    async with asyncio.timeout(30), api(away) as client:
        async with client.get("/v1/users/u1/list") as response:
            assert (response.status, "still being read" in await response.text()) == (503, True)
        async with client.post("/v1/events", json=EVENT) as response:
            assert (response.status, "No Kafka answers" in (await response.json())["error"]) == (503, True)
        async with client.get("/v1/dead-letters") as response:
            assert response.status == 503


async def test_tokens_are_asked_for_on_every_address(settings: Settings) -> None:
    """With them the server listens beyond this machine; without a write token nothing is produced."""
    await create_topics(settings)
    rights = load_settings(**TOKENS)
    tokens = {"read_token": rights.read_token, "write_token": rights.write_token}
    async with api(settings, **tokens) as client:
        statuses = []
        for token in (None, "wrong-" + "x" * 20, TOKENS["read_token"], TOKENS["write_token"]):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            async with client.post("/v1/events", json=EVENT, headers=headers) as response:
                statuses.append(response.status)
        assert statuses == [401, 401, 403, 202]
    assert len([r async for r in read_all(settings, Topics(settings.prefix).events)]) == 1


def test_the_command_refuses_to_listen_beyond_this_machine_without_a_login(nearstream: str) -> None:
    """Before it connects to anything, with what to set."""
    done = subprocess.run(
        [nearstream, "dashboard", "--host", "0.0.0.0", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "NEARSTREAM_READ_TOKEN" in done.stderr
