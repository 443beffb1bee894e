"""Training learns what was planted, stops and goes on, and says what is wrong with data."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from encoder.classical.popularity import Popularity
from encoder.config import Kind, ModelConfig, TrainingConfig
from encoder.dataset import EventTable, EventTableBuilder, Split, hold_out_last, leave_one_out
from encoder.encode import catalogue_vectors, user_vectors
from encoder.errors import UnusableData, UnusableModel
from encoder.evaluate import rank_queries
from encoder.features import TableFeatures
from encoder.first_weights import load_rows
from encoder.metrics import FIGURES, Histories, rank, ranking_figures
from encoder.model import ModelSizes, SequenceModel
from encoder.train import Progress, Trainer, Validation
from encoder.vocabulary import Vocabulary
from tests.fakes_encoder import planted_log, rated_log

TABLE = planted_log()
SPLIT = leave_one_out(TABLE)
MODEL = ModelConfig(dim=16, width=16, history_max=12, dropout=0.1, input_dropout=0.1, id_dropout=0.0)
LONG = TrainingConfig(epochs_max=16, users_per_batch=32, negatives=64, learning_rate=1e-2, validate_every_epochs=4)
SHORT = replace(LONG, epochs_max=4, validate_every_epochs=1)


class Stopped(Exception):
    pass


def trainer(
    config: TrainingConfig = SHORT,
    model: ModelConfig = MODEL,
    table: EventTable = TABLE,
    split: Split | None = None,
    **more: Any,
) -> Trainer:
    split = split or (SPLIT if table is TABLE else leave_one_out(table))
    vocabulary = Vocabulary.of(table)
    return Trainer(table, split, vocabulary, TableFeatures.of(table, vocabulary, None), model, config, **more)


def ignore(_: Progress | Validation) -> None:
    pass


def ndcg(made: Trainer) -> float:
    features = TableFeatures.of(TABLE, Vocabulary.of(TABLE), None)
    items = catalogue_vectors(made.model, features)
    users = user_vectors(made.model, features, TABLE, SPLIT.test, items)
    ranks = rank(users @ items.T, TABLE.items[SPLIT.test.positions], Histories.of(TABLE, SPLIT.test)).ranks
    return float(ranking_figures(ranks).mean(axis=0)[FIGURES.index("ndcg@10")])


def popularity_ndcg() -> float:
    popularity = Popularity()
    popularity.fit(TABLE, SPLIT)
    ranks = rank_queries(popularity, TABLE, SPLIT.test).ranks
    return float(ranking_figures(ranks).mean(axis=0)[FIGURES.index("ndcg@10")])


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_training_learns_the_order_of_items(kind: Kind) -> None:
    """With each kind of block the loss falls, and on events kept apart NDCG@10 is far above popularity's."""
    made = trainer(LONG, replace(MODEL, kind=kind))
    losses: list[float] = []
    state = made.run(lambda progress: losses.append(progress.loss), ignore)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert [seen.epoch for seen in state.history] == [4, 8, 12, 16]
    assert ndcg(made) > max(0.6, 10 * popularity_ndcg())


def test_sgd_learns_too() -> None:
    """The other optimiser learns the order too, if more slowly."""
    made = trainer(replace(LONG, optimizer="sgd", learning_rate=0.2))
    made.run(ignore, ignore)
    assert ndcg(made) > 8 * popularity_ndcg()


def test_masked_events_are_learned_beside_the_next() -> None:
    """With hidden events a training beats popularity clearly, and learns the vector that stands for hidden items."""
    made = trainer(replace(LONG, masked_share=0.2))
    made.run(ignore, ignore)
    assert ndcg(made) > 10 * popularity_ndcg()
    assert made.model.hidden_item.any()
    plain = trainer()
    plain.run(ignore, ignore)
    assert not plain.model.hidden_item.any()


