"""The one place where parts are put together."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from encoder import EncoderConfig, load_encoder
from encoder.checkpoint import load_model, read_fingerprint
from encoder.errors import EncoderError
from encoder.inference import encoder_of
from index import AutoIndex, IndexConfig
from streams.core.catalogue import Catalogue
from streams.core.errors import ModelUnusable, UsageError
from streams.core.events import EVENT_TYPES
from streams.core.profile import ProfileLayout, ProfileStore
from streams.core.updater import ProfileUpdater
from streams.recommend.engine import LESSONS_MAX, Engine, Model
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig
from streams.recommend.rerank import RerankConfig, Reranker
from streams.recommend.views import Views

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.core.ports import ItemEncoder, ProfileEncoder

logger = logging.getLogger(__name__)

SECONDS_PER_HOUR = 3600.0
BUILT_IN = "decayed-mean"


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


def model_folder(settings: Settings) -> ModelFolder | None:
    """The model folder that the settings name, whether it is there or not; None where they name a built-in model."""
    model = settings.model
    is_folder = model != BUILT_IN and (os.sep in model or Path(model).is_dir())
    return ModelFolder(model) if is_folder else None


def build_engine(
    settings: Settings,
    *,
    model: ProfileEncoder | None = None,
    ranking: bool = True,
    lessons_max: int | None = LESSONS_MAX,
) -> Engine:
    """The engine that the settings describe, without history, ready for its first event.

    Loads the text encoder and compiles kernels: about a second, or ten where nothing was compiled before. A model
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
            type_weights=tuple(settings.type_weights[kind] for kind in EVENT_TYPES),
        ),
        Reranker(
            catalogue,
            RerankConfig(settings.list_items, settings.diversity, settings.diversity_by, settings.calibration),
        ),
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
    )
    engine.fallback = fallback
    engine.warm_up()
    return engine


def _model_of(settings: Settings) -> tuple[Model, str | None]:
    """The model to begin with, and why it is not the one that the settings name."""
    config = EncoderConfig(model=settings.model, dim=settings.dim, half_life_days=settings.half_life_days)
    fallback = None
    if (folder := model_folder(settings)) is not None:
        try:
            return folder.load(), None
        except ModelUnusable as error:
            fallback = str(error)
            logger.warning(
                "the model of %s is not used, %s serves in its place: %s It is tried again when a file of the folder "
                "changes.",
                folder.place,
                BUILT_IN,
                fallback,
            )
            config = replace(config, model=BUILT_IN)
    try:
        encoder = load_encoder(config)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(f"The encoder cannot be loaded: {error}") from error
    return _with_index(encoder.profiles, encoder.items), fallback


def _with_index(profiles: ProfileEncoder, items: ItemEncoder) -> Model:
    return Model(profiles, items, AutoIndex(IndexConfig(dim=profiles.dim)))
