"""What the ranking remembers, part by part, in one process with the index; and what that is at a million users.

A part holds so much for each user, for each item, or whatever there is (`UNITS`). Its bytes are those of its arrays
and objects, growing room included, so that a page that was never written counts too: resident memory is less.
"""

from __future__ import annotations

import gc
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from streams.bench.memory import BATCH, Say
from streams.bench.report import Bar, Report, bar, machine
from streams.core.errors import UsageError
from streams.core.events import Event, EventType, Item
from streams.kafka.status import resident_bytes
from streams.recommend.reverse import ReverseRefreshes
from streams.recommend.rules_file import parse_rules
from streams.wiring import build_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from index import AutoIndex
    from streams.config import Settings
    from streams.recommend.engine import Engine

VIEWS_BYTES_MUST = 2.0 * 1024**3
USERS_FULL, ITEMS_FULL = 1_000_000, 100_000
"""What is extrapolated to."""
EVENTS_PER_USER = 10
"""The last of them with a list. More would change no view: their arrays grow with users and items, not with events."""
LISTED_AT_ONCE = 256
ITEMS_PER_CATEGORY = 50
FIRST_MS = 1_700_000_000_000
RULES = b"[fatigue]\nshown = 3\nrest_hours = 24\n[[floor]]\nprovider = 'p0'\nshare = 0.05\n"
"""Both kinds of counts that rules keep."""
PARTITION = 0
FIRST_OFFSET = 1 << 40
"""Of the events with lists: past all of those before."""
SAY_USERS = 20_000

Unit = Literal["user", "item", "once"]
UNITS: dict[str, Unit] = {
    "trends": "item",
    "co-occurrence": "item",
    "categories": "item",
    "newcomers": "item",
    "groups": "once",
    "reverse refreshes": "user",
    "fatigue and exposure": "user",
    "shown lists": "once",
    "weights": "once",
}


def measure_views(settings: Settings, users: int, items: int, say: Say) -> Report:
    """Plays events of so many users over so many items, a list for each user, and weighs every part."""
    engine = build_engine(settings)
    engine.reverse = ReverseRefreshes(settings.neighbours, settings.reverse_refreshes_per_s)
    engine.reverse.own(PARTITION)
    engine.take_rules(parse_rules(RULES, "bench", settings.list_items))
    gc.collect()
    before = resident_bytes()
    _play(engine, users, items, say)
    say("waiting for the index")
    cast("AutoIndex", engine.index).settle()
    gc.collect()
    grown = resident_bytes() - before
    index = cast("AutoIndex", engine.index).stats()
    weighed = {name: held_bytes(part) for name, part in _parts(engine).items()}
    conditions = {
        **machine(),
        "users": users,
        "items": items,
        "dim": settings.dim,
        "list_items": settings.list_items,
        "index": index.tier,
        "graph_rows": index.graph_rows,
        "formula": formula(weighed, users, items),
    }
    bars = [_bar_of(name, weighed[name], users, items) for name in weighed]
    bars.append(bar("index", index.memory_bytes / users, "bytes a user"))
    bars.append(bar("all of the process's growth", grown / users, "bytes a user"))
    full = full_bytes(weighed, users, items)
    bars.append(bar(f"views at {USERS_FULL:,} users, {ITEMS_FULL:,} items", full, "bytes", VIEWS_BYTES_MUST, "at most"))
    return Report(conditions, bars)


def full_bytes(weighed: dict[str, int], users: int, items: int) -> float:
    """What parts that were weighed with so many users and items are at `USERS_FULL` and `ITEMS_FULL`."""
    user, item, once = _sums(weighed, users, items)
    return user * USERS_FULL + item * ITEMS_FULL + once


def formula(weighed: dict[str, int], users: int, items: int) -> str:
    """The same in words."""
    user, item, once = _sums(weighed, users, items)
    return f"{user:,.0f} * users + {item:,.0f} * items + {once:,.0f} bytes"


