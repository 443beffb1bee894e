"""The whole engine without a broker, judged by what comes next: predict before each event, then learn from it.

What is judged are the lessons that the engine takes from every batch in production (`Engine.prepare`); here every
event that says yes is one, and a batch holds each user once, so that no list is judged that lacks an event of its user.
Beside the product's own weights other arms learn from the same candidates: all sources alike, all but one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from streams.core.errors import UsageError
from streams.replay_judge import MS_PER_S, Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from streams.core.events import Event
    from streams.recommend.engine import Engine, Taught
    from streams.replay_judge import Replayed, ReplayPlan
    from streams.replay_lists import ListPlan
    from streams.sources.port import Source

BATCH_EVENTS_MAX = 64
LEARNED_AT_ONCE = 2000
"""Events in a batch that teaches nothing."""
DESCRIBED_AT_ONCE = 2000
PROGRESS_EVENTS = 1000
LATE_LESSONS_MAX = 1_000_000


def _unwatched(_events: int) -> None:
    """Nobody looks."""


def replay(
    engine: Engine,
    source: Source,
    plan: ReplayPlan,
    on_progress: Callable[[int], None] = _unwatched,
    lists: Sequence[ListPlan] = (),
) -> Replayed:
    """Plays a log through an engine without history, in its order.

    `lists` are made and judged beside the engine's own ranking; see `streams.replay_lists`.

    Raises:
        UsageError: the log cannot be read, or holds no event to judge.
    """
    describe(engine, source)
    judge, late = Judge(engine, plan, lists), _Late(plan.delay_s)
    events = 0
    for batch in batches(source.events(), plan):
        refresh = engine.prepare(batch, _offsets(events, batch), 0, lists=False)
        judge.see(batch, refresh.taught)
        engine.apply(refresh if plan.delay_s <= 0 else replace(refresh, taught=late.due(refresh.taught, batch)))
        if (events + len(batch)) // PROGRESS_EVENTS > events // PROGRESS_EVENTS:
            on_progress(events + len(batch))
        events += len(batch)
    on_progress(events)
    return judge.result(events)


def replay_last(
    engine: Engine,
    source: Source,
    plan: ReplayPlan,
    on_progress: Callable[[int], None] = _unwatched,
    lists: Sequence[ListPlan] = (),
) -> Replayed:
    """Judges the last event of each user after everybody's others, with weights learned from the last but one.

    The protocol of published tables (leave-one-out). Users with less than three events are learned from only.

    Raises:
        UsageError: the log cannot be read, or nobody has three events.
    """
    describe(engine, source)
    judge = Judge(engine, plan, lists)
    train, valid, test = _last_two_apart(islice(source.events(), plan.limit))
    if not test:
        raise UsageError("Nobody has three events: expected one to judge, one to learn the weights from and a history.")
    events = _learn(engine, judge, train, 0, on_progress)
    judge.judging = False
    for first in range(0, len(valid), BATCH_EVENTS_MAX):
        batch = valid[first : first + BATCH_EVENTS_MAX]
        taught = engine.prepare(batch, _offsets(events, batch), 0, lists=False).taught
        judge.judge(batch, taught, events + first)
        engine.learn(taught)
        on_progress(events + first)
    judge.judging = True
    events = _learn(engine, judge, valid, events, on_progress)
    for first in range(0, len(test), BATCH_EVENTS_MAX):
        batch = test[first : first + BATCH_EVENTS_MAX]
        judge.judge(batch, engine.prepare(batch, _offsets(events, batch), 0, lists=False).taught, events + first)
        on_progress(events + first)
    return judge.result(events + len(test))


def describe(engine: Engine, source: Source) -> None:
    """Tells the engine what the log knows of its items."""
    described = iter(source.items())
    while items := list(islice(described, DESCRIBED_AT_ONCE)):
        engine.describe(items)


def batches(events: Iterable[Event], plan: ReplayPlan) -> Iterator[list[Event]]:
    """In order; each user once a batch."""
    batch: list[Event] = []
    users: set[str] = set()
    for event in islice(events, plan.limit):
        if event.timestamp >= plan.until_s * MS_PER_S:
            break
        if event.user_id in users or len(batch) == BATCH_EVENTS_MAX:
            yield batch
            batch, users = [], set()
        batch.append(event)
        users.add(event.user_id)
    if batch:
        yield batch


class _Late:
    """Lessons on their way: a reaction is known `delay_s` after its event."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._waiting: deque[tuple[float, Taught]] = deque(maxlen=LATE_LESSONS_MAX)

    def due(self, taught: Taught | None, batch: list[Event]) -> Taught | None:
        """What is known by now, as one lesson; keeps this one."""
        now_s = batch[-1].timestamp / MS_PER_S
        if taught is not None:
            self._waiting.append((now_s + self._delay_s, taught))
        due = []
        while self._waiting and self._waiting[0][0] <= now_s:
            due.append(self._waiting.popleft()[1])
        if not due:
            return None
        weights = due[0].before
        for lesson in due:
            weights = weights.moved(lesson.before, lesson.lessons.weights)
        return replace(due[0], lessons=due[0].lessons._replace(weights=weights))


def _learn(
    engine: Engine, judge: Judge, events: list[Event], first_offset: int, on_progress: Callable[[int], None]
) -> int:
    """Takes in events without a lesson; returns the next offset."""
    for first in range(0, len(events), LEARNED_AT_ONCE):
        batch = events[first : first + LEARNED_AT_ONCE]
        refresh = engine.prepare(batch, _offsets(first_offset + first, batch), 0, lists=False, lessons=False)
        engine.apply(refresh)
        judge.remember(batch)
        on_progress(first_offset + first + len(batch))
    return first_offset + len(events)


def _last_two_apart(events: Iterable[Event]) -> tuple[list[Event], list[Event], list[Event]]:
    """All but the last two of each user with three or more, the last but one, and the last; in order."""
    history: dict[str, list[Event]] = {}
    read = list(events)
    for event in read:
        history.setdefault(event.user_id, []).append(event)
    last, last_but_one = set(), set()
    for own in history.values():
        if len(own) > 2:
            last.add(id(own[-1]))
            last_but_one.add(id(own[-2]))
    train = [event for event in read if id(event) not in last and id(event) not in last_but_one]
    return train, [event for event in read if id(event) in last_but_one], [event for event in read if id(event) in last]


def _offsets(first: int, batch: list[Event]) -> NDArray[np.int64]:
    return np.arange(first, first + len(batch), dtype=np.int64)
