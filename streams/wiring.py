"""The one place where parts are put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from encoder import EncoderConfig, load_encoder
from index import AutoIndex, IndexConfig
from streams.core.catalogue import Catalogue
from streams.core.errors import UsageError
from streams.core.events import EVENT_TYPES
from streams.core.profile import ProfileLayout, ProfileStore
from streams.core.updater import ProfileUpdater
from streams.recommend.engine import Engine
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig
from streams.recommend.trend import Trend

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.core.ports import ProfileEncoder

SECONDS_PER_HOUR = 3600.0


def build_engine(settings: Settings, *, model: ProfileEncoder | None = None, ranking: bool = True) -> Engine:
    """The engine that the settings describe, without history, ready for its first event.

    Loads the text encoder and compiles kernels: about a second, or ten where nothing was compiled before.
    A `model` takes the place of the settings' own and `ranking=False` leaves lists empty, to measure the road alone.

    Raises:
        UsageError: there is no such encoder, or the package with its word vectors is missing.
    """
    threadpool_limits(1)  # rule 7: BLAS with two threads on two busy cores costs several times more
    try:
        encoder = load_encoder(
            EncoderConfig(
                model=settings.model,
                dim=settings.dim,
                half_life_days=settings.half_life_days,
                event_types=tuple(EVENT_TYPES),
            )
        )
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(f"The encoder cannot be loaded: {error}") from error
    profiles = encoder.profiles if model is None else model
    store = ProfileStore(ProfileLayout(profiles.state_width, settings.recent_items, settings.event_id_window))
    catalogue = Catalogue(encoder.items)
    trend = Trend(settings.trend_half_life_hours * SECONDS_PER_HOUR)
    updater = ProfileUpdater(store, catalogue, profiles, settings.type_weights, settings.excluded_items_max)
    ranker = Ranker(
        store,
        catalogue,
        trend,
        RankerConfig(
            list_items=settings.list_items,
            repeats=settings.repeats,
            type_weights=tuple(settings.type_weights[kind] for kind in EVENT_TYPES),
        ),
    )
    engine = Engine(
        store=store,
        catalogue=catalogue,
        updater=updater,
        encoder=profiles,
        index=AutoIndex(IndexConfig(dim=profiles.dim)),
        trend=trend,
        ranker=ranker if ranking else None,
        neighbour_candidates=settings.neighbour_candidates if ranking else 0,
    )
    engine.warm_up()
    return engine
