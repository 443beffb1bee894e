"""The bytes of what the ranking remembers, and what they are at a million users."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from streams.bench.views_memory import UNITS, formula, full_bytes, held_bytes, measure_views
from streams.config import load_settings


@dataclass
class Holder:
    rows: np.ndarray = field(default_factory=lambda: np.zeros(1000))
    view: np.ndarray | None = None


@dataclass(slots=True)
class Slotted:
    names: dict[str, list[int]]


def test_an_array_is_weighed_once() -> None:
    """However many names and views it has; a view of a part holds the whole."""
    held = Holder()
    held.view = held.rows[:2]
    alone = held_bytes(Holder())
    assert 8000 < alone < 9000
    assert 0 < held_bytes([held, held, held.rows]) - alone < 500
    assert held_bytes(held.rows[:2]) == held_bytes(held.rows)


def test_what_slots_and_containers_hold_counts() -> None:
    """Keys, values and members; a class or a function is nobody's."""
    names = {"a": [1 << 40, 1 << 41], "b": []}
    assert held_bytes(Slotted(names)) > held_bytes(names) > held_bytes(names["a"]) > held_bytes([]) + 2 * 28
    assert held_bytes(Holder) == held_bytes(held_bytes) == 0


def test_the_formula_adds_users_items_and_what_is_there_once() -> None:
    """Each part by its own unit."""
    weighed = dict.fromkeys(UNITS, 0) | {"reverse refreshes": 1000, "trends": 300, "weights": 7}
    assert full_bytes(weighed, users=10, items=100) == 100 * 1_000_000 + 3 * 100_000 + 7
    assert formula(weighed, users=10, items=100) == "100 * users + 3 * items + 7 bytes"


def test_every_part_is_measured() -> None:
    """In a small run: each has its bar, per user, per item or once, and all together have the one that is judged."""
    said: list[str] = []
    report = measure_views(load_settings(), 300, 200, said.append)
    by_name = {each.name: each for each in report.bars}
    assert set(UNITS) <= by_name.keys()
    assert by_name["co-occurrence"].unit == "bytes an item"
    assert by_name["trends"].value >= 3 * 8
    assert by_name["fatigue and exposure"].value >= 432
    assert by_name["reverse refreshes"].value >= 132
    judged = report.bars[-1]
    assert (judged.must, judged.sense) == (2.0 * 1024**3, "at most")
    assert judged.value > 0
    assert report.conditions["users"] == 300


def test_the_parts_that_are_weighed_are_those_that_have_a_unit() -> None:
    """A new part needs both."""
    with pytest.raises(KeyError):
        formula({"a part without a unit": 1}, 1, 1)
