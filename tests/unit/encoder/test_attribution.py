"""What each event adds to a cosine: judged by the served code, by torch, by captum and by taking events out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder.attribution import attribute
from encoder.baselines import DecayedMean, EventColumns
from encoder.checkpoint import SavedModel
from encoder.config import ModelConfig, TrainingConfig
from encoder.dataset import hold_out_last
from encoder.errors import UnusableModel
from encoder.features import TableFeatures, event_features
from encoder.inference import UserEncoder, encoder_of
from encoder.model import EventInputs
from encoder.recurrent import RecurrentEncoder
from encoder.scan import linear_recurrence
from encoder.train import Trainer
from encoder.vocabulary import Vocabulary
from tests.fakes_encoder import EVENT_TYPES, planted_log, random_model, torch_model

DIM, HALF_LIFE_S = 8, 86_400.0
SAVED = {blocks: random_model(DIM, blocks=blocks, seed=blocks) for blocks in (1, 2, 3)}
NAMED, DRAWS, USERS = 3, 20, 60


def serving(saved: SavedModel) -> RecurrentEncoder:
    return RecurrentEncoder(saved.model, saved.vocabulary, saved.weights, name=saved.name, event_types=EVENT_TYPES)


ENCODERS = {"decayed mean": DecayedMean(DIM, HALF_LIFE_S)} | {f"{n} blocks": serving(SAVED[n]) for n in SAVED}


def some_events(count: int, seed: int) -> EventColumns:
    """Events of one user; some repel, and the third type is one that no model knows."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    return EventColumns(
        rows=np.zeros(count, np.int32),
        item_vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        weights=rng.choice(np.array([1.0, 2.0, -1.0], np.float32), count),
        gaps_s=rng.choice(np.array([0.0, 3.0, 2000.0, 1e6], np.float32), count),
        types=rng.integers(0, len(EVENT_TYPES), count).astype(np.uint8),
        ratings=rng.choice(np.array([np.nan, 1.0, 4.5], np.float32), count),
    )


TARGETS = some_events(5, seed=99).item_vectors


@pytest.mark.parametrize("kind", ENCODERS)
@settings(deadline=None, max_examples=25)  # the first example may compile
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 40), begun=st.booleans())
def test_the_parts_sum_to_the_served_cosine(kind: str, seed: int, count: int, begun: bool) -> None:
    """Events, start and constant sum to the cosine of the vector that is served, to 1e-5, from any state on."""
    encoder, events = ENCODERS[kind], some_events(count, seed)
    states = np.zeros((1, encoder.state_width), np.float32)
    if begun:
        encoder.step(states, some_events(3, seed + 1))
    start = states[0].copy()
    encoder.step(states, events)
    found = attribute(encoder, events, TARGETS, start)
    assert found.events.shape == (len(TARGETS), count)
    np.testing.assert_allclose(found.cosines, TARGETS @ encoder.vectors(states)[0], rtol=0, atol=1e-5)


def test_a_decayed_mean_is_split_as_it_is_summed() -> None:
    """A part is the event's weight, halved once a half-life since, times its item's cosine, by the sum's length."""
    events = some_events(2, seed=3)._replace(
        weights=np.array([2.0, 1.0], np.float32), gaps_s=np.array([0.0, HALF_LIFE_S], np.float32)
    )
    total = events.item_vectors[0] + events.item_vectors[1]
    expected = events.item_vectors @ TARGETS.T / np.linalg.norm(total)  # two halved once is one
    found = attribute(ENCODERS["decayed mean"], events, TARGETS)
    np.testing.assert_allclose(found.events.T, expected, atol=1e-6)
    assert not found.constant.any()
    assert not found.start.any()


def test_events_that_are_not_read_add_nothing() -> None:
    """A dislike of a type that training never saw has the part 0, and others' parts are as without it."""
    encoder, events = ENCODERS["2 blocks"], some_events(6, seed=4)
    events.types[:], events.weights[:] = 0, 1.0
    expected = attribute(encoder, EventColumns(*(np.delete(c, 2, axis=0) for c in events)), TARGETS)
    events.types[2], events.weights[2] = 2, -1.0
    found = attribute(encoder, events, TARGETS)
    assert not found.events[:, 2].any()
    np.testing.assert_allclose(np.delete(found.events, 2, axis=1), expected.events)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_user_without_direction_has_parts_of_zero(kind: str) -> None:
    """No events, or none that is read: every part is 0 and so is the cosine."""
    nothing = attribute(ENCODERS[kind], some_events(0, seed=1), TARGETS)
    assert nothing.events.shape == (len(TARGETS), 0)
    assert not nothing.cosines.any()


