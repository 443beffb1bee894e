"""A trained model judged through the code that a worker runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from encoder import served
from encoder.baselines import DecayedMean
from encoder.config import EncoderConfig, ModelConfig, TrainingConfig
from encoder.dataset import EventTable, EventTableBuilder, Queries, leave_one_out
from encoder.encode import catalogue_vectors, user_vectors
from encoder.evaluate import Recommender
from encoder.features import TableFeatures
from encoder.inference import UserEncoder, encoder_of, load_encoder
from encoder.items import HashedItemEncoder
from encoder.served import ServedModel
from encoder.trained import TrainedModel, can_start
from encoder.training_folder import start_training
from tests.fakes_encoder import planted_log, random_model, torch_model

if TYPE_CHECKING:
    from pathlib import Path

SAME = 1e-5


@pytest.fixture(scope="module")
def table() -> EventTable:
    """Histories of 6 to 12 events, with attributes of items and users."""
    return planted_log(users=50, items=24)


def random_encoder(table: EventTable) -> tuple[UserEncoder, np.ndarray]:
    """A served model of random weights, and what torch makes of the users just before their last events."""
    saved = random_model(
        8,
        items=table.item_ids,
        item_attributes=sorted({token for tokens in table.item_attributes for token in tokens}),
        user_attributes=sorted({token for tokens in table.user_attributes for token in tokens}),
        types=table.type_names,
    )
    model = torch_model(saved)
    features = TableFeatures.of(table, saved.vocabulary, None)
    items = catalogue_vectors(model, features)
    return encoder_of(saved, table.type_names), user_vectors(model, features, table, leave_one_out(table).test, items)


@pytest.mark.parametrize("users_per_block", [1, 7, 4096])
def test_streaming_is_what_torch_says(table: EventTable, monkeypatch: pytest.MonkeyPatch, users_per_block: int) -> None:
    """Vectors event by event are those of the whole history at once, however users fall into blocks."""
    monkeypatch.setattr(served, "USERS_PER_BLOCK", users_per_block)
    encoder, expected = random_encoder(table)
    split = leave_one_out(table)
    model = ServedModel(encoder)
    model.fit(table, split)
    found = model.users(table, split.test)
    np.testing.assert_allclose(found, expected, atol=SAME)
    np.testing.assert_allclose(model.scores(table, split.test), found @ model.items.T, atol=SAME)


def test_queries_of_one_user_at_many_places(table: EventTable) -> None:
    """Each query sees its own past: in any order, several of a user, the end of the log included."""
    encoder, _ = random_encoder(table)
    model = ServedModel(encoder)
    model.fit(table, leave_one_out(table))
    places = np.array([5, 1, 3, int(table.offsets[1])])
    together = model.users(table, Queries(np.zeros(4, np.int32), places))
    for place, vector in zip(places.tolist(), together, strict=True):
        alone = model.users(table, Queries(np.zeros(1, np.int32), np.array([place])))
        np.testing.assert_allclose(vector, alone[0], atol=1e-6)
    assert len(np.unique(together.round(4), axis=0)) == 4


def test_the_future_is_not_read(table: EventTable) -> None:
    """What a user does at or after a query changes nothing of it."""
    encoder, _ = random_encoder(table)
    split = leave_one_out(table)
    changed = replace(table, items=table.items.copy())
    changed.items[split.test.positions] = (changed.items[split.test.positions] + 1) % len(table.item_ids)
    vectors = []
    for log in (table, changed):
        model = ServedModel(encoder)
        model.fit(log, split)
        vectors.append(model.users(log, split.test))
    np.testing.assert_array_equal(*vectors)


def test_a_trained_model_serves_the_ranks_it_was_chosen_by(table: EventTable, tmp_path: Path) -> None:
    """After a real training the served scores are those of the torch model to 1e-5."""
    config = ModelConfig(dim=8, width=8, history_max=12)
    training = TrainingConfig(epochs_max=2, users_per_batch=16, negatives=16, validate_every_epochs=1)
    split = leave_one_out(table)
    in_torch = TrainedModel(config, training, None)
    in_torch.fit(table, split)
    starts = can_start(config, training, table)  # as `nearstream train` does
    assert starts, "the log tells attributes of users"
    made = start_training(table, split, replace(config, starts=starts), training, texts=None, data={})
    made.trainer.run(lambda _: None, lambda _: None)
    in_service = ServedModel(encoder_of(made.save(tmp_path), table.type_names))
    in_service.fit(table, split)
    np.testing.assert_allclose(in_service.scores(table, split.test), in_torch.scores(table, split.test), atol=SAME)


def test_a_mean_reads_type_weights() -> None:
    """Only the means weigh types; an event of weight 0 leaves no trace, and the name can be chosen."""
    builder = EventTableBuilder()
    for user in ("a", "b"):
        builder.add(user, "x", "view", 0)
        builder.add(user, "y", "ad", 0)
        builder.add(user, "z", "view", 0)
    table = builder.build()
    encoder = UserEncoder(DecayedMean(8, 1e9), HashedItemEncoder(8))
    model = ServedModel(encoder, name="mean", type_weights={"ad": 0.0})
    model.fit(table, leave_one_out(table))
    assert model.name == "mean"
    before_z = Queries(np.array([0], np.int32), np.array([2]))
    np.testing.assert_allclose(model.users(table, before_z)[0], model.items[table.item_ids.index("x")], atol=1e-6)
    plain = ServedModel(encoder)
    plain.fit(table, leave_one_out(table))
    assert plain.name == encoder.profiles.name
    assert float(plain.users(table, before_z)[0] @ plain.items[table.item_ids.index("y")]) > 0.5


def test_it_is_a_recommender() -> None:
    """The judge takes it, a model without training too."""
    assert isinstance(ServedModel(load_encoder(EncoderConfig(dim=4))), Recommender)
