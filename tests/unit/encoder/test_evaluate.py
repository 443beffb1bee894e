"""The judge: which queries count, what each row says, and what a recommender may not do."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from encoder import evaluate as module
from encoder.classical import Popularity
from encoder.dataset import EventTable, EventTableBuilder, Queries, Split, leave_one_out, timeline
from encoder.errors import UnusableData
from encoder.evaluate import evaluate, judged_queries, rank_queries
from encoder.metrics import FIGURES, bootstrap_intervals, ranking_figures

if TYPE_CHECKING:
    from collections.abc import Callable

ITEMS = 30


class Noise:
    """Random scores, the same for the same seed, that know the target's place if they `cheat`."""

    name = "noise"

    def __init__(self, seed: int, cheat: float = 0.0) -> None:
        self._seed, self._cheat = seed, cheat
        self.blocks: list[int] = []

    def fit(self, table: EventTable, split: Split) -> None:
        self.fitted = (table, split)

    def scores(self, table: EventTable, queries: Queries) -> np.ndarray:
        self.blocks.append(len(queries))
        scores = np.stack(
            [np.random.default_rng([self._seed, row]).random(len(table.item_ids)) for row in queries.positions]
        )
        scores[np.arange(len(queries)), table.items[queries.positions]] += self._cheat
        return scores.astype(np.float32)


class Constant:
    """Gives one value for everything, or an array of the wrong shape."""

    name = "constant"

    def __init__(self, value: float = 0.0, extra: int = 0) -> None:
        self._value, self._extra = value, extra

    def fit(self, table: EventTable, split: Split) -> None:
        pass

    def scores(self, table: EventTable, queries: Queries) -> np.ndarray:
        return np.full((len(queries), len(table.item_ids) + self._extra), self._value, np.float32)


@pytest.fixture(scope="module")
def table() -> EventTable:
    """Forty users, thirty items, three types; later events prefer other items, so that some are cold."""
    rng = np.random.default_rng(11)
    builder = EventTableBuilder(known_items=[f"i{item}" for item in range(ITEMS)])
    for user in range(40):
        for _ in range(int(rng.integers(1, 60) ** 0.9)):
            time_s = int(rng.integers(0, 1000))
            item = int(rng.integers(0, 20)) + (10 if time_s > 800 else 0)
            builder.add(f"u{user}", f"i{item}", str(rng.choice(["view", "view", "buy", "like"])), time_s)
    for item in range(ITEMS):
        builder.describe_item(f"i{item}", "", [f"category:{item % 3}"])
    return builder.build()


@pytest.fixture(scope="module")
def split(table: EventTable) -> Split:
    """A timeline."""
    return timeline(table, 0.2, 0.1)


def ticking(step_s: float = 1.0) -> Callable[[], float]:
    """A clock that moves by one step at each look."""
    ticks = count()
    return lambda: next(ticks) * step_s


def test_a_row_holds_the_means_of_ranks_taken_one_by_one(table: EventTable, split: Split) -> None:
    """Figures, intervals and parts of a row follow from ranks computed query by query with plain sorting."""
    row = evaluate([Noise(3)], table, split, cpu_clock=ticking()).rows[0]
    queries = judged_queries(table, split.test, "new", None)
    scores = Noise(3).scores(table, queries)
    ranks = []
    for given, user, position in zip(scores, queries.users, queries.positions, strict=True):
        seen = set(table.items[table.offsets[user] : position].tolist())
        order = [item for item in np.argsort(-given).tolist() if item not in seen]
        ranks.append(order.index(table.items[position]) + 1.0)
    values = ranking_figures(np.array(ranks))
    assert row.n == len(queries) == len(ranks)
    assert [row.figures[name] for name in FIGURES] == pytest.approx(values.mean(axis=0).tolist())
    wanted = bootstrap_intervals(values, queries.users, np.random.default_rng(0))
    assert [row.intervals[name] for name in FIGURES] == [tuple(ends) for ends in wanted.tolist()]
    lengths = queries.positions - table.offsets[queries.users]
    long = (lengths >= 20) & (lengths < 50)
    assert row.parts["history"]["20-49"]["n"] == long.sum() > 0
    assert row.parts["history"]["20-49"]["mrr@20"] == pytest.approx(values[long, FIGURES.index("mrr@20")].mean())


@pytest.mark.parametrize("targets", ["new", "all"])
def test_every_aspect_parts_the_queries_without_loss(table: EventTable, split: Split, targets: Any) -> None:
    """The parts of each aspect add up to all queries, in number and in hits; warm items occur in training."""
    row = evaluate([Noise(1)], table, split, targets=targets, cpu_clock=ticking()).rows[0]
    assert set(row.parts) == {"history", "type", "item", "target"}
    for parts in row.parts.values():
        assert sum(part["n"] for part in parts.values()) == row.n
        assert sum(part["n"] * part["hr@10"] for part in parts.values()) == pytest.approx(row.n * row.figures["hr@10"])
    queries = judged_queries(table, split.test, targets, None)
    learned = set(table.items[split.train_mask(table)].tolist())
    warm = sum(item in learned for item in table.items[queries.positions].tolist())
    assert row.parts["item"]["warm"]["n"] == warm < row.n
    assert set(row.parts["target"]) == ({"new"} if targets == "new" else {"new", "repeat"})


