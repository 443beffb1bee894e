"""The classical recommenders against their definitions written out, and against knowledge of the future."""

from __future__ import annotations

import csv
import lzma
import math
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from encoder.classical import (
    CooccurrenceRules,
    DecayedPopularity,
    Ease,
    ItemKnn,
    LearnsValidation,
    Popularity,
    UserKnn,
    VectorUserKnn,
    standard_baselines,
)
from encoder.classical.item_based import EASE_ITEMS_MAX
from encoder.dataset import EventTable, EventTableBuilder, Queries, Split, leave_one_out, timeline
from encoder.errors import UnusableData
from encoder.evaluate import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable

    from encoder.evaluate import Recommender

LOGS = Path(__file__).resolve().parents[3].parent / "shared" / "data"
USERS, ITEMS = 15, 12
HALF_LIFE_S = 20.0


def random_table(seed: int, users: int = USERS, items: int = ITEMS) -> EventTable:
    """A log with repeats, equal times and users of one event."""
    rng = np.random.default_rng(seed)
    builder = EventTableBuilder(known_items=[f"i{item}" for item in range(items)])
    for user in range(users):
        for _ in range(int(rng.integers(1, 12))):
            builder.add(f"u{user}", f"i{int(items * rng.random() ** 2)}", "view", int(rng.integers(0, 200)))
    return builder.build()


def item_counts(table: EventTable, queries: Queries) -> np.ndarray:
    """A user vector: how often each item stands in the history, as a unit vector."""
    vectors = np.zeros((len(queries), len(table.item_ids)), np.float32)
    for query, (user, position) in enumerate(zip(queries.users, queries.positions, strict=True)):
        np.add.at(vectors[query], table.items[table.offsets[user] : position], 1)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


RECOMMENDERS: dict[str, Callable[[], Recommender]] = {
    "popularity": Popularity,
    "decayed-popularity": lambda: DecayedPopularity(HALF_LIFE_S),
    "item-knn": ItemKnn,
    "co-occurrence-rules": CooccurrenceRules,
    "ease": lambda: Ease(1.0),
    "user-knn": lambda: UserKnn(4),
    "vector-user-knn": lambda: VectorUserKnn(item_counts, neighbours=4),
}
SPLITS = {"loo": leave_one_out, "timeline": lambda table: timeline(table, 0.25, 0.2)}


def history(table: EventTable, user: int, end: int) -> list[int]:
    """Items before a row."""
    return table.items[table.offsets[user] : end].tolist()


def training(table: EventTable, split: Split) -> list[list[int]]:
    """Each user's items that may be learned from."""
    return [history(table, user, split.train_ends[user]) for user in range(len(table.user_ids))]


def expected_item_knn(table: EventTable, split: Split, user: int, position: int) -> np.ndarray:
    """Sum over the history of the cosine of user sets / position from the end."""
    fans = [{who for who, items in enumerate(training(table, split)) if item in items} for item in range(ITEMS)]
    scores = np.zeros(ITEMS)
    for place, item in enumerate(reversed(history(table, user, position)), start=1):
        for other in set(range(ITEMS)) - {item}:
            common = len(fans[item] & fans[other])
            if common:
                scores[other] += common / math.sqrt(len(fans[item]) * len(fans[other])) / place
    return scores


def expected_rules(table: EventTable, split: Split, user: int, position: int) -> np.ndarray:
    """Pairs within five events at 1/distance, both ways, over the roots of both masses + 1; the last ten count."""
    pairs = np.zeros((ITEMS, ITEMS))
    for items in training(table, split):
        for place, item in enumerate(items):
            for distance in range(1, min(5, place) + 1):
                if items[place - distance] != item:
                    pairs[item, items[place - distance]] += 1 / distance
                    pairs[items[place - distance], item] += 1 / distance
    masses = pairs.sum(axis=1) + 1
    weights = pairs / np.sqrt(np.outer(masses, masses))
    recent = history(table, user, position)[::-1][:10]
    return sum((weights[item] / place for place, item in enumerate(recent, start=1)), np.zeros(ITEMS))


def expected_user_knn(table: EventTable, split: Split, user: int, position: int) -> np.ndarray:
    """The four other users of the highest cosine of item sets lend it to their items; the lower row wins ties."""
    mine = set(history(table, user, position))
    similarities = {
        who: len(mine & set(items)) / math.sqrt(len(mine) * len(set(items)))
        for who, items in enumerate(training(table, split))
        if who != user and mine & set(items)
    }
    scores = np.zeros(ITEMS)
    for who in sorted(similarities, key=lambda who: (-similarities[who], who))[:4]:
        scores[list(set(training(table, split)[who]))] += similarities[who]
    return scores


