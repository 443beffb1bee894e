"""A log of people who follow people and rate products, through the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from streams.cli.replay_words import by_type
from streams.config import load_settings
from streams.replay import replay
from streams.replay_judge import ReplayPlan
from streams.replay_report import report
from streams.sources import open_source
from streams.wiring import build_engine

if TYPE_CHECKING:
    from pathlib import Path

scipy_io = pytest.importorskip("scipy.io", reason="scipy is missing; install nearstream[logs]")
PEOPLE = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Everybody follows persons 1, 2 and 3 and rates product 100, then one of the next five."""
    trust = [[user, person] for user in range(1, PEOPLE) for person in (1, 2, 3) if user != person]
    ratings = [[user, product, 7, 5, 1] for user in range(1, PEOPLE) for product in (100, 101 + user % 5)]
    scipy_io.savemat(tmp_path / "ciao_rating.mat", {"rating": np.array(ratings, np.int32)})
    scipy_io.savemat(tmp_path / "ciao_trustnetwork.mat", {"trustnetwork": np.array(trust, np.int32)})
    return tmp_path


def test_people_and_products_are_judged_apart(folder: Path) -> None:
    """A row for follows and one for ratings; people are found among the recommended, and ids never collide."""
    plan = ReplayPlan()
    engine = build_engine(load_settings(), lessons_max=None)
    replayed = replay(engine, open_source("ciao", str(folder)), plan)
    assert {"1", "100", "user:1"} & engine.catalogue.slot_of.keys() == {"100", "user:1"}
    first = report(replayed, plan, len(engine.catalogue), 0.0, 0.0).rows[0]
    follows, ratings = first.parts["type"]["follow"], first.parts["type"]["rating"]
    assert (follows["n"], ratings["n"]) == (3 * (PEOPLE - 1) - 3, 2 * (PEOPLE - 1))
    assert follows["hr@10"] > 0.5
    assert ratings["hr@10"] > 0.5
    lines = sorted(by_type(first))
    assert [line.split()[0] for line in lines] == ["follow", "rating"]
    assert f"n {follows['n']:,}  hr@10 {follows['hr@10']:.4f}" in lines[0]


def test_events_of_one_type_need_no_rows_of_their_own(folder: Path) -> None:
    """They would repeat the product's."""
    plan = ReplayPlan(types=frozenset({"follow"}))
    engine = build_engine(load_settings(), lessons_max=None)
    first = report(replay(engine, open_source("ciao", str(folder)), plan), plan, 1, 0.0, 0.0).rows[0]
    assert list(by_type(first)) == []
