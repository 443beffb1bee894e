"""What a log holds and what is wrong with it, in figures."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.core.errors import UsageError
from streams.core.events import EVENT_TYPES, EventType
from streams.sources.tally import HOUR_MS, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from streams.core.events import Item, User
    from streams.sources.port import Source

FUNNEL = (EventType.IMPRESSION, EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE)
PROGRESS_EVENTS = 4_096
EXAMPLES_MAX = 3
THIN_HOUR_SHARE = 0.05
"""An hour outside the bulk has less than this share of the events of a typical hour."""
STRAY_HOURS_MIN = 24
STRAY_SHARE_MAX = 0.01
"""If more events than this lie outside, they are a quiet time of the log and no strays."""
QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}


class TypeCount(msgspec.Struct, frozen=True):
    """Events of one type and their share of all."""

    type: EventType
    events: int
    share: float


class FunnelStep(msgspec.Struct, frozen=True):
    """User-item pairs with an event of a type; `conversion`: share of the pairs of the step before that reach it."""

    type: EventType
    pairs: int
    conversion: float | None


class TimeRange(msgspec.Struct, frozen=True):
    """RFC 3339, UTC. With `order_only` the log has no times, and these are made."""

    first: str
    last: str
    order_only: bool


class Catalogue(msgspec.Struct, frozen=True):
    """`entries` counts the log's catalogue; the rest counts items that have events."""

    entries: int
    described: int
    """With an entry in the catalogue."""
    text: int
    """With a title or a text."""
    category: int
    brand: int
    price: int
    image: int = 0
    """None: no format of ours has pictures."""


class People(msgspec.Struct, frozen=True):
    """`entries` counts users that the log describes, `with_attributes` those of them who have events."""

    entries: int
    with_attributes: int


class Problem(msgspec.Struct, frozen=True):
    """Something to know before the log is trusted."""

    problem: str
    count: int
    examples: list[str] = []


class LogSummary(msgspec.Struct, frozen=True):
    """A log in figures; this is also the JSON of `nearstream data --json`."""

    data: str
    events: int
    users: int
    items: int
    time: TimeRange
    density: float
    """Share of all user-item pairs that have an event."""
    repeats: float
    """Share of events on an item that the user had touched before."""
    events_per_user: dict[str, float]
    """`QUANTILES` and the mean."""
    events_per_item: dict[str, float]
    types: list[TypeCount]
    funnel: list[FunnelStep]
    """The steps that the log has; a single one is no funnel and left out."""
    catalogue: Catalogue
    people: People
    problems: list[Problem]


def summarise(source: Source, on_progress: Callable[[int], None] | None = None) -> LogSummary:
    """Reads events, items and users of a log once each; `on_progress` gets the events counted so far.

    Memory grows with users, items and distinct user-item pairs (12 bytes each), not with events.

    Raises:
        UsageError: the log has no usable event, or cannot be read to its end.
    """
    tally = Tally()
    for number, event in enumerate(source.events(), 1):
        tally.add(event)
        if on_progress is not None and number % PROGRESS_EVENTS == 0:
            on_progress(number)
    tally.finish()
    events = int(tally.types.sum())
    if not events:
        raise UsageError(f"The log holds no usable event.{_why_none(source)}")
    masks = tally.pairs.masks()
    order_only = source.describe().order_only
    catalogue, odd_prices = _catalogue(source.items(), tally.items.keys())
    return LogSummary(
        data=source.name,
        events=events,
        users=len(tally.users),
        items=len(tally.items),
        time=TimeRange(_rfc3339(tally.first_ms), _rfc3339(tally.last_ms), order_only),
        density=len(masks) / (len(tally.users) * len(tally.items)),
        repeats=1 - len(masks) / events,
        events_per_user=_quantiles(tally.user_events),
        events_per_item=_quantiles(tally.item_events),
        types=_types(tally.types),
        funnel=_funnel(masks),
        catalogue=catalogue,
        people=_people(source.users(), tally.users.keys()),
        problems=_problems(source, tally, catalogue, odd_prices, order_only=order_only),
    )


def _why_none(source: Source) -> str:
    if not source.skips.counts:
        return " It is empty."
    reasons = ", ".join(f"{count:,} rows skipped as {reason}" for reason, count in source.skips.counts.items())
    return f" {reasons}; for example {source.skips.examples[0]}"


def _types(counts: NDArray[np.int64]) -> list[TypeCount]:
    """The types that occur, the most frequent first."""
    share = counts / counts.sum()
    order = np.argsort(-counts, kind="stable")
    return [TypeCount(EVENT_TYPES[code], int(counts[code]), float(share[code])) for code in order if counts[code]]