def expected_ease(table: EventTable, split: Split, user: int, position: int) -> np.ndarray:
    """Each column is the ridge regression of one item on all others, solved by itself."""
    marks = np.array([[item in items for item in range(ITEMS)] for items in training(table, split)], float)
    mine = np.isin(np.arange(ITEMS), history(table, user, position)).astype(float)
    scores = np.zeros(ITEMS)
    for item in range(ITEMS):
        others = np.arange(ITEMS) != item
        gram = marks[:, others].T @ marks[:, others] + 1.0 * np.eye(ITEMS - 1)
        scores[item] = mine[others] @ np.linalg.solve(gram, marks[:, others].T @ marks[:, item])
    return scores


def expected_popularity(table: EventTable, split: Split, user: int, position: int) -> np.ndarray:
    """Training events of each item."""
    counts = Counter(item for items in training(table, split) for item in items)
    return np.array([counts[item] for item in range(ITEMS)], float)


EXPECTED = {
    "popularity": expected_popularity,
    "item-knn": expected_item_knn,
    "co-occurrence-rules": expected_rules,
    "ease": expected_ease,
    "user-knn": expected_user_knn,
}


@pytest.mark.parametrize("protocol", SPLITS)
@pytest.mark.parametrize("name", EXPECTED)
def test_scores_are_the_definition_written_out(name: str, protocol: str) -> None:
    """On random logs every score equals the formula computed item by item; a score of zero is "cannot judge"."""
    for seed in range(4):
        table = random_table(seed)
        split = SPLITS[protocol](table)
        recommender = RECOMMENDERS[name]()
        recommender.fit(table, split)
        got = recommender.scores(table, split.test)
        wanted = np.stack([EXPECTED[name](table, split, *query) for query in queries_of(split.test)])
        if name != "ease":
            wanted[wanted == 0] = -np.inf
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        assert got.dtype == np.float32


def queries_of(queries: Queries) -> list[tuple[int, int]]:
    """Users and positions."""
    return list(zip(queries.users.tolist(), queries.positions.tolist(), strict=True))


def test_decayed_popularity_halves_every_event_of_the_past() -> None:
    """A score is log2 of the sum of 2^(-age / half-life) over all earlier events, queries asked in any order."""
    table = random_table(3)
    split = timeline(table, 0.3, 0.2)
    order = np.random.default_rng(0).permutation(len(split.test))
    queries = split.test.take(order)
    recommender = DecayedPopularity(HALF_LIFE_S)
    recommender.fit(table, split)
    got = recommender.scores(table, queries)
    for row, position in enumerate(queries.positions):
        ages = (table.times_s[position] - table.times_s) / HALF_LIFE_S
        sums = np.zeros(ITEMS)
        np.add.at(sums, table.items[ages > 0], 2.0 ** -ages[ages > 0])
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(got[row], np.log2(sums), rtol=1e-4, atol=1e-4)


def test_decayed_popularity_survives_ten_thousand_half_lives() -> None:
    """Old counts neither overflow nor vanish: after years the order of what happened last still holds."""
    builder = EventTableBuilder()
    for time_s, item in enumerate(["a", "b", "b", "c"]):
        builder.add("u1", item, "view", time_s * 1_000_000)
        builder.add("u2", item, "view", time_s * 1_000_000)
    builder.add("u1", "d", "view", 10_000_000)
    table = builder.build()
    recommender = DecayedPopularity(1000.0)
    recommender.fit(table, leave_one_out(table))
    scores = recommender.scores(table, Queries(np.array([0], np.int32), np.array([4])))[0]
    assert np.argsort(-scores).tolist() == [2, 1, 0, 3]
    assert np.isfinite(scores[:3]).all()
    assert scores[3] == -np.inf


