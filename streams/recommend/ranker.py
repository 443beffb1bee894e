"""Refreshed users in, their lists with reasons out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.core.ports import Floats, Slots
from streams.recommend.candidates import Candidates, Hidden, Neighbourhood, gather_candidates
from streams.recommend.category_trend import Mix, category_mix
from streams.recommend.content import Among, cosines, guided_rows, nearest_recent, propose_by_content
from streams.recommend.floor_candidates import nearest_of_floors, popular_of_floors
from streams.recommend.fusion import FusionConfig, FusionWeights, Lessons, fuse, learn
from streams.recommend.interests import find_interests, interest_cosines, nearest_interests, quotas
from streams.recommend.kernel import PLAIN
from streams.recommend.repeats import repeat_worth
from streams.recommend.request import RankerConfig, Ranking, RankRequest, Source, checked, segments_of, source_names
from streams.recommend.rerank import RerankConfig, Reranker
from streams.recommend.trend import relative_popularity, top_slots

if TYPE_CHECKING:
    from streams.core.catalogue import Catalogue
    from streams.core.profile import ProfileStore
    from streams.recommend.rules import Rules
    from streams.recommend.views import Views

ITEMS_AN_EVENT = 1000
"""Items that one event pays to look at, for what is popular."""
NEWCOMERS_SHARE = 0.5
"""Newcomers proposed, as a share of what each source proposes: they bring many candidates of small chances."""
RERANKED_MAX = 100
"""Best candidates among which rules and diversity choose."""
TYPE_CODES_MAX = 256


class Pool(NamedTuple):
    """The candidates of u users and what each source says of them."""

    items: Slots
    """(u, c) catalogue slots, each once a row, unordered, padded with -1."""
    worth: Floats
    """(u, c, S) >= 0; 0 where a source says nothing."""
    voters: Slots
    """(u, c, 3) neighbours that added most."""
    companions: Slots
    """(u, c) see `Ranking`."""
    groups: NDArray[np.int32]
    """(u, c) see `Ranking`."""
    categories: NDArray[np.int32]
    """(u, c) see `Ranking`."""

    def rows(self, rows: slice) -> Pool:
        """Those of some users; views."""
        return Pool(**{name: column[rows] for name, column in self._asdict().items()})


class _Moment(NamedTuple):
    """What several sources read of u users, and of the catalogue as it is now."""

    available: NDArray[np.bool_]
    """(items,) what may be in lists at all."""
    eligible: NDArray[np.bool_]
    """(items,) those of them that are described."""
    hidden: Hidden
    guided: NDArray[np.bool_]
    """(u,) users whose vectors mean something."""
    mix: Mix
    category_masses: NDArray[np.float64]
    """(items,) logarithms of the popularity that counts within categories."""


class _Tops(NamedTuple):
    """What everybody likes, as of one moment."""

    slots: Slots
    """(1 + trends + floors, m)"""
    rules: Rules
    """Whose floors these are."""
    n: int
    """Asked for; there may be fewer items."""
    folded: int
    """Events that the views had counted."""
    items: int
    """Items there were."""


class Ranker:
    """Asks all sources, mixes their opinions by learned weights, and names the reasons.

    Keeps the weights between calls, and in large catalogues for a few events what is popular: else a list depends on
    the request and on the store, the catalogue and the views as they are. Not thread-safe: called in the compute
    thread only, which also writes those.
    """

    def __init__(
        self,
        store: ProfileStore,
        catalogue: Catalogue,
        views: Views,
        config: RankerConfig,
        reranker: Reranker | None = None,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._views = views
        self._config = config
        self.reranker = reranker or Reranker(catalogue, RerankConfig(list_items=config.list_items))
        """Orders the best candidates by settings and rules."""
        self._per_source = max(config.candidates, config.list_items)
        self._type_counts = np.zeros(TYPE_CODES_MAX, np.bool_)
        self._type_counts[: len(config.type_weights)] = [weight > 0 for weight in config.type_weights]
        self._type_weights = np.zeros(TYPE_CODES_MAX)
        self._type_weights[: len(config.type_weights)] = np.maximum(config.type_weights, 0)
        if not config.type_weights:
            self._type_counts[:] = True
            self._type_weights[:] = 1.0
        self._tops: _Tops | None = None
        self.sources = source_names([trend.half_life_s for trend in views.trends])
        self.weights = FusionWeights.start(len(self.sources), config.fusion.start)

    @property
    def fusion(self) -> FusionConfig:
        """How the weights are learned."""
        return self._config.fusion

    def rank(self, request: RankRequest) -> Ranking:
        """The lists of all users of the request, row by row.

        A list holds available items that the user has neither seen nor bought (unless repeats are on), and is
        shorter than `list_items` only when there are no more of these. Users without history get what is popular.

        Raises:
            ValueError: the arrays of the request do not fit each other.
        """
        request = self.with_interests(checked(request, self._catalogue.vectors.shape[1]))
        return self.choose(self.pool(request), request, now_s=0.0)

    def with_interests(self, request: RankRequest) -> RankRequest:
        """The request with the tastes of its users, where more than one is looked at and they are not there yet."""
        if self._config.interests == 1 or request.interest_vectors is not None:
            return request
        found = find_interests(
            np.require(request.recent_items, np.int32, PLAIN),
            np.require(request.recent_count, np.int32, PLAIN),
            self._type_weights[request.recent_types],
            self._catalogue.vectors,
            self._catalogue.described,
            self._config.interests,
        )
        return request._replace(
            interest_vectors=found.vectors, interest_weights=found.weights, interest_members=found.members
        )

    def choose(self, pool: Pool, request: RankRequest, now_s: float) -> Ranking:
        """The lists that the weights and the rules of now make of a pool. Scores and shares are those before rules."""
        reranker = self.reranker
        depth = max(RERANKED_MAX, self._config.list_items) if reranker.changes_lists else self._config.list_items
        reserved = reranker.reserved(pool.items)
        fused = fuse(pool.items, pool.worth, self.weights, segments_of(request), depth, reserved)
        best = _picked(pool.items, fused.places)
        chosen = reranker.rerank(request.slots, best, fused.scores, request.recent_items, request.recent_count, now_s)
        places = _picked(fused.places, chosen.places)
        items = _picked(pool.items, places)
        return Ranking(
            items=items,
            scores=_kept(fused.scores, chosen.places),
            shares=_kept(fused.shares, chosen.places),
            short_because=chosen.short_because,
            voters=_picked(pool.voters, places),
            anchors=self._anchors(items, request),
            companions=_picked(pool.companions, places),
            groups=_picked(pool.groups, places),
            categories=_picked(pool.categories, places),
        )

    def learn(
        self, pool: Pool, request: RankRequest, targets: Slots, counts: NDArray[np.float64] | None = None
    ) -> Lessons:
        """What the items (u,) that the users of the request chose next teach; the weights stay as they are.

        Each lesson counts `counts` (u,) times; None: once.
        """
        return learn(pool.items, pool.worth, targets, self.weights, segments_of(request), self._config.fusion, counts)

    def pool(self, request: RankRequest) -> Pool:
        """All candidates of a checked request, with every source's opinion on each."""
        at = self._moment(request)
        wanted = self.reranker.wanted_of_floors(len(request.slots))
        proposals = np.concatenate(self._proposals(request, at, wanted), axis=1)
        everybodys = np.full(1 + len(self._views.trends), self._per_source, np.int32)
        found = gather_candidates(
            self._neighbourhood(request),
            proposals,
            self._trending(int(np.diff(at.hidden.offsets).max(initial=0)), at.available),
            at.hidden,
            at.available,
            self._per_source,
            np.concatenate([everybodys, wanted]),
        )
        return self._opinions(request, at, found)

    def _moment(self, request: RankRequest) -> _Moment:
        described, available = self._catalogue.described, self._available()
        return _Moment(
            available=available,
            eligible=described & available,
            hidden=self._hidden(request),
            guided=guided_rows(request.vectors, request.recent_items, described),
            mix=category_mix(request.recent_items, request.recent_count, self._catalogue.facts.categories),
            category_masses=self._views.category_trend.masses(len(available)),
        )

    def _proposals(self, request: RankRequest, at: _Moment, wanted: NDArray[np.int32]) -> list[Slots]:
        """What the personal sources but the neighbours propose, and what settings and rules want to be there.

        Each (u, p), padded with -1. `wanted` (F,) is how many of each floor's group.
        """
        catalogue, views, n = self._catalogue, self._views, self._per_source
        rows = np.flatnonzero(at.guided).astype(np.int32)
        proposals = [
            propose_by_content(request.vectors, rows, catalogue.vectors, at.eligible, at.hidden, n),
            *self._by_interest(request, at.eligible, at.hidden),
            views.together.propose(request.recent_items, request.recent_count, at.available, at.hidden, n),
            views.by_category.propose(at.mix, at.category_masses, at.available, at.hidden, n),
            views.newcomers.propose(at.mix, at.available, at.hidden, math.ceil(NEWCOMERS_SHARE * n)),
        ]
        if request.group_codes is not None:
            proposals.append(views.groups.propose(request.group_codes, at.available, n, at.hidden).items)
        if self._config.repeats:
            proposals.append(_still_there(request.recent_items, at.available))
        if len(pinned := self.reranker.pinned()):
            proposals.append(_unless_hidden(pinned, at.hidden, len(request.slots)))
        if wanted.any():
            groups = self.reranker.floor_groups
            proposals += nearest_of_floors(
                request.vectors, rows, catalogue.vectors, at.eligible, groups, at.hidden, wanted
            )
        return proposals

    def _opinions(self, request: RankRequest, at: _Moment, found: Candidates) -> Pool:
        """What each source says of each candidate, whoever proposed it."""
        items, catalogue, views = found.items, self._catalogue, self._views
        facts, among = catalogue.facts.categories, max(len(at.available), 1)
        worth = np.zeros((*items.shape, len(self.sources)), np.float32)
        worth[:, :, Source.NEIGHBOURS] = found.votes
        alike = cosines(request.vectors, at.guided, items, catalogue.vectors, at.eligible)
        worth[:, :, Source.PROFILE] = _warmed(alike, self._config.content_temperature)
        if request.interests is not None:
            alike = interest_cosines(request.interests, items, catalogue.vectors, at.eligible)
            worth[:, :, Source.INTERESTS] = _warmed(alike, self._config.content_temperature)
        worth[:, :, Source.TOGETHER], companions = views.together.score(
            request.recent_items, request.recent_count, items
        )
        worth[:, :, Source.CATEGORY], categories = views.by_category.score(at.mix, at.category_masses, facts, items)
        worth[:, :, Source.NEWCOMER], new_in = views.newcomers.score(at.mix, items)
        if self._config.repeats:
            worth[:, :, Source.REPEAT] = repeat_worth(items, request.recent_items, request.recent_count)
        worth[:, :, Source.RISING] = relative_popularity(views.rising(among), items)
        for index, trend in enumerate(views.trends):
            worth[:, :, Source.TREND + index] = relative_popularity(trend.masses(among), items)
        groups = np.full(items.shape, -1, np.int32)
        if request.group_codes is not None:
            worth[:, :, Source.GROUP], groups = views.groups.score(request.group_codes, items)
        return Pool(
            items=items,
            worth=worth,
            voters=found.voters,
            companions=companions,
            groups=groups,
            categories=np.maximum(categories, new_in),  # no item is both
        )

    def warm_up(self) -> None:
        """Compiles everything that `rank` needs, or loads it, so that the first list is not seconds late."""
        recent = self._store.layout.recent_items
        request = RankRequest(
            slots=np.zeros(0, np.int32),
            vectors=np.zeros((0, self._catalogue.vectors.shape[1]), np.float32),
            recent_items=np.zeros((0, recent), np.int32),
            recent_types=np.zeros((0, recent), np.uint8),
            recent_count=np.zeros(0, np.int32),
            history_events=np.zeros(0, np.int64),
            bought_offsets=np.zeros(1, np.int32),
            bought_items=np.zeros(0, np.int32),
            neighbour_slots=np.zeros((0, 1), np.int32),
            neighbour_similarities=np.zeros((0, 1), np.float32),
        )
        self.rank(request)
        if self.reranker.changes_lists:  # else it would cost seconds at a first start for nothing
            self.reranker.warm_up()
        self.learn(self.pool(checked(request, self._catalogue.vectors.shape[1])), request, np.zeros(0, np.int32))

    def _by_interest(self, request: RankRequest, eligible: NDArray[np.bool_], hidden: Hidden) -> list[Slots]:
        """Proposals like `propose_by_content`, together as many more, shared out among the tastes by weight."""
        interests = request.interests
        if interests is None:
            return []
        proposed = []
        limits = quotas(interests, self._per_source)
        for interest in range(limits.shape[1]):
            rows = np.flatnonzero(limits[:, interest]).astype(np.int32)
            if len(rows):
                vectors = np.ascontiguousarray(interests.vectors[:, interest])
                most = np.ascontiguousarray(limits[:, interest])
                n = int(most.max())
                proposed.append(propose_by_content(vectors, rows, self._catalogue.vectors, eligible, hidden, n, most))
        return [_packed(np.concatenate(proposed, axis=1), self._per_source)] if proposed else []

    def _anchors(self, items: Slots, request: RankRequest) -> Slots:
        """See `Ranking`."""
        vectors, described, interests = self._catalogue.vectors, self._catalogue.described, request.interests
        among = None
        if interests is not None:
            wanted = nearest_interests(interests, request.vectors, items, vectors, described)
            among = Among(interests.members, wanted)
        return nearest_recent(items, request.recent_items, vectors, described, among)

    def _available(self) -> NDArray[np.bool_]:
        """(items,) what may be in lists at all."""
        rules = self.reranker.rules
        available = self._catalogue.available if rules.exclude.unavailable else np.ones(len(self._catalogue), np.bool_)
        return available & self.reranker.allowed() if self.reranker.changes_lists else available

    def _trending(self, hidden_max: int, available: NDArray[np.bool_]) -> Slots:
        """(1 + trends + F, m) what rises, what is popular, and in the group of each floor, padded with -1.

        So many that each user has enough that are not hidden.

        To look at all items costs by their number, so it is done once for so many events that each event pays for
        `ITEMS_AN_EVENT` of them; what these events changed is in the scores at once all the same.
        """
        n, stale = self._per_source + hidden_max, len(available) // ITEMS_AN_EVENT
        tops, rules = self._tops, self.reranker.rules
        if (
            tops is None
            or tops.n < n
            or tops.rules is not rules
            or max(self._views.folded - tops.folded, len(available) - tops.items) > stale
        ):
            n = max(n, 0 if tops is None else tops.n)
            rows = self._popular(n, available)
            tops = self._tops = _Tops(rows, rules, n, self._views.folded, len(available))
        return tops.slots

    def _popular(self, n: int, available: NDArray[np.bool_]) -> Slots:
        """See `_trending`."""
        trends, floors = self._views.trends, len(self.reranker.rules.floor)
        rising = top_slots(self._views.rising(len(available)), n, available)
        rows = np.stack([rising, *(trend.top(n, available) for trend in trends)])
        if not floors:
            return rows
        masses = trends[-1].masses(len(available))
        of_floors = popular_of_floors(masses, available, self.reranker.floor_groups, floors, rows.shape[1])
        return np.concatenate([rows, of_floors])

    def _hidden(self, request: RankRequest) -> Hidden:
        """The items that each user has seen or bought, as far as the rules, else the setting `repeats`, hide them."""
        users, exclude = len(request.slots), self.reranker.rules.exclude
        hide = not self._config.repeats
        seen = (request.recent_items >= 0) & (hide if exclude.seen is None else exclude.seen)
        bought = np.full(len(request.bought_items), hide if exclude.bought is None else exclude.bought)
        bought_by = np.repeat(np.arange(users), np.diff(request.bought_offsets))
        by = np.concatenate([np.nonzero(seen)[0], bought_by[bought]])
        items = np.concatenate([request.recent_items[seen], request.bought_items[bought]])
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


