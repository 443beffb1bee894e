"""Shows the model the images that the items topic names, while events go on.

Reading and encoding happen in this file's own thread; the compute thread only hands out which images are to be seen,
and moves a few item vectors at a time. Until its image is seen, an item is what its words and attributes say. What is
to be seen waits in the catalogue, at most one image an item: there is no other queue.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from streams.core.errors import ModelUnusable
from streams.kafka.background import BackgroundThread, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from streams.core.catalogue import SeesImages
    from streams.core.ports import Floats
    from streams.metrics import Metrics
    from streams.recommend.engine import Engine

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_S = 1.0
RETRY_S = 60.0
"""After a failure that is no single image's, a full disk say."""
IMAGES_PER_STEP = 8
"""A CPU encodes them in about .3 s; their items' vectors move in well under a millisecond each."""
BAD_NAMED_MAX = 10
"""In one look; more are counted: a folder that was not mounted must not write a line for each item."""


class ImageSource(Protocol):
    """Where images lie, and what encodes them."""

    def open(self, version: str) -> None:
        """Makes the encoder of this name and version ready; seconds.

        Raises:
            ModelUnusable: its package is missing, or another version is installed.
        """
        ...

    def vectors(self, images: Sequence[str], on_bad: Callable[[int, str], None]) -> Floats:
        """(n, m) of the images of these names; zeros where there is none, of which `on_bad` hears place and reason."""
        ...


class ImageWatch:
    """One worker's look at the images of its items.

    An image that cannot be read is told of once, by item, and counted; it is tried again when the topic names another
    one for the item, or by the next worker. A model that is swapped in sees all images anew, from the cache.
    """

    def __init__(
        self, source: ImageSource, engine: Engine, compute: Executor, metrics: Metrics, *, look_s: float = LOOK_S
    ) -> None:
        """Nothing runs before `start`.

        Args:
            source: reads and encodes, in this file's thread.
            engine: its catalogue is touched in the compute thread only.
            compute: that thread.
            metrics: counts images that were seen and those that cannot be.
            look_s: seconds between two looks.
        """
        self._source = source
        self._catalogue = engine.catalogue
        self._compute = compute
        self._seen, self._unreadable = (
            metrics.counter("nearstream_item_images_total", outcome=outcome) for outcome in ("seen", "unreadable")
        )
        self._look_s = look_s
        self._encoder: SeesImages | None = None
        self._opened = self._refused = ""
        self._bad: dict[str, str] = {}
        self._named = self._unnamed = 0
        self._thread = BackgroundThread("image-watch", self._step, look_s)

    def start(self) -> None:
        """Begins to look; once."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, waiting a second at most; images that are being encoded are given up."""
        self._thread.stop()

    def check(self) -> bool:
        """Sees all images that wait, in the caller's thread; whether all went well. Raises nothing."""
        self._named = self._unnamed = 0
        try:
            while self._see_some():
                pass
        except Stopped:
            logger.info("images are left unseen: the worker stops")
        except Exception:
            logger.exception("images cannot be seen; all are tried again in %.0f s", RETRY_S)
            self._encoder = None
            return False
        if self._unnamed:
            logger.warning("%d more images of items cannot be seen either", self._unnamed)
        return True

    def _step(self) -> float:
        return self._look_s if self.check() else RETRY_S

    def _see_some(self) -> bool:
        """Whether there was anything to see."""
        encoder, waiting = self._ask(self._look)
        if encoder is None or not waiting or not self._open(encoder.image_encoder):
            return False
        images = self._ask(lambda: self._catalogue.take_unseen_images(IMAGES_PER_STEP))
        item_ids = list(images)
        named = [row for row, item_id in enumerate(item_ids) if images[item_id] is not None]
        pairs = [(item_ids[row], images[item_ids[row]] or "") for row in named]
        vectors = self._source.vectors(
            [image for _, image in pairs], lambda row, reason: self._tell(*pairs[row], reason)
        )
        shown = np.zeros((len(item_ids), vectors.shape[1]), np.float32)
        shown[named] = vectors
        if self._ask(lambda: self._learn(encoder, item_ids, shown)):
            self._seen.inc(int(vectors.any(axis=1).sum()))
        return True

    def _look(self) -> tuple[SeesImages | None, int]:
        """The encoder that serves and how many images it has to see, in the compute thread."""
        encoder = self._catalogue.image_encoder
        if encoder is not self._encoder:
            self._encoder = encoder
            self._catalogue.forget_seen_images()
        return encoder, self._catalogue.unseen_images

    def _learn(self, encoder: SeesImages, item_ids: list[str], vectors: Floats) -> bool:
        if self._catalogue.image_encoder is not encoder:  # swapped meanwhile: the next look gives all images anew
            return False
        self._catalogue.learn_images(item_ids, vectors)
        return True

    def _open(self, version: str) -> bool:
        if version in {self._opened, self._refused}:
            return version == self._opened
        try:
            self._source.open(version)
        except ModelUnusable as error:
            logger.warning("the images of items are not seen, their words alone count: %s", error)
            self._refused = version
            return False
        self._opened, self._refused = version, ""
        return True

    def _tell(self, item_id: str, image: str, reason: str) -> None:
        if self._bad.get(item_id) == image:
            return
        self._bad[item_id] = image
        self._unreadable.inc()
        if self._named >= BAD_NAMED_MAX:
            self._unnamed += 1
            return
        self._named += 1
        logger.warning("the image of item %r is not seen, its words alone count: %s", item_id, reason)

    def _ask(self, function: Callable[[], T]) -> T:
        return self._thread.ask(self._compute, function)