def test_vector_user_knn_votes_are_the_definition_written_out() -> None:
    """Votes are exp(similarity / tau) / sqrt(place from the end), over popularity to its power, never one's own."""
    table = random_table(5)
    split = leave_one_out(table)
    recommender = VectorUserKnn(item_counts, neighbours=3, tau=0.2, depth=4, popularity_power=0.5)
    recommender.fit(table, split)
    got = recommender.scores(table, split.test)
    learned = training(table, split)
    counts = expected_popularity(table, split, 0, 0)
    users = np.arange(len(table.user_ids), dtype=np.int32)
    everybody = item_counts(table, Queries(users, split.train_ends))
    for row, (user, _) in enumerate(queries_of(split.test)):
        similarities = everybody @ item_counts(table, split.test)[row]
        others = [who for who in np.argsort(-similarities, kind="stable") if who != user and learned[who]]
        votes = np.zeros(ITEMS)
        for who in others[:3]:
            for place, item in enumerate(learned[who][::-1][:4], start=1):
                votes[item] += math.exp((similarities[who] - similarities[others[0]]) / 0.2) / math.sqrt(place)
        wanted = votes / np.sqrt(counts + 1)
        if similarities[others[2]] - similarities[others[3]] > 1e-6:  # else the third neighbour is anybody's choice
            wanted[wanted == 0] = -np.inf
            np.testing.assert_allclose(got[row], wanted, rtol=1e-4)


@pytest.mark.parametrize("protocol", SPLITS)
@pytest.mark.parametrize("name", RECOMMENDERS)
def test_nothing_that_comes_later_changes_a_score(name: str, protocol: str) -> None:
    """Other items at the place to be found, behind it, and at the query's time or later, leave its scores alone."""
    for seed in range(3):
        table = random_table(seed)
        split = SPLITS[protocol](table)
        for number in range(0, len(split.test), 3):
            query = split.test.take(np.array([number]))
            user, position = queries_of(query)[0]
            rows = np.arange(len(table))
            later = ~split.train_mask(table) & (table.times_s >= table.times_s[position])
            later |= (rows >= position) & (rows < table.offsets[user + 1])
            later &= ~((rows >= table.offsets[user]) & (rows < position))
            changed = replace(table, items=np.where(later, (table.items + 5) % ITEMS, table.items).astype(np.int32))
            assert later[position]
            scores = []
            for log in (table, changed):
                recommender = RECOMMENDERS[name]()
                recommender.fit(log, split)
                scores.append(recommender.scores(log, query))
            np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_scores_do_not_depend_on_the_block(name: str) -> None:
    """A query alone gets the scores that it gets among others, and the recommender keeps nothing of them."""
    table = random_table(1)
    split = timeline(table, 0.3, 0.2)
    recommender = RECOMMENDERS[name]()
    recommender.fit(table, split)
    together = recommender.scores(table, split.test)
    alone = [recommender.scores(table, split.test.take(np.array([row]))) for row in range(len(split.test))]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=1e-6)


def test_more_neighbours_than_room_keeps_the_heaviest() -> None:
    """With room for two neighbours an item keeps its two highest cosines."""
    table = random_table(2)
    split = leave_one_out(table)
    few, many = ItemKnn(2), ItemKnn()
    few.fit(table, split)
    many.fit(table, split)
    single = Queries(np.zeros(1, np.int32), np.array([table.offsets[0] + 1]))
    all_of_them = many.scores(table, single)[0]
    kept = few.scores(table, single)[0]
    assert np.isfinite(kept).sum() == 2
    assert sorted(kept[np.isfinite(kept)]) == sorted(all_of_them)[-2:]


def test_ease_by_halves_equals_the_plain_inverse() -> None:
    """Above the size at which the matrix is halved the weights are those of one plain inverse."""
    table = random_table(4, users=80, items=1100)
    split = leave_one_out(table)
    recommender = Ease(2.0)
    recommender.fit(table, split)
    marks = np.zeros((len(table.user_ids), 1100))
    for user, items in enumerate(training(table, split)):
        marks[user, items] = 1
    inverse = np.linalg.inv(marks.T @ marks + 2.0 * np.eye(1100))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    asked = np.zeros((len(split.test), 1100))
    for row, query in enumerate(queries_of(split.test)):
        asked[row, history(table, *query)] = 1
    np.testing.assert_allclose(recommender.scores(table, split.test), asked @ weights, atol=1e-4)


def test_ease_refuses_more_items_than_fit() -> None:
    """Too many items are refused before anything is allocated, with what to do."""
    table = random_table(0, items=EASE_ITEMS_MAX + 1)
    with pytest.raises(UnusableData, match=r"at most 20,000 items, the log has 20,001\. Leave EASE out"):
        Ease().fit(table, leave_one_out(table))


