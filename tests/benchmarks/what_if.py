"""CPU time of asking what a list would be: `OPENBLAS_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/what_if.py`.

The engine is a worker's own, of the default settings, after 200,000 events of 20,000 users on 5,000 described items.
What a question costs the compute thread is what batches wait for. Prints JSON.
"""

from __future__ import annotations

import json
import sys
from time import process_time

import numpy as np

from streams.config import load_settings
from streams.core.events import Event, EventType, Item
from streams.core.what_if import SupposedEvent, WhatIf, WhatIfQuestion
from streams.recommend.counterfactual import what_if
from streams.wiring import build_engine

USERS, ITEMS, EVENTS, BATCH, CATEGORIES = 20_000, 5_000, 200_000, 2_000, 50
QUESTIONS = 200
START_MS = 1_700_000_000_000
KINDS = (EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE)


def main() -> None:
    settings, rng = load_settings(), np.random.default_rng(1)
    engine = build_engine(settings)
    engine.describe([Item(f"i{n}", title=f"thing {n % 700}", categories=[f"c{n % CATEGORIES}"]) for n in range(ITEMS)])
    users = np.minimum(rng.zipf(1.2, EVENTS) - 1, rng.integers(0, USERS, EVENTS)).tolist()
    items = np.minimum(rng.zipf(1.3, EVENTS) - 1, rng.integers(0, ITEMS, EVENTS)).tolist()
    for first in range(0, EVENTS, BATCH):
        batch = [
            Event(f"u{users[n]}", f"i{items[n]}", KINDS[n % len(KINDS)], START_MS + 1000 * n)
            for n in range(first, first + BATCH)
        ]
        offsets = np.arange(first, first + BATCH, dtype=np.int64)
        engine.apply(engine.prepare(batch, offsets, 0, lists=False, lessons=False))
    now_ms = START_MS + 1000 * EVENTS
    event = SupposedEvent(item_id="i7", type=EventType.VIEW)
    spent: dict[str, list[float]] = {"one event": [], "eight events": [], "one item left out": [], "both": []}
    for user in [f"u{users[n]}" for n in rng.integers(0, EVENTS, QUESTIONS).tolist()]:
        slots = engine.store.slots([user])
        newest = engine.catalogue.item_ids[
            int(engine.store.columns.recent_items[slots[0], engine.store.columns.recent_count[slots[0]] - 1])
        ]
        questions = (
            WhatIfQuestion(events=[event]),
            WhatIfQuestion(events=[event] * 8),
            WhatIfQuestion(without=[newest]),
            WhatIfQuestion(without=[newest], events=[event] * 8),
        )
        for name, question in zip(spent, questions, strict=True):
            began = process_time()
            found = what_if(engine, user, question, now_ms, settings.neighbours)
            spent[name].append(process_time() - began)
            assert isinstance(found, WhatIf), found
    rows = {
        name: {
            "median_ms": round(1e3 * float(np.median(laps)), 2),
            "p99_ms": round(1e3 * float(np.quantile(laps, 0.99)), 2),
        }
        for name, laps in spent.items()
    }
    json.dump({"users": len(engine.index), "items": ITEMS, "questions": QUESTIONS, **rows}, sys.stdout, indent=1)
    engine.index.close()


if __name__ == "__main__":
    main()