def test_attributes_alone_find_the_items_of_first_events() -> None:
    """Trained to start, the vector of a community is among its own items; the order of items is learned as well."""
    made = trainer(LONG, replace(MODEL, starts=True))
    made.run(ignore, ignore)
    communities = ["community:0", "community:1", "community:2"]
    rows = torch.from_numpy(Vocabulary.of(TABLE).user_attribute_rows([[name] for name in communities]))
    with torch.inference_mode():
        starts = made.model.starts(rows).numpy()
    items = catalogue_vectors(made.model, TableFeatures.of(TABLE, Vocabulary.of(TABLE), None))
    for name, scores in zip(communities, starts @ items.T, strict=True):
        best = np.argsort(-scores)[:20].tolist()
        assert sum(name in TABLE.item_attributes[item] for item in best) >= 18, name
    assert ndcg(made) > 0.6


def test_images_alone_teach_the_order_of_items() -> None:
    """Items without words and attributes, known by their images only: new to the model, they are ranked by them."""
    table = replace(TABLE, item_attributes=[()] * len(TABLE.item_ids), user_attributes=[()] * len(TABLE.user_ids))
    seen = np.random.default_rng(5).random((len(table.item_ids), 64)).astype(np.float16)
    seen[7] = 0.0  # one has no image
    vocabulary = Vocabulary.of(table)
    features = TableFeatures.of(table, vocabulary, None, seen)
    model = replace(MODEL, image_dim=64, id_dropout=0.9)
    made = Trainer(table, SPLIT, vocabulary, features, model, LONG)
    made.run(ignore, ignore)
    nameless = replace(features, items=np.full(len(table.item_ids), -1))
    items = catalogue_vectors(made.model, nameless)
    users = user_vectors(made.model, nameless, table, SPLIT.test, items)
    ranks = rank(users @ items.T, table.items[SPLIT.test.positions], Histories.of(table, SPLIT.test)).ranks
    found = float(ranking_figures(ranks).mean(axis=0)[FIGURES.index("ndcg@10")])
    assert found > max(0.2, 5 * popularity_ndcg())
    assert not items[7].any()


def test_the_same_seed_gives_the_same_weights() -> None:
    """Two trainings with one seed agree bit for bit; another seed gives another model."""
    states = []
    for seed in (0, 0, 1):
        made = trainer(replace(SHORT, seed=seed, masked_share=0.1))
        states.append(made.run(ignore, ignore))
        assert same(dict(made.model.state_dict()), states[-1].best_weights)
    assert same(states[0].weights, states[1].weights)
    assert not same(states[0].weights, states[2].weights)