def held(x: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt().detach()
    return centred / deviation * norm.weight + norm.bias


def held_parts(saved: SavedModel, events: EventColumns, target: NDArray[Any]) -> NDArray[Any]:
    """By torch's gradient by the share of each event that enters the first block, everything held detached."""
    model, types = torch_model(saved), saved.vocabulary.type_rows(EVENT_TYPES)[events.types]
    features = torch.from_numpy(event_features(events.gaps_s, events.ratings))[None]
    rows, nobody = torch.arange(len(types))[None], torch.zeros(1, 1, dtype=torch.long)
    inputs = EventInputs(rows, torch.from_numpy(types)[None], features, nobody)
    x = model._inputs(inputs, torch.from_numpy(events.item_vectors)).detach()
    share = present = torch.ones(1, len(types), 1, requires_grad=True)
    for number, block in enumerate(model.blocks):
        normed = block.mix_norm(x) if number == 0 else held(x, block.mix_norm)
        decays = torch.sigmoid(block.mix.decay(normed)).detach()
        values = block.mix.value(normed.detach() if number == 0 else normed)
        states = linear_recurrence(decays, (1 - decays) * values * present, torch.zeros(1, values.shape[-1]))
        x = x * present + block.mix.out(states * F.silu(block.mix.gate(normed)).detach())
        hidden = block.feed_in(held(x, block.feed_norm))
        x = x + block.feed_out(hidden * (hidden > 0).detach())
        present = torch.ones(())
    user = model.projection(held(x[:, -1], model.norm))
    cosine = (user / user.norm(dim=-1, keepdim=True).detach()) @ torch.from_numpy(target)
    return torch.autograd.grad(cosine.sum(), share)[0][0, :, 0].numpy()


@pytest.mark.parametrize("blocks", SAVED)
def test_each_part_is_the_gradient_of_the_held_torch_model(blocks: int) -> None:
    """Event by event, not only in sum, and for any number of blocks."""
    events = some_events(25, seed=5)._replace(weights=np.ones(25, np.float32))
    found = attribute(ENCODERS[f"{blocks} blocks"], events, TARGETS[:1]).events[0]
    np.testing.assert_allclose(found, held_parts(SAVED[blocks], events, TARGETS[0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"events": some_events(2, 0)._replace(rows=np.array([0, 1], np.int32))}, "names a row outside 0..0"),
        ({"targets": TARGETS[:, :4]}, r"shape \(items, 8\), got \(5, 4\)"),
        ({"targets": TARGETS * np.nan}, "targets must be finite"),
        ({"start": np.zeros(3)}, r"start must be a finite state of the shape \(24,\), got \(3,\)"),
        ({"start": np.full(24, np.inf)}, "start must be a finite state"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    """Events of two users, vectors of another length or a state that is none: the message names it."""
    given_: dict[str, Any] = {"events": some_events(2, 0), "targets": TARGETS, "start": None, **change}
    with pytest.raises(ValueError, match=message):
        attribute(ENCODERS["1 blocks"], **given_)


def test_a_model_that_nobody_split_is_refused() -> None:
    """Only sums over events have parts; the message says what to do instead."""
    with pytest.raises(UnusableModel, match=r"cosines of a str cannot be split by event.*with and without an event"):
        attribute("a model", some_events(1, 0), TARGETS)


class Trained(NamedTuple):
    """A small model that learned a planted log, its catalogue, and the histories of some users."""

    saved: SavedModel
    encoder: UserEncoder
    items: NDArray[np.float32]
    histories: list[NDArray[np.int32]]


@pytest.fixture(scope="module")
def trained() -> Trained:
    """Communities of items; a second of training is enough to tell them apart."""
    table = planted_log(users=160, items=60)
    vocabulary = Vocabulary(table.item_ids, [], [], list(table.type_names))
    model = ModelConfig(dim=16, width=16, history_max=12, dropout=0.1, input_dropout=0.1, id_dropout=0.0)
    config = TrainingConfig(
        epochs_max=10, users_per_batch=50, negatives=32, learning_rate=0.01, validate_every_epochs=5, warmup_share=0.0
    )
    trainer = Trainer(table, hold_out_last(table), vocabulary, TableFeatures.of(table, vocabulary, None), model, config)
    trainer.run(lambda _: None, lambda _: None)
    weights = {name: value.numpy() for name, value in trainer.model.state_dict().items()}
    saved = SavedModel(model, vocabulary, weights)
    encoder = encoder_of(saved, table.type_names)
    items = encoder.items.encode(table.item_ids, table.item_texts, table.item_attributes)
    rows = [np.arange(*table.offsets[user : user + 2]) for user in range(USERS)]
    return Trained(saved, encoder, items, [table.items[own] for own in rows])


def views(items: NDArray[np.float32]) -> EventColumns:
    """One view a minute."""
    count = len(items)
    gaps_s = np.full(count, 60.0, np.float32)
    gaps_s[:1] = 0.0
    nothing = np.full(count, np.nan, np.float32)
    rows, types = np.zeros(count, np.int32), np.zeros(count, np.uint8)
    return EventColumns(rows, items, np.ones(count, np.float32), gaps_s, types, nothing)


def vector(trained: Trained, history: NDArray[np.int32]) -> NDArray[np.float32]:
    states = np.zeros((1, trained.encoder.profiles.state_width), np.float32)
    trained.encoder.profiles.step(states, views(trained.items[history]))
    return trained.encoder.profiles.vectors(states)[0]


def nearest_unseen(trained: Trained, history: NDArray[np.int32]) -> int:
    cosines = trained.items @ vector(trained, history)
    cosines[history] = -np.inf
    return int(cosines.argmax())


def test_without_the_named_events_the_cosine_falls_further(trained: Trained) -> None:
    """Taking out the three largest parts costs at least twice what three random events cost, over all users."""
    rng, named, drawn = np.random.default_rng(0), [], []
    for history in trained.histories:
        target = trained.items[nearest_unseen(trained, history)]
        parts = attribute(trained.encoder.profiles, views(trained.items[history]), target[None]).events[0]
        before = vector(trained, history) @ target
        left = np.delete(history, np.argsort(-parts)[:NAMED])
        named.append(before - vector(trained, left) @ target)
        at_random = [np.delete(history, rng.permutation(len(history))[:NAMED]) for _ in range(DRAWS)]
        drawn.extend(before - vector(trained, left) @ target for left in at_random)
    assert np.mean(drawn) > 0
    assert np.mean(named) >= 2 * np.mean(drawn)


@pytest.mark.parametrize(("path", "correlation_min", "agreed_min"), [("items", 0.35, 0.75), ("presence", 0.6, 0.9)])
def test_captum_agrees(trained: Trained, path: str, correlation_min: float, agreed_min: float) -> None:
    """Integrated gradients of the torch model order the events much alike, and most get the same sign.

    Least along the path on which gates move: there an event also gets what it does to the others' memory.
    """
    pytest.importorskip("captum", reason="captum, of the group dev, is not installed")
    from tests.integrated_gradients import PATHS  # noqa: PLC0415 - it needs captum

    correlations, agreed = [], []
    for history in trained.histories[:20]:
        events, target = views(trained.items[history]), trained.items[nearest_unseen(trained, history)]
        parts = attribute(trained.encoder.profiles, events, target[None]).events[0]
        theirs = PATHS[path](trained.saved, events, ("view", "click"), torch.from_numpy(target))
        assert abs(theirs.parts.sum() - (theirs.cosine - theirs.begin)) < 0.05
        ranks = [np.argsort(np.argsort(each)) for each in (parts, theirs.parts)]
        correlations.append(np.corrcoef(*ranks)[0, 1])
        agreed.extend((np.sign(parts) == np.sign(theirs.parts))[np.abs(parts) > 0.01].tolist())
    assert np.mean(correlations) > correlation_min
    assert np.mean(agreed) > agreed_min
