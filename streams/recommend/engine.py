"""The whole engine without a broker: events -> new profiles -> neighbours -> ranked lists; apply after commit."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streams.core.events import PERSON_PREFIX
from streams.core.updater import ACCEPTED, ProfileUpdate, ProfileUpdater
from streams.core.user_facts import start_states
from streams.recommend.asked import rows_of
from streams.recommend.cooccurrence import Entered
from streams.recommend.fusion import FusionConfig, FusionWeights
from streams.recommend.live_quality import LiveQuality
from streams.recommend.position_bias import PositionBias
from streams.recommend.ranker import Ranker
from streams.recommend.request import Ranking, RankRequest, checked, segments_of
from streams.recommend.user_index import align, nearest_users, place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from streams.core.catalogue import Catalogue
    from streams.core.events import Event, Item, User
    from streams.core.ports import Floats, ItemEncoder, ProfileEncoder, Slots, VectorIndex
    from streams.core.profile import ProfileColumns, ProfileStore
    from streams.recommend.feedback import ListFeedback, NamedEvents
    from streams.recommend.fusion import Doubles, Lessons, Segments
    from streams.recommend.ranker import Pool
    from streams.recommend.rerank import Reranker
    from streams.recommend.reverse import ReverseRefreshes
    from streams.recommend.rules import Rules
    from streams.recommend.views import Views


Lap = Callable[[str], None]
Choose = Callable[[ProfileUpdate], ProfileUpdate]
LESSONS_MAX = 64
"""Events of one batch that teach; the others are learned from through the profiles alone."""
GROUPED_EVENTS_MAX = 10
"""From so many events on a user's own history says more than age or country."""
RULED = "rules/"
"""Names of the saved arrays that only some rules need begin with it."""


def _no_lap(stage: str) -> None:
    """Nobody times this call."""


