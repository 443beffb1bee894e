"""Training sequences and sampled negatives."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.batches import NegativeSampler, Sequences
from encoder.dataset import EventTable, EventTableBuilder, Queries, Split
from encoder.features import event_features

NOBODY = Queries(np.zeros(0, np.int32), np.zeros(0, np.int64))


def log(lengths: list[int]) -> EventTable:
    """Every event has an item of its own, so that an item tells which event it is."""
    builder, item = EventTableBuilder(), 0
    for user, length in enumerate(lengths):
        for step in range(length):
            kind = ("view", "rating")[item % 2]
            builder.add(f"u{user}", f"i{item}", kind, 100 * step * step, float(item % 5))
            item += 1
    return builder.build()


def up_to(table: EventTable, ends: list[int]) -> Split:
    starts, stops = table.offsets[:-1], table.offsets[1:]
    return Split("any", np.minimum(starts + np.array(ends), stops), NOBODY, NOBODY)


logs = st.lists(st.integers(1, 12), min_size=2, max_size=8).flatmap(
    lambda lengths: st.tuples(
        st.just(lengths), st.lists(st.integers(0, 12), min_size=len(lengths), max_size=len(lengths))
    )
)


@given(logs, st.integers(1, 13), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_every_learnable_event_is_predicted_once(
    drawn: tuple[list[int], list[int]], length_max: int, users_per_batch: int, seed: int
) -> None:
    """An epoch predicts the newest `length_max` learnable events of a user once each, and reads nothing beyond."""
    table = log(drawn[0])
    split = up_to(table, drawn[1])
    sequences = Sequences(table, split, length_max)
    expected: Counter[int] = Counter()
    for start, end in zip(table.offsets[:-1].tolist(), split.train_ends.tolist(), strict=True):
        expected.update(table.items[max(start + 1, end - length_max) : end].tolist())
    found: Counter[int] = Counter()
    learnable = set(table.items[split.train_mask(table)].tolist())
    for batch in sequences.epoch(users_per_batch, np.random.default_rng(seed)):
        real = batch.targets >= 0
        found.update(batch.targets[real].tolist())
        assert set(batch.items[real].tolist()) | set(batch.targets[real].tolist()) <= learnable
        assert batch.items.shape[1] <= length_max
        assert len(batch.users) <= users_per_batch
    assert found == expected
    assert sequences.predictions == expected.total()


def test_a_target_is_the_event_after_its_input() -> None:
    """Item, type, rating and features of a place belong to one event, the targets to the next; padding is empty."""
    table = log([4, 2])
    (batch,) = Sequences(table, up_to(table, [4, 2]), 9).epoch(2, np.random.default_rng(0))
    order = np.argsort(batch.users)
    assert batch.items[order].tolist() == [[0, 1, 2], [4, 0, 0]]
    assert batch.targets[order].tolist() == [[1, 2, 3], [5, -1, -1]]
    numbers = event_features(table.gaps_s(), table.ratings())
    np.testing.assert_array_equal(batch.features[order][0], numbers[:3])
    np.testing.assert_array_equal(batch.types[order][0], table.types[:3])
    np.testing.assert_array_equal(batch.target_types[order][0], table.types[1:4])
    assert not batch.features[order][1, 1:].any()


def test_only_ratings_are_ratings() -> None:
    """The value of another event, a price for one, is no rating to be predicted."""
    table = log([4, 2])
    (batch,) = Sequences(table, up_to(table, [4, 2]), 9).epoch(2, np.random.default_rng(0))
    order = np.argsort(batch.users)
    np.testing.assert_array_equal(batch.target_ratings[order], [[1.0, np.nan, 3.0], [0.0, np.nan, np.nan]])


def test_long_histories_keep_their_newest_events() -> None:
    """A user with more events than fit loses the oldest, and the first kept event still knows the gap before it."""
    table = log([9, 2])
    sequences = Sequences(table, up_to(table, [9, 2]), 3)
    batch = sequences.batch(np.array([0]))
    assert batch.items.tolist() == [[5, 6, 7]]
    assert batch.targets.tolist() == [[6, 7, 8]]
    np.testing.assert_array_equal(batch.features[0], event_features(table.gaps_s(), table.ratings())[5:8])


def test_batches_hold_similar_lengths_in_another_order_each_epoch() -> None:
    """Little is padding, and two epochs differ."""
    table = log([2 + user % 11 for user in range(200)])
    sequences, rng = Sequences(table, up_to(table, [99] * 200), 50), np.random.default_rng(0)
    first, second = (list(sequences.epoch(16, rng)) for _ in range(2))
    padding = sum(int((batch.targets < 0).sum()) for batch in first)
    assert padding < 0.25 * sequences.predictions
    assert [batch.users.tolist() for batch in first] != [batch.users.tolist() for batch in second]


def test_negatives_come_half_evenly_half_by_frequency() -> None:
    """Draws follow the stated probabilities, and log_q tells them; an item without events is drawn too."""
    items = np.array([0] * 90 + [1] * 10, np.int32)
    sampler = NegativeSampler(items, 4)
    rows, log_q = sampler.draw(200_000, np.random.default_rng(0))
    expected = np.array([0.5 / 4 + 0.45, 0.5 / 4 + 0.05, 0.5 / 4, 0.5 / 4])
    np.testing.assert_allclose(np.bincount(rows, minlength=4) / len(rows), expected, atol=5e-3)
    for item in range(4):
        assert log_q[rows == item][0] == pytest.approx(np.log(200_000 * expected[item]), rel=1e-5)
