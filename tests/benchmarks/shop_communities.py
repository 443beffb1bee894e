"""What a user's nearest users have in common, on a shop whose right answers are known.

`python tests/benchmarks/shop_communities.py` prints a table on stderr and JSON on stdout. The shop has planted
communities; half way through its time a tenth of the users move to another one. The model learns the first 40,000
events, as `nearstream demo` does it; then both it and the decayed mean stream all 100,000 through the serving code.

- **community**: of the ten nearest users of each user with ten events or more, just before the drift, the share
  from the same planted community.
- **recovery**: of a drifted user with ten events or more before the drift, some events after it: the share of the ten
  nearest among those who never moved (as the log leaves them) that is of the *new* community; and how many of the
  drifted users have at least half, or 8 of 10, from there. Only users with so many events count; `n` says how many.

`--pace live` replaces the log's times by 200 events per second, as the demo sends them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from encoder.config import EncoderConfig  # noqa: E402
from encoder.dataset import Queries  # noqa: E402
from encoder.inference import load_encoder  # noqa: E402
from encoder.served import ServedModel  # noqa: E402
from streams.bench.report import machine  # noqa: E402
from streams.cli.demo import SHOP_PAST_EVENTS, SYNTHETIC_RATE  # noqa: E402
from streams.config import Settings  # noqa: E402
from streams.demo_training import SIZES, training_config  # noqa: E402
from streams.sources import ShopConfig, SyntheticShop  # noqa: E402
from streams.sources.event_table import event_table  # noqa: E402
from streams.train import Listeners, TrainPlan, train_model  # noqa: E402

if TYPE_CHECKING:
    from encoder.config import ModelConfig, TrainingConfig
    from encoder.dataset import EventTable
    from encoder.train import Validation

EVENTS, NEAREST, EVENTS_MIN = 100_000, 10, 10
AFTER = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50)
SHARE_MUST = 0.9


@dataclass(frozen=True, slots=True)
class Truth:
    """Communities (u,) before and after the drift, and how many events (u,) each user had when it came."""

    old: np.ndarray
    new: np.ndarray
    before: np.ndarray


def truth_of(shop: SyntheticShop, table: EventTable) -> Truth:
    """Read from the shop's plan, in the table's order of users."""
    drift_s = shop.drift_ms // 1000
    before = np.bincount(table.users[table.times_s < drift_s], minlength=len(table.user_ids))
    old = np.array([shop.community_of(user) for user in table.user_ids])
    return Truth(old, np.array([shop.community_of(user, shop.drift_ms) for user in table.user_ids]), before)


def at_live_pace(table: EventTable) -> EventTable:
    """The same events in the same order, sent as fast as the demo sends them."""
    order = np.argsort(table.times_s, kind="stable")
    times_s = np.empty(len(table), np.int64)
    times_s[order] = np.arange(len(table)) // SYNTHETIC_RATE
    return replace(table, times_s=times_s)


def nearest(vectors: np.ndarray, others: np.ndarray, *, same: bool) -> np.ndarray:
    """(n, 10) rows of `others` by cosine; with `same`, both are the same users and nobody is their own neighbour."""
    similarities = vectors @ others.T
    if same:
        np.fill_diagonal(similarities, -np.inf)
    return np.argpartition(-similarities, NEAREST, axis=1)[:, :NEAREST]


def community_share(model: ServedModel, table: EventTable, truth: Truth) -> dict[str, Any]:
    """Just before the drift."""
    counts = np.diff(table.offsets)
    users = np.flatnonzero((truth.before >= EVENTS_MIN) & (truth.before < counts)).astype(np.int32)
    vectors = model.users(table, Queries(users, table.offsets[users] + truth.before[users]))
    found = truth.old[users][nearest(vectors, vectors, same=True)]
    return {"users": len(users), "share": round(float((found == truth.old[users][:, None]).mean()), 4)}


def recovery(model: ServedModel, table: EventTable, truth: Truth) -> list[dict[str, Any]]:
    """A point for each number of events since the drift."""
    counts = np.diff(table.offsets)
    moved = np.flatnonzero((truth.old != truth.new) & (truth.before >= EVENTS_MIN)).astype(np.int32)
    stayed = np.flatnonzero((truth.old == truth.new) & (counts > EVENTS_MIN)).astype(np.int32)
    others = model.users(table, Queries(stayed, table.offsets[stayed + 1] - 1))
    points = []
    for after in AFTER:
        users = moved[truth.before[moved] + after < counts[moved]]
        vectors = model.users(table, Queries(users, table.offsets[users] + truth.before[users] + after))
        found = truth.new[stayed][nearest(vectors, others, same=False)]
        share = (found == truth.new[users][:, None]).mean(axis=1)
        points.append(
            {
                "events_since": after,
                "n": len(users),
                "share": round(float(share.mean()), 3),
                "half_or_more": round(float((share >= 0.5).mean()), 3),
                "eight_or_more": round(float((share >= 0.8).mean()), 3),
            }
        )
    return points


def judge(encoder: str, table: EventTable, truth: Truth) -> dict[str, Any]:
    """A model on a whole log, through the serving code."""
    weights = {kind.value: weight for kind, weight in Settings().type_weights.items()}
    loaded = load_encoder(EncoderConfig(encoder, event_types=table.type_names))
    model = ServedModel(loaded, type_weights=weights)
    model.fit(table, None)  # type: ignore[arg-type] - it learns nothing
    return {
        "model": model.name,
        "community": community_share(model, table, truth),
        "recovery": recovery(model, table, truth),
    }


def train(
    past: EventTable, folder: Path, model: ModelConfig, config: TrainingConfig, text_encoder: str
) -> dict[str, Any]:
    """Trains on the past; says what it cost."""
    seen: list[dict[str, float]] = []

    def on_validated(now: Validation) -> None:
        seen.append({"epoch": now.epoch, "ndcg@10": round(now.score, 4), "cpu_s": round(now.cpu_s, 1)})

    cpu_s, wall_s = time.process_time(), time.monotonic()
    plan = TrainPlan(folder, model=model, config=config, text_encoder=text_encoder)
    train_model(plan, past, folder.parent / "texts", Listeners(on_validated=on_validated), source="synthetic")
    return {
        "cpu_s": round(time.process_time() - cpu_s, 1),
        "wall_s": round(time.monotonic() - wall_s, 1),
        "validation": seen,
    }


def run(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One shop: train, then judge both models."""
    shop = SyntheticShop(ShopConfig(events=EVENTS, seed=seed))
    past = event_table(shop, limit=SHOP_PAST_EVENTS)
    whole = event_table(shop, known_items=past.item_ids)
    truth = truth_of(shop, whole)
    judged = at_live_pace(whole) if options.pace == "live" else whole
    config = replace(training_config(past, is_shop=True), seed=seed)
    if options.targets == "all":
        config = replace(config, target_types=())
    if options.epochs:
        config = replace(config, epochs_max=options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        training = train(past, place, SIZES, config, options.text_encoder)
        models = [judge("decayed-mean", judged, truth), judge(str(place), judged, truth)]
    return {"seed": seed, "config": asdict(config), "training": training, "models": models}


def show(result: dict[str, Any]) -> None:
    """One shop as a table."""
    training = result["training"]
    print(f"\nseed {result['seed']}: trained in {training['cpu_s']} s of CPU, {training['wall_s']} s", file=sys.stderr)
    for judged in result["models"]:
        share, users = judged["community"]["share"], judged["community"]["users"]
        print(f"  {judged['model']}: {share:.3f} of 10 nearest in the same community ({users} users)", file=sys.stderr)
    points = list(zip(*(judged["recovery"] for judged in result["models"]), strict=True))
    print("  events since drift |   n | decayed-mean: share  >=5  >=8 | trained: share  >=5  >=8", file=sys.stderr)
    for mean, trained in points:
        left, right = (f"{p['share']:.2f} {p['half_or_more']:.2f} {p['eight_or_more']:.2f}" for p in (mean, trained))
        print(f"  {mean['events_since']:18} | {mean['n']:3} | {left:>29} | {right:>23}", file=sys.stderr)


def main() -> int:
    """Exit 1 when a trained model misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, action="append", help="Of shop and model; may be repeated [0, 1, 2].")
    parser.add_argument("--pace", choices=["shop", "live"], default="shop")
    parser.add_argument("--targets", choices=["view", "all"], default="view", help="What the model learns to predict.")
    parser.add_argument("--epochs", type=int, help="Other than the demo's.")
    parser.add_argument("--text-encoder", default="wordllama")
    options = parser.parse_args()
    results = []
    for seed in options.seed or [0, 1, 2]:
        results.append(run(seed, options))
        show(results[-1])
    conditions = {**machine(), "pace": options.pace, "targets": options.targets, "past_events": SHOP_PAST_EVENTS}
    print(json.dumps({"conditions": conditions, "must": SHARE_MUST, "shops": results}))
    return 0 if all(r["models"][1]["community"]["share"] >= SHARE_MUST for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
