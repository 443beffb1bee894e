"""The torch model: causal, blind to padding and to what is hidden, unit vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from encoder.config import Kind, ModelConfig
from encoder.model import EventInputs, ItemTower, ModelSizes, SequenceModel, mean_embedding

BATCH, TIME, ITEMS, DIM = 3, 9, 12, 8
SIZES = ModelSizes(items=ITEMS, item_attributes=3, user_attributes=4, types=2)
kinds = pytest.mark.parametrize("kind", get_args(Kind))


def model(kind: Kind = "gated-recurrence", blocks: int = 2, sizes: ModelSizes = SIZES) -> SequenceModel:
    torch.manual_seed(0)
    made = SequenceModel(ModelConfig(kind=kind, dim=DIM, width=12, blocks=blocks, history_max=TIME), sizes).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
        for table in (made.types, made.people):
            if table is not None:
                table.weight[0] = 0.0
    return made


def some_events(time: int = TIME) -> tuple[EventInputs, Tensor]:
    generator = torch.Generator().manual_seed(1)
    events = EventInputs(
        items=torch.randint(0, ITEMS, (BATCH, time), generator=generator),
        types=torch.randint(0, 3, (BATCH, time), generator=generator),
        features=torch.rand(BATCH, time, 4, generator=generator),
        attributes=torch.tensor([[0, 0], [1, 3], [2, 0]]),
    )
    return events, torch.nn.functional.normalize(torch.randn(ITEMS, DIM, generator=generator), dim=-1)


def head(events: EventInputs, time: int) -> EventInputs:
    return replace(
        events, items=events.items[:, :time], types=events.types[:, :time], features=events.features[:, :time]
    )


@kinds
def test_vectors_have_unit_length(kind: Kind) -> None:
    """After each event there is a vector of length 1, and the users differ."""
    users = model(kind)(*some_events())
    assert users.shape == (BATCH, TIME, DIM)
    torch.testing.assert_close(users.norm(dim=-1), torch.ones(BATCH, TIME))
    assert not torch.allclose(users[0], users[1])


@kinds
@pytest.mark.parametrize("place", [0, 4, TIME - 1])
def test_the_past_does_not_know_the_future(kind: Kind, place: int) -> None:
    """Another item, type or feature at one place changes that place's vector and none before it."""
    made, (events, vectors) = model(kind), some_events()
    before = made(events, vectors)
    for column in ("items", "types", "features"):
        changed = getattr(events, column).clone()
        changed[:, place] = (changed[:, place] + 1) % 3
        after = made(replace(events, **{column: changed}), vectors)
        torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=1e-6)
        assert (after[:, place] - before[:, place]).abs().max() > 1e-4, column


@kinds
def test_padding_at_the_end_changes_nothing(kind: Kind) -> None:
    """The vectors of a shorter batch are those of the longer one."""
    made, (events, vectors) = model(kind), some_events()
    torch.testing.assert_close(made(head(events, 5), vectors), made(events, vectors)[:, :5], rtol=0, atol=1e-6)


@kinds
def test_a_hidden_item_is_hidden(kind: Kind) -> None:
    """Whatever stands at a masked place, nothing changes; that it is masked does change something."""
    made, (events, vectors) = model(kind), some_events()
    masked = torch.zeros(BATCH, TIME, dtype=torch.bool)
    masked[:, 3] = True
    hidden = replace(events, masked=masked)
    items = events.items.clone()
    items[:, 3] = (items[:, 3] + 5) % ITEMS
    assert torch.equal(made(hidden, vectors), made(replace(hidden, items=items), vectors))
    assert not torch.allclose(made(hidden, vectors)[:, 3:], made(events, vectors)[:, 3:], atol=1e-4)


@pytest.mark.parametrize("kind", ["gated-recurrence", "gru"])
def test_attributes_are_where_a_user_starts(kind: Kind) -> None:
    """Attributes move the first vector; a user without them starts from the zero state."""
    made, (events, vectors) = model(kind), some_events()
    states = made.initial_states(events.attributes)
    assert not states[0].any()
    assert made.people is not None
    torch.testing.assert_close(states[1], (made.people.weight[1] + made.people.weight[3]) / 2)
    torch.testing.assert_close(states[2], made.people.weight[2])
    unknown = made(replace(events, attributes=torch.zeros_like(events.attributes)), vectors)
    known = made(events, vectors)
    assert torch.equal(known[0], unknown[0])
    assert (known[1, 0] - unknown[1, 0]).abs().max() > 1e-4


def test_a_model_without_attributes_starts_from_zeros() -> None:
    """A vocabulary without attributes of users makes no table and zero states."""
    made = model(sizes=replace(SIZES, user_attributes=0))
    assert made.people is None
    assert not made.initial_states(torch.zeros(5, 1, dtype=torch.int64)).any()


