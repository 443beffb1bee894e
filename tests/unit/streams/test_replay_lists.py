"""Lists after the rules in a replay: what they find, how far apart their items are, and whether floors held."""

from __future__ import annotations

import numpy as np
import pytest

from streams.config import load_settings
from streams.core.catalogue import Catalogue
from streams.core.events import Event, EventType, Item
from streams.recommend.rerank import RerankConfig
from streams.recommend.rules import Rules
from streams.replay import replay
from streams.replay_baselines import with_baselines
from streams.replay_judge import ReplayPlan
from streams.replay_lists import FloorWatch, ListPlan, category_mixes
from streams.replay_report import report
from streams.sources import open_source
from streams.wiring import build_engine
from tests.fakes_core import FakeItems

LIMIT = 400


def _replayed(lists: list[ListPlan], rules: Rules | None = None, items: int = 80):
    source = open_source("synthetic", users=30, items=items, communities=4, events=LIMIT, seed=5)
    engine = build_engine(load_settings(), lessons_max=None)
    engine.take_rules(rules or Rules())
    return replay(engine, source, ReplayPlan(), lists=lists), len(engine.catalogue), source


def test_without_rules_the_list_is_the_ranking() -> None:
    """Nothing set: a target within the first twenty stands where the ranking had it, but for ties."""
    made, _, _ = _replayed([ListPlan("plain", RerankConfig())])
    ranks, listed = made.judged.ranks[:, 0], made.listed[0].ranks
    assert len(listed) == len(ranks)
    whole = (ranks < 20) & (ranks == np.floor(ranks))
    assert whole.sum() > 50
    assert (listed[whole] == ranks[whole]).mean() > 0.95
    assert np.isinf(listed[ranks > 25]).all()


def test_diversity_moves_items_apart_and_is_paid_for_in_its_own_row() -> None:
    """A strong wish makes lists less alike; its row carries distance and figures, and the product's stays."""
    plans = [
        ListPlan("before rules", RerankConfig()),
        ListPlan("mmr 0.6", RerankConfig(diversity=0.6, diversity_by="mmr", diversity_head=0)),
        ListPlan("msd 0.6", RerankConfig(diversity=0.6)),
    ]
    made, items, _ = _replayed(plans)
    rows = {row.model: row for row in report(made, ReplayPlan(), items, 0.0, 0.0).rows}
    assert rows["mmr 0.6"].figures["distance@10"] > 1.1 * rows["before rules"].figures["distance@10"]
    assert rows["msd 0.6"].figures["distance@10"] > 1.05 * rows["before rules"].figures["distance@10"]
    assert rows["msd 0.6"].figures["category_distance@10"] > rows["before rules"].figures["category_distance@10"]
    assert rows["msd 0.6"].figures["ndcg@10"] < rows["nearstream"].figures["ndcg@10"]
    assert rows["nearstream"].figures["ndcg@10"] == pytest.approx(rows["before rules"].figures["ndcg@10"], abs=0.01)


def test_calibration_brings_lists_nearer_to_the_users_categories() -> None:
    """The KL distance of a calibrated list from the user's mix is smaller."""
    plans = [ListPlan("before rules", RerankConfig()), ListPlan("calibrated", RerankConfig(calibration=0.9))]
    made, _, _ = _replayed(plans)
    before, after = (each.figures["miscalibration"] for each in made.listed)
    assert after < before - 0.04


def test_a_floor_holds_though_its_group_is_nobodys_candidate() -> None:
    """Six of four hundred items, each of one event: the floor proposes them itself."""
    items = ["i137", "i32", "i83", "i338", "i113", "i356"]
    rules = Rules.model_validate({"floor": [{"item": items, "share": 0.03}], "exposure": {"window_lists": 50}})
    plans = [ListPlan("before rules", RerankConfig(), counted=rules), ListPlan("published", RerankConfig(), rules)]
    made, _, _ = _replayed(plans, rules, items=400)
    before, published = (each.floors for each in made.listed)
    assert before is not None
    assert published is not None
    assert before.windows == published.windows > 300
    assert before.held < 0.5 * before.windows
    assert published.held >= 0.99 * published.windows


