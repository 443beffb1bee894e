"""Resident memory of a worker per user, by growth from a small store to a large one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from streams.bench.report import Report, bar, machine
from streams.core.events import Event, EventType
from streams.kafka.status import resident_bytes
from streams.wiring import build_engine

if TYPE_CHECKING:
    from streams.config import Settings

BYTES_PER_USER_MUST = 1536.0
WARM_USERS = 2000
BATCH = 2000
ITEMS = 12_000
EVENTS_PER_USER = 40

Say = Callable[[str], None]


def _events(users: range, seed: int) -> Iterator[list[Event]]:
    """Each user with more events than a profile keeps, so that every column is full; ids as long as a UUID."""
    rng = np.random.default_rng(seed)
    step = BATCH // EVENTS_PER_USER
    for first in range(users.start, users.stop, step):
        batch = range(first, min(first + step, users.stop))
        items = rng.integers(0, ITEMS, (len(batch), EVENTS_PER_USER))
        yield [
            Event(
                user_id=f"user-{user:031d}",
                item_id=f"item-{item}",
                type=EventType.VIEW,
                timestamp=1_700_000_000_000 + place,
                event_id=f"{user}-{place}",
            )
            for user, row in zip(batch, items.tolist(), strict=True)
            for place, item in enumerate(row)
        ]


def measure_memory(settings: Settings, users: int, say: Say) -> Report:
    """Runs the worker's engine over full profiles of `users` users and reads the process's resident memory."""
    engine = build_engine(settings, ranking=False)
    offset = 0

    def run(part: range, seed: int) -> None:
        nonlocal offset
        for number, events in enumerate(_events(part, seed)):
            offsets = np.arange(offset, offset + len(events), dtype=np.int64)
            engine.apply(engine.prepare(events, offsets, 0))
            offset += len(events)
            if number % 1000 == 999:
                say(f"{len(engine.store):,} of {users:,} users")

    run(range(WARM_USERS), 0)
    before = resident_bytes()
    run(range(WARM_USERS, users), 1)
    grown = resident_bytes() - before
    conditions = {
        **machine(),
        "users": users,
        "dim": settings.dim,
        "recent_items": settings.recent_items,
        "event_id_window": settings.event_id_window,
        "id_chars": 36,
    }
    per_user = grown / (users - WARM_USERS)
    return Report(conditions, [bar("RSS growth per user", per_user, "bytes", BYTES_PER_USER_MUST, "at most")])
