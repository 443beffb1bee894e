"""Refreshed users in, their lists with reasons out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streams.recommend.candidates import Hidden, Neighbourhood, gather_candidates
from streams.recommend.content import cosines, guided_rows, nearest_recent, propose_by_content
from streams.recommend.fusion import fuse
from streams.recommend.kernel import PLAIN
from streams.recommend.request import RankerConfig, Ranking, RankRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streams.core.catalogue import Catalogue
    from streams.core.ports import Slots
    from streams.core.profile import ProfileStore
    from streams.recommend.trend import Trend

TYPE_CODES_MAX = 256


class Ranker:
    """Mixes what similar users had, what resembles the profile and what is popular now.

    Keeps nothing between calls: a list depends on the request and on the store, the catalogue and the trend as they
    are. Not thread-safe: called in the compute thread only, which also writes those three.
    """

    def __init__(self, store: ProfileStore, catalogue: Catalogue, trend: Trend, config: RankerConfig) -> None:
        self._store = store
        self._catalogue = catalogue
        self._trend = trend
        self._config = config
        self._per_source = max(config.candidates, config.list_items)
        self._type_counts = np.zeros(TYPE_CODES_MAX, np.bool_)
        self._type_counts[: len(config.type_weights)] = [weight > 0 for weight in config.type_weights]
        if not config.type_weights:
            self._type_counts[:] = True

    def rank(self, request: RankRequest) -> Ranking:
        """The lists of all users of the request, row by row.

        A list holds available items that the user has neither seen nor bought (unless repeats are on), and is
        shorter than `list_items` only when there are no more of these. Users without history get what is popular.

        Raises:
            ValueError: the arrays of the request do not fit each other.
        """
        request = _checked(request, self._catalogue.vectors.shape[1])
        described, available = self._catalogue.described, self._catalogue.available
        eligible = described & available
        guided = guided_rows(request.vectors, request.recent_items, described)
        hidden = self._hidden(request)
        by_content = propose_by_content(
            request.vectors,
            np.flatnonzero(guided).astype(np.int32),
            self._catalogue.vectors,
            eligible,
            hidden,
            self._per_source,
        )
        by_trend = self._trend.top(self._per_source + int(np.diff(hidden.offsets).max(initial=0)), available)
        found = gather_candidates(
            self._neighbourhood(request), by_content, by_trend, hidden, available, self._per_source
        )
        fused = fuse(
            found.items,
            found.votes,
            cosines(request.vectors, guided, found.items, self._catalogue.vectors, eligible),
            self._trend.masses(max(len(available), 1))[found.items],
            (self._config.similar_users, self._config.because_of, self._config.trending),
            self._config.content_temperature,
            self._config.list_items,
        )
        items = _picked(found.items, fused.places)
        return Ranking(
            items=items,
            scores=fused.scores,
            shares=fused.shares,
            voters=_picked(found.voters, fused.places),
            anchors=nearest_recent(
                items, request.recent_items, request.recent_count, self._catalogue.vectors, described
            ),
        )

    def warm_up(self) -> None:
        """Compiles everything that `rank` needs, or loads it, so that the first list is not seconds late."""
        recent = self._store.layout.recent_items
        self.rank(
            RankRequest(
                slots=np.zeros(0, np.int32),
                vectors=np.zeros((0, self._catalogue.vectors.shape[1]), np.float32),
                recent_items=np.zeros((0, recent), np.int32),
                recent_count=np.zeros(0, np.int32),
                bought_offsets=np.zeros(1, np.int32),
                bought_items=np.zeros(0, np.int32),
                neighbour_slots=np.zeros((0, 1), np.int32),
                neighbour_similarities=np.zeros((0, 1), np.float32),
                now_s=0.0,
            )
        )

    def _hidden(self, request: RankRequest) -> Hidden:
        """The items that each user has seen or bought; none when repeats are on."""
        users = len(request.slots)
        if self._config.repeats:
            return Hidden(np.zeros(users + 1, np.int32), np.zeros(0, np.int32))
        seen = request.recent_items >= 0
        bought_by = np.repeat(np.arange(users), np.diff(request.bought_offsets))
        by = np.concatenate([np.nonzero(seen)[0], bought_by])
        items = np.concatenate([request.recent_items[seen], request.bought_items])
        offsets = np.zeros(users + 1, np.int32)
        np.cumsum(np.bincount(by, minlength=users), out=offsets[1:])
        return Hidden(offsets, items[np.argsort(by, kind="stable")])

    def _neighbourhood(self, request: RankRequest) -> Neighbourhood:
        """The neighbours with their voices: exp((similarity - best) / temperature), 0 for those not alike at all."""
        columns = self._store.columns
        slots, similarities = request.neighbour_slots, request.neighbour_similarities
        present = (slots >= 0) & (slots < len(self._store)) & (slots != request.slots[:, None]) & (similarities > 0)
        alike = np.where(present, similarities, -np.inf).astype(np.float64)
        best = np.where(present, similarities, 0).max(axis=1, initial=0, keepdims=True)
        return Neighbourhood(
            slots=slots,
            voices=np.exp((alike - best) / self._config.similarity_temperature),
            recent_items=columns.recent_items,
            recent_types=columns.recent_types,
            recent_count=columns.recent_count,
            type_counts=self._type_counts,
            recency=1.0 / np.sqrt(np.arange(1, columns.recent_items.shape[1] + 1)),
        )


def _picked(candidates: Slots, places: Slots) -> Slots:
    """The candidates (u, c, ...) at these places (u, n); -1 where a list has ended."""
    rows = np.arange(len(places))[:, None]
    picked: NDArray[np.int32] = candidates[rows, places]
    picked[places < 0] = -1
    return picked


def _checked(request: RankRequest, dim: int) -> RankRequest:
    """The request with the types and the memory order that the kernels are compiled for."""
    users, recent = len(request.slots), request.recent_items.shape[1:]
    shapes = {
        "vectors": (users, dim),
        "recent_items": (users, *recent),
        "recent_count": (users,),
        "bought_offsets": (users + 1,),
        "neighbour_slots": (users, *request.neighbour_similarities.shape[1:]),
        "neighbour_similarities": (users, *request.neighbour_slots.shape[1:]),
    }
    for name, shape in shapes.items():
        if getattr(request, name).shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {getattr(request, name).shape}")
    ends = int(request.bought_offsets[0]), int(request.bought_offsets[-1])
    if ends != (0, len(request.bought_items)):
        raise ValueError(f"bought_offsets must go from 0 to {len(request.bought_items)}, the number bought, got {ends}")
    if request.recent_count.max(initial=0) > request.recent_items.shape[1]:
        raise ValueError(
            f"recent_count must be at most {request.recent_items.shape[1]}, the places there are, "
            f"got {request.recent_count.max()}"
        )
    return RankRequest(
        slots=np.require(request.slots, np.int32, PLAIN),
        vectors=np.require(request.vectors, np.float32, PLAIN),
        recent_items=np.require(request.recent_items, np.int32, PLAIN),
        recent_count=np.require(request.recent_count, np.int32, PLAIN),
        bought_offsets=np.require(request.bought_offsets, np.int32, PLAIN),
        bought_items=np.require(request.bought_items, np.int32, PLAIN),
        neighbour_slots=np.require(request.neighbour_slots, np.int32, PLAIN),
        neighbour_similarities=np.require(request.neighbour_similarities, np.float32, PLAIN),
        now_s=request.now_s,
    )