@pytest.mark.parametrize("validations", [1, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_stopped_training_goes_on_as_if_it_had_not(validations: int, optimizer: Any) -> None:
    """Stopped after n validations and taken up again, a training ends with the weights of one go, bit for bit."""
    config = replace(SHORT, masked_share=0.1, optimizer=optimizer)
    whole = trainer(config).run(ignore, ignore)
    stopped = trainer(config)

    def stop(validation: Validation) -> None:
        if validation.epoch == validations:
            raise Stopped

    with pytest.raises(Stopped):
        stopped.run(ignore, stop)
    resumed = trainer(config, state=stopped.state).run(ignore, ignore)
    assert same(resumed.weights, whole.weights)
    assert same(resumed.best_weights, whole.best_weights)
    assert (resumed.step, resumed.epoch) == (whole.step, whole.epoch)
    assert [seen.score for seen in resumed.history] == [seen.score for seen in whole.history]


def test_the_state_is_that_of_the_last_validation() -> None:
    """Steps after a validation do not reach into the weights and moments that the state holds."""
    made, kept = trainer(), {}

    def keep(validation: Validation) -> None:
        kept.update({name: tensor.clone() for name, tensor in made.state.weights.items()})
        kept["moment"] = next(iter(made.state.optimizer["state"].values()))["exp_avg"].clone()

    def stop(progress: Progress) -> None:
        if progress.epoch == 3:
            raise Stopped

    with pytest.raises(Stopped):
        made.run(stop, keep)
    moment = kept.pop("moment")
    assert same(kept, made.state.weights)
    assert torch.equal(moment, next(iter(made.state.optimizer["state"].values()))["exp_avg"])
    assert not same(kept, dict(made.model.state_dict()))


def test_the_end_keeps_the_last_weights_beside_the_best() -> None:
    """After a run the model has the best weights; the state's own are the last ones, to go on from."""
    made = trainer(replace(LONG, learning_rate=0.3, epochs_max=6, validate_every_epochs=1))
    state = made.run(ignore, ignore)
    assert state.best_epoch < state.epoch
    assert same(dict(made.model.state_dict()), state.best_weights)
    assert not same(state.weights, state.best_weights)


def test_no_progress_ends_a_training() -> None:
    """Without a better score for `patience_epochs` the training stops and returns the best weights."""
    made = trainer(replace(LONG, learning_rate=1e-12, epochs_max=50, validate_every_epochs=1, patience_epochs=3))
    state = made.run(ignore, ignore)
    scores = [seen.score for seen in state.history]
    assert state.epoch == state.best_epoch + 3 < 50
    assert max(scores) == state.best_score == scores[state.best_epoch - 1]
    assert [seen.is_best for seen in state.history].count(True) >= 1


def test_the_budget_of_cpu_time_ends_a_training() -> None:
    """The epoch in which the budget is used up is the last, and it is validated."""
    state = trainer(replace(SHORT, epochs_max=1000, cpu_s_max=1e-3, validate_every_epochs=100)).run(ignore, ignore)
    assert (state.epoch, len(state.history)) == (1, 1)


def test_the_learning_rate_rises_and_falls() -> None:
    """Progress counts every step; the rate rises to the given one in the warm-up and then falls towards zero."""
    seen: list[Progress] = []
    made = trainer(replace(SHORT, warmup_share=0.25))
    made.run(seen.append, ignore)
    rates, peak = [progress.learning_rate for progress in seen], made.steps // 4
    assert [progress.step for progress in seen] == list(range(1, made.steps + 1))
    assert rates[: peak - 1] == sorted(rates[: peak - 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) == pytest.approx(SHORT.learning_rate, rel=0.1)
    assert rates[-1] < 0.01 * SHORT.learning_rate
    assert math.isnan(seen[0].best)
    assert seen[-1].best > 0


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_training_that_diverges_says_so(optimizer: Any) -> None:
    """A learning rate that leads to NaN ends with advice; the state keeps the last validation, finite."""
    made, seen = trainer(replace(SHORT, optimizer=optimizer)), []

    def explode(validation: Validation) -> None:
        seen.append(validation)
        if validation.epoch == 2:
            made.config = replace(made.config, learning_rate=1e38)

    with pytest.raises(UnusableData, match=r"diverged after step .* try a learning rate below 1e\+38"):
        made.run(ignore, explode)
    assert made.state.history == seen
    assert len(seen) == 2
    for weights in (made.state.weights, made.state.best_weights):
        assert all(tensor.isfinite().all() for tensor in weights.values())


def test_only_target_types_are_predicted() -> None:
    """With target types only events of those types are in the loss and in validation; others are still read."""
    clicks = replace(LONG, target_types=("click",), epochs_max=8)
    made = trainer(clicks)
    kinds = {TABLE.type_names[kind] for kind in TABLE.types[made._validator.queries.positions]}
    assert kinds == {"click"}
    made.run(ignore, ignore)
    assert ndcg(made) > 10 * popularity_ndcg()


def test_type_weights_are_those_of_the_loss() -> None:
    """A weight of zero for all other types trains as the target type alone does; equal weights change nothing."""
    weights = {}
    for name, settings in {
        "targets": {"target_types": ("click",)},
        "weights": {"type_weights": (("view", 0.0),)},
        "all": {},
        "equal": {"type_weights": (("view", 3.0), ("click", 3.0))},
    }.items():
        config = TrainingConfig(epochs_max=1, users_per_batch=64, negatives=32, **settings)  # type: ignore[arg-type]
        weights[name] = trainer(config).run(ignore, ignore).weights
    assert same(weights["targets"], weights["weights"])
    assert not same(weights["targets"], weights["all"])
    for name, tensor in weights["equal"].items():
        torch.testing.assert_close(tensor, weights["all"][name], rtol=1e-3, atol=1e-4)


def test_what_is_not_to_be_predicted_is_not_in_the_loss() -> None:
    """Other targets of a type without weight leave the loss as it is; others of a target type change it."""
    made = trainer(replace(SHORT, target_types=("click",)))
    made.model.eval()
    batch = next(made._sequences.epoch(32, np.random.default_rng(0)))
    losses = {}
    for name in ("neither", *TABLE.type_names):
        changed = (batch.targets >= 0) & (np.array([*TABLE.type_names])[batch.target_types] == name)
        other = replace(batch, targets=np.where(changed, batch.items[0, 0], batch.targets))
        losses[name] = float(made._objective.loss(other, np.random.default_rng(0)).detach())
    assert losses["view"] == pytest.approx(losses["neither"], rel=1e-5)
    assert abs(losses["click"] - losses["neither"]) > 1e-2


def test_ratings_are_learned() -> None:
    """The rating head's error on events kept apart is far below that of the mean rating; prices are no ratings."""
    table = rated_log()
    split = leave_one_out(table)
    config = replace(LONG, objective="rating", epochs_max=20)
    state = trainer(config, replace(MODEL, rates=True), table).run(ignore, ignore)
    targets = table.ratings()[split.valid.positions]
    mean = np.nanmean(table.ratings()[split.train_mask(table)])
    assert math.sqrt(np.nanmean(np.square(targets - mean))) > 1.4
    assert -state.best_score == min(seen.metrics["rmse"] for seen in state.history) < 0.9


def test_a_rating_head_can_follow_a_pre_training() -> None:
    """Weights of a model without a head start one with it, whose mean is that of the ratings."""
    table = rated_log()
    start = trainer(replace(SHORT, epochs_max=1), table=table).run(ignore, ignore).best_weights
    tuned = trainer(replace(SHORT, objective="rating"), replace(MODEL, rates=True), table, start=start)
    assert tuned.model.rating is not None
    assert float(tuned.model.rating.mean) == pytest.approx(3.0, abs=0.2)
    assert torch.equal(tuned.model.tower.ids.weight, start["tower.ids.weight"])


def few(events: list[tuple[str, str, str, float | None]]) -> EventTable:
    builder = EventTableBuilder()
    for step, (user, item, kind, value) in enumerate(events):
        builder.add(user, item, kind, step, value)
    return builder.build()


VIEWS: list[tuple[str, str, str, float | None]] = [
    (user, f"i{step}", "view", None) for user in ("a", "b") for step in range(4)
]
LONE: list[tuple[str, str, str, float | None]] = [
    ("a", "i0", "view", None),
    ("a", "i1", "view", None),
    ("b", "i1", "view", None),
]


@pytest.mark.parametrize(
    ("events", "settings", "message"),
    [
        (LONE, {}, "No user has two events to learn from"),
        (VIEWS, {"target_types": ("buy",)}, "no event of type buy in this log; it has view"),
        (VIEWS, {"objective": "rating"}, "no event to learn from is a `rating` with a value; the log has view"),
        ([(u, i, k, 9.0) for u, i, k, _ in VIEWS], {"objective": "rating"}, "no event to learn from is a `rating`"),
        (
            [*VIEWS[:3], ("a", "i9", "buy", None), *VIEWS[4:]],
            {"target_types": ("buy",)},
            "to learn from is of the types buy",
        ),
        (
            [(u, "i0", k, v) for u, _, k, v in VIEWS] + [("b", "i0", "view", None), ("c", "i1", "view", None)],
            {},
            "too repetitive",
        ),
    ],
)
def test_data_that_teach_nothing_are_refused(
    events: list[tuple[str, str, str, float | None]], settings: dict[str, Any], message: str
) -> None:
    """The error names what is missing and what the log has instead."""
    table = few(events)
    with pytest.raises(UnusableData, match=message):
        trainer(replace(SHORT, **settings), replace(MODEL, rates=True), table, hold_out_last(table))


def test_one_user_is_no_log() -> None:
    """A log of one user has nobody to compare with."""
    with pytest.raises(UnusableData, match=r"1 user\(s\) and 2 item\(s\): expected at least 2 and 2"):
        few(VIEWS[:2])


def test_content_that_the_config_does_not_know_is_refused() -> None:
    """Text vectors of another length than the model's, or none for a model with texts, are named."""
    with pytest.raises(ValueError, match="items have 0 content dimensions, the model's config says 4"):
        trainer(model=replace(MODEL, content_dim=4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "regression"}, "objective must be one of next-item, rating, got regression"),
        ({"optimizer": "lion"}, "optimizer must be one of adamw, sgd, got lion"),
        ({"type_weights": (("view", -1.0),)}, "type_weights must be finite and not negative, got -1.0 for view"),
        ({"type_weights": (("view", math.nan),)}, "type_weights must be finite"),
        ({"negatives": 0}, "negatives must be 1 or more"),
        ({"masked_share": 1.0}, r"masked_share must lie in \[0, 1\)"),
        ({"learning_rate": math.nan}, "learning_rate must be positive"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    """A setting out of its range is refused when the config is made, and named."""
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


def sequence_model(items: int = 3, types: int = 1, **config: Any) -> SequenceModel:
    torch.manual_seed(items)
    return SequenceModel(ModelConfig(dim=8, width=8, **config), ModelSizes(items, 2, 0, types))


def test_a_grown_vocabulary_keeps_what_was_learned() -> None:
    """Old rows are taken over; the rows of new items and types are zero; all other weights are equal."""
    old, new = sequence_model(), sequence_model(items=5, types=2)
    load_rows(new, dict(old.state_dict()))
    grown = {"tower.ids.weight": 3, "types.weight": 2}
    for name, tensor in new.state_dict().items():
        rows = grown.get(name)
        assert torch.equal(tensor[:rows] if rows else tensor, old.state_dict()[name]), name
        assert rows is None or not tensor[rows:].any()


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        ({}, {"blocks": 2}, r"blocks.1.mix_norm.weight of the checkpoint do not fit.*got None"),
        ({"blocks": 2}, {}, "weights that this model lacks: blocks.1"),
        ({"items": 5}, {"items": 3}, r"tower.ids.weight .* expected \(3, 8\) or fewer rows, got \(5, 8\)"),
        ({"kind": "gru"}, {}, "weights that this model lacks: gru"),
    ],
)
def test_weights_of_another_model_are_refused(given: dict[str, Any], wanted: dict[str, Any], message: str) -> None:
    """More or fewer blocks, rows lost, or another kind: the weights are named."""
    with pytest.raises(UnusableModel, match=message):
        load_rows(sequence_model(**wanted), dict(sequence_model(**given).state_dict()))


def test_training_goes_on_with_new_items() -> None:
    """Weights of a log's first half start a training on the whole log, and it begins better than from nothing."""
    first = trainer(LONG).run(ignore, ignore)
    more = TABLE_AND_NEW
    vocabulary = Vocabulary.of(TABLE).extended(more)
    features = TableFeatures.of(more, vocabulary, None)
    slow = replace(SHORT, epochs_max=1, learning_rate=1e-4)
    scores = [
        Trainer(more, leave_one_out(more), vocabulary, features, MODEL, slow, start=start)
        .run(ignore, ignore)
        .best_score
        for start in (first.best_weights, None)
    ]
    assert scores[0] > 3 * scores[1]


def grown_log() -> EventTable:
    builder = EventTableBuilder(known_items=TABLE.item_ids)
    for user, (start, end) in enumerate(zip(TABLE.offsets[:-1], TABLE.offsets[1:], strict=True)):
        for row in range(int(start), int(end)):
            kind = TABLE.type_names[TABLE.types[row]]
            builder.add(f"u{user}", TABLE.item_ids[TABLE.items[row]], kind, int(TABLE.times_s[row]))
        if user < 20:
            builder.add(f"u{user}", f"new{user % 2}", "view", 1)
    for item, attributes in zip(TABLE.item_ids, TABLE.item_attributes, strict=True):
        builder.describe_item(item, "", attributes)
    for user, known in zip(TABLE.user_ids, TABLE.user_attributes, strict=True):
        builder.describe_user(user, known)
    return builder.build()


TABLE_AND_NEW = grown_log()