@kinds
def test_every_parameter_is_learned(kind: Kind) -> None:
    """The loss of one batch has a gradient that is not zero for each parameter that the kind uses."""
    made, (events, _) = model(kind, blocks=1).train(), some_events()
    masked = torch.zeros(BATCH, TIME, dtype=torch.bool)
    masked[:, 2] = True
    rows = torch.arange(ITEMS)
    vectors = made.tower(rows, None, (rows % 4)[:, None])
    made(replace(events, masked=masked), vectors)[..., 0].sum().backward()
    used = {name for name, parameter in made.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    unused = {"people.weight"} if kind == "self-attention" else set()
    assert {name for name, _ in made.named_parameters()} - used == unused


def tower(**config: float) -> ItemTower:
    torch.manual_seed(0)
    made = ItemTower(ModelConfig(dim=DIM, width=8, content_dim=4, **config), SIZES)
    made.content_mean.copy_(torch.tensor([0.5, 0.0, 0.0, 0.5]))
    return made


CONTENT = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])


def test_ids_are_dropped_in_training_only() -> None:
    """In training about the stated share of items has no id; in service none loses it."""
    made, rows = tower(id_dropout=0.5), torch.zeros(4000, dtype=torch.int64)
    content, attributes = CONTENT[:1].expand(4000, -1), torch.zeros(4000, 1, dtype=torch.int64)
    with_id, without = made.eval()(torch.tensor([0, -1]), content[:2], attributes[:2])
    assert not torch.allclose(with_id, without)
    assert torch.equal(made(rows, content, attributes), with_id.expand(4000, -1))
    trained = made.train()(rows, content, attributes)
    dropped = torch.isclose(trained, without, atol=1e-6).all(dim=-1)
    assert torch.isclose(trained[~dropped], with_id, atol=1e-6).all()
    assert dropped.float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_an_id_is_never_dropped_where_it_is_all_there_is() -> None:
    """Without content and attributes a dropped id would leave nothing: it stays."""
    torch.manual_seed(0)
    made = ItemTower(ModelConfig(dim=DIM, width=8, id_dropout=0.9), replace(SIZES, item_attributes=0)).train()
    torch.testing.assert_close(made(torch.arange(9), None, None).norm(dim=-1), torch.ones(9))


def test_an_unknown_item_is_its_content_and_attributes() -> None:
    """Row -1 takes no id: its vector is that of content minus its mean, projected, plus the mean of its attributes."""
    made = tower(id_dropout=0.0).eval()
    assert made.content is not None
    assert made.attributes is not None
    found = made(torch.tensor([-1]), CONTENT[:1], torch.tensor([[2, 1, 0]]))[0]
    total = made.content.weight @ (CONTENT[0] - made.content_mean) + made.attributes.weight[1:3].mean(dim=0)
    torch.testing.assert_close(found, total / total.norm())


def test_blank_content_adds_nothing() -> None:
    """An item without words is its id, not its id minus the mean of all words; one without anything is zero."""
    made, none = tower().eval(), torch.zeros(2, 1, dtype=torch.int64)
    found = made(torch.tensor([3, -1]), CONTENT[1:].expand(2, -1), none)
    torch.testing.assert_close(found[0], torch.nn.functional.normalize(made.ids.weight[3], dim=-1))
    assert not found[1].any()


def test_a_mean_counts_only_what_is_there() -> None:
    """Padding neither adds to a mean nor divides it; the gradient of the padding row stays zero."""
    table = torch.nn.Embedding(3, 2, padding_idx=0)
    with torch.no_grad():
        table.weight.copy_(torch.tensor([[0.0, 0.0], [2.0, 4.0], [4.0, 8.0]]))
    mean = mean_embedding(table, torch.tensor([[1, 2, 0], [2, 0, 0], [0, 0, 0]]))
    assert mean.tolist() == [[3.0, 6.0], [4.0, 8.0], [0.0, 0.0]]
    mean.sum().backward()
    assert table.weight.grad is not None
    assert not table.weight.grad[0].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "lstm"}, "kind must be one of gated-recurrence, self-attention, gru, got lstm"),
        ({"dim": 0}, "dim must be 1 or more"),
        ({"dim": 6}, "multiples of 4"),
        ({"dim": 8, "heads": 3}, "multiple of heads"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"content_dim": -1}, "content_dim must be 0 or more"),
        ({"image_dim": -1}, "image_dim must be 0 or more"),
    ],
)
def test_a_senseless_shape_is_refused(settings: dict[str, object], message: str) -> None:
    """A size out of its range is refused when the config is made, and named."""
    with pytest.raises(ValueError, match=message):
        ModelConfig(**settings)  # type: ignore[arg-type]
