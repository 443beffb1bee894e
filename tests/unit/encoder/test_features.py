"""What an event says beside its item."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.dataset import EventTableBuilder
from encoder.features import EVENT_FEATURES, TableFeatures, event_features
from encoder.vocabulary import Vocabulary

NAN = float("nan")
MONTH_S = 30 * 86_400.0


@pytest.mark.parametrize(
    ("gap_s", "rating", "expected"),
    [
        (0.0, NAN, [0.0, 0.0, 0.0, 0.0]),
        (MONTH_S, NAN, [1.0, 1.0, 1.0, 0.0]),
        (1800.0, NAN, [0.5076, 0.0, 1.0, 0.0]),
        (1801.0, NAN, [0.5076, 1.0, 1.0, 0.0]),
        (0.0, 5.0, [0.0, 0.0, 0.0, 1.0]),
        (0.0, 3.0, [0.0, 0.0, 0.0, 0.0]),
        (0.0, 1.0, [0.0, 0.0, 0.0, -1.0]),
        (0.0, 100.0, [0.0, 0.0, 0.0, 2.0]),
        (0.0, -3e38, [0.0, 0.0, 0.0, -2.0]),
    ],
)
def test_an_event_in_numbers(gap_s: float, rating: float, expected: list[float]) -> None:
    """Log of the gap, new session, any gap, and the rating's distance from 3, bounded."""
    found = event_features(np.array([gap_s], np.float32), np.array([rating], np.float32))
    assert found.shape == (1, EVENT_FEATURES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_any_shape_of_events() -> None:
    """Leading dimensions stay; no events give no rows."""
    assert event_features(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)).shape == (2, 3, EVENT_FEATURES)
    assert event_features(np.zeros(0, np.float32), np.zeros(0, np.float32)).shape == (0, EVENT_FEATURES)


def test_a_table_in_rows_of_a_vocabulary() -> None:
    """Items, attributes and types become rows; what the vocabulary does not hold is none of them."""
    builder = EventTableBuilder()
    builder.add("u0", "a", "view", 0)
    builder.add("u1", "new", "like", 0)
    builder.describe_item("a", "", ["x", "y"])
    builder.describe_user("u1", ["m"])
    table = builder.build()
    features = TableFeatures.of(table, Vocabulary(["b", "a"], ["y"], ["m"], ["like"]), None)
    assert features.items.tolist() == [1, -1]
    assert features.item_attributes.tolist() == [[1], [0]]
    assert features.user_attributes.tolist() == [[0], [1]]
    assert features.types.tolist() == [0, 1]


def test_content_of_other_items_is_refused() -> None:
    """There must be one row of content per item."""
    builder = EventTableBuilder()
    builder.add("u0", "a", "view", 0)
    builder.add("u1", "b", "view", 0)
    table = builder.build()
    with pytest.raises(ValueError, match="content has 3 rows for 2 items"):
        TableFeatures.of(table, Vocabulary.of(table), np.zeros((3, 4), np.float32))
