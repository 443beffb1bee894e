"""What was predicted beside what came: places, lists and promised chances, for every event that is judged.

Sizes: j judged events, S sources, a arms, p points of a trace.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from streams.core.errors import UsageError
from streams.recommend.fusion import FusionConfig, FusionWeights, Segments, fuse, learn, source_ranks
from streams.recommend.request import Source
from streams.replay_lists import ListArms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.events import Event
    from streams.recommend.engine import Engine, Taught
    from streams.replay_lists import Listed, ListPlan

Targets = Literal["new", "repeat", "all"]
Protocol = Literal["prequential", "loo"]
PRODUCT = "nearstream"
LIST_LENGTH = 10
MS_PER_S = 1000
TRACE_POINTS_MAX = 120


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What is replayed and what of it is judged; everything before is learned from."""

    protocol: Protocol = "prequential"
    """Every event in order, or only the last of each user (`loo`), after all others."""
    targets: Targets = "new"
    """Judged are items that the user never had before, only those that the user had, or both."""
    types: frozenset[str] = frozenset()
    """Judge events of these types only; empty: all."""
    from_s: float = -np.inf
    """Judge from this event time on."""
    until_s: float = np.inf
    """Stop before this event time."""
    skip_events: int = 0
    """Judge none of the first."""
    limit: int | None = None
    """Read no more events."""
    delay_s: float = 0.0
    """A lesson is learned this much later than its event."""
    ablate: bool = False
    """Also all sources but one, for each."""
    repeat_after_s: float = 0.0
    """What a user had less than this ago is no repeat but the same visit: not judged."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Some of the sources, and how their weights are learned."""

    name: str
    sources: NDArray[np.bool_]
    """(S,) who is heard."""
    config: FusionConfig


class Judged(NamedTuple):
    """One row an event that was predicted."""

    events: NDArray[np.int64]
    """Number of the event in the log, from 0."""
    times_s: NDArray[np.int64]
    users: NDArray[np.int64]
    """Numbers in the order in which users first came."""
    types: NDArray[np.uint8]
    history: NDArray[np.int64]
    """Events of the user before this one."""
    item_events: NDArray[np.int64]
    """Events of the item before this one."""
    repeats: NDArray[np.bool_]
    """The user had had the item."""
    ranks: NDArray[np.float64]
    """(j, 1 + a + S + b) place of the item, 0 the first: of the product, the arms, each source alone, and baselines.

    inf when it was no candidate, NaN where a baseline was not asked.
    """
    top_chances: NDArray[np.float32]
    """What was said to be the chance of the first item of the product's list."""
    lists: NDArray[np.int32]
    """(j, LIST_LENGTH) catalogue slots of the product's list, -1 where it ended."""


class WeightTrace(NamedTuple):
    """What each source counted for, at moments spread over the judged events."""

    judged: NDArray[np.int64]
    """(p,) how many events were judged before."""
    weights: NDArray[np.float64]
    """(p, S) sum of the two shared weights of each source."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came out."""

    judged: Judged
    arms: tuple[str, ...]
    """Names of the columns of `Judged.ranks`."""
    sources: tuple[str, ...]
    trace: WeightTrace
    listed: tuple[Listed, ...] = ()
    """What settings and rules made of the candidates, one for each plan of lists that was given."""


@dataclass(slots=True)
class _Trace:
    """Keeps every so many-th weights; when there are too many, every second of them."""

    every: int = 1
    seen: int = 0
    judged: list[int] = field(default_factory=list)
    weights: list[NDArray[np.float64]] = field(default_factory=list)

    def note(self, judged: int, weights: FusionWeights) -> None:
        """The weights of this moment."""
        if self.seen % self.every == 0:
            self.judged.append(judged)
            self.weights.append(weights.shared.sum(axis=1))
        self.seen += 1
        if len(self.judged) > TRACE_POINTS_MAX:
            self.every *= 2
            del self.judged[1::2], self.weights[1::2]

    def trace(self) -> WeightTrace:
        """As arrays; at least one moment was noted."""
        return WeightTrace(np.array(self.judged, np.int64), np.stack(self.weights))


