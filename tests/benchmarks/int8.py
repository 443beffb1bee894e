"""Int8Index beside ExactIndex, as JSON: `OPENBLAS_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/int8.py`.

Both hold the same vectors in one process and take turns at the same queries; a ratio is the median, over the rounds, of
int8's CPU time by float32's in the same round. Recall and errors are of the answers against the float32 vectors.
"""

from __future__ import annotations

import argparse
import json
from time import process_time
from typing import TYPE_CHECKING

import numpy as np

from index import ExactIndex, IndexConfig, Int8Index
from index.int8 import coded_row
from index.recall import recall_at
from index.table import float_row
from streams.bench.index.data import vector_source
from streams.bench.report import machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from index.results import Floats

DIM, K, BATCH = 64, 10, 64
KINDS = ("isotropic", "cloud", "clustered")


def quality(exact: ExactIndex, int8: ExactIndex, vectors: Floats, queries: Floats) -> dict[str, float]:
    """What is lost by coding, of the first ten and of all cosines of these queries."""
    right, found = exact.search(queries, K), int8.search(queries, K)
    decoded = int8.vectors(range(len(vectors)))
    errors = np.abs(queries @ (decoded - vectors).T)
    cosines = np.einsum("qkd,qd->qk", vectors[found.ids.astype(np.int64)], queries)
    own = np.einsum("nd,nd->n", decoded.astype(np.float64), vectors.astype(np.float64))
    return {
        "recall@10": round(recall_at(cosines, right.similarities, K), 4),
        "cosine_error_mean": round(float(errors.mean()), 6),
        "cosine_error_p99": round(float(np.quantile(errors, 0.99)), 6),
        "cosine_error_max": round(float(errors.max()), 6),
        "cosine_to_own_min": round(float(own.min()), 6),
    }


def cpu_s(work: Callable[[], object]) -> float:
    started = process_time()
    work()
    return process_time() - started


def times(exact: ExactIndex, int8: ExactIndex, queries: Floats, rounds: int) -> dict[str, float]:
    """CPU of a search by each, in turns, and their ratio; the first round is not counted."""
    pairs = []
    for turn in range(rounds + 1):
        arms = [exact, int8] if turn % 2 else [int8, exact]
        spent = {id(arm): cpu_s(lambda arm=arm: arm.search(queries, K)) for arm in arms}
        pairs.append((spent[id(exact)], spent[id(int8)]))
    float32_s, int8_s = np.array(pairs[1:]).T
    per_query_ms = 1e3 / len(queries)
    return {
        "float32_ms": round(float(np.median(float32_s)) * per_query_ms, 3),
        "int8_ms": round(float(np.median(int8_s)) * per_query_ms, 3),
        "ratio": round(float(np.median(int8_s / float32_s)), 2),
    }


def measure(kind: str, seed: int, size: int, rounds: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    source = vector_source(kind, DIM, seed)
    vectors, queries, moved = source.draw(size, rng), source.draw(4 * BATCH, rng), source.draw(1000, rng)
    exact, int8 = (made(IndexConfig(dim=DIM, capacity_initial=size)) for made in (ExactIndex, Int8Index))
    ids, rows = range(size), rng.choice(size, len(moved), replace=False).tolist()
    load = [cpu_s(lambda arm=arm: arm.upsert(ids, vectors)) for arm in (exact, int8)]
    result = {
        "data": kind,
        "seed": seed,
        **quality(exact, int8, vectors, queries),
        "batch_of_64": times(exact, int8, queries[:BATCH], rounds),
        "single": times(exact, int8, queries[:1], 5 * rounds),
        "memory_ratio_rows": round(coded_row(DIM).itemsize / float_row(DIM).itemsize, 3),
        "memory_ratio_index": round(int8.stats().memory_bytes / exact.stats().memory_bytes, 3),
        "load_ratio": round(load[1] / load[0], 2),
    }
    upserts = [[cpu_s(lambda arm=arm: arm.upsert(rows, moved)) for arm in (exact, int8)] for _ in range(rounds)]
    float32_s, int8_s = np.array(upserts).T
    return result | {"upsert_ratio": round(float(np.median(int8_s / float32_s)), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000, help="Vectors held.")
    parser.add_argument("--rounds", type=int, default=21, help="Turns of each arm at a batch.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="Of vectors and queries.")
    options = parser.parse_args()
    conditions = {**machine(), "dim": DIM, "k": K, **vars(options)}
    del conditions["kafka"]  # no broker takes part
    rows = [measure(kind, seed, options.size, options.rounds) for kind in KINDS for seed in options.seeds]
    print(json.dumps({"conditions": conditions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
