"""The replay: what is judged, in which order, and that what it judges is what the engine learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from streams.config import load_settings
from streams.core.errors import UsageError
from streams.core.events import Event, EventType, Item
from streams.replay import BATCH_EVENTS_MAX, batches, replay, replay_last
from streams.replay_judge import ReplayPlan
from streams.replay_report import calibration_error, curves, report
from streams.sources.port import Description, Skips
from streams.wiring import build_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.core.events import User
    from streams.recommend.engine import Engine
    from streams.replay_judge import Replayed

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000


@dataclass
class ListSource:
    """A log in memory."""

    log: list[Event]
    catalogue: list[Item] = field(default_factory=list)
    name: str = "list"
    skips: Skips = field(default_factory=Skips)

    def describe(self) -> Description:
        """Nothing is known ahead."""
        return Description()

    def items(self) -> Iterator[Item]:
        """The catalogue."""
        return iter(self.catalogue)

    def users(self) -> Iterator[User]:
        """Nobody is described."""
        return iter(())

    def events(self) -> Iterator[Event]:
        """The log."""
        return iter(self.log)


def _event(user: str, item: str, hours: float, kind: EventType = EventType.VIEW) -> Event:
    return Event(user_id=user, item_id=item, type=kind, timestamp=START_MS + int(hours * HOUR_MS))


def _paths(users: int, steps: int, seed: int = 0) -> ListSource:
    """Users who walk along one of four paths of items: what follows can be learned, popularity says nothing."""
    rng = np.random.default_rng(seed)
    places = {f"u{n}": (int(rng.integers(4)), int(rng.integers(12))) for n in range(users)}
    log = []
    for step in range(steps):
        for user, (path, place) in places.items():
            log.append(_event(user, f"p{path}-{(place + step) % 12}", step + len(log) / 1000))
    return ListSource(log)


def _engine(**flags: object) -> Engine:
    return build_engine(load_settings(recent_items=16, **flags), lessons_max=None)


def _ndcg(replayed: Replayed, name: str) -> float:
    ranks = replayed.judged.ranks[:, replayed.arms.index(name)]
    return float(np.where(ranks < 10, 1 / np.log2(np.minimum(ranks, 99) + 2), 0).mean())


def test_a_batch_holds_each_user_once_and_no_event_is_lost() -> None:
    """Batches keep the order, end where a user comes back, and are bounded."""
    log = [_event(f"u{n % 7}" if n % 5 else "again", f"i{n}", n) for n in range(500)]
    log += [_event(f"v{n}", "i", 600) for n in range(200)]
    made = list(batches(log, ReplayPlan()))
    assert [event for batch in made for event in batch] == log
    assert all(len({event.user_id for event in batch}) == len(batch) <= BATCH_EVENTS_MAX for batch in made)
    assert max(map(len, made)) == BATCH_EVENTS_MAX


def test_what_follows_what_is_learned_and_outweighs_the_equal_mix() -> None:
    """On planted paths the mix finds the next item and beats both equal weights and popularity."""
    replayed = replay(_engine(), _paths(users=24, steps=11), ReplayPlan())
    late = replayed.judged.ranks[len(replayed.judged.ranks) // 2 :, 0]
    assert (late < 1).mean() > 0.9, "the next item of the path stands first"
    assert _ndcg(replayed, "nearstream") > _ndcg(replayed, "equal mix") > _ndcg(replayed, "trend-2160h")


def test_only_items_that_are_new_to_the_user_are_judged() -> None:
    """Targets `new`, `repeat` and `all` part the events, whichever the engine still remembers."""
    log = [_event("u", f"i{n % 3}", n) for n in range(9)] + [_event("v", f"i{n}", 10 + n) for n in range(4)]
    counts = {}
    for targets in ("new", "repeat", "all"):
        judged = replay(_engine(repeats=targets != "new"), ListSource(log), ReplayPlan(targets=targets)).judged  # type: ignore[arg-type]
        counts[targets] = len(judged.ranks)
        assert judged.repeats.all() if targets == "repeat" else not (targets == "new" and judged.repeats.any())
    assert counts == {"new": 7, "repeat": 6, "all": 13}


def test_a_span_and_types_say_what_is_judged_and_the_rest_is_learned_from() -> None:
    """--from, --until, --skip, --only and --limit bound what is judged; events before still teach."""
    source = _paths(users=12, steps=8)
    cut_s = START_MS / 1000 + 4 * 3600
    whole = replay(_engine(), source, ReplayPlan()).judged
    late = replay(_engine(), source, ReplayPlan(from_s=cut_s)).judged
    assert np.array_equal(late.ranks, whole.ranks[whole.times_s >= cut_s])
    early = replay(_engine(), source, ReplayPlan(until_s=cut_s)).judged
    assert np.array_equal(early.ranks, whole.ranks[whole.times_s < cut_s])
    skipped = replay(_engine(), source, ReplayPlan(skip_events=30, limit=50)).judged
    assert np.array_equal(skipped.ranks, whole.ranks[30:50])
    with pytest.raises(UsageError, match="could be judged"):
        replay(_engine(), source, ReplayPlan(types=frozenset({"purchase"})))


def test_late_lessons_move_the_weights_later() -> None:
    """With a delay longer than the log the weights stay as they began; the profiles do not wait."""
    source = _paths(users=12, steps=8)
    engine, delayed = _engine(), _engine()
    replay(engine, source, ReplayPlan())
    replayed = replay(delayed, source, ReplayPlan(delay_s=1e9))
    start = np.full(len(engine.sources), 8 / len(engine.sources))
    assert np.allclose(delayed.currents().views["fusion/shared"][:, 0], start)
    assert not np.allclose(engine.currents().views["fusion/shared"][:, 0], start)
    assert np.array_equal(replayed.judged.ranks[:, 0], replayed.judged.ranks[:, 1]), "as the equal mix"
    assert len(delayed.store) == 12


def test_the_last_event_of_each_user_is_judged_after_all_others() -> None:
    """Leave-one-out: one query a user with three events, weights from the last but one, test events teach nothing."""
    log = [_event(f"u{n}", f"i{(n + step) % 9}", step) for step in range(5) for n in range(9)]
    log += [_event("short", "i1", 6), _event("short", "i2", 7)]
    engine = _engine()
    judged = replay_last(engine, ListSource(log), ReplayPlan(protocol="loo")).judged
    assert len(judged.ranks) == 9
    assert (judged.history == 4).all()
    slots = engine.store.slots([f"u{n}" for n in range(9)])
    assert (engine.store.columns.events[slots] == 4).all(), "the engine never took in what was to be found"


def test_leave_one_out_needs_somebody_with_three_events() -> None:
    """A log of short histories is refused with what was expected."""
    with pytest.raises(UsageError, match="three events"):
        replay_last(_engine(), ListSource([_event("u", "i", 0), _event("u", "j", 1)]), ReplayPlan(protocol="loo"))


def test_the_report_has_one_row_an_arm_and_its_figures_add_up() -> None:
    """Means are those of the places, parts part the whole, the curve averages to the mean."""
    replayed = replay(_engine(), _paths(users=20, steps=9), ReplayPlan(ablate=True))
    made = report(replayed, ReplayPlan(), items=48, cpu_s=1.0, memory_mb=1.0)
    assert [row.model for row in made.rows] == list(replayed.arms)
    assert made.rows[0].model == "nearstream"
    for row in made.rows:
        assert row.figures["ndcg@10"] == pytest.approx(_ndcg(replayed, row.model))
        assert sum(part["n"] for part in row.parts["history"].values()) == row.n
    ends, points = curves(replayed)
    assert len(ends) == len(points)
    assert ends[-1] == made.rows[0].n
    assert points[:, 0].mean() == pytest.approx(made.rows[0].figures["ndcg@10"], abs=0.02)
    assert 0 <= calibration_error(replayed.judged) <= 1
    low, high = made.rows[0].intervals["ndcg@10"]
    assert low <= made.rows[0].figures["ndcg@10"] <= high


def test_two_replays_are_equal() -> None:
    """The same log and settings give the same places and weights to the bit."""
    one, other = (replay(_engine(), _paths(users=15, steps=7), ReplayPlan()) for _ in range(2))
    assert np.array_equal(one.judged.ranks, other.judged.ranks)
    assert np.array_equal(one.judged.lists, other.judged.lists)
