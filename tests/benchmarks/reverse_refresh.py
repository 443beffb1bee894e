"""What refreshing lists because a neighbour moved is worth, and what it costs, over a real log without a broker.

`OMP_NUM_THREADS=1 python tests/benchmarks/reverse_refresh.py` prints one JSON line a budget. The log is played at
`--rate` events a second, in batches; at several times of its second half every list that was published is compared
with what the index says at that moment.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from streams.config import load_settings  # noqa: E402
from streams.kafka.commit_note import CommitNote  # noqa: E402
from streams.kafka.late_lists import LateLists, Plan  # noqa: E402
from streams.recommend.reverse import ReverseRefreshes  # noqa: E402
from streams.sources.registry import open_source  # noqa: E402
from streams.wiring import build_engine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.events import Event, Item
    from streams.core.updater import ProfileUpdate
    from streams.recommend.engine import Engine

DESKDROP = ROOT.parent / "shared" / "data" / "deskdrop" / "users_interactions.csv.xz"
UNLIMITED_PER_S = 1e6
NO_LIMIT = 1_000_000
CHECKS = 8


class Timed(ReverseRefreshes):
    """Counts the seconds of finding whom a move concerns."""

    def __init__(self, neighbours: int, per_s: float) -> None:
        super().__init__(neighbours, per_s)
        self.seconds = 0.0

    def published(self, *arguments: object) -> None:
        started = perf_counter()
        super().published(*arguments)  # type: ignore[arg-type]
        self.seconds += perf_counter() - started

    def moved(self, *arguments: object) -> None:
        started = perf_counter()
        super().moved(*arguments)  # type: ignore[arg-type]
        self.seconds += perf_counter() - started


class Staleness(NamedTuple):
    """Of the published lists, at one moment."""

    differing: float
    """Share of lists whose set of neighbours is not the index's."""
    overlap: float
    """Mean share of the neighbours that both have."""
    overlap_active: float
    """The same over the tenth of the users whose last event is the newest."""


def staleness(engine: Engine, published: NDArray[np.int32]) -> Staleness:
    """Compares with an exact search for everybody who has a list."""
    listed = np.flatnonzero(published[:, 0] >= 0)
    k = published.shape[1]
    vectors = engine.encoder.vectors(engine.store.columns.state[listed])
    matches = engine.index.search(vectors, k + 1)
    overlaps = np.empty(len(listed))
    for row, slot in enumerate(listed.tolist()):
        now = [found for found in matches.ids[row].tolist() if found is not None and found != slot][:k]
        overlaps[row] = len(set(now) & set(published[slot].tolist())) / max(1, len(now))
    newest = np.argsort(-engine.store.columns.last_time_ms[listed], kind="stable")[: max(1, len(listed) // 10)]
    return Staleness(float((overlaps < 1).mean()), float(overlaps.mean()), float(overlaps[newest].mean()))


def replay(
    items: Sequence[Item], events: Sequence[Event], per_s: float, rate: float, batch_events: int
) -> dict[str, float]:
    """One run; a budget of 0 looks for nobody."""
    settings = load_settings()
    engine = build_engine(settings)
    engine.describe(items)
    late, k = LateLists(engine), settings.neighbours
    reverse = engine.reverse = Timed(k, per_s) if per_s else None
    late.take_up(0, CommitNote(), 0)
    published = np.full((0, k), -1, np.int32)
    found: list[Staleness] = []
    done = refreshed = 0
    checks = set(np.linspace(len(events) // 2, len(events), CHECKS).astype(int) // batch_events)
    cpu_s = 0.0
    for number in range(-(-len(events) // batch_events)):
        batch = events[number * batch_events : (number + 1) * batch_events]
        now_ms = int(1000 * done / rate)
        started = process_time()

        def choose(update: ProfileUpdate, now_ms: int = now_ms) -> ProfileUpdate:
            return late.choose(update, 0, now_ms, Plan(late_lists_max=NO_LIMIT)).listed

        refresh = engine.prepare(batch, np.arange(done, done + len(batch), dtype=np.int64), 0, choose=choose)
        engine.apply(refresh)
        cpu_s += process_time() - started
        done += len(batch)
        refreshed += len(refresh.listed.users) - len(refresh.update.users)
        slots = engine.store.slots(refresh.listed.users)
        if len(engine.store) > len(published):
            more = np.full((len(engine.store) - len(published), k), -1, np.int32)
            published = np.concatenate([published, more])
        published[slots] = refresh.neighbour_slots[:, :k]
        if number in checks:
            found.append(staleness(engine, published))
    means = Staleness(*np.mean(found, axis=0).tolist())
    return {
        "budget_per_s": per_s,
        "lists_differing": round(means.differing, 4),
        "overlap_at_10": round(means.overlap, 4),
        "overlap_at_10_active": round(means.overlap_active, 4),
        "refreshes": refreshed,
        "refreshes_per_event": round(refreshed / done, 4),
        "dropped": 0 if reverse is None else reverse.dropped,
        "coalesced": 0 if reverse is None else reverse.coalesced,
        "cpu_s": round(cpu_s, 2),
        "finding_us_per_event": 0.0 if reverse is None else round(1e6 * reverse.seconds / done, 2),
        "users": len(engine.store),
        "events": done,
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=None, help="play only so many")
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second")
    parser.add_argument("--batch-events", type=int, default=128)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0, 10, 50, 100, 200, 500, UNLIMITED_PER_S])
    arguments = parser.parse_args()
    if not DESKDROP.exists():
        parser.error(f"expected the log at {DESKDROP}; the data folder beside the repository is missing")
    source = open_source("deskdrop", str(DESKDROP))
    items, events = list(source.items()), list(source.events())[: arguments.events]
    replay(items, events[: 4 * arguments.batch_events], 10.0, arguments.rate, arguments.batch_events)  # compiles
    for per_s in arguments.budgets:
        row = replay(items, events, per_s, arguments.rate, arguments.batch_events)
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