class Judge:
    """Keeps what is needed to tell new from known, and the places of what came.

    Raises:
        UsageError: the rules of a plan of lists pin what they exclude.
    """

    def __init__(self, engine: Engine, plan: ReplayPlan, lists: Sequence[ListPlan] = ()) -> None:
        self._engine = engine
        self._plan = plan
        self._arms = _arms(engine.sources, engine.fusion, ablate=plan.ablate)
        self._weights = [FusionWeights.start(len(engine.sources), arm.config.start) for arm in self._arms]
        self._had: dict[tuple[str, str], int] = {}
        """Event time of a user's last event with an item."""
        self._numbers: dict[str, int] = {}
        self._history: dict[str, int] = {}
        self._item_events: dict[str, int] = {}
        self._rows: list[tuple[int, int, int, int, int, int, bool]] = []
        self._ranks: list[NDArray[np.float64]] = []
        self._top_chances: list[NDArray[np.float32]] = []
        self._lists: list[NDArray[np.int32]] = []
        self._list_arms = ListArms(engine, lists)
        self._trace = _Trace()
        self._seen = 0
        self._first = 0
        self.judging = True
        """Off: the arms learn, and nothing is judged."""

    def see(self, batch: list[Event], taught: Taught | None) -> None:
        """Judges what the batch taught, then remembers its events."""
        self.judge(batch, taught, self._seen)
        self.remember(batch)

    def judge(self, batch: list[Event], taught: Taught | None, first: int) -> None:
        """Judges what the batch, whose first event has this number, taught; the arms learn from it."""
        self._first = first
        for event in batch:
            self._numbers.setdefault(event.user_id, len(self._numbers))
        if taught is not None:
            kept = [row for row, place in enumerate(taught.events.tolist()) if self._counts(batch[place], place)]
            self._judge(batch, taught, np.array(kept, np.intp))

    def remember(self, batch: list[Event]) -> None:
        """Takes the events for known."""
        for event in batch:
            self._had[event.user_id, event.item_id] = event.timestamp
            self._history[event.user_id] = self._history.get(event.user_id, 0) + 1
            self._item_events[event.item_id] = self._item_events.get(event.item_id, 0) + 1
        self._seen += len(batch)

    def result(self, events: int) -> Replayed:
        """All that was judged.

        Raises:
            UsageError: that was nothing.
        """
        if not self._rows:
            raise UsageError(
                f"None of the {events:,} events could be judged. Expected events that say yes (a view, a purchase, a "
                "rating above the middle) in the judged span, of the types and targets asked for; look at --targets, "
                "--only, --from and --until."
            )
        numbers, times_s, users, types, history, item_events, repeats = map(list, zip(*self._rows, strict=True))
        judged = Judged(
            events=np.array(numbers, np.int64),
            times_s=np.array(times_s, np.int64),
            users=np.array(users, np.int64),
            types=np.array(types, np.uint8),
            history=np.array(history, np.int64),
            item_events=np.array(item_events, np.int64),
            repeats=np.array(repeats, np.bool_),
            ranks=np.concatenate(self._ranks),
            top_chances=np.concatenate(self._top_chances),
            lists=np.concatenate(self._lists),
        )
        sources = self._engine.sources
        names = (PRODUCT, *(arm.name for arm in self._arms), *sources)
        return Replayed(judged, names, sources, self._trace.trace(), self._list_arms.listed())

    def _counts(self, event: Event, place: int) -> bool:
        plan = self._plan
        if self._seen + place < plan.skip_events or event.timestamp < plan.from_s * MS_PER_S:
            return False
        if plan.types and event.type.value not in plan.types:
            return False
        before = self._had.get((event.user_id, event.item_id))
        if before is not None and event.timestamp - before < plan.repeat_after_s * MS_PER_S:
            return False
        return plan.targets == "all" or (plan.targets == "repeat") == (before is not None)

    def _judge(self, batch: list[Event], taught: Taught, rows: NDArray[np.intp]) -> None:
        plan, pool, targets, segments = self._plan, taught.pool, taught.targets, taught.segments
        columns = [taught.lessons.ranks]
        if plan.delay_s > 0:  # what the lessons of this very batch taught is not known yet
            frozen = replace(self._engine.fusion, learning_rate=0.0, log_learning_rate=0.0)
            columns = [learn(pool.items, pool.worth, targets, taught.before, segments, frozen).ranks]
        for index, arm in enumerate(self._arms):
            heard = pool.worth if arm.sources.all() else pool.worth * arm.sources
            lessons = learn(pool.items, heard, targets, self._weights[index], segments, arm.config)
            self._weights[index] = lessons.weights
            columns.append(lessons.ranks)
        if self.judging:
            self._list_arms.judge(batch, taught, rows)
        if not len(rows) or not self.judging:
            return
        self._trace.note(len(self._rows), taught.before)
        alone = source_ranks(pool.items[rows], pool.worth[rows], targets[rows])
        self._ranks.append(np.column_stack([np.stack(columns, axis=1)[rows], alone]))
        chosen = Segments(segments.history[rows], segments.last_type[rows])
        fused = fuse(pool.items[rows], pool.worth[rows], taught.before, chosen, LIST_LENGTH)
        lists = np.take_along_axis(pool.items[rows], np.maximum(fused.places, 0), axis=1)
        self._lists.append(np.where(fused.places >= 0, lists, -1).astype(np.int32))
        self._top_chances.append(taught.lessons.top_chances[rows])
        for row in rows.tolist():
            place = int(taught.events[row])
            event = batch[place]
            self._rows.append(
                (
                    self._first + place,
                    event.timestamp // MS_PER_S,
                    self._numbers[event.user_id],
                    event.type.code,
                    self._history.get(event.user_id, 0),
                    self._item_events.get(event.item_id, 0),
                    (event.user_id, event.item_id) in self._had,
                )
            )


def _arms(sources: tuple[str, ...], config: FusionConfig, *, ablate: bool) -> list[Arm]:
    everyone = np.ones(len(sources), np.bool_)
    frozen = replace(config, learning_rate=0.0, log_learning_rate=0.0)
    arms = [Arm("equal mix", everyone, frozen)]
    if ablate:
        for index, name in enumerate(sources):
            if index != Source.REPEAT:
                arms.append(Arm(f"without {name}", np.arange(len(sources)) != index, config))
    return arms
