"""What a query and an update cost behind a server's protocol, beside the same in the process: one run, interleaved.

Run with `OMP_NUM_THREADS=1 python -m tests.benchmarks.milvus [--size N]`; JSON on standard output. Needs pymilvus and
milvus-lite. The embedded Milvus Lite runs in this process, so CPU time counts both ends of the connection. It shows
what the protocol and Python cost, not what a cluster can do; the network and the wait for `Strong` come on top.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from index import ExactIndex, HnswIndex, IndexConfig
from index.milvus import MilvusIndex
from index.milvus_collection import MilvusConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIM = 64
K = 10
CENTRES = 1000
SPREAD = 0.08
CHANGED = 256
BATCH = 64
SINGLES = 8
SEED = 1
BASE = "exact"


def clustered(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors around common centres, cosine to the centre near .84."""
    centres = np.random.default_rng(SEED).standard_normal((CENTRES, DIM)) / DIM**0.5
    rows = centres[rng.integers(0, CENTRES, count)] + SPREAD * rng.standard_normal((count, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@contextmanager
def arms(folder: Path, vectors: np.ndarray) -> Iterator[dict[str, Any]]:
    """Every index filled with the vectors, graphs built."""
    server = import_module("milvus_lite.server_manager").server_manager_instance
    uri = str(folder / "lite.db")
    with ExitStack() as stack:
        stack.callback(server.release_server, uri)
        flat, hnsw = (
            stack.enter_context(MilvusIndex(MilvusConfig(dim=DIM, uri=uri, collection=kind, index_type=kind)))
            for kind in ("FLAT", "HNSW")
        )
        graph = HnswIndex(IndexConfig(dim=DIM))
        stack.callback(graph.close)
        made = {
            BASE: ExactIndex(IndexConfig(dim=DIM)),
            "hnsw": graph,
            "milvus-lite FLAT": flat,
            "milvus-lite HNSW": hnsw,
        }
        for index in made.values():
            index.upsert(range(len(vectors)), vectors)
        graph.rebuild(wait=True)
        for index in (flat, hnsw):
            index._collection.ask("flush")  # the server builds its graph over what is flushed
        yield made


class Clock:
    """Wall and CPU microseconds per row, of every arm and operation."""

    def __init__(self) -> None:
        self.wall: dict[tuple[str, str], list[float]] = {}
        self.cpu: dict[tuple[str, str], list[float]] = {}

    def time(self, arm: str, operation: str, rows: int, work: Callable[[], Any]) -> Any:
        """What the work returns."""
        wall, cpu = perf_counter(), process_time()
        result = work()
        self.cpu.setdefault((arm, operation), []).append((process_time() - cpu) / rows * 1e6)
        self.wall.setdefault((arm, operation), []).append((perf_counter() - wall) / rows * 1e6)
        return result


def play_round(made: dict[str, Any], current: np.ndarray, rng: np.random.Generator, clock: Clock) -> dict[str, Any]:
    """One change and its queries on every arm in turn; recall and self-finds of each."""
    size = len(current)
    changed = rng.permutation(size)[:CHANGED]
    current[changed] = clustered(rng, CHANGED)
    queries = current[rng.integers(0, size, BATCH)]
    truth = np.sort(queries @ current.T, axis=1)[:, -K] - 1e-5
    quality = {}
    for arm in rng.permutation(list(made)).tolist():
        index = made[arm]
        clock.time(arm, "update_us", CHANGED, lambda index=index: index.upsert(changed.tolist(), current[changed]))
        own = index.search(current[changed], 1)
        found = clock.time(arm, "query_us_in_64", BATCH, lambda index=index: index.search(queries, K))
        for query in queries[:SINGLES]:
            clock.time(arm, "query_us_alone", 1, lambda index=index, query=query: index.search(query[None], K))
        quality[arm] = (
            float((found.similarities >= truth[:, None]).mean()),
            float((own.ids[:, 0] == changed).mean()),
        )
    return quality


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    current = clustered(rng, options.size)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, arms(Path(folder), current) as made:
        rounds = [play_round(made, current, rng, clock) for _ in range(options.rounds)]
    rows = {}
    for arm in made:
        row: dict[str, float] = {}
        for operation in ("update_us", "query_us_in_64", "query_us_alone"):
            for name, times in (("cpu", clock.cpu), ("wall", clock.wall)):
                median, base = (float(np.median(times[key, operation])) for key in (arm, BASE))
                row[f"{name}_{operation}"] = round(median, 1)
                row[f"{name}_{operation}_over_{BASE}"] = round(median / base, 2)
        recall, self_found = np.mean([quality[arm] for quality in rounds], axis=0)
        rows[arm] = row | {"recall@10": round(float(recall), 4), "found_by_next_query": round(float(self_found), 4)}
    conditions = {"vectors": options.size, "dim": DIM, "rounds": options.rounds, "changed": CHANGED, "seed": SEED}
    json.dump({"conditions": conditions, "arms": rows}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
