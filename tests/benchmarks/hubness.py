"""Hubs before and after the corrections, as JSON: `OMP_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/hubness.py`.

Every vector's ten nearest others, plain and taken from its fifty nearest by each correction: on synthetic vectors, and
on the profiles that the engine makes of real logs where `../shared/data` has them. `--table` prints Markdown instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING

import numpy as np

from index import ExactIndex, IndexConfig, Matches
from index.hubness import LocalScaling, MutualProximity, k_occurrence, skewness
from streams.bench.index.data import vector_source
from streams.bench.report import machine
from streams.config import load_settings
from streams.sources.registry import open_source
from streams.wiring import build_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from index.results import Floats

DIM, KEPT, FETCHED = 64, 10, 50
KINDS = ("isotropic", "cloud", "clustered")
SIZES = (2_000, 20_000)
SEED = 20
EVENTS_MAX = 2000
LOGS = Path(__file__).resolve().parents[2] / "../shared/data"
LOGS_BY_FORMAT = {"deskdrop": "deskdrop", "movielens": "movielens_100k", "rees46": "rees46_multicategory_head"}
"""Folders in LOGS: readers, film raters, shoppers."""


def profiles_of(log_format: str, folder: Path) -> Floats:
    """The vectors of all users with a direction, after the engine has taken the whole log."""
    engine = build_engine(load_settings(dim=DIM), ranking=False)
    source = open_source(log_format, str(folder))
    engine.describe(list(source.items()))
    stream, offset = source.events(), 0
    while events := list(islice(stream, EVENTS_MAX)):
        engine.apply(engine.prepare(events, np.arange(offset, offset + len(events), dtype=np.int64), 0))
        offset += len(events)
    slots = np.array(sorted(engine.store.slot_of.values()), np.int32)
    vectors = engine.encoder.vectors(engine.store.take(slots).state)
    return vectors[vectors.any(axis=1)]


def figures(lists: Matches, plain: Matches, size: int) -> dict[str, float]:
    listed = np.array([[-1 if slot is None else slot for slot in row] for row in lists.ids.tolist()])
    counts = k_occurrence(listed, size)
    kept = [len(set(row) & set(others)) for row, others in zip(lists.ids.tolist(), plain.ids.tolist(), strict=True)]
    return {
        "skewness": round(skewness(counts), 2),
        "never_listed_share": round(float(np.mean(counts == 0)), 4),
        "n_k_max": int(counts.max()),
        "overlap_with_plain": round(float(np.mean(kept)) / KEPT, 3),
        "cosine_mean": round(float(np.nanmean(lists.similarities)), 3),
    }


def timed(work: Callable[[], Matches], size: int) -> tuple[Matches, float]:
    started = process_time()
    result = work()
    return result, round((process_time() - started) * 1e6 / size, 1)


def measure(name: str, vectors: Floats, seed: int | None) -> list[dict[str, object]]:
    size = len(vectors)
    index = ExactIndex(IndexConfig(dim=DIM, capacity_initial=size))
    index.upsert(range(size), vectors)
    fetched, search_us = timed(lambda: index.search(vectors, FETCHED, exclude=range(size)), size)
    plain = Matches(fetched.ids[:, :KEPT], fetched.similarities[:, :KEPT])
    corrections: dict[str, Callable[[], Matches]] = {
        "CSLS": lambda: LocalScaling.measure(index).rerank(fetched, KEPT),
        "mutual proximity": lambda: MutualProximity.measure(index).rerank(fetched, vectors, KEPT),
    }
    # of equal vectors the search lists the lowest slots: they look like hubs, and no score tells them apart
    distinct = len(np.unique(vectors, axis=0))
    about: dict[str, object] = {"data": name, "seed": seed, "vectors": size, "distinct": distinct}
    made = {"cosine": (plain, search_us)} | {name: timed(work, size) for name, work in corrections.items()}
    return [
        {**about, "lists": name, **figures(lists, plain, size), "cpu_us_per_vector": cpu_us}
        for name, (lists, cpu_us) in made.items()
    ]


def table(rows: list[dict[str, object]]) -> str:
    head = list(rows[0])
    lines: list[list[object]] = [[*head], ["---"] * len(head), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join("–" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED, help="Of the synthetic vectors.")
    parser.add_argument("--table", action="store_true", help="Markdown instead of JSON.")
    options = parser.parse_args()
    rows = []
    for kind in KINDS:
        for size in SIZES:
            vectors = vector_source(kind, DIM, options.seed).draw(size, np.random.default_rng(options.seed))
            rows += measure(kind, vectors, options.seed)
    for log_format, folder in LOGS_BY_FORMAT.items():
        if (LOGS / folder).is_dir():
            rows += measure(log_format, profiles_of(log_format, LOGS / folder), None)
        else:
            print(f"left out: no folder {folder} in ../shared/data", file=sys.stderr)
    conditions = {**machine(), "dim": DIM, "kept": KEPT, "fetched": FETCHED, "seed": options.seed}
    del conditions["kafka"]  # no broker takes part
    print(table(rows) if options.table else json.dumps({"conditions": conditions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
