"""`nearstream train --from-topic`: what Kafka holds is as good as the log that was fed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from encoder import EncoderConfig, load_encoder
from streams.config import Settings
from streams.core.errors import UsageError
from streams.feed import feed
from streams.kafka.clients import client_options
from streams.kafka.topic_table import topic_table
from streams.kafka.topics import Topics, create_topics
from streams.sources import open_source
from streams.sources.event_table import event_table

if TYPE_CHECKING:
    from pathlib import Path

    from encoder.dataset import EventTable
    from streams.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

SHOP = {"users": 60, "items": 50, "communities": 4, "events": 1500, "seed": 3}
SMALL = ("--dim=8", "--width=16", "--negatives=32", "--batch=32", "--epochs=2", "--text-encoder=none")
COMMAND_S_MAX = 120.0


@pytest.fixture
async def fed(kafka: EmbeddedKafka, prefix: str) -> Settings:
    """Topics of three partitions with the events, items and users of a small shop."""
    settings = Settings(bootstrap=kafka.bootstrap, prefix=prefix, partitions=3)
    await create_topics(settings)
    await feed(open_source("synthetic", **SHOP), settings)
    return settings


def histories(table: EventTable) -> dict[str, list[tuple[str, str, int]]]:
    """Each user's events, oldest first."""
    return {
        user: [
            (table.item_ids[table.items[row]], table.type_names[table.types[row]], int(table.times_s[row]))
            for row in range(table.offsets[n], table.offsets[n + 1])
        ]
        for n, user in enumerate(table.user_ids)
    }


async def test_the_topics_hold_the_log(fed: Settings) -> None:
    """Events, values, words and attributes read from the topics are those of the source, user by user."""
    read, rejected = await topic_table(fed)
    source = event_table(open_source("synthetic", **SHOP))
    assert rejected == 0
    assert histories(read) == histories(source)
    assert np.nansum(read.values) == pytest.approx(float(np.nansum(source.values)), rel=1e-5)
    told = [
        dict(zip(t.item_ids, zip(t.item_texts, t.item_attributes, strict=True), strict=True)) for t in (read, source)
    ]
    assert told[0] == told[1]
    people = [dict(zip(table.user_ids, table.user_attributes, strict=True)) for table in (read, source)]
    assert people[0] == people[1]


async def test_what_is_no_event_is_left_out_and_counted(fed: Settings) -> None:
    """Broken records do not stop a training; a limit is kept exactly, and known items keep their rows."""
    topics = Topics(fed.prefix)
    async with AIOKafkaProducer(**client_options(fed)) as producer:
        await producer.send_and_wait(topics.events, b"no json", b"u")
        wrong = {"user_id": "u", "item_id": "i", "type": "rating", "timestamp": 1, "value": None}
        nan = json.dumps(wrong).replace("null", "NaN").encode()
        await producer.send_and_wait(topics.events, nan, b"u")
    told: list[int] = []
    read, rejected = await topic_table(fed, known_items=["gone"], on_progress=told.append)
    assert (len(read), rejected) == (SHOP["events"], 2)
    assert told[-1] == SHOP["events"]
    assert read.item_ids[0] == "gone"
    assert len((await topic_table(fed, limit=700)).table) == 700


async def test_nothing_is_learned_from_the_forgotten(fed: Settings) -> None:
    """Events of a user with a tombstone on `users` are left out, until the user is described again."""
    users = Topics(fed.prefix).users
    everybody = (await topic_table(fed)).table.user_ids
    gone, back = everybody[:2]
    async with AIOKafkaProducer(**client_options(fed)) as producer:
        for user in (gone, back):
            await producer.send_and_wait(users, None, user.encode())
        await producer.send_and_wait(users, json.dumps({"user_id": back}).encode(), back.encode())
    left = (await topic_table(fed)).table.user_ids
    assert set(everybody) - set(left) == {gone}


async def test_the_command_trains_on_the_topics(fed: Settings, nearstream: str, tmp_path: Path) -> None:
    """`train --from-topic` writes a folder that is served; the topics are left as they were."""
    out = tmp_path / "model"
    process = await asyncio.to_thread(
        subprocess.run,
        [nearstream, "train", "--from-topic", "--prefix", fed.prefix, *SMALL, "--out", str(out), "--json"],
        env={**os.environ, "NEARSTREAM_BOOTSTRAP": fed.bootstrap, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert (summary["events"], summary["items"], summary["epochs"]) == (SHOP["events"], SHOP["items"], 2)
    assert load_encoder(EncoderConfig(model=str(out), event_types=("view",))).profiles.name == summary["model"]
    assert json.loads((out / "manifest.json").read_text())["data"]["source"] == "topics"
    assert len((await topic_table(fed)).table) == SHOP["events"]


async def test_empty_topics_teach_nothing(kafka: EmbeddedKafka, prefix: str) -> None:
    """Without events, and without topics, the error says so."""
    settings = Settings(bootstrap=kafka.bootstrap, prefix=prefix, partitions=2)
    with pytest.raises(UsageError, match=f"{prefix}users"):
        await topic_table(settings)
    await create_topics(settings)
    with pytest.raises(UsageError, match="no events"):
        await topic_table(settings)
