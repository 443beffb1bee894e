"""A sequence model that trains when it is fitted."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from encoder.classical import Popularity
from encoder.config import Kind, ModelConfig, TrainingConfig
from encoder.dataset import EventTable, leave_one_out
from encoder.evaluate import Recommender, rank_queries
from encoder.metrics import FIGURES, ranking_figures
from encoder.trained import TrainedModel
from tests.fakes_encoder import planted_log

MODEL = ModelConfig(dim=16, width=16, history_max=12, dropout=0.1, input_dropout=0.1, id_dropout=0.0)
CONFIG = TrainingConfig(
    epochs_max=10, users_per_batch=50, negatives=32, learning_rate=0.01, validate_every_epochs=5, warmup_share=0.0
)


@pytest.fixture(scope="module")
def table() -> EventTable:
    """A log whose next items follow from the last ones, and whose items are equally popular."""
    return planted_log(users=160, items=40)


def ndcg(recommender: Recommender, table: EventTable) -> float:
    """NDCG@10 on the last events, after a fit."""
    split = leave_one_out(table)
    recommender.fit(table, split)
    ranks = rank_queries(recommender, table, split.test).ranks
    return float(ranking_figures(ranks).mean(axis=0)[FIGURES.index("ndcg@10")])


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_learns_beyond_popularity(kind: Kind, table: EventTable) -> None:
    """After a short training the held-out events rank far above what popularity says, under the kind's name."""
    model = TrainedModel(replace(MODEL, kind=kind), CONFIG, None)
    assert model.name == kind
    assert ndcg(model, table) > 1.5 * ndcg(Popularity(), table)


def test_the_seed_alone_decides(table: EventTable) -> None:
    """The same seed gives the same scores, bit for bit; another seed gives others."""
    split, short = leave_one_out(table), replace(CONFIG, epochs_max=1, validate_every_epochs=1)
    scores = []
    for seed in (0, 0, 1):
        model = TrainedModel(MODEL, replace(short, seed=seed), None)
        model.fit(table, split)
        scores.append(model.scores(table, split.test))
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])


def test_scores_are_cosines(table: EventTable) -> None:
    """Users and items are unit vectors, and a score is their product."""
    split = leave_one_out(table)
    model = TrainedModel(MODEL, replace(CONFIG, epochs_max=1), None)
    model.fit(table, split)
    users, scores = model.users(table, split.test), model.scores(table, split.test)
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(model.items, axis=1), 1.0, atol=1e-5)
    assert scores.shape == (len(split.test), len(table.item_ids))
    np.testing.assert_allclose(scores, users @ model.items.T, atol=1e-6)


def test_the_test_events_are_not_learned_from(table: EventTable) -> None:
    """Other items at the end of the histories give the same model, for training never saw them."""
    split, items = leave_one_out(table), []
    changed = replace(table, items=table.items.copy())
    changed.items[split.test.positions] = (changed.items[split.test.positions] + 7) % len(table.item_ids)
    for log in (table, changed):
        model = TrainedModel(MODEL, replace(CONFIG, epochs_max=1), None)
        model.fit(log, split)
        items.append(model.items)
    np.testing.assert_array_equal(*items)


def test_ids_only_reads_no_attributes(table: EventTable) -> None:
    """With `ids_only` other attributes change nothing, without it they do; texts are the caller's to leave out."""
    split = leave_one_out(table)
    told = replace(table, item_attributes=[(f"odd:{n % 2}",) for n in range(len(table.item_ids))])
    short = replace(CONFIG, epochs_max=1)
    for ids_only, equal in ((True, True), (False, False)):
        items = []
        for log in (table, told):
            model = TrainedModel(MODEL, short, None, name="mine", ids_only=ids_only)
            model.fit(log, split)
            items.append(model.items)
        assert model.name == "mine"
        assert np.array_equal(*items) is equal


def test_texts_are_read(table: EventTable) -> None:
    """Content vectors change the items; a config of another width is refused."""
    content = np.random.default_rng(0).normal(size=(len(table.item_ids), 6)).astype(np.float32)
    split, short = leave_one_out(table), replace(CONFIG, epochs_max=1)
    model = TrainedModel(replace(MODEL, content_dim=6), short, content)
    model.fit(table, split)
    other = TrainedModel(replace(MODEL, content_dim=6), short, content[::-1].copy())
    other.fit(table, split)
    assert not np.allclose(model.items, other.items)
    with pytest.raises(ValueError, match="6 content dimensions"):
        TrainedModel(MODEL, short, content).fit(table, split)


def test_listeners_are_told(table: EventTable) -> None:
    """Each batch and each validation reach their listeners."""
    steps, epochs = [], []
    model = TrainedModel(
        MODEL,
        replace(CONFIG, epochs_max=2, validate_every_epochs=1),
        None,
        on_progress=lambda now: steps.append(now.step),
        on_validated=lambda seen: epochs.append(seen.epoch),
    )
    model.fit(table, leave_one_out(table))
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 4
    assert epochs == [1, 2]
