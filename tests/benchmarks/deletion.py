"""Do the events that an explanation names carry the cosine? As JSON.

`OPENBLAS_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/deletion.py FORMAT PATH`

Of each user with enough events the best unseen item is explained by the events that the profile remembers. Then the
three with the largest parts are taken out, and in turn three at random, three of the newest ten at random, and three
named in other ways; each time what is left is encoded anew. `--captum N` also compares the parts of N users with
captum's integrated gradients. Everything random comes from `--seed`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from encoder import EncoderConfig, UserEncoder, load_encoder
from encoder.attribution import attribute
from encoder.checkpoint import load_model
from encoder.config import ModelConfig, TrainingConfig
from encoder.inference import encoder_of
from streams.bench.report import machine
from streams.config import DEFAULT_TYPE_WEIGHTS
from streams.core.events import EVENT_TYPES, EventType
from streams.core.histories import Histories, encoded_histories
from streams.recommend.what_if import event_effects, events_of, vectors_without
from streams.sources import open_source
from streams.sources.event_table import event_table
from streams.train import Listeners, TrainPlan, train_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from encoder.checkpoint import SavedModel
    from encoder.dataset import EventTable
    from streams.core.ports import Floats

NAMED = 3
EVENTS_MIN, EVENTS_MAX = 10, 32
"""Shorter histories have too few others to draw; a profile remembers 32."""
DRAWS = 10
NEWEST = 10
LARGE = 0.01
WEIGHTS = np.array([DEFAULT_TYPE_WEIGHTS[kind] for kind in EVENT_TYPES], np.float32)


class Case(NamedTuple):
    """One user and the item that is explained."""

    history: Histories
    target: int
    cosine: float


def histories(table: EventTable, users: int, rng: np.random.Generator) -> list[Histories]:
    """What the profiles of some users with enough events remember."""
    codes = np.array([EventType(name).code for name in table.type_names], np.uint8)
    found = []
    for user in rng.permutation(len(table.user_ids)).tolist():
        rows = np.arange(table.offsets[user], table.offsets[user + 1])
        rows = rows[WEIGHTS[codes[table.types[rows]]] > 0][-EVENTS_MAX:]
        if len(rows) >= EVENTS_MIN:
            columns = (table.items[rows], codes[table.types[rows]], table.times_s[rows].astype(np.uint32))
            found.append(Histories(*(column[None] for column in columns), np.array([len(rows)], np.int32)))
        if len(found) == users:
            break
    return found


def explained(history: Histories, encoder: UserEncoder, items: Floats) -> Case:
    """The item nearest to the user of those that the history does not hold."""
    vector = encoder.profiles.vectors(encoded_histories(history, encoder.profiles, items, WEIGHTS))[0]
    cosines = items @ vector
    unseen = cosines.copy()
    unseen[history.items[0]] = -np.inf
    target = int(unseen.argmax())
    return Case(history, target, float(cosines[target]))


def marks(places: NDArray[np.intp], width: int) -> NDArray[np.bool_]:
    """(k, width) True at the places (k, 3) of each row."""
    marked = np.zeros((len(places), width), np.bool_)
    np.put_along_axis(marked, places, values=True, axis=1)
    return marked


def drops(case: Case, encoder: UserEncoder, items: Floats, rng: np.random.Generator) -> dict[str, float]:
    """How far the cosine falls without three events, by how they were chosen."""
    width = case.history.items.shape[1]
    target = items[case.target]

    def fallen(removed: NDArray[np.bool_]) -> Floats:
        left = vectors_without(case.history, removed, encoder.profiles, items, WEIGHTS)
        return case.cosine - left @ target

    parts = event_effects(case.history, encoder.profiles, items, WEIGHTS, target[None]).events[0]
    alone, alike = fallen(np.eye(width, dtype=np.bool_)), items[case.history.items[0]] @ target
    ways = {
        "named": np.argsort(-parts, kind="stable"),
        "named_last": np.argsort(parts, kind="stable"),
        "newest": np.arange(width)[::-1],
        "most_alike": np.argsort(-alike, kind="stable"),
        "left_out_one_by_one": np.argsort(-alone, kind="stable"),
    }
    chosen = [order[:NAMED] for order in ways.values()]
    drawn = [rng.permutation(width)[:NAMED] for _ in range(DRAWS)]
    newest = [width - 1 - rng.permutation(NEWEST)[:NAMED] for _ in range(DRAWS)]
    falls = fallen(marks(np.array(chosen + drawn + newest), width))
    named = dict(zip(ways, falls[: len(ways)].tolist(), strict=True))
    random, of_newest = falls[len(ways) :].reshape(2, DRAWS).mean(axis=1).tolist()
    return {**named, "random": random, "random_of_newest_10": of_newest}


def judged(cases: list[Case], encoder: UserEncoder, items: Floats, seed: int) -> dict[str, object]:
    """Mean drops, and the ratio of the named events' to the random ones' with a bootstrap interval over users."""
    rng = np.random.default_rng(seed)
    rows = [drops(case, encoder, items, rng) for case in cases]
    named, drawn = (np.array([row[way] for row in rows]) for way in ("named", "random"))
    again = rng.integers(0, len(rows), (2000, len(rows)))
    ratios = named[again].mean(axis=1) / drawn[again].mean(axis=1)
    return {
        "model": encoder.profiles.name,
        "users": len(rows),
        "seed": seed,
        "cosine_mean": round(float(np.mean([case.cosine for case in cases])), 4),
        "drop_mean": {way: round(float(np.mean([row[way] for row in rows])), 4) for way in rows[0]},
        "named_by_random": round(float(named.mean() / drawn.mean()), 2),
        "interval_95": np.quantile(ratios, [0.025, 0.975]).round(2).tolist(),
        "named_falls_further": round(float((named > drawn).mean()), 3),
    }


def agreement(cases: list[Case], saved: SavedModel, encoder: UserEncoder, items: Floats) -> dict[str, dict[str, float]]:
    """How the parts agree with captum's, by path: means over users."""
    from tests.integrated_gradients import PATHS  # noqa: PLC0415 - captum is for this alone

    found: dict[str, list[tuple[float, float, float]]] = {}
    for case in cases:
        events, target = events_of(case.history, items, WEIGHTS), items[case.target]
        parts = attribute(encoder.profiles, events, target[None]).events[0]
        for path, along in PATHS.items():
            theirs = along(saved, events, tuple(EVENT_TYPES), torch.from_numpy(target)).parts
            found.setdefault(path, []).append(compared(parts, theirs))
    names = ("rank_correlation", "same_sign", "top_3_shared")
    means = {path: np.nanmean(rows, axis=0).round(3).tolist() for path, rows in found.items()}
    return {path: dict(zip(names, values, strict=True)) for path, values in means.items()}


