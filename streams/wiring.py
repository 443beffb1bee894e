"""The one place where parts are put together."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from encoder import EncoderConfig, load_encoder
from encoder.checkpoint import load_model, read_fingerprint
from encoder.errors import EncoderError
from encoder.inference import encoder_of
from encoder.item_images import file_vectors
from encoder.model_card import read_card
from index import AutoIndex, IndexConfig
from streams.core.catalogue import Catalogue
from streams.core.errors import ModelUnusable, UsageError
from streams.core.events import EVENT_TYPES
from streams.core.profile import ProfileLayout, ProfileStore
from streams.core.updater import ProfileUpdater
from streams.core.worker_details import ModelReport, TrainingCurve, TrainingReport, shortened
from streams.recommend.engine import LESSONS_MAX, Engine, Model
from streams.recommend.feedback import ListFeedback
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig
from streams.recommend.rerank import RerankConfig, Reranker
from streams.recommend.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from encoder.item_images import ImageEncoder
    from encoder.model_card import ModelCard
    from streams.config import Settings
    from streams.core.ports import Floats, ItemEncoder, ProfileEncoder

logger = logging.getLogger(__name__)

SECONDS_PER_HOUR = 3600.0
BUILT_IN = "decayed-mean"
CURVES = {"ndcg@10", "hr@10", "rmse"}
"""Validation figures that the page draws."""
IMAGE_CACHE = Path("text-cache", "images")
"""Below the data folder; `nearstream train` keeps the vectors of the same images there."""


class ModelFolder:
    """The folder of a trained model, for `streams.kafka.model_watch` to look at."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._folder = Path(place)

    @property
    def place(self) -> str:
        """The folder, as the settings name it."""
        return self._place

    def mark(self) -> Hashable:
        """Names, sizes and times of the files, or why they cannot be listed."""
        try:
            with os.scandir(self._folder) as entries:
                return frozenset((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries)
        except OSError as error:
            return str(error)

    def is_served_by(self, name: str) -> bool:
        """Whether the encoder of this name is the folder's model.

        Raises:
            ModelUnusable: the folder does not say which model it holds.
        """
        try:
            return name.endswith(f"@{read_fingerprint(self._folder)}")
        except (EncoderError, OSError) as error:
            raise ModelUnusable(str(error)) from error

    def load(self) -> Model:
        """The model, compiled, with an empty index; seconds.

        Raises:
            ModelUnusable: the folder is missing or damaged, holds a model of another kind, or one that reads texts
                with a package that is missing.
        """
        try:
            encoder = encoder_of(load_model(self._folder), tuple(EVENT_TYPES))
            # A text that the model does not know shows now whether the package that reads it is there.
            encoder.items.encode(["any"], [f"a text that no training saw: {self._place}"], [()])
        except (EncoderError, ImportError, OSError, ValueError, LookupError, TypeError) as error:
            # the last two: a manifest that another program wrote
            raise ModelUnusable(str(error) if isinstance(error, EncoderError | ImportError) else repr(error)) from error
        return _with_index(encoder.profiles, encoder.items)

    def report(self, name: str) -> ModelReport | None:
        """What the folder tells of the encoder of this name; None where it holds another model by now.

        Raises:
            ModelUnusable: the folder says nothing readable of its model.
        """
        try:
            card = read_card(self._folder)
        except (EncoderError, OSError) as error:
            raise ModelUnusable(str(error)) from error
        return _report(card) if card.name == name else None


def _report(card: ModelCard) -> ModelReport:
    def number(fact: str) -> int | None:
        value = card.data.get(fact)
        return value if isinstance(value, int) else None

    def words(fact: str) -> str | None:
        value = card.data.get(fact)
        return shortened(value) if isinstance(value, str) else None

    history, last_s = card.history, number("last_time_s")
    figures = sorted({name for look in history for name in look.metrics} & CURVES)
    curve = TrainingCurve(
        steps=[look.step for look in history],
        losses=[round(look.loss, 4) for look in history],
        metrics={name: [_rounded(look.metrics.get(name)) for look in history] for name in figures},
        best=max((place for place, look in enumerate(history) if look.is_best), default=0),
    )
    return ModelReport(
        name=card.name,
        kind=card.kind,
        dim=card.dim,
        training=TrainingReport(
            objective=card.objective,
            trained_at=None if card.trained_at_s is None else 1000 * card.trained_at_s,
            source=words("source"),
            protocol=words("protocol"),
            events=number("events"),
            users=number("users"),
            items=number("items"),
            last_event_at=None if last_s is None else 1000 * last_s,
            cpu_s=round(history[-1].cpu_s, 1) if history else None,
            metrics={name: round(value, 4) for name, value in card.metrics.items() if name in CURVES},
            curve=curve if history else None,
        ),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def model_folder(settings: Settings) -> ModelFolder | None:
    """The model folder that the settings name, whether it is there or not; None where they name a built-in model."""
    model = settings.model
    is_folder = model != BUILT_IN and (os.sep in model or Path(model).is_dir())
    return ModelFolder(model) if is_folder else None


class ImageFolder:
    """The folder of items' images, for `streams.kafka.image_watch` to look into. For one thread at a time."""

    def __init__(self, folder: Path, cache: Path) -> None:
        """Opens nothing: torch is imported when a model that sees images has an image to see.

        Args:
            folder: images are named by their path below it.
            cache: folder of the vectors by content.
        """
        self._folder = folder.resolve()
        self._cache = cache
        self._encoder: ImageEncoder | None = None

    def open(self, version: str) -> None:
        """Makes the image encoder of this name and version ready.

        Raises:
            ModelUnusable: its package is missing, or another version is installed.
        """
        try:
            encoder: ImageEncoder = import_module("encoder.image").ImageEncoder()
        except ImportError as error:
            raise ModelUnusable(f"{error.name or error} is not installed: install nearstream[images].") from error
        except EncoderError as error:
            raise ModelUnusable(str(error)) from error
        if encoder.name != version:
            raise ModelUnusable(
                f"The model was trained on the image vectors of {version}, installed is {encoder.name}: install that "
                "version, or train again."
            )
        import_module("torch").set_num_threads(1)  # rule 7
        self._encoder = encoder

    def vectors(self, images: Sequence[str], on_bad: Callable[[int, str], None]) -> Floats:
        """(n, m) of the images of these names; zeros for what is no image below the folder, of which `on_bad` hears.

        Raises:
            ValueError: no encoder is open.
        """
        if self._encoder is None:
            raise ValueError("expected an open image encoder: call open before vectors")
        paths = {row: path for row, image in enumerate(images) if (path := self._below(image)) is not None}
        for row in sorted(set(range(len(images))) - paths.keys()):
            on_bad(row, f"{images[row]!r} is no path below {self._folder}; give one that is.")
        rows = list(paths)
        vectors = np.zeros((len(images), self._encoder.dim), np.float32)
        vectors[rows] = file_vectors(
            self._encoder, list(paths.values()), self._cache, on_bad=lambda place, reason: on_bad(rows[place], reason)
        )
        return vectors

    def _below(self, image: str) -> Path | None:
        try:
            path = (self._folder / image).resolve()
        except (OSError, RuntimeError, ValueError):  # a circle of links, a name too long, a zero byte
            return None
        return path if path.is_relative_to(self._folder) else None


def image_folder(settings: Settings) -> ImageFolder | None:
    """The folder of images that the settings name; None where they name none."""
    return None if settings.images is None else ImageFolder(settings.images, settings.data_dir / IMAGE_CACHE)


def build_engine(
    settings: Settings,
    *,
    model: ProfileEncoder | None = None,
    ranking: bool = True,
    lessons_max: int | None = LESSONS_MAX,
) -> Engine:
    """The engine that the settings describe, without history, ready for its first event.

    Loads the text encoder and compiles kernels: about a second, or a minute where nothing was compiled before. A model
    folder that cannot be served is no error: `decayed-mean` takes its place, a warning and `Engine.fallback` say why.
    A `model` of length `dim` takes the place of the settings' own, with the built-in encoder's items, and
    `ranking=False` leaves lists empty: to measure the road alone.

    Raises:
        UsageError: there is no such encoder, or the package with the built-in one's word vectors is missing.
    """
    threadpool_limits(1)  # rule 7: BLAS with two threads on two busy cores costs several times more
    if model is None:
        served, fallback = _model_of(settings)
    else:
        built_in, fallback = _model_of(settings.model_copy(update={"model": BUILT_IN}))
        served = _with_index(model, built_in.items)
    profiles = served.profiles
    store = ProfileStore(ProfileLayout(profiles.state_width, settings.recent_items, settings.event_id_window))
    catalogue = Catalogue(served.items)
    views = Views([hours * SECONDS_PER_HOUR for hours in settings.trend_half_lives_hours])
    updater = ProfileUpdater(store, catalogue, profiles, settings.type_weights, settings.excluded_items_max)
    ranker = Ranker(
        store,
        catalogue,
        views,
        RankerConfig(
            list_items=settings.list_items,
            repeats=settings.repeats,
            candidates=settings.candidates,
            interests=settings.interests,
            type_weights=tuple(settings.type_weights[kind] for kind in EVENT_TYPES),
        ),
        Reranker(catalogue, list_config(settings)),
    )
    engine = Engine(
        store=store,
        catalogue=catalogue,
        updater=updater,
        encoder=profiles,
        index=served.index,
        views=views,
        ranker=ranker if ranking else None,
        neighbour_candidates=settings.neighbour_candidates if ranking else 0,
        lessons_max=lessons_max,
        feedback=_feedback(settings) if ranking else None,
    )
    engine.fallback = fallback
    engine.warm_up()
    return engine


def list_config(settings: Settings) -> RerankConfig:
    """What the settings ask of lists, beside the rules."""
    return RerankConfig(
        list_items=settings.list_items,
        diversity=settings.diversity,
        diversity_by=settings.diversity_by,
        diversity_head=settings.diversity_head,
        calibration=settings.calibration,
    )


def _feedback(settings: Settings) -> ListFeedback | None:
    """Without it, what a list showed makes no difference to what its reader's events teach."""
    return ListFeedback(settings.exploration, settings.list_items) if settings.position_bias == "on" else None


def load_served(settings: Settings) -> Model:
    """The model that the settings name, with an empty index; nothing in its place.

    Raises:
        ModelUnusable: it is a folder that cannot be served.
        UsageError: there is no such model, or the package with the built-in one's word vectors is missing.
    """
    if (folder := model_folder(settings)) is not None:
        return folder.load()
    try:
        encoder = load_encoder(EncoderConfig(settings.model, settings.dim, settings.half_life_days))
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(f"The encoder cannot be loaded: {error}") from error
    return _with_index(encoder.profiles, encoder.items)


def _model_of(settings: Settings) -> tuple[Model, str | None]:
    """The model to begin with, and why it is not the one that the settings name."""
    try:
        return load_served(settings), None
    except ModelUnusable as error:
        logger.warning(
            "the model of %s is not used, %s serves in its place: %s It is tried again when a file of the folder "
            "changes.",
            settings.model,
            BUILT_IN,
            error,
        )
        return load_served(settings.model_copy(update={"model": BUILT_IN})), str(error)


def _with_index(profiles: ProfileEncoder, items: ItemEncoder) -> Model:
    return Model(profiles, items, AutoIndex(IndexConfig(dim=profiles.dim)))