def _funnel(masks: NDArray[np.int32]) -> list[FunnelStep]:
    reached = [(step, (masks >> step.code & 1).astype(np.bool_)) for step in FUNNEL]
    reached = [(step, pairs) for step, pairs in reached if pairs.any()]
    if len(reached) < 2:
        return []
    opening = FunnelStep(reached[0][0], int(reached[0][1].sum()), None)
    later = [
        FunnelStep(step, int(pairs.sum()), float((before & pairs).sum() / before.sum()))
        for (_, before), (step, pairs) in pairwise(reached)
    ]
    return [opening, *later]


def _quantiles(counts: NDArray[np.int64]) -> dict[str, float]:
    values = np.quantile(counts, list(QUANTILES.values())).tolist()
    return {**dict(zip(QUANTILES, values, strict=True)), "mean": float(counts.mean())}


def _catalogue(items: Iterable[Item], with_events: AbstractSet[str]) -> tuple[Catalogue, list[str]]:
    """Coverage of the items that have events, and the ids of all items whose price is no number."""
    entries = 0
    covered = np.zeros(5, np.int64)
    odd_prices = []
    for item in items:
        entries += 1
        if item.price is not None and not math.isfinite(item.price):
            odd_prices.append(item.item_id)
        if item.item_id in with_events:
            has_text, has_price = bool(item.title or item.text), item.price is not None
            covered += (True, has_text, bool(item.categories), item.brand is not None, has_price)
    return Catalogue(entries, *covered.tolist()), odd_prices


def _people(users: Iterable[User], with_events: AbstractSet[str]) -> People:
    entries = with_attributes = 0
    for user in users:
        entries += 1
        known = user.age is not None or user.gender or user.occupation or user.country or user.attributes
        with_attributes += bool(known) and user.user_id in with_events
    return People(entries, with_attributes)


def _problems(
    source: Source, tally: Tally, catalogue: Catalogue, odd_prices: list[str], *, order_only: bool
) -> list[Problem]:
    """Those that occur, what was lost first."""
    skips = source.skips
    skipped = [Problem(f"skipped: {why}", n, _examples_of(skips.examples, why)) for why, n in skips.counts.items()]
    outside, bulk = (0, []) if order_only else _outside_bulk(tally)
    found = [
        *skipped,
        Problem("exact duplicates", tally.duplicates),
        Problem("unsorted rows", skips.unsorted + tally.unsorted),
        Problem("events outside the bulk of time", outside, bulk),
        Problem("items without text", len(tally.items) - catalogue.text),
        Problem("items with a price that is no number", len(odd_prices), odd_prices[:EXAMPLES_MAX]),
        Problem("users with one event", int((tally.user_events == 1).sum())),
        Problem("only one user: there are no neighbours to find", int(len(tally.users) == 1)),
        Problem("only one item: there is nothing to rank", int(len(tally.items) == 1)),
    ]
    return [problem for problem in found if problem.count]


def _examples_of(examples: list[str], reason: str) -> list[str]:
    return [example for example in examples if f": {reason}: " in example][:EXAMPLES_MAX]


def _outside_bulk(tally: Tally) -> tuple[int, list[str]]:
    """Events before the first and after the last hour that is not thin, and where the bulk lies.

    A typical hour is the one of the median event, so that empty nights and long tails do not move it. A side
    counts only if it reaches `STRAY_HOURS_MIN` far: every log begins and ends somewhere inside an hour.
    """
    hours, counts = np.array(sorted(tally.hours.items()), np.int64).T
    by_size = np.sort(counts)
    typical = by_size[np.searchsorted(np.cumsum(by_size), counts.sum() / 2)]
    thick = np.flatnonzero(counts >= THIN_HOUR_SHARE * typical)
    first, last = hours[thick[0]], hours[thick[-1]]
    outside = 0
    if first - hours[0] >= STRAY_HOURS_MIN:
        outside += int(counts[hours < first].sum())
    if hours[-1] - last >= STRAY_HOURS_MIN:
        outside += int(counts[hours > last].sum())
    if outside > STRAY_SHARE_MAX * counts.sum():
        return 0, []
    return outside, [f"the bulk lies between {_rfc3339(int(first) * HOUR_MS)} and {_rfc3339(int(last + 1) * HOUR_MS)}"]


def _rfc3339(time_ms: int) -> str:
    """UTC, to the second."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
