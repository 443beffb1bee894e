"""Users with attributes begin where their attributes say: streamed, re-encoded, swapped and restored alike."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from encoder.inference import encoder_of
from index import AutoIndex, IndexConfig
from streams.core.events import EVENT_TYPES, Event, EventType, User
from streams.kafka.dead_letter import DeadLetterBound
from streams.kafka.processor import Processor
from streams.recommend.engine import Model
from streams.recommend.next_model import NextModel
from tests.fakes_core import START_MS, Record, World, event, event_records, world
from tests.fakes_encoder import random_model

DIM = 8
ADA, BOB = User("ada", gender="f", age=36), User("bob", gender="m")
HISTORY = [
    event("ada", f"i{n}", kind, at_s=50.0 * n) for n, kind in enumerate([EventType.VIEW, EventType.PURCHASE] * 3)
]


def model(seed: int = 0, *, starts: bool = False) -> Model:
    """A trained-looking model that knows women and people in their thirties."""
    saved = random_model(
        DIM,
        items=[f"i{n}" for n in range(5)],
        user_attributes=("gender:f", "age:30"),
        types=("view", "purchase"),
        seed=seed,
        starts=starts,
    )
    encoder = encoder_of(saved, tuple(EVENT_TYPES))
    return Model(encoder.profiles, encoder.items, AutoIndex(IndexConfig(dim=DIM)))


def served(with_model: Model) -> World:
    """An engine without history that serves the model."""
    found = world()
    states = np.zeros((len(found.store.columns.events), with_model.profiles.state_width), np.float32)
    found.engine.serve(with_model, states, np.zeros((found.catalogue.capacity, DIM), np.float32))
    return found


def state(found: World, user_id: str) -> np.ndarray:
    return found.store.take(found.store.slots([user_id])).state[0]


def lived(with_model: Model, events: list[Event], *users: User) -> World:
    """The state of somebody who was described first and lived then."""
    found = served(with_model)
    found.engine.describe_users(users)
    found.feed(events)
    return found


@pytest.mark.parametrize("starts", [False, True])
def test_a_first_event_starts_from_the_attributes(starts: bool) -> None:
    """Whose attributes the model knows ends elsewhere than who is nobody; who has unknown ones does not."""
    with_model = model(starts=starts)
    told = lived(with_model, [HISTORY[0], event("bob", "i0")], ADA, BOB)
    untold = lived(with_model, [HISTORY[0], event("bob", "i0")])
    assert not np.allclose(state(told, "ada"), state(untold, "ada"))
    assert_array_equal(state(told, "bob"), state(untold, "bob"))


@pytest.mark.parametrize("starts", [False, True])
def test_streamed_is_re_encoded_with_the_same_start(starts: bool) -> None:
    """One event a batch against the whole history at once, to 1e-5."""
    found = lived(model(starts=starts), [], ADA)
    for place, each in enumerate(HISTORY):
        found.feed([each], first_offset=place)
    columns = found.store.take(found.store.slots(["ada"]))
    streamed = columns.state.copy()
    columns.state[:] = 77.0
    found.engine.reencode(["ada"], columns)
    assert_allclose(columns.state, streamed, rtol=0, atol=1e-5)


def test_attributes_that_come_later_wait_for_the_next_re_encoding() -> None:
    """The state goes on as it began; encoded anew it is that of somebody described before."""
    with_model = model()
    late = lived(with_model, HISTORY[:2])
    late.engine.describe_users([ADA])
    late.feed(HISTORY[2:], first_offset=2)
    assert_array_equal(state(late, "ada"), state(lived(with_model, HISTORY), "ada"))
    columns = late.store.take(late.store.slots(["ada"]))
    late.engine.reencode(["ada"], columns)
    assert_allclose(columns.state[0], state(lived(with_model, HISTORY, ADA), "ada"), rtol=0, atol=1e-5)


def test_a_model_that_is_swapped_in_starts_from_the_attributes_too() -> None:
    """As if it had served from the beginning."""
    found, coming = lived(model(), HISTORY, ADA), model(seed=1)
    following = NextModel(found.engine, coming)
    while (changes := following.switch(0)) is not None:
        following.take_in(changes)
    assert found.engine.encoder is coming.profiles
    assert_allclose(state(found, "ada"), state(lived(coming, HISTORY, ADA), "ada"), rtol=0, atol=1e-5)


def test_a_changelog_of_another_model_is_read_with_the_attributes() -> None:
    """A worker that restores what another model wrote, having read the users first."""
    source = Processor(lived(model(), [], ADA).engine, "events", 1, 2, lambda: DeadLetterBound(1.0, 9))
    output = source.prepare(event_records(HISTORY), 0, START_MS + 60_000)
    found = served(model(seed=1))
    target = Processor(found.engine, "events", 1, 2, lambda: DeadLetterBound(1.0, 9))
    found.engine.describe_users([ADA])
    target.load_profiles([Record(place, key, value) for place, (key, value) in enumerate(output.profiles)])
    assert_allclose(state(found, "ada"), state(lived(model(seed=1), HISTORY, ADA), "ada"), rtol=0, atol=1e-5)


def test_attributes_alone_give_a_vector_where_the_model_was_trained_for_it() -> None:
    """A unit vector for whom the model knows, zeros for the others, and for all under a model that was not."""
    for starts in (False, True):
        found = served(model(starts=starts))
        found.engine.describe_users([ADA, BOB])
        vectors = found.engine.start_vectors(["ada", "bob", "nobody"])
        assert vectors.shape == (3, DIM)
        assert_allclose(np.linalg.norm(vectors, axis=1), [float(starts), 0, 0], atol=1e-6)


def test_who_is_described_and_did_nothing_is_nobody_s_neighbour() -> None:
    """No profile, no place in the index."""
    found = lived(model(starts=True), [event("bob", "i0")], ADA, BOB)
    assert list(found.engine.index.ids()) == [found.store.slot_of["bob"]]
    assert "ada" not in found.store.slot_of


def test_a_model_without_attributes_moves_as_before() -> None:
    """The fakes' decayed sum reads none, like the built-in model."""
    told, untold = world(), world()
    told.engine.describe_users([ADA, BOB])
    for found in (told, untold):
        found.feed(HISTORY)
    assert_array_equal(state(told, "ada"), state(untold, "ada"))
    assert not told.engine.start_vectors(["ada"]).any()