@dataclass(frozen=True, slots=True)
class Taught:
    """What the events of a batch said about the lists that their users would have seen before them. l lessons."""

    events: Slots
    """(l,) their positions in the batch."""
    pool: Pool
    """The candidates of before, and what each source said of them."""
    segments: Segments
    """Whose weights counted for them."""
    targets: Slots
    """(l,) catalogue slots of the items that came."""
    before: FusionWeights
    lessons: Lessons


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a batch does: new profiles and, for each touched user, neighbours and a ranked list."""

    update: ProfileUpdate
    neighbour_slots: Slots
    """(u, k) best first, -1 padded, never the user itself."""
    similarities: Floats
    """(u, k) cosines, NaN padded."""
    ranking: Ranking | None
    """None when ranking is switched off or nobody was touched."""
    taught: Taught | None
    """None when nothing is learned or no event can teach."""
    encoder: ProfileEncoder
    """What moved the profiles. When another one serves by the time of `apply`, the states are encoded anew."""
    listed: ProfileUpdate
    """The u users who get a list: those of `update`, or those whom `choose` named."""
    pairs: Slots | None = None
    """(u,) lower place of the pair of items that each list tries; see `streams.recommend.exploration`."""
    named: NamedEvents | None = None
    """The events that may be reactions to lists; None when none is."""
    searched: int = 0
    """How many users the index held when neighbours were searched for."""


@dataclass(frozen=True, slots=True)
class Model:
    """The parts that belong together: vectors of the one are comparable with those of the others only."""

    profiles: ProfileEncoder
    items: ItemEncoder
    index: VectorIndex


class Lists(NamedTuple):
    """Neighbours and lists that nobody gets; see `Refresh`."""

    neighbour_slots: Slots
    similarities: Floats
    ranking: Ranking | None


class Currents(NamedTuple):
    """What an engine remembers beside the profiles, at one moment."""

    epoch: int
    stream_time_ms: int
    views: Mapping[str, NDArray[np.generic]]
    """`Views.columns`, the weights of the sources and, where rules count lists, what they counted."""


class Engine:
    """Owns the state in memory and the order in which it may change.

    `prepare` computes on copies; `apply` stores a committed refresh; `load` stores what the changelog says.
    Called from one thread.
    """

    def __init__(
        self,
        store: ProfileStore,
        catalogue: Catalogue,
        updater: ProfileUpdater,
        encoder: ProfileEncoder,
        index: VectorIndex,
        views: Views,
        ranker: Ranker | None,
        neighbour_candidates: int,
        lessons_max: int | None = LESSONS_MAX,
        feedback: ListFeedback | None = None,
    ) -> None:
        self.store = store
        self.catalogue = catalogue
        self.encoder = encoder
        self.index = index
        self.epoch = 0
        self.forgotten = 0
        """Users forgotten since the start."""
        self.fallback: str | None = None
        """Why this encoder serves in place of the one that the settings name; None when it is that one."""
        self.reverse: ReverseRefreshes | None = None
        """Whom a move of somebody else concerns; None where nobody asks."""
        self.frozen = False
        """Whether lessons are only judged, and the weights of the sources stay."""
        self.lessons = 0
        """Lessons that made the weights of now, with those that other workers had learned when it began with theirs."""
        self.weights_reset_ms = 0
        """When the reset was asked for after which these weights began, epoch ms; 0 without one."""
        self.feedback = feedback
        """What people make of published lists; None where nothing is made of it."""
        self.quality = LiveQuality()
        """How well lists foretold what came, of late."""
        self._updater = updater
        self._views = views
        self._ranker = ranker
        self._lessons_max = lessons_max
        self._neighbour_candidates = neighbour_candidates
        self._stream_time_ms = 0

    def prepare(
        self,
        events: Sequence[Event],
        offsets: NDArray[np.int64],
        partition: int,
        lap: Lap = _no_lap,
        *,
        lists: bool = True,
        lessons: bool = True,
        choose: Choose | None = None,
    ) -> Refresh:
        """New profiles and lists of the users that these events touch; changes nothing that is stored.

        Without `lists` the events only teach, as when a log is replayed; without `lessons` they teach nothing.
        `choose` gets the update and names whose lists are made: see `streams.recommend.asked`.

        `lap` is called with the stage's name as each one ends, so that a shell with a clock can time them.
        """
        update = self._updater.prepare(events, offsets, partition)
        lap("encode")
        listed = update if choose is None else choose(update)
        if not lists:
            listed = rows_of(update, np.empty(0, np.int32))
        if self._ranker is None:
            slots, similarities = self._neighbours(listed.slots, listed.vectors)
            lap("search")
            return Refresh(update, slots, similarities, None, None, self.encoder, listed, searched=len(self.index))
        teaching = self._teaching(update) if lessons else np.zeros(0, np.intp)
        before = self._before(update, teaching)
        asked = before.joined(self._after(listed)) if lists else before
        slots, similarities = self._neighbours(asked.slots, asked.vectors)
        asked = asked._replace(neighbour_slots=slots, neighbour_similarities=similarities)
        lap("search")
        asked = self._ranker.with_interests(asked)
        first = len(teaching)
        ranking = taught = pairs = None
        named = None if self.feedback is None else self.feedback.named(events, update, self.store)
        if len(asked.slots):
            asked = checked(asked, asked.vectors.shape[1])
            pool = self._ranker.pool(asked)
            if lists:
                ranking = self._ranker.choose(
                    pool.rows(slice(first, None)), asked.rows(first, None), self._now_s(update)
                )
                if self.feedback is not None:
                    ranking, pairs = self.feedback.explored(ranking, listed, self._ranker.reranker)
            counts = None if self.feedback is None else self.feedback.lesson_weights(named, teaching)
            taught = self._taught(update, teaching, pool.rows(slice(first)), asked.rows(0, first), counts)
        lap("rank")
        return Refresh(
            update,
            slots[first:],
            similarities[first:],
            ranking,
            taught,
            self.encoder,
            listed,
            pairs,
            named,
            len(self.index),
        )

    def apply(self, refresh: Refresh, late_from: int = 1) -> None:
        """Stores a refresh whose transaction is committed, whichever model it was prepared with.

        The lists of users whom no event of the batch moved are named by numbers from `late_from` on.
        """
        update = refresh.update if refresh.encoder is self.encoder else self._encoded_anew(refresh.update)
        known = update.slots >= 0
        entered_before = np.where(known, self.store.columns.recent_total[update.slots], 0)
        self._updater.apply(update)
        self._move(update.users, update.vectors)
        self._fold(update.users, update.columns, update.columns.recent_total - entered_before)
        self.learn(refresh.taught)
        self._remember(refresh)
        if self.feedback is not None:
            self._feed_back(self.feedback, refresh, late_from)
        if self.reverse is not None and refresh.encoder is self.encoder:
            self._follow(self.reverse, refresh)

    def supposed(
        self, profile: ProfileUpdate, events: Sequence[Event], offsets: NDArray[np.int64], partition: int
    ) -> ProfileUpdate:
        """See `ProfileUpdater.prepare_from`."""
        return self._updater.prepare_from(profile, events, offsets, partition)

    def lists(self, listed: ProfileUpdate) -> Lists:
        """The lists that `prepare` would make for users whose profiles are these; remembers nothing of it."""
        slots, similarities = self._neighbours(listed.slots, listed.vectors)
        if self._ranker is None or not len(slots):
            return Lists(slots, similarities, None)
        ranker = copy(self._ranker)  # what it finds out for later calls goes with the copy
        asked = self._after(listed)._replace(neighbour_slots=slots, neighbour_similarities=similarities)
        asked = checked(ranker.with_interests(asked), asked.vectors.shape[1])
        ranking = ranker.choose(ranker.pool(asked), asked, self._now_s(listed))
        if self.feedback is not None:
            ranking, _ = self.feedback.explored(ranking, listed, ranker.reranker)
        return Lists(slots, similarities, ranking)

    def learn(self, taught: Taught | None) -> None:
        """Judges the lists of before and, unless frozen, moves the sources' weights as far as the lessons say."""
        if taught is None or self._ranker is None:
            return
        ranks = taught.lessons.ranks
        self.quality = self.quality.after(ranks)
        if not self.frozen:
            self._ranker.weights = self._ranker.weights.moved(taught.before, taught.lessons.weights)
            self.lessons += int(np.isfinite(ranks).sum())

    @property
    def weights(self) -> FusionWeights | None:
        """Of the sources, to be read only: the next lesson makes new arrays. None without a ranking."""
        return None if self._ranker is None else self._ranker.weights

    @property
    def reactions(self) -> Doubles | None:
        """The counts of `PositionBias`, to be read only; None where places make no difference."""
        return None if self.feedback is None else self.feedback.bias.counts

    def take_weights(self, weights: FusionWeights, lessons: int, reactions: Doubles | None = None) -> None:
        """Goes on with what others have learned by so many lessons, and of places if they did.

        Raises:
            ValueError: the weights are of another number of sources, or not finite; or the reactions do not fit.
        """
        if self._ranker is None:
            return
        mine = self._ranker.weights
        if [part.shape for part in weights] != [part.shape for part in mine]:
            raise ValueError(f"expected weights of {len(mine.shared)} sources, got shapes {[w.shape for w in weights]}")
        if not all(np.isfinite(part).all() for part in weights):
            raise ValueError("expected finite weights, got NaN or infinity")
        if self.feedback is not None and reactions is not None:
            self.feedback.bias = PositionBias.of(reactions)
        self._ranker.weights, self.lessons = weights.copy(), lessons

    def reset_weights(self, asked_ms: int = 0) -> None:
        """Begins anew with equal weights and nothing known of places.

        Because of a reset that was asked for at `asked_ms`, epoch ms.
        """
        if self._ranker is not None:
            self._ranker.weights = FusionWeights.start(len(self.sources), self.fusion.start)
        if self.feedback is not None:
            self.feedback.bias = PositionBias.start()
        self.lessons, self.weights_reset_ms = 0, max(self.weights_reset_ms, asked_ms)

    def load(self, user_ids: Sequence[str], columns: ProfileColumns, excluded: Sequence[tuple[int, ...]]) -> None:
        """Stores profiles read from the changelog; each user once. Older versions than stored are passed over."""
        slots = self.store.slots(user_ids)
        before = self.store.take(slots)
        newer = np.flatnonzero(columns.version > before.version).astype(np.int32)
        if not len(newer):
            return
        columns = columns.take(newer)
        users = [user_ids[row] for row in newer.tolist()]
        slots = self.store.put(users, columns)
        for slot, row in zip(slots.tolist(), newer.tolist(), strict=True):
            self.store.set_excluded(slot, excluded[row])
        vectors = self.encoder.vectors(columns.state)
        self._move(users, vectors)
        self._fold(users, columns, columns.recent_total - before.recent_total[newer])
        if self.reverse is not None and (room := self.reverse.room):
            # Who moved elsewhere was searched for there. Here it is done for as many as the budget can answer.
            found = self._neighbours(slots[:room], vectors[:room])
            self.reverse.moved(slots[:room], *found, self.store.columns.partition)

    def forget(self, user_ids: Sequence[str]) -> None:
        """Takes users out of memory, the index and every later neighbour list."""
        slots = self.store.forget(user_ids)
        if slots:
            self.index.forget(slots)
            self.forgotten += len(slots)
            self.epoch += 1
            if self._ranker is not None:
                self._ranker.reranker.forget(np.array(slots, np.int32))
            if self.feedback is not None:
                self.feedback.forget(np.array(slots, np.int32))
            if self.reverse is not None:
                self.reverse.gone(slots, self.store.columns.partition)

    @property
    def views(self) -> Views:
        """What is learned from everybody; to be read only."""
        return self._views

    @property
    def reranker(self) -> Reranker | None:
        """Orders the lists and counts them as rules ask for; to be read only. None without a ranking."""
        return None if self._ranker is None else self._ranker.reranker

    @property
    def trend_half_lives_s(self) -> tuple[float, ...]:
        """Of the trends, ascending."""
        return tuple(trend.half_life_s for trend in self._views.trends)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in the order of the shares; empty without a ranking."""
        return () if self._ranker is None else self._ranker.sources

    @property
    def fusion(self) -> FusionConfig:
        """How the sources' weights are learned."""
        return FusionConfig() if self._ranker is None else self._ranker.fusion

    def currents(self) -> Currents:
        """A copy of what is remembered beside the profiles, to be saved with them; see also `Reranker.saved_users`."""
        views = self._views.columns(len(self.catalogue))
        if self._ranker is not None:
            views |= {f"fusion/{name}": part.copy() for name, part in self._ranker.weights._asdict().items()}
            views["fusion/learned"] = np.array([self.lessons, self.weights_reset_ms], np.int64)
            views |= {f"{RULED}{name}": part for name, part in self._ranker.reranker.saved().items()}
        if self.feedback is not None:
            views["fusion/reactions"] = self.feedback.bias.counts.copy()
        return Currents(self.epoch, self._stream_time_ms, views)

    def restore(self, currents: Currents) -> None:
        """Takes over what was saved; catalogue and store were restored before, and no event was seen."""
        self.epoch, self._stream_time_ms = currents.epoch, currents.stream_time_ms
        self._views.restore(currents.views)
        categories = self.catalogue.facts.categories
        categorised = np.flatnonzero(categories[:, 0] >= 0).astype(np.int32)
        self._views.categorise(categorised, categories)
        self._views.introduce(categorised, categories, self.catalogue.available)
        if self._ranker is not None and "fusion/shared" in currents.views:
            parts = (np.asarray(currents.views[f"fusion/{name}"], np.float64) for name in FusionWeights._fields)
            self._ranker.weights = FusionWeights(*parts)
            self.lessons, self.weights_reset_ms = np.asarray(currents.views["fusion/learned"]).tolist()
        if self._ranker is not None:
            ruled = {name.removeprefix(RULED): part for name, part in currents.views.items() if name.startswith(RULED)}
            self._ranker.reranker.restore(ruled)
        if self.feedback is not None and "fusion/reactions" in currents.views:
            self.feedback.bias = PositionBias.of(currents.views["fusion/reactions"])

    def align_index(self) -> None:
        """Makes the index hold the store's users and nobody else, each where its state says.

        Vectors that the index has already are the same to the last bit or nearly, so that no graph is built anew.
        """
        self.forgotten += align(self.index, self.store, self.encoder)

    def describe(self, items: Sequence[Item]) -> None:
        """Takes over what the items topic says."""
        known = {item.item_id for item in items} & self.catalogue.slot_of.keys()
        slots = self.catalogue.slots(sorted(known))
        former = self.catalogue.facts.categories[slots]
        self.catalogue.put(items)
        self._views.categorise(slots, self.catalogue.facts.categories, former)
        self._introduce([item.item_id for item in items])

    def withdraw(self, item_ids: Sequence[str]) -> None:
        """Items that are gone are recommended no more; see `Catalogue.withdraw`."""
        self.catalogue.withdraw(item_ids)
        self._introduce(item_ids)

    def _introduce(self, item_ids: Sequence[str]) -> None:
        """Tells the views what is known by now of these items of the catalogue."""
        catalogue = self.catalogue
        self._views.introduce(catalogue.slots(item_ids), catalogue.facts.categories, catalogue.available)

    def describe_users(self, users: Sequence[User], gone: Sequence[str] = ()) -> None:
        """Takes over what the users topic says; states move when their users begin, or are encoded anew."""
        facts = self.store.facts
        self._views.groups.forget(np.concatenate([facts.put(users), facts.forget(gone)]))

    def start_vectors(self, user_ids: Sequence[str]) -> Floats:
        """(u, d) vectors of users of whom only their attributes are known; zeros where the model says nothing."""
        return self.encoder.vectors(start_states(self.encoder, self.store.facts.tokens(user_ids)))

    def take_rules(self, rules: Rules) -> list[str]:
        """Puts business rules into service; see `Reranker.take`. Without a ranking there is nothing to rule."""
        return [] if self._ranker is None else self._ranker.reranker.take(rules)

    def warm_up_rules(self) -> None:
        """Compiles what rules need; in any thread."""
        if self._ranker is not None:
            self._ranker.reranker.warm_up()

    def reencode(self, users: Sequence[str], columns: ProfileColumns) -> None:
        """Rebuilds the states of profiles that another model wrote."""
        self._updater.reencode(users, columns)

    @property
    def type_weights(self) -> Floats:
        """(codes,) how far an event of each type code moves a profile."""
        return self._updater.type_weights

    def serve(self, model: Model, states: Floats, item_vectors: Floats) -> tuple[object, ...]:
        """Puts another model into service: all of it or, with an error, nothing. The index of before is not closed.

        Returns what served before: to let go of word tables and matrices takes milliseconds that a caller may have
        elsewhere.

        Args:
            model: its index holds the vectors of `states`.
            states: (rows of the store's columns, S) of every user.
            item_vectors: (capacity of the catalogue, d) of every item.

        Raises:
            ValueError: the states or vectors have another shape; the old model serves.
        """
        self.store.check_states(states, model.profiles.state_width)
        items = self.catalogue.replace_vectors(model.items, item_vectors)
        former = (self.encoder, self.index, items, self.store.replace_states(states))
        self._updater.serve(model.profiles)
        if self.reverse is not None:
            self.reverse.clear()
        self.encoder, self.index, self.fallback = model.profiles, model.index, None
        self.epoch += 1
        return former

    def warm_up(self) -> None:
        """Compiles what is compiled at first use, so that the first event does not wait for it: seconds, once."""
        self._updater.prepare([], np.empty(0, np.int64), 0)
        self._views.warm_up()
        if self._ranker is not None:
            self._ranker.warm_up()
        if self.feedback is not None:
            self.feedback.warm_up()

    def _encoded_anew(self, update: ProfileUpdate) -> ProfileUpdate:
        """The model was replaced between a batch's computation and its commit."""
        self._updater.reencode(update.users, update.columns)
        return replace(update, vectors=self.encoder.vectors(update.columns.state))

    def _neighbours(self, own: Slots, vectors: Floats) -> tuple[Slots, Floats]:
        return nearest_users(self.index, own, vectors, self._neighbour_candidates)

    def _remember(self, refresh: Refresh) -> None:
        """Tells the rules what was published and how people reacted."""
        if self._ranker is None or not self._ranker.reranker.changes_lists:
            return
        reranker, events = self._ranker.reranker, refresh.update.events
        now_s = self._stream_time_ms / 1000.0
        if refresh.ranking is not None:
            reranker.published(self.store.slots(refresh.listed.users), refresh.ranking.items, now_s)
        accepted = refresh.update.verdicts == ACCEPTED
        users = self.store.slots(events.users)[events.rows[accepted]]
        reranker.reacted(users, events.items[accepted], events.types[accepted], events.times_ms[accepted] / 1000.0)

    def _feed_back(self, feedback: ListFeedback, refresh: Refresh, late_from: int) -> None:
        """Tells which reactions came to the lists of before, then which lists there are now."""
        feedback.reacted(refresh.named, counted=not self.frozen)
        if refresh.ranking is not None and refresh.pairs is not None:
            slots, listed = self.store.slots(refresh.listed.users), refresh.listed
            feedback.published(slots, listed, refresh.ranking.items, refresh.pairs, late_from)

    def _now_s(self, update: ProfileUpdate) -> float:
        """Largest event time seen, epoch seconds."""
        return max(self._stream_time_ms, int(update.events.times_ms.max(initial=0))) / 1000.0

    def _teaching(self, update: ProfileUpdate) -> NDArray[np.intp]:
        """Positions of the events that teach: each user's first that says yes, evenly spread when they are too many."""
        events = update.events
        wanted = np.flatnonzero((update.verdicts == ACCEPTED) & (events.weights > 0))
        _, firsts = np.unique(events.rows[wanted], return_index=True)
        teaching = wanted[np.sort(firsts)]
        if self._lessons_max is not None and len(teaching) > self._lessons_max:
            teaching = teaching[np.linspace(0, len(teaching) - 1, self._lessons_max).astype(np.intp)]
        return teaching

    def _before(self, update: ProfileUpdate, teaching: NDArray[np.intp]) -> RankRequest:
        """What would have been asked for the users of these events before the batch."""
        users = [update.events.users[row] for row in update.events.rows[teaching].tolist()]
        slots = self.store.slots(users)
        columns = self.store.take(slots)
        self._updater.begin(users, columns)
        excluded = [self.store.excluded.get(slot, ()) for slot in slots.tolist()]
        groups = self._groups(users, columns.recent_total)
        hidden = self._hidden_from(users, excluded)
        return _request(slots, self.encoder.vectors(columns.state), columns, hidden, groups)

    def _after(self, update: ProfileUpdate) -> RankRequest:
        groups = self._groups(update.users, update.columns.recent_total)
        hidden = self._hidden_from(update.users, update.excluded)
        return _request(update.slots, update.vectors, update.columns, hidden, groups)

    def _hidden_from(self, users: Sequence[str], excluded: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
        """What each user bought or disliked and, where people are items, the user: nobody follows themselves."""
        own = [self.catalogue.slot_of.get(PERSON_PREFIX + user) for user in users]
        return [items if slot is None else (*items, slot) for items, slot in zip(excluded, own, strict=True)]

    def _groups(self, users: Sequence[str], history_events: NDArray[np.int64]) -> Slots | None:
        """(u, g) groups of those users who have few events; None when nobody is described."""
        facts = self.store.facts
        if not len(facts):
            return None
        codes = facts.group_codes(users)
        codes[history_events >= GROUPED_EVENTS_MAX] = -1
        return codes

    def _taught(
        self,
        update: ProfileUpdate,
        teaching: NDArray[np.intp],
        pool: Pool,
        request: RankRequest,
        counts: Doubles | None,
    ) -> Taught | None:
        if self._ranker is None or not len(teaching):
            return None
        targets = update.events.items[teaching]
        lessons = self._ranker.learn(pool, request, targets, counts)
        return Taught(teaching.astype(np.int32), pool, segments_of(request), targets, self._ranker.weights, lessons)

    def _follow(self, reverse: ReverseRefreshes, refresh: Refresh) -> None:
        """Remembers the lists of a committed refresh, and looks whose list should name whoever was searched for.

        Also those who did not move now: who is owed a list moved when it was shed, without a search.
        """
        slots = self.store.slots(refresh.listed.users)
        known = slots >= 0  # the others were forgotten since
        slots, matches, similarities = slots[known], refresh.neighbour_slots[known], refresh.similarities[known]
        partitions = self.store.columns.partition
        reverse.published(slots, matches, similarities, partitions[slots])
        reverse.moved(slots, matches, similarities, partitions)
        others = refresh.searched - (refresh.listed.slots[known] >= 0)
        reverse.outgrown(slots, others, len(self.index) - 1, partitions)

    def _move(self, users: Sequence[str], vectors: Floats) -> None:
        """Indexes the users by their slots: the store's own int objects, for a million new ones would be 32 MB."""
        if users:
            place(self.index, [self.store.slot_of[user] for user in users], vectors)
            self.epoch += 1

    def _fold(self, users: Sequence[str], columns: ProfileColumns, entered: NDArray[np.int64]) -> None:
        """Tells the views which recent items are new: own commits and the changelog's records alike."""
        fresh = np.minimum(np.maximum(entered, 0), columns.recent_count).astype(np.int32)
        if not fresh.any():
            return
        times_s = columns.recent_times_s.astype(np.float64)
        self._views.fold(
            Entered(
                columns.recent_items,
                self._updater.weights_of(columns.recent_types),
                times_s,
                columns.recent_count,
                fresh,
            ),
            self.catalogue.facts.categories,
            self.store.facts.group_codes(users) if len(self.store.facts) else None,
        )
        self._stream_time_ms = max(self._stream_time_ms, int(columns.last_time_ms.max()))


def _request(
    slots: Slots,
    vectors: Floats,
    columns: ProfileColumns,
    excluded: Sequence[tuple[int, ...]],
    group_codes: Slots | None,
) -> RankRequest:
    """A question without neighbours yet."""
    sizes = [len(items) for items in excluded]
    return RankRequest(
        slots=slots,
        vectors=vectors,
        recent_items=columns.recent_items,
        recent_types=columns.recent_types,
        recent_count=columns.recent_count,
        history_events=columns.recent_total,
        bought_offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        bought_items=np.array([i for items in excluded for i in items], np.int32),
        neighbour_slots=np.zeros((len(slots), 0), np.int32),
        neighbour_similarities=np.zeros((len(slots), 0), np.float32),
        group_codes=group_codes,
    )
