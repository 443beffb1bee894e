"""The same events through Kafka and through the engine alone give the same lists."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from streams.config import Settings, load_settings
from streams.core.recommendations import Recommendation
from streams.kafka.clients import client_options
from streams.kafka.codec import encode_description, encode_event
from streams.kafka.records import read_all
from streams.kafka.topics import Topics, create_topics
from streams.recommend.explain import recommended_lists
from streams.sources import open_source
from streams.wiring import build_engine
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from pathlib import Path

    from streams.core.events import Event, Item
    from streams.core.recommendations import RecommendedItem
    from streams.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
EVENTS = 240


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """One partition, one event a batch, no target that sheds lists: how events fall into batches is the same then."""
    for name, value in {"BATCH_EVENTS_MAX": "1", "FRESHNESS_TARGET_MS": "0", "REVERSE_REFRESHES_PER_S": "0"}.items():
        monkeypatch.setenv(f"NEARSTREAM_{name}", value)
    return load_settings(bootstrap=kafka.bootstrap, prefix=prefix, group=prefix.strip("."), partitions=1)


def _alone(settings: Settings, items: list[Item], events: list[Event]) -> dict[str, list[RecommendedItem]]:
    """The newest list of each user, by the engine that `nearstream replay` runs."""
    engine = build_engine(settings)
    engine.describe(items)
    lists: dict[str, list[RecommendedItem]] = {}
    for offset, event in enumerate(events):
        refresh = engine.prepare([event], np.array([offset]), 0)
        assert refresh.ranking is not None
        catalogue = engine.catalogue
        named = recommended_lists(
            refresh.ranking, engine.store.user_ids, catalogue.item_ids, catalogue.facts.category_names, {}
        )
        lists[event.user_id] = named[0]
        engine.apply(refresh)
    return lists


async def test_kafka_and_replay_make_the_same_lists(settings: Settings, tmp_path: Path) -> None:
    """Items, scores and reasons of every user's newest list are equal, learned weights and all."""
    source = open_source("synthetic", users=25, items=80, communities=4, events=EVENTS, seed=3)
    items, events = list(source.items()), list(source.events())
    await create_topics(settings)
    topics = Topics(settings.prefix)
    producer = AIOKafkaProducer(**client_options(settings), enable_idempotence=True)
    await producer.start()
    try:
        for item in items:
            await producer.send_and_wait(topics.items, key=item.item_id.encode(), value=encode_description(item))
        for event in events:
            await producer.send(topics.events, key=event.user_id.encode(), value=encode_event(event))
        await producer.flush()
    finally:
        await producer.stop()
    with WorkerProcess("worker", settings, tmp_path / "worker.log") as worker:
        worker.start()
        await drained(settings, len(events))
        worker.end(signal.SIGTERM)
    published = {}
    async for record in read_all(settings, topics.recommendations):
        list_ = msgspec.json.decode(record.value, type=Recommendation)
        published[list_.user_id] = list_.items
    assert published == _alone(settings, items, events)
