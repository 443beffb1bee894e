"""CPU time of ranking and learning, as JSON: `OPENBLAS_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/rank.py`.

Every source speaks: neighbours, content, pairs, categories and three trends, over histories with circles of taste.

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
from streams.recommend.cooccurrence import Entered
from streams.recommend.explain import recommended_lists
from streams.recommend.ranker import Ranker
from streams.recommend.request import RankerConfig, RankRequest, checked
from streams.recommend.views import Views

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.core.ports import Floats

USERS, DIM, RECENT, NEIGHBOURS, BOUGHT = 2000, 64, 32, 50, 5
CATEGORIES = 200
ROUNDS = 15
NOW_S = 1.7e9
HALF_LIVES_S = (12 * 3600.0, 4 * 86_400.0, 90 * 86_400.0)


class RandomWords:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    dim = DIM

    def encode(self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: object) -> Floats:
        vectors = self._rng.standard_normal((len(item_ids), DIM)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def engine(items: int, rng: np.random.Generator) -> tuple[Ranker, ProfileStore, Catalogue, Views]:
    catalogue = Catalogue(RandomWords(rng))
    kinds = rng.integers(0, CATEGORIES, items).tolist()
    catalogue.put([Item(f"i{slot}", title="words", categories=[f"c{kinds[slot]}"]) for slot in range(items)])
    layout = ProfileLayout(state_width=DIM, recent_items=RECENT, event_id_window=4)
    store, views = ProfileStore(layout), Views(HALF_LIVES_S)
    columns = ProfileColumns.empty(USERS, layout)
    columns.recent_count[:] = columns.recent_total[:] = RECENT
    columns.recent_items[:] = skewed(items, (USERS, RECENT), rng)
    store.put([f"u{slot}" for slot in range(USERS)], columns)
    for _ in range(max(1, 20 * items // (USERS * RECENT))):
        recent = skewed(items, (USERS, RECENT), rng)
        times_s = NOW_S - rng.random((USERS, RECENT)) * 10 * 86_400
        counts = columns.recent_count
        everything = Entered(recent, np.ones(recent.shape, np.float32), times_s, counts, counts)
        views.fold(everything, catalogue.facts.categories)
    return Ranker(store, catalogue, views, RankerConfig()), store, catalogue, views


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
        recent_types=store.columns.recent_types[slots],
        recent_count=store.columns.recent_count[slots],
        history_events=store.columns.recent_total[slots],
        bought_offsets=np.arange(users + 1, dtype=np.int32) * BOUGHT,
        bought_items=skewed(items, (users * BOUGHT,), rng),
        neighbour_slots=others.astype(np.int32),
        neighbour_similarities=-np.sort(-rng.random((users, NEIGHBOURS)).astype(np.float32), axis=1),
    )


def measure(users: int, items: int, rng: np.random.Generator) -> dict[str, float]:
    ranker, store, catalogue, views = engine(items, rng)
    ranker.warm_up()
    spent: dict[str, list[float]] = {"pool": [], "choose": [], "learn": [], "explain": [], "fold": []}
    for _ in range(ROUNDS):
        asked = checked(request(users, items, store, rng), DIM)
        laps = [process_time()]
        pool = ranker.pool(asked)
        laps.append(process_time())
        ranking = ranker.choose(pool, asked, NOW_S)
        laps.append(process_time())
        ranker.learn(pool, asked, pool.items[:, 0].copy())
        laps.append(process_time())
        recommended_lists(ranking, store.user_ids, catalogue.item_ids, catalogue.facts.category_names, {})
        laps.append(process_time())
        one = np.ones(users, np.int32)
        weights, times_s = np.ones(asked.recent_items.shape, np.float32), np.full(asked.recent_items.shape, NOW_S)
        entered = Entered(asked.recent_items, weights, times_s, asked.recent_count, one)
        views.fold(entered, catalogue.facts.categories)
        laps.append(process_time())
        for name, lap in zip(spent, np.diff(laps).tolist(), strict=True):
            spent[name].append(lap)
    medians = {f"{name}_us": round(float(np.median(laps)) * 1e6 / users, 1) for name, laps in spent.items()}
    listed = sum(medians[f"{name}_us"] for name in ("pool", "choose", "explain"))
    return {"users": users, "items": items, **medians, "list_us": round(listed, 1)}


def main() -> None:
    rng = np.random.default_rng(1)
    started = process_time()
    engine(100, rng)[0].warm_up()
    first_call_cpu_s = round(process_time() - started, 2)
    rows = [measure(users, items, rng) for items in (3_000, 12_000) for users in (8, 256)]
    json.dump({"first_call_cpu_s": first_call_cpu_s, "per_refreshed_user": rows}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