def compared(parts: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's correlation; the share of equal signs among parts beyond .01; the share of the same first three."""
    large = np.abs(parts) > LARGE
    same_sign = float((np.sign(parts) == np.sign(theirs))[large].mean()) if large.any() else np.nan
    tops = [set(np.argsort(-each)[:NAMED].tolist()) for each in (parts, theirs)]
    return float(spearmanr(parts, theirs).statistic), same_sign, len(tops[0] & tops[1]) / NAMED


def trained(table: EventTable, cpu_s: float, seed: int, blocks: int) -> SavedModel:
    """A model of the log, trained for so long."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        config = TrainingConfig(cpu_s_max=cpu_s, seed=seed, validate_every_epochs=2)
        plan = TrainPlan(out, model=ModelConfig(blocks=blocks), config=config)
        train_model(plan, table, Path(folder) / "texts", Listeners(), source="deletion")
        return load_model(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format")
    parser.add_argument("path")
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu-s", type=float, default=45.0, help="of training")
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--captum", type=int, default=0, help="users compared with captum; one block only")
    asked = parser.parse_args()
    table = event_table(open_source(asked.format, asked.path))
    saved = trained(table, asked.cpu_s, asked.seed, asked.blocks)
    rows = []
    for encoder in (encoder_of(saved, tuple(EVENT_TYPES)), load_encoder(EncoderConfig())):
        items = encoder.items.encode(table.item_ids, table.item_texts, table.item_attributes)
        remembered = histories(table, asked.users, np.random.default_rng(asked.seed))
        cases = [explained(history, encoder, items) for history in remembered]
        rows.append(judged(cases, encoder, items, asked.seed))
        if asked.captum and len(rows) == 1:
            rows[0]["captum"] = agreement(cases[: asked.captum], saved, encoder, items)
    print(json.dumps({"log": asked.format, "machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
