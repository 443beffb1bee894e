"""A model over a whole table, judged by the serving code, event by event."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder import encode
from encoder.checkpoint import SavedModel
from encoder.dataset import EventTable, Queries
from encoder.encode import catalogue_vectors, user_vectors
from encoder.features import TableFeatures
from encoder.inference import encoder_of
from tests.fakes_encoder import planted_log, random_model, torch_model

Floats = NDArray[np.float32]

TABLE = planted_log(users=12, items=20)
SAVED = random_model(
    8,
    items=TABLE.item_ids[:15],
    item_attributes=("community:1", "community:2"),
    user_attributes=("community:1",),
    types=("click", "view"),
    history_max=50,
)


class Events(NamedTuple):
    rows: NDArray[np.int32]
    item_vectors: Floats
    weights: Floats
    gaps_s: Floats
    types: NDArray[np.uint8]
    ratings: Floats


def streamed(saved: SavedModel, table: EventTable, queries: Queries) -> Floats:
    served = encoder_of(saved, table.type_names)
    vectors = served.items.encode(table.item_ids, table.item_texts, table.item_attributes)
    found = []
    for user, position in zip(queries.users.tolist(), queries.positions.tolist(), strict=True):
        rows = np.arange(table.offsets[user], position)
        states = served.profiles.initial_states([table.user_attributes[user]])
        events = Events(
            rows=np.zeros(len(rows), np.int32),
            item_vectors=vectors[table.items[rows]],
            weights=np.ones(len(rows), np.float32),
            gaps_s=table.gaps_s()[rows],
            types=table.types[rows],
            ratings=table.ratings()[rows],
        )
        served.profiles.step(states, events)
        found.append(served.profiles.vectors(states)[0])
    return np.array(found)


def all_queries(table: EventTable) -> Queries:
    first = np.zeros(len(table), np.bool_)
    first[table.offsets[:-1]] = True
    rows = np.flatnonzero(~first)
    return Queries(table.users[rows], rows)


def encoded(saved: SavedModel, queries: Queries) -> tuple[Floats, Floats]:
    model, features = torch_model(saved), TableFeatures.of(TABLE, saved.vocabulary, None)
    items = catalogue_vectors(model, features)
    return items, user_vectors(model, features, TABLE, queries, items)


@pytest.mark.parametrize("events_per_block", [1, 40, 16_384])
def test_a_table_is_encoded_as_it_is_served(monkeypatch: pytest.MonkeyPatch, events_per_block: int) -> None:
    """Before each position, in blocks of any size, a user's vector is the streamed one; items agree, new ones too."""
    monkeypatch.setattr(encode, "EVENTS_PER_BLOCK", events_per_block)
    monkeypatch.setattr(encode, "ITEMS_PER_BLOCK", 7)
    queries = all_queries(TABLE)
    items, users = encoded(SAVED, queries)
    served = encoder_of(SAVED, TABLE.type_names).items
    expected = served.encode(TABLE.item_ids, TABLE.item_texts, TABLE.item_attributes)
    known = items.any(axis=1)
    assert known[:15].all()
    np.testing.assert_allclose(items[known], expected[known], rtol=0, atol=1e-6)
    found = streamed(SAVED, TABLE, queries)
    read = np.array([known[TABLE.items[TABLE.offsets[u] : p]].all() for u, p in zip(*_columns(queries), strict=True)])
    assert read.sum() > 50
    np.testing.assert_allclose(users[read], found[read], rtol=0, atol=1e-5)


def _columns(queries: Queries) -> tuple[list[int], list[int]]:
    return queries.users.tolist(), queries.positions.tolist()


def test_only_the_newest_events_are_read() -> None:
    """A model that looks at three events gives equal vectors for histories that end alike."""
    short = SavedModel(type(SAVED.model)(dim=8, width=16, history_max=3), SAVED.vocabulary, SAVED.weights)
    queries = all_queries(TABLE)
    _, users = encoded(short, queries)
    _, whole = encoded(SAVED, queries)
    lengths = queries.positions - TABLE.offsets[queries.users]
    np.testing.assert_allclose(users[lengths <= 3], whole[lengths <= 3], rtol=0, atol=1e-6)
    assert np.abs(users[lengths > 3] - whole[lengths > 3]).max(axis=1).min() > 1e-6


def test_no_queries_give_no_vectors() -> None:
    """An empty question has an empty answer."""
    nothing = Queries(np.zeros(0, np.int32), np.zeros(0, np.int64))
    assert encoded(SAVED, nothing)[1].shape == (0, 8)
