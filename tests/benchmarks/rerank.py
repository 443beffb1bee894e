"""CPU time of re-ranking, and what each setting trades, as JSON.

`OPENBLAS_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/rerank.py`: 12,000 items in 40 topics, 256 users of three
topics each, 100 candidates for 20 places. `distance` is 1 - the mean cosine within a list, `score` the mean of the
scores discounted by place, both relative to the lists of nothing set.
"""

from __future__ import annotations

import json
import sys
from time import process_time
from typing import TYPE_CHECKING

import numpy as np

from streams.core.catalogue import Catalogue
from streams.core.events import Item
from streams.recommend.rerank import RerankConfig, Reranker
from streams.recommend.rules import position_weights
from streams.recommend.rules_file import parse_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.core.ports import Floats, Slots

ITEMS, TOPICS, USERS, CANDIDATES, PLACES, RECENT, DIM = 12_000, 40, 256, 100, 20, 32, 64
ROUNDS = 30
RULES = b"""
[[drop]]
provider = "p3"
[[boost]]
brand = ["b1", "b2"]
factor = 1.5
[[pin]]
item = "i5"
position = 3
[caps]
brand = 3
category = 20
provider = 6
[[floor]]
provider = "p1"
share = 0.1
[[floor]]
provider = "p2"
share = 0.15
[fatigue]
shown = 100
rest_hours = 24
spacing_s = 0
"""
Settings = dict[str, object]
CASES: list[tuple[str, Settings, bytes]] = [
    ("nothing set", {}, b""),
    *[(f"msd {d}", {"diversity": d}, b"") for d in (0.1, 0.3, 0.5, 0.7)],
    *[(f"mmr {d}", {"diversity": d, "diversity_by": "mmr"}, b"") for d in (0.1, 0.3, 0.5, 0.7)],
    *[(f"dpp {d}", {"diversity": d, "diversity_by": "dpp"}, b"") for d in (0.1, 0.2, 0.3, 0.5)],
    *[(f"calibration {c}", {"calibration": c}, b"") for c in (0.3, 0.6)],
    ("rules", {}, RULES),
    ("all, msd", {"diversity": 0.3, "calibration": 0.3}, RULES),
    ("all, mmr", {"diversity": 0.3, "calibration": 0.3, "diversity_by": "mmr"}, RULES),
    ("all, dpp", {"diversity": 0.3, "calibration": 0.3, "diversity_by": "dpp"}, RULES),
]


class TopicVectors:
    """An item lies near its topic, the number that its description begins with."""

    dim = DIM

    def __init__(self, topics: Floats, rng: np.random.Generator) -> None:
        self._topics, self._rng = topics, rng

    def encode(self, item_ids: Sequence[str], descriptions: Sequence[str], attributes: object) -> Floats:
        own = self._topics[[int(text.split()[0]) for text in descriptions]]
        return units(own + 0.12 * self._rng.standard_normal(own.shape))


def units(vectors: np.ndarray) -> Floats:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def a_catalogue(topics: Floats, rng: np.random.Generator) -> Catalogue:
    catalogue = Catalogue(TopicVectors(topics, rng))
    own = rng.integers(0, TOPICS, ITEMS)
    catalogue.put(
        [
            Item(
                f"i{slot}",
                title=str(own[slot]),
                categories=[f"c{own[slot]}", *([f"c{rng.integers(TOPICS)}"] if slot % 2 else [])],
                brand=f"b{rng.integers(300)}",
                provider=f"p{rng.integers(20)}",
            )
            for slot in range(ITEMS)
        ]
    )
    return catalogue


def main() -> None:
    """Prints one JSON object a case."""
    rng = np.random.default_rng(0)
    topics = units(rng.standard_normal((TOPICS, DIM)))
    catalogue = a_catalogue(topics, rng)
    mixes = np.array([rng.choice(TOPICS, 3, replace=False) for _ in range(USERS)])
    profiles = units(np.array([0.6, 0.3, 0.2]) @ topics[mixes])
    likeness = profiles @ catalogue.vectors.T
    noisy = likeness + 0.1 * rng.standard_normal(likeness.shape)
    items = np.argsort(-noisy, axis=1)[:, :CANDIDATES].astype(np.int32)
    scores = np.take_along_axis(noisy, items, 1)
    scores = np.exp((scores - scores[:, :1]) / 0.15).astype(np.float32)
    recent = np.argsort(-likeness - 0.2 * rng.standard_normal(likeness.shape), axis=1)[:, :RECENT].astype(np.int32)
    base: dict[str, float] = {}
    for name, settings, rules in CASES:
        found = measured(catalogue, settings, rules, (items, scores, recent))
        base = base or found
        relative = {key: round(found[key] / base[key], 4) for key in ("distance", "score")}
        sys.stdout.write(json.dumps({"case": name, "cpu_us": round(found["cpu_us"], 1), **relative}) + "\n")


def measured(
    catalogue: Catalogue, settings: Settings, rules: bytes, batch: tuple[Slots, Floats, Slots]
) -> dict[str, float]:
    """Least CPU time a user, and the lists' distance and score."""
    items, scores, recent = batch
    made = Reranker(catalogue, RerankConfig(list_items=PLACES, **settings))
    made.take(parse_rules(rules, "rules", PLACES))
    made.warm_up()
    users, counts, spent_s = np.arange(USERS, dtype=np.int32), np.full(USERS, RECENT, np.int32), []
    for round_s in range(ROUNDS):
        started = process_time()
        places = made.rerank(users, items, scores, recent, counts, float(round_s)).places
        spent_s.append(process_time() - started)
        assert (places >= 0).all(), "distance and score are of full lists"
        listed = np.take_along_axis(items, places, 1)
        made.published(users, listed, float(round_s))
    vectors = catalogue.vectors[listed]
    cosines = np.einsum("und,umd->unm", vectors, vectors)
    distance = 1 - (cosines.sum(axis=(1, 2)) - PLACES) / (PLACES * (PLACES - 1))
    worth = np.take_along_axis(scores, places, 1) @ np.array(position_weights(PLACES))
    return {"cpu_us": min(spent_s) / USERS * 1e6, "distance": float(distance.mean()), "score": float(worth.mean())}


if __name__ == "__main__":
    main()
