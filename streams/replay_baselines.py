"""What others would have recommended for the same events: learned once, learned anew from time to time, or all along.

Each ranks all items of the log, whatever the engine's candidates were. They may see what the engine saw: the events
before the one that is asked for, as far as they have learned them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from encoder.classical import CooccurrenceRules, DecayedPopularity, ItemKnn, Popularity
from encoder.dataset import EventTableBuilder, Queries, Split
from encoder.errors import UnusableData
from encoder.evaluate import rank_queries
from streams.core.errors import UsageError
from streams.replay_judge import MS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from encoder.dataset import EventTable
    from encoder.evaluate import Recommender
    from encoder.report import Targets
    from streams.replay_judge import Replayed, ReplayPlan
    from streams.sources.port import Source

REFITS = 10
"""How often a baseline is learned anew on all events so far, in equal parts of what is judged."""
FOREVER_S = 1e12
"""A half-life beyond which popularity is a plain count."""
LEARNED: dict[str, Callable[[], Recommender]] = {
    "item-kNN": ItemKnn,
    "co-occurrence": CooccurrenceRules,
}


class _Log:
    """A log as a table that knows where each event came in the log's order."""

    def __init__(self, source: Source, plan: ReplayPlan) -> None:
        builder, users, times_s = EventTableBuilder(), [], []
        numbers: dict[str, int] = {}
        has_times = not source.describe().order_only
        for event in islice(source.events(), plan.limit):
            if event.timestamp >= plan.until_s * MS_PER_S:
                break
            time_s = event.timestamp // MS_PER_S if has_times else 0
            builder.add(event.user_id, event.item_id, event.type.value, time_s)
            users.append(numbers.setdefault(event.user_id, len(numbers)))
            times_s.append(time_s)
        self.table: EventTable = builder.build()
        self.users = np.array(users, np.int32)
        """(e,) in the log's order."""
        self.rows = np.empty(len(users), np.int64)
        """(e,) row in the table of each event of the log."""
        self.rows[np.lexsort((times_s, users))] = np.arange(len(users))
        self.has_times = has_times

    def before(self, event: int) -> Split:
        """Everything before this event of the log may be learned from."""
        learned = np.bincount(self.users[:event], minlength=len(self.table.user_ids))
        nobody = Queries(np.zeros(0, np.int32), np.zeros(0, np.int64))
        return Split("prequential", self.table.offsets[:-1] + learned, nobody, nobody)

    def queries(self, events: NDArray[np.int64]) -> Queries:
        """What is asked for at these events of the log."""
        return Queries(self.users[events], self.rows[events])


def with_baselines(
    replayed: Replayed, source: Source, plan: ReplayPlan, on_progress: Callable[[int], None] = lambda _events: None
) -> Replayed:
    """The replay with columns for baselines on the same events; reads the log once more and holds it as a table.

    - *frozen* ones learn the events before the judged span, or the first half of the log where all of it is judged,
      and are asked behind that only, NaN before; without anything judged behind it they are missing.
    - *refitted* ones learn everything so far, ten times.
    - `popularity` counts all events so far, `decayed popularity` halves them every day, second by second.

    Raises:
        UsageError: the protocol is not prequential, or the log cannot be read again.
    """
    if plan.protocol != "prequential":
        raise UsageError("Baselines are for --protocol prequential; `nearstream evaluate --protocol loo` has others.")
    try:
        log = _Log(source, plan)
    except UnusableData as error:
        raise UsageError(f"Baselines need the log a second time: {error} Give a file in place of -.") from error
    events = replayed.judged.events
    whole = plan.skip_events == 0 and not np.isfinite(plan.from_s)
    cut = len(log.users) // 2 if whole else int(events[0])
    targets: Targets = "new" if plan.targets == "new" else "all"
    columns: dict[str, NDArray[np.float64]] = {}
    for name, make in {"popularity": Popularity, **LEARNED}.items():
        late = events >= cut
        if not late.any():
            continue
        ranks = np.full(len(events), np.nan)
        ranks[late] = _asked(log, make(), cut, events[late], targets)
        columns[f"{name} frozen"] = ranks
        on_progress(len(events))
    for name, make in LEARNED.items():
        blocks = [part for part in np.array_split(events, REFITS) if len(part)]
        columns[f"{name} refitted"] = np.concatenate(
            [_asked(log, make(), int(block[0]), block, targets) for block in blocks]
        )
        on_progress(len(events))
    columns["popularity"] = _asked(log, DecayedPopularity(FOREVER_S), 0, events, targets)
    if log.has_times:
        columns["decayed popularity"] = _asked(log, DecayedPopularity(), 0, events, targets)
    ranks = np.column_stack([replayed.judged.ranks, *columns.values()])
    return replace(replayed, judged=replayed.judged._replace(ranks=ranks), arms=(*replayed.arms, *columns))


def _asked(
    log: _Log, recommender: Recommender, learned: int, events: NDArray[np.int64], targets: Targets
) -> NDArray[np.float64]:
    """Places, 0 the first, of the items that came at these events; `learned` events were known before the first."""
    if not len(events):
        return np.zeros(0)
    recommender.fit(log.table, log.before(learned))
    return rank_queries(recommender, log.table, log.queries(events), targets).ranks - 1