def test_learning_validation_adds_it_and_never_the_test() -> None:
    """With the validation part the counts are those of all events but the ones asked for, under both protocols."""
    for split_of in SPLITS.values():
        table = random_table(6)
        split = split_of(table)
        recommender = LearnsValidation(Popularity())
        recommender.fit(table, split)
        learned = split.train_mask(table)
        learned[split.valid.positions] = True
        rows = np.arange(len(table))
        for user, end in zip(split.valid.users, split.valid.positions, strict=True):
            learned |= (rows >= table.offsets[user]) & (rows < end)
        assert not learned[split.test.positions].any()
        counts = np.bincount(table.items[learned], minlength=ITEMS).astype(np.float32)
        scores = recommender.scores(table, split.test)[0]
        np.testing.assert_array_equal(np.maximum(scores, 0), counts)
        assert recommender.name == "popularity+valid"


def test_the_standard_baselines_are_those_that_can_work() -> None:
    """Without times there is no decayed popularity, with too many items no EASE."""
    table = random_table(0)
    timeless = replace(table, times_s=np.zeros_like(table.times_s))
    names = {baseline.name for baseline in standard_baselines(table)}
    assert names == {"popularity", "item-knn", "user-knn", "co-occurrence-rules", "decayed-popularity-1d", "ease"}
    assert names - {baseline.name for baseline in standard_baselines(timeless)} == {"decayed-popularity-1d"}
    many = random_table(0, items=EASE_ITEMS_MAX + 1)
    assert names - {baseline.name for baseline in standard_baselines(many)} == {"ease"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DecayedPopularity(0), "half_life_s must be a positive number of seconds, got 0"),
        (lambda: DecayedPopularity(math.nan), "half_life_s must be a positive number"),
        (lambda: ItemKnn(0), "neighbours must be 1 or more, got 0"),
        (lambda: CooccurrenceRules(window=0), "window must be 1 or more"),
        (lambda: CooccurrenceRules(depth=-1), "depth must be 1 or more"),
        (lambda: UserKnn(0), "neighbours must be 1 or more"),
        (lambda: Ease(-1.0), "regularisation must be a positive number"),
        (lambda: VectorUserKnn(item_counts, tau=0.0), "tau positive"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    """Each setting says what it must be and what came."""
    with pytest.raises(ValueError, match=message):
        make()


def log_lines(name: str) -> list[str]:
    """Lines of a public log; skips where it is missing."""
    path = LOGS / name
    if not path.exists():
        pytest.skip(f"needs the public log shared/data/{name} beside the repository")
    with lzma.open(path, "rt", encoding="utf-8", newline="") as lines:
        return list(lines)


@pytest.mark.logs
def test_rules_on_beauty_reach_their_known_figures() -> None:
    """Leave-one-out on Beauty: .0711/.0448 from the training part, .0807/.0514 with the validation part learned too."""
    builder = EventTableBuilder()
    for line in log_lines("amazon_s3rec/Beauty.txt.xz"):
        user, *items = line.split()
        for item in items:
            builder.add(user, item, "purchase", 0)
    table = builder.build()
    recommenders = [CooccurrenceRules(), LearnsValidation(CooccurrenceRules())]
    report = evaluate(recommenders, table, leave_one_out(table), cpu_clock=time.process_time)
    assert [row.n for row in report.rows] == [22_363, 22_363]
    figures = [row.figures[name] for row in report.rows for name in ("hr@10", "ndcg@10")]
    assert figures == pytest.approx([0.0711, 0.0448, 0.0807, 0.0514], abs=3e-4)


@pytest.mark.logs
def test_on_news_nothing_classical_comes_near_what_is_popular_today() -> None:
    """Deskdrop, first readings, leave-one-out: popularity with a half-life of a day .725/.488, item-kNN .114/.065."""
    builder = EventTableBuilder()
    read: set[tuple[str, str]] = set()
    events = list(csv.DictReader(log_lines("deskdrop/users_interactions.csv.xz")))
    for event in sorted(events, key=lambda event: int(event["timestamp"])):
        pair = (event["personId"], event["contentId"])
        if pair not in read:
            read.add(pair)
            builder.add(*pair, event["eventType"], int(event["timestamp"]))
    table = builder.build()
    report = evaluate([DecayedPopularity(), ItemKnn()], table, leave_one_out(table), cpu_clock=time.process_time)
    figures = [row.figures[name] for row in report.rows for name in ("hr@10", "ndcg@10")]
    assert figures == pytest.approx([0.725, 0.488, 0.114, 0.065], abs=3e-3)