def held_bytes(thing: object, seen: set[int] | None = None) -> int:
    """Of an object with all that it holds, each thing once; classes, functions and modules are not its own."""
    seen = set() if seen is None else seen
    if isinstance(thing, np.ndarray) and isinstance(thing.base, np.ndarray):
        return held_bytes(thing.base, seen)
    if id(thing) in seen or isinstance(thing, type | FunctionType | MethodType | BuiltinFunctionType | ModuleType):
        return 0
    seen.add(id(thing))
    return sys.getsizeof(thing) + sum(held_bytes(part, seen) for part in _held(thing))


def _held(thing: object) -> Iterator[object]:
    if isinstance(thing, dict):
        yield from thing.keys()
        yield from thing.values()
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from thing
    elif not isinstance(thing, np.ndarray | str | bytes | int | float):
        yield from getattr(thing, "__dict__", {}).values()
        for kind in type(thing).__mro__:
            names = getattr(kind, "__slots__", ())
            yield from (getattr(thing, name) for name in names if hasattr(thing, name))


def _parts(engine: Engine) -> dict[str, object]:
    views, reranker = engine.views, engine.reranker
    if reranker is None:
        raise UsageError("The views are those of a ranking, and this engine has none.")
    return {
        "trends": views.trends,
        "co-occurrence": views.together,
        "categories": views.by_category,
        "newcomers": views.newcomers,
        "groups": views.groups,
        "reverse refreshes": engine.reverse,
        "fatigue and exposure": (reranker.saved(), reranker.saved_users(0, len(engine.store))),
        "shown lists": engine.feedback,
        "weights": engine.weights,
    }


def _sums(weighed: dict[str, int], users: int, items: int) -> tuple[float, float, float]:
    """Bytes for each user, for each item, and once."""
    by_unit: dict[Unit, int] = {"user": 0, "item": 0, "once": 0}
    for name, held in weighed.items():
        by_unit[UNITS[name]] += held
    return by_unit["user"] / users, by_unit["item"] / items, float(by_unit["once"])


def _bar_of(name: str, held: int, users: int, items: int) -> Bar:
    unit = UNITS[name]
    if unit == "once":
        return bar(name, held, "bytes")
    per, each = ("bytes a user", users) if unit == "user" else ("bytes an item", items)
    return bar(name, held / each, per)


def _play(engine: Engine, users: int, items: int, say: Say) -> None:
    """All but the last event of each user without lists, which is quick; then the last, with a list for each."""
    _describe(engine, items)
    histories = np.random.default_rng(0).integers(0, items, (users, EVENTS_PER_USER))
    _feed(engine, histories[:, :-1], BATCH // EVENTS_PER_USER, 0, say)
    _feed(engine, histories[:, -1:], LISTED_AT_ONCE, 1, say)


def _feed(engine: Engine, histories: NDArray[np.int64], users_at_once: int, part: int, say: Say) -> None:
    """Part 1 comes after part 0, with lists."""
    offset = part * FIRST_OFFSET
    for first in range(0, len(histories), users_at_once):
        events = list(_events(first, histories[first : first + users_at_once], part))
        offsets = np.arange(offset, offset + len(events), dtype=np.int64)
        engine.apply(engine.prepare(events, offsets, PARTITION, lists=bool(part), lessons=bool(part)))
        offset += len(events)
        if first // SAY_USERS != (first + users_at_once) // SAY_USERS:
            say(f"{first + users_at_once:,} of {len(histories):,} users{' with lists' if part else ''}")


def _describe(engine: Engine, items: int) -> None:
    for first in range(0, items, BATCH):
        engine.describe(
            [
                Item(f"item-{n}", title=f"item {n}", categories=[f"c{n // ITEMS_PER_CATEGORY}"], provider=f"p{n % 20}")
                for n in range(first, min(first + BATCH, items))
            ]
        )


def _events(first_user: int, items: NDArray[np.int64], part: int) -> Iterator[Event]:
    for user, row in enumerate(items.tolist(), first_user):
        for place, item in enumerate(row):
            at_ms = FIRST_MS + 60_000 * part + place
            yield Event(f"user-{user:031d}", f"item-{item}", EventType.VIEW, at_ms, f"{user}-{part}-{place}")