def test_what_was_published_tires_in_later_lists() -> None:
    """Lists of a batch count once it is over: an item that was shown pauses, and in a small shop lists get short."""
    rules = Rules.model_validate({"fatigue": {"shown": 1, "rest_hours": 1000, "spacing_s": 0}})
    made, _, _ = _replayed([ListPlan("before rules", RerankConfig()), ListPlan("tired", RerankConfig(), rules)])
    before, tired = (each.figures for each in made.listed)
    assert tired["short_lists"] > before["short_lists"] + 0.3


def _catalogue() -> Catalogue:
    catalogue = Catalogue(FakeItems())
    catalogue.put([Item("a", provider="p"), Item("b", provider="q"), Item("c", provider="q")])
    return catalogue


def test_a_floor_is_watched_over_every_full_window() -> None:
    """Shares are of the exposure of the last lists, one window ending at each list, whichever way lists arrive."""
    rules = Rules.model_validate({"floor": [{"provider": "p", "share": 0.3}], "exposure": {"window_lists": 2}})
    lists = np.array([[0, 1], [1, 2], [1, 2], [0, 2], [0, -1], [-1, -1]], np.int32)
    found = []
    for size in (1, 2, 6):
        watch = FloorWatch(rules, _catalogue(), 2)
        for first in range(0, len(lists), size):
            watch.record(lists[first : first + size])
        found.append(watch.result())
    assert found[0] == found[1] == found[2]
    assert found[0].windows == 4, "an empty list is none"
    assert found[0].held == 3
    assert found[0].least_shares == (0.0,)


def test_an_items_categories_share_it_and_padding_counts_for_nothing() -> None:
    """Mixes are shares that sum to 1, or zeros where nothing is known."""
    categories = np.array([[0, 1, -1, -1], [1, -1, -1, -1], [-1, -1, -1, -1]], np.int32)
    mixes = category_mixes(np.array([[0, 1, -1], [2, -1, -1]], np.int32), categories)
    assert mixes == pytest.approx(np.array([[0.25, 0.75], [0.0, 0.0]]))


def test_frozen_baselines_are_asked_behind_what_they_learned_and_refitted_ones_everywhere() -> None:
    """Columns come behind the arms; NaN marks what a frozen one was not asked; a popular item is found."""
    made, items, source = _replayed([])
    whole = with_baselines(made, source, ReplayPlan())
    names = whole.arms[len(made.arms) :]
    assert names[:3] == ("popularity frozen", "item-kNN frozen", "co-occurrence frozen")
    frozen = whole.judged.ranks[:, whole.arms.index("item-kNN frozen")]
    assert np.array_equal(np.isnan(frozen), whole.judged.events < LIMIT // 2)
    assert not np.isnan(whole.judged.ranks[:, whole.arms.index("item-kNN refitted")]).any()
    row = next(row for row in report(whole, ReplayPlan(), items, 0.0, 0.0).rows if row.model == "item-kNN frozen")
    assert row.n == int((~np.isnan(frozen)).sum())


def test_popularity_counts_what_was_before_and_never_what_comes() -> None:
    """The place of an item by popularity is what a count of the events before it says."""
    log = [("u1", "a"), ("u2", "a"), ("u3", "b"), ("u4", "a"), ("u5", "b"), ("u6", "b"), ("u1", "b"), ("u8", "a")]
    source = _Lines([Event(user, item, EventType.VIEW, 1_700_000_000_000 + 60_000 * n) for n, (user, item) in
                     enumerate(log)])  # fmt: skip
    made = with_baselines(replay(build_engine(load_settings(), lessons_max=None), source, ReplayPlan()), source,
                          ReplayPlan())  # fmt: skip
    ranks = made.judged.ranks[:, made.arms.index("popularity")]
    by_event = dict(zip(made.judged.events.tolist(), ranks.tolist(), strict=True))
    assert by_event[3] == 0, "a: two before, b: one"
    assert by_event[4] == 1, "b is behind a"
    assert by_event[7] == 1, "a: three, b: four"


class _Lines:
    """A log in memory, of which nothing else is known."""

    name = "lines"

    def __init__(self, log: list[Event]) -> None:
        self._log = log

    def describe(self):
        return open_source("synthetic", events=1).describe()

    def items(self):
        return iter(())

    def users(self):
        return iter(())

    def events(self):
        return iter(self._log)