def test_history_lengths_fall_into_their_parts() -> None:
    """The ends of each part belong to it: 1 and 4, 5 and 9, 10 and 19, 20 and 49, 50 and more."""
    builder = EventTableBuilder()
    for place in range(60):
        builder.add("u1", f"i{place % 2}", "view", place)
    builder.add("u2", "i1", "view", 0)
    lengths = np.array([1, 4, 5, 9, 10, 19, 20, 49, 50, 59])
    table, queries = builder.build(), Queries(np.zeros(10, np.int32), lengths)
    parts = module.query_parts(table, queries, np.ones(2, np.int64))["history"]
    assert {part: lengths[mask].tolist() for part, mask in parts.items()} == {
        "1-4": [1, 4],
        "5-9": [5, 9],
        "10-19": [10, 19],
        "20-49": [20, 49],
        "50+": [50, 59],
    }


def test_an_item_is_warm_once_it_occurs_in_training(table: EventTable) -> None:
    """One training event makes an item warm, none leaves it cold."""
    queries = Queries(np.zeros(3, np.int32), table.offsets[0] + np.array([1, 2, 3]))
    items = table.items[queries.positions]
    counts = np.full(ITEMS, 5)
    counts[items[0]], counts[items[1]] = 0, 1
    parts = module.query_parts(table, queries, counts)["item"]
    assert parts["warm"].tolist() == (items != items[0]).tolist()
    assert parts["cold"].tolist() == (items == items[0]).tolist()


def test_repeats_count_only_when_asked_for(table: EventTable, split: Split) -> None:
    """Under "new" no target was seen before; under "all" every query counts and nothing is masked."""
    new = judged_queries(table, split.test, "new", None)
    for user, position in zip(new.users, new.positions, strict=True):
        assert table.items[position] not in table.items[table.offsets[user] : position]
    assert len(new) < len(judged_queries(table, split.test, "all", None)) == len(split.test)
    worst = rank_queries(Constant(), table, split.test, "all").ranks
    assert (worst == (ITEMS + 1) / 2).all()


def test_only_the_wanted_types_are_asked_for(table: EventTable, split: Split) -> None:
    """`types` keeps queries whose target is of one of these types, and says when none is left."""
    row = evaluate([Noise(1)], table, split, types=["buy", "like"], cpu_clock=ticking()).rows[0]
    assert set(row.parts["type"]) == {"buy", "like"}
    with pytest.raises(UnusableData, match="no event of type rent"):
        evaluate([Noise(1)], table, split, types=["rent"], cpu_clock=ticking())
    views = split.test.take(np.flatnonzero(table.of_types(["view"])[split.test.positions]))
    with pytest.raises(UnusableData, match=rf"Of {len(views)} queries none asks for a new item by a buy: choose other"):
        evaluate([Noise(1)], table, replace(split, test=views), types=["buy"], cpu_clock=ticking())


def test_factories_get_each_seed_and_others_one_row(table: EventTable, split: Split) -> None:
    """Rows stand in the order given: one for each seed of a factory, a class included, and one of a recommender."""
    report = evaluate(
        [lambda seed: Noise(seed, cheat=0.5), Noise, Constant()], table, split, seeds=(4, 5), cpu_clock=ticking()
    )
    assert [(row.model, row.seed) for row in report.rows] == [
        ("noise", 4), ("noise", 5), ("noise", 4), ("noise", 5), ("constant", 4),
    ]  # fmt: skip
    figures = [row.figures["ndcg@10"] for row in report.rows]
    assert figures[0] != figures[1]
    assert report.mean("constant", "ndcg@10") == figures[4]
    assert report.mean("noise", "ndcg@10") == pytest.approx(np.mean(figures[:4]))
    with pytest.raises(KeyError, match="nobody"):
        report.mean("nobody", "ndcg@10")


def test_differences_to_the_first_row_are_paired(table: EventTable, split: Split) -> None:
    """A row as good as the first is neither ahead nor behind; a worse one is surely behind; the first has none."""
    good, same, poor = evaluate([Noise(1, 0.9), Noise(1, 0.9), Noise(1)], table, split, cpu_clock=ticking()).rows
    assert good.ahead_of_first == {}
    assert set(same.ahead_of_first.values()) == {(0.0, 0.0)}
    assert poor.ahead_of_first["ndcg@10"][1] < 0


