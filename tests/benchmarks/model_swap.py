"""What a swap of the model costs a worker that serves: seconds in all, and what batches wait for it.

`python tests/benchmarks/model_swap.py --users 50000` prints one JSON line. Batches run in the compute thread as the
pipelines run them, without a broker, before the swap and during it; the model has random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from encoder.checkpoint import save_model  # noqa: E402
from streams.config import load_settings  # noqa: E402
from streams.core.events import Event, EventType, Item  # noqa: E402
from streams.core.profile import ProfileColumns  # noqa: E402
from streams.kafka.background import NICENESS  # noqa: E402
from streams.kafka.model_watch import ModelWatch  # noqa: E402
from streams.kafka.status import resident_bytes  # noqa: E402
from streams.kafka.worker import calm_garbage_collector  # noqa: E402
from streams.recommend.engine import Engine  # noqa: E402
from streams.wiring import build_engine, model_folder  # noqa: E402
from tests.fakes_encoder import random_model  # noqa: E402

ITEMS = 5000
START_S = 1_700_000_000
PIECE = 5000
CALM_S = 5.0
BATCH_S = 0.05


def fill(engine: Engine, users: int) -> None:
    """Users with full histories, items of which half have words."""
    rng = np.random.default_rng(0)
    engine.describe([Item(f"item-{n}", title=f"thing number {n}", brand=f"b{n % 9}") for n in range(ITEMS // 2)])
    engine.catalogue.slots([f"item-{n}" for n in range(ITEMS)])
    layout = engine.store.layout
    for first in range(0, users, PIECE):
        count = min(PIECE, users - first)
        columns = ProfileColumns.empty(count, layout)
        columns.events[:] = columns.version[:] = 40
        columns.last_time_ms[:] = START_S * 1000
        columns.recent_total[:], columns.recent_count[:] = 40, layout.recent_items
        columns.recent_items[:] = rng.integers(0, ITEMS, columns.recent_items.shape)
        columns.recent_times_s[:] = START_S + np.arange(layout.recent_items)
        user_ids = [f"user-{n}" for n in range(first, first + count)]
        engine.reencode(user_ids, columns)
        engine.load(user_ids, columns, [()] * count)


class Load:
    """Batches at a steady rate, and how long each took from when it was due to when memory had it."""

    def __init__(self, engine: Engine, compute: ThreadPoolExecutor, users: int, events_per_s: float) -> None:
        self.waits: list[tuple[float, float]] = []
        self._engine, self._compute, self._users, self._events_per_s = engine, compute, users, events_per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def quantiles_ms(self, from_s: float, to_s: float) -> dict[str, float]:
        """Of the batches that were due in between."""
        waits = [wait for due, wait in self.waits if from_s <= due < to_s]
        p50, p99, most = (1000 * np.percentile(waits, [50, 99, 100])).tolist()
        return {"batches": len(waits), "p50": round(p50, 1), "p99": round(p99, 1), "max": round(most, 1)}

    def _run(self) -> None:
        rng = np.random.default_rng(1)
        size = max(1, round(self._events_per_s * BATCH_S))
        offset, due_s = 1000, time.perf_counter()
        while not self._stop.is_set():
            self._stop.wait(max(0.0, due_s - time.perf_counter()))
            users, items = rng.integers(0, self._users, size), rng.integers(0, ITEMS, size)
            batch = [
                Event(f"user-{user}", f"item-{item}", EventType.VIEW, START_S * 1000 + offset)
                for user, item in zip(users, items, strict=True)
            ]
            offsets = np.arange(offset, offset + size)
            offset += size
            asked_s = time.perf_counter()
            self._compute.submit(self._one, batch, offsets).result()
            ended_s = time.perf_counter()
            self.waits.append((asked_s, ended_s - asked_s))
            due_s = max(due_s + BATCH_S, ended_s)  # a partition has one batch at a time; what waits is fetched with it

    def _one(self, batch: list[Event], offsets: np.ndarray) -> None:
        self._engine.apply(self._engine.prepare(batch, offsets, 0))


class TimedThread(ThreadPoolExecutor):
    """The compute thread; remembers the longest job of the swap, by the wall clock and by its own CPU time."""

    def __init__(self) -> None:
        super().__init__(1)
        self.longest_ms = {"wall": 0.0, "cpu": 0.0}

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        """Times what the watch asks for."""
        if not getattr(function, "__qualname__", "").startswith("ModelWatch."):
            return super().submit(function, *arguments, **named)

        def timed() -> Any:
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                took = {"wall": time.perf_counter() - wall_s, "cpu": time.thread_time() - cpu_s}
                self.longest_ms = {kind: max(self.longest_ms[kind], round(1000 * s, 2)) for kind, s in took.items()}

        return super().submit(timed)


def measure(users: int, events_per_s: float) -> dict[str, object]:
    """One swap from decayed means to a trained model, and one to another trained model."""
    with tempfile.TemporaryDirectory() as folder, TimedThread() as compute:
        place = Path(folder) / "model"
        engine = build_engine(load_settings(model=str(place)))
        compute.submit(fill, engine, users).result()
        calm_garbage_collector()
        source = model_folder(load_settings(model=str(place)))
        assert source is not None
        watch = ModelWatch(source, engine, compute, interval_s=0, on_switch=lambda _: None)
        result: dict[str, object] = {"users": users, "items": ITEMS, "events_per_s": events_per_s}
        with Load(engine, compute, users, events_per_s) as load:
            for seed, name in ((1, "first"), (2, "second")):
                calm_s = time.perf_counter()
                time.sleep(CALM_S)
                names = [f"item-{n}" for n in range(ITEMS)]
                save_model(place, random_model(64, items=names, types=("view",), seed=seed))
                before_mb = resident_bytes() / 1e6
                began_s = time.perf_counter()
                compute.longest_ms = {"wall": 0.0, "cpu": 0.0}
                began_cpu_s = time.process_time()
                swapping = threading.Thread(target=check, args=(watch,))
                swapping.start()
                swapping.join()
                ended_s = time.perf_counter()
                status = watch.status()
                assert status.switches == seed, status
                result[name] = {
                    "seconds": status.switch_s,
                    "cpu_s": round(time.process_time() - began_cpu_s, 1),
                    "longest_job_ms": compute.longest_ms,
                    "batch_ms_calm": load.quantiles_ms(calm_s, began_s),
                    "batch_ms_swap": load.quantiles_ms(began_s, ended_s),
                    "rss_mb": [round(before_mb), round(resident_bytes() / 1e6)],
                    "model": engine.encoder.name,
                    "index": engine.index.stats().tier,
                    "build_s": round(engine.index.stats().build_s, 1),
                }
                print(name, result[name], file=sys.stderr, flush=True)
        engine.index.close()
    return result


def check(watch: ModelWatch) -> None:
    """As the watch's own thread does it."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    watch.check()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--events-per-s", type=float, default=500.0)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.users, arguments.events_per_s), indent=1))


if __name__ == "__main__":
    main()