def _kept(values: Floats, places: Slots) -> Floats:
    """The values (u, c, ...) at these places (u, n); 0 where a list has ended."""
    kept: Floats = values[np.arange(len(places))[:, None], places]
    kept[places < 0] = 0
    return kept


def _packed(items: Slots, most: int) -> Slots:
    """(u, most) the items (u, c) that are there, in their order; no row has more of them."""
    order = np.argsort(items < 0, axis=1, kind="stable")[:, :most]
    packed: Slots = np.take_along_axis(items, order, axis=1)
    return packed


def _unless_hidden(items: Slots, hidden: Hidden, users: int) -> Slots:
    """(u, p) the same items for everybody, -1 where one is hidden from the user."""
    offered = np.tile(items, (users, 1))
    by = np.repeat(np.arange(users), np.diff(hidden.offsets))
    for column, item in enumerate(items.tolist()):
        offered[by[hidden.items == item], column] = -1
    return offered


def _still_there(recent_items: Slots, available: NDArray[np.bool_]) -> Slots:
    """The recent items that may be recommended, -1 in the place of the others."""
    known = (recent_items >= 0) & (recent_items < len(available))
    known[known] = available[recent_items[known]]
    return np.where(known, recent_items, -1).astype(np.int32)


def _warmed(similarities: Floats, temperature: float) -> Floats:
    """exp((similarity - the row's best) / temperature), 0 where there is no likeness."""
    best = similarities.max(axis=1, initial=0, keepdims=True)
    return np.where(similarities > 0, np.exp((similarities - best) / temperature), 0).astype(np.float32)
