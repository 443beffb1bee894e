"""CPU time of ranking, as JSON: `OPENBLAS_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/rank.py`.

`first_call_cpu_s` includes compiling where `NUMBA_CACHE_DIR` is fresh.
"""

from __future__ import annotations

import json
import sys
from time import process_time
from typing import TYPE_CHECKING

import numpy as np

from streams.core.catalogue import Catalogue
from streams.core.events import Item
from streams.core.profile import ProfileColumns, ProfileLayout, ProfileStore
from streams.recommend.explain import recommended_lists
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig, RankRequest
from streams.recommend.trend import Trend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.core.ports import Floats

USERS, DIM, RECENT, NEIGHBOURS, BOUGHT = 2000, 64, 32, 50, 5
ROUNDS = 15


class RandomWords:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    dim = DIM

    def encode(self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: object) -> Floats:
        vectors = self._rng.standard_normal((len(item_ids), DIM)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def engine(items: int, rng: np.random.Generator) -> tuple[Ranker, ProfileStore, Catalogue, Trend]:
    catalogue = Catalogue(RandomWords(rng))
    catalogue.put([Item(f"i{slot}", title="words") for slot in range(items)])
    layout = ProfileLayout(state_width=DIM, recent_items=RECENT, event_id_window=4)
    store = ProfileStore(layout)
    columns = ProfileColumns.empty(USERS, layout)
    columns.recent_count[:] = RECENT
    columns.recent_items[:] = skewed(items, (USERS, RECENT), rng)
    store.put([f"u{slot}" for slot in range(USERS)], columns)
    trend = Trend(86_400.0)
    events = skewed(items, (20 * items,), rng)
    trend.fold(events, np.ones(len(events), np.float32), 1.7e9 + rng.random(len(events)) * 86_400)
    return Ranker(store, catalogue, trend, RankerConfig()), store, catalogue, trend


def skewed(items: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.minimum(rng.zipf(1.3, shape) - 1, rng.integers(0, items, shape)).astype(np.int32)


def request(users: int, items: int, store: ProfileStore, rng: np.random.Generator) -> RankRequest:
    slots = rng.permutation(USERS)[:users].astype(np.int32)
    vectors = rng.standard_normal((users, DIM)).astype(np.float32)
    others = (slots[:, None] + 1 + np.array([rng.permutation(USERS - 1)[:NEIGHBOURS] for _ in slots])) % USERS
    return RankRequest(
        slots=slots,
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        recent_items=store.columns.recent_items[slots],
        recent_count=store.columns.recent_count[slots],
        bought_offsets=np.arange(users + 1, dtype=np.int32) * BOUGHT,
        bought_items=skewed(items, (users * BOUGHT,), rng),
        neighbour_slots=others.astype(np.int32),
        neighbour_similarities=-np.sort(-rng.random((users, NEIGHBOURS)).astype(np.float32), axis=1),
        now_s=1.7e9 + 86_400,
    )


def measure(users: int, items: int, rng: np.random.Generator) -> dict[str, float]:
    ranker, store, catalogue, trend = engine(items, rng)
    ranker.warm_up()
    rank_s, explain_s = [], []
    for _ in range(ROUNDS):
        asked = request(users, items, store, rng)
        trend.fold(asked.recent_items[:, -1], np.ones(users, np.float32), np.full(users, asked.now_s))
        started = process_time()
        ranking = ranker.rank(asked)
        ranked = process_time()
        recommended_lists(ranking, store.user_ids, catalogue.item_ids)
        rank_s.append(ranked - started)
        explain_s.append(process_time() - ranked)
    per_user = 1e6 / users
    return {
        "users": users,
        "items": items,
        "rank_us": round(float(np.median(rank_s)) * per_user, 1),
        "explain_us": round(float(np.median(explain_s)) * per_user, 1),
        "total_us": round(float(np.median(np.add(rank_s, explain_s))) * per_user, 1),
    }


def main() -> None:
    rng = np.random.default_rng(1)
    started = process_time()
    engine(100, rng)[0].warm_up()
    first_call_cpu_s = round(process_time() - started, 2)
    rows = [measure(users, items, rng) for items in (3_000, 12_000) for users in (8, 256)]
    json.dump({"first_call_cpu_s": first_call_cpu_s, "per_refreshed_user": rows}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
