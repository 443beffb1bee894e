"""Trained-looking models for the fakes' world, and what must hold once one of them serves."""

from __future__ import annotations

import numpy as np

from encoder.inference import encoder_of
from index import AutoIndex, IndexConfig
from streams.core.events import EVENT_TYPES, Item
from streams.core.histories import Histories, encoded_histories
from streams.core.ports import Floats
from streams.recommend.engine import Model
from tests.fakes_core import World, contents, event, world
from tests.fakes_encoder import random_model

NAMES = [f"i{n}" for n in range(5)]


def trained(seed: int = 0, dim: int = 8) -> Model:
    """A trained-looking model of another width than the fakes'."""
    saved = random_model(dim, items=NAMES, item_attributes=("brand:x",), types=("view", "purchase"), seed=seed)
    encoder = encoder_of(saved, tuple(EVENT_TYPES))
    return Model(encoder.profiles, encoder.items, AutoIndex(IndexConfig(dim=dim)))


def lived(users: int = 12) -> World:
    """Users with histories of several lengths, and items of which some have words."""
    found = world()
    found.engine.describe([Item("i1", title="red shoe"), Item("i2", title="blue coat", brand="x")])
    found.feed([event(f"u{n % users}", f"i{n * n % 5}", at_s=n) for n in range(5 * users)])
    return found


def expected_states(found: World, model: Model) -> Floats:
    """Every history encoded anew by the model, with item vectors of its own making."""
    words = found.catalogue.words_since(np.zeros(0, np.int32), len(found.catalogue))
    vectors = model.items.encode(
        words.item_ids, [w.description for w in words.words], [w.attributes for w in words.words]
    )
    histories = Histories.of(found.store.take(np.arange(len(found.store), dtype=np.int32)))
    return encoded_histories(histories, model.profiles, vectors, found.updater.type_weights)


def assert_serves(found: World, model: Model) -> None:
    """Names, states, index and catalogue are the model's, and those of users who are there; no others."""
    engine, store = found.engine, found.store
    states = expected_states(found, model)
    assert engine.encoder is model.profiles
    assert engine.index is model.index
    assert store.layout.state_width == model.profiles.state_width
    assert np.allclose(store.columns.state[: len(store)], states, atol=1e-5)
    vectors = model.profiles.vectors(states)
    directed = {slot for slot in store.slot_of.values() if vectors[slot].any()}
    assert set(model.index.ids()) == directed
    for slot in directed:
        assert np.allclose(model.index.vector(slot), vectors[slot], atol=1e-5)  # type: ignore[attr-defined]
    assert found.catalogue.vectors.shape == (len(found.catalogue), model.items.dim)


def integers(found: World) -> dict[str, object]:
    """All of every profile but its state."""
    rows = contents(found)["profiles"]
    return {user: {name: value for name, value in row.items() if name != "state"} for user, row in rows.items()}