def test_effort_is_measured_by_the_given_clocks(table: EventTable, split: Split) -> None:
    """CPU seconds are those between two looks around fit and around each block; memory is the most that was seen."""
    sizes = iter([300.0] + [50.0] * 100)
    blocks: list[tuple[str, int, int]] = []
    row = evaluate(
        [Noise(1)],
        table,
        split,
        targets="all",
        cpu_clock=ticking(0.25),
        resident_mb=lambda: next(sizes),
        progress=lambda *told: blocks.append(told),
    ).rows[0]
    assert row.cpu_fit_s == 0.25
    assert row.cpu_score_s == 0.25 * len(blocks)
    assert row.memory_mb == 300.0
    assert blocks[-1] == ("noise", len(split.test), len(split.test))


def test_blocks_are_bounded_and_change_nothing(
    table: EventTable, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few queries a block may hold, ranks and lists are the same; 512 queries at most are asked at once."""
    whole = rank_queries(Noise(2), table, split.test)
    monkeypatch.setattr(module, "SCORES_PER_BLOCK", 7 * ITEMS)
    small = Noise(2)
    parts = rank_queries(small, table, split.test)
    assert max(small.blocks) == 7
    np.testing.assert_array_equal(whole.ranks, parts.ranks)
    np.testing.assert_array_equal(whole.lists, parts.lists)
    monkeypatch.setattr(module, "SCORES_PER_BLOCK", 1)
    one = Noise(2)
    rank_queries(one, table, split.test.take(np.arange(3)))
    assert one.blocks == [1, 1, 1]
    assert module.QUERIES_PER_BLOCK == 512


@pytest.mark.parametrize(
    ("recommender", "message"),
    [
        (Constant(math.nan), "constant: The scores of query 0 of .* hold NaN or"),
        (Constant(math.inf), "constant: The scores of query 0"),
        (Constant(extra=1), r"constant gave scores of the shape \(\d+, 31\) for \d+ queries and 30 items"),
    ],
)
def test_scores_that_cannot_be_ranked_name_the_recommender(
    table: EventTable, split: Split, recommender: Constant, message: str
) -> None:
    """NaN, +inf and wrong shapes stop the evaluation with the culprit's name."""
    with pytest.raises(ValueError, match=message):
        evaluate([recommender], table, split, cpu_clock=ticking())


@pytest.mark.parametrize(("recommenders", "seeds"), [([], (0,)), ([Noise(1)], ())])
def test_nothing_to_judge_is_refused(table: EventTable, split: Split, recommenders: list[Noise], seeds: Any) -> None:
    """No recommender or no seed is a misuse."""
    with pytest.raises(ValueError, match="Expected a recommender and a seed at least"):
        evaluate(recommenders, table, split, seeds=seeds, cpu_clock=ticking())


def test_the_report_is_the_published_json(table: EventTable, split: Split) -> None:
    """Keys are those that scripts read, numbers are plain, and what was not measured is null, not NaN."""
    bare = replace(table, item_attributes=[()] * ITEMS)
    report = evaluate([Noise(1), Popularity()], bare, split, cpu_clock=ticking())
    told = json.loads(json.dumps(report.to_json("shop"), allow_nan=False))
    assert (told["data"], told["protocol"], told["targets"]) == ("shop", "timeline", "new")
    assert [row["model"] for row in told["rows"]] == ["noise", "popularity"]
    wanted = {"model", "seed", "n", "cpu_s", "coverage@10", "gini@10", "novelty@10", "diversity@10", "memory_mb"}
    assert wanted | set(FIGURES) <= set(told["rows"][0])
    assert told["rows"][0]["diversity@10"] is None
    assert told["rows"][0]["memory_mb"] is None
    assert told["rows"][0]["cpu_s"] == told["rows"][0]["cpu_fit_s"] + told["rows"][0]["cpu_score_s"]


def test_diversity_is_by_vectors_when_given_else_by_attributes(table: EventTable, split: Split) -> None:
    """Popularity shows ten fixed items: equal vectors are not diverse; of three categories about two thirds differ."""
    equal = np.ones((ITEMS, 4), np.float32)
    [by_vectors] = evaluate([Popularity()], table, split, item_vectors=equal, cpu_clock=ticking()).rows
    [by_attributes] = evaluate([Popularity()], table, split, cpu_clock=ticking()).rows
    assert by_vectors.figures["diversity@10"] == pytest.approx(0)
    assert 0.6 < by_attributes.figures["diversity@10"] < 0.8


def test_a_recommender_sees_the_whole_table_but_is_asked_only_the_judged_queries(table: EventTable) -> None:
    """Under leave-one-out there is one query a user at most, and fit gets the split as it is."""
    split = leave_one_out(table)
    noise = Noise(1)
    row = evaluate([noise], table, split, cpu_clock=ticking()).rows[0]
    assert noise.fitted[0] is table
    assert noise.fitted[1] is split
    assert sum(noise.blocks) == row.n <= len(table.user_ids)
