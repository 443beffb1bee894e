"""Recall: ties, what counts as a miss, and what a writer beside the check does not spoil."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest

from index import EmptyIndex, HnswIndex, IndexConfig, InvalidNeighbours, Matches, RecallReport, UnknownId
from index.recall import check_recall, recall_at, self_miss_share
from index.results import Floats, IndexStats, VectorId

NAN = float("nan")
DIM = 8


def rows(*values: Sequence[float]) -> np.ndarray:
    return np.array(values, np.float32)


def directions(seed: int, count: int, dim: int = DIM) -> Floats:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def brute(stored: dict[VectorId, Floats], queries: Floats, k: int) -> Matches:
    matches = Matches(np.full((len(queries), k), None, np.object_), np.full((len(queries), k), NAN, np.float32))
    scores = queries @ np.stack(list(stored.values())).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    names = np.empty(len(stored), np.object_)
    names[:] = list(stored)
    matches.ids[:, : order.shape[1]] = names[order]
    matches.similarities[:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
    return matches


class BruteIndex:
    """Every stored vector compared; `before_search` and `after_search` stand for a writer in another thread."""

    def __init__(self, stored: dict[VectorId, Floats]) -> None:
        self.stored = stored
        self.epoch = 0
        self.before_search: Callable[[], None] = lambda: None
        self.after_search: Callable[[], None] = lambda: None
        self.answer: Callable[[Floats, int], Matches] = lambda vectors, k: brute(self.stored, vectors, k)

    def ids(self) -> list[VectorId]:
        return list(self.stored)

    def vector(self, vector_id: VectorId, /) -> Floats:
        if vector_id not in self.stored:
            raise UnknownId(f"No vector is stored under the id {vector_id!r}.")
        return self.stored[vector_id].copy()

    def stats(self) -> IndexStats:
        return IndexStats(len(self.stored), len(self.stored), 0, self.epoch)

    def exact(self, vectors: Floats, k: int) -> Matches:
        return brute(self.stored, vectors, k)

    def search(self, vectors: Floats, k: int) -> Matches:
        self.before_search()
        matches = self.answer(vectors, k)
        self.after_search()
        return matches

    def move(self, ids: Iterable[VectorId], vectors: Floats) -> None:
        self.stored.update(zip(ids, vectors, strict=True))
        self.epoch += 1

    def remove(self, ids: Iterable[VectorId]) -> None:
        for vector_id in ids:
            del self.stored[vector_id]
        self.epoch += 1


def filled(count: int = 200) -> BruteIndex:
    return BruteIndex(dict(enumerate(directions(1, count))))


def without_places(index: BruteIndex, *places: int) -> Callable[[Floats, int], Matches]:
    """A search that misses those ranks and goes on behind them."""

    def answer(vectors: Floats, k: int) -> Matches:
        more = brute(index.stored, vectors, k + len(places))
        return Matches(*(np.delete(column, places, axis=1) for column in more))

    return answer


def test_recall_is_the_share_of_exact_neighbours_found() -> None:
    """Each exact neighbour that has no found one as near costs its share."""
    exact = rows((0.9, 0.8, 0.7, 0.6), (0.5, 0.4, 0.3, 0.2))
    assert recall_at(exact, exact, 4) == 1.0
    assert recall_at(rows((0.9, 0.8, 0.7, 0.5), (0.5, 0.1, 0.0, NAN)), exact, 4) == 0.5
    assert recall_at(np.full((2, 4), NAN), exact, 4) == 0.0


def test_ties_at_the_edge_count_as_found() -> None:
    """A found one within a millionth of the k-th exact cosine is right; one two millionths below it is not."""
    exact = np.array([[0.9, 0.5]])
    assert recall_at(np.array([[0.9, 0.5 - 0.9e-6]]), exact, 2) == 1.0
    assert recall_at(np.array([[0.9, 0.5 - 2e-6]]), exact, 2) == 0.5


def test_only_the_first_k_are_asked_for() -> None:
    """What stands behind the k-th place neither helps nor hurts."""
    exact = rows((0.9, 0.8, 0.7))
    assert recall_at(rows((0.9, 0.1, 0.8)), exact, 2) == 0.5
    assert recall_at(rows((0.9, 0.8, NAN)), exact, 2) == 1.0


def test_fewer_exact_neighbours_than_k_are_all_that_is_wanted() -> None:
    """Padding is not wanted, a query without neighbours is not asked, and extra found ones do not exceed 1."""
    exact = rows((0.9, 0.8, NAN), (NAN, NAN, NAN), (0.9, 0.8, 0.7))
    found = rows((0.9, 0.85, 0.8), (0.1, NAN, NAN), (0.9, NAN, NAN))
    assert recall_at(found, exact, 3) == pytest.approx(3 / 5)


def test_recall_of_nothing_is_an_error() -> None:
    """Without an exact neighbour there is no share; k must be positive."""
    with pytest.raises(EmptyIndex, match="at least one exact neighbour"):
        recall_at(np.full((2, 3), NAN), np.full((2, 3), NAN), 3)
    with pytest.raises(InvalidNeighbours, match="k must be 1 or more, got 0"):
        recall_at(rows((1.0,)), rows((1.0,)), 0)


def test_a_self_miss_is_a_first_place_farther_than_oneself() -> None:
    """Equal twins are as good as oneself, nothing found is a miss; no query is an error."""
    assert self_miss_share(np.array([1.0, 1.0 - 0.9e-6, 0.99, NAN]), np.ones(4)) == 0.5
    with pytest.raises(EmptyIndex, match="at least one query"):
        self_miss_share(np.empty(0), np.empty(0))


def test_a_perfect_index_has_full_recall() -> None:
    """Exact against itself: all found, as many queries as asked for, or as there are vectors."""
    assert check_recall(filled(), 64, 10, rng=rng()) == RecallReport(64, 1.0, 0.0)
    assert check_recall(filled(20), rng=rng()) == RecallReport(20, 1.0, 0.0)


def test_queries_are_drawn_by_the_generator() -> None:
    """The same seed measures with the same queries, another seed with others; none twice."""

    def drawn(seed: int) -> list[tuple[float, ...]]:
        index, seen = filled(), []
        index.answer = lambda vectors, k: (seen.extend(vectors), brute(index.stored, vectors, k))[1]
        check_recall(index, 32, rng=np.random.default_rng(seed))
        return [tuple(vector) for vector in seen]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 32


def test_a_missed_neighbour_costs_its_share() -> None:
    """One of ten left out of each row is a tenth: the query itself, which any index finds, does not flatter."""
    index = filled()
    index.answer = without_places(index, 4)
    assert check_recall(index, 64, 10, rng=rng()) == RecallReport(64, pytest.approx(0.9), 0.0)


def test_a_vector_that_does_not_find_itself_is_a_self_miss() -> None:
    """Self-misses are counted apart: the others are all found."""
    index = filled()
    index.answer = without_places(index, 0)
    assert check_recall(index, 64, 10, rng=rng()) == RecallReport(64, 1.0, 1.0)


def test_an_equal_twin_in_first_place_is_no_self_miss() -> None:
    """Vectors that are equal stand for each other, in first place and at the edge."""
    index = BruteIndex(dict.fromkeys(range(30), directions(1, 1)[0]))
    index.answer = lambda vectors, k: brute(dict(reversed(index.stored.items())), vectors, k)
    assert check_recall(index, 30, 5, rng=rng()) == RecallReport(30, 1.0, 0.0)


def test_an_id_found_twice_counts_once() -> None:
    """A row that repeats its best match has not found ten."""
    index = filled()

    def answer(vectors: Floats, k: int) -> Matches:
        matches = brute(index.stored, vectors, k)
        matches.ids[:, 2:] = matches.ids[:, 1:2]
        matches.similarities[:, 2:] = matches.similarities[:, 1:2]
        return matches

    index.answer = answer
    assert check_recall(index, 64, 10, rng=rng()).recall == pytest.approx(0.1)


def test_stale_cosines_do_not_count_as_found() -> None:
    """Reported cosines are not believed: an index that answers from old vectors has the recall of its ids."""
    index = filled()
    old = dict(index.stored)
    index.move(old, directions(2, len(old)))
    index.answer = lambda vectors, k: brute(old, vectors, k)
    assert check_recall(index, 64, 10, rng=rng()).recall < 0.2


def test_dead_ids_in_a_quiet_index_are_misses() -> None:
    """While nothing changes, an id that is not stored is the index's own fault."""
    index = filled()
    old = dict(index.stored)
    index.remove(range(100))
    index.answer = lambda vectors, k: brute(old, vectors, k)
    assert 0.3 < check_recall(index, 64, 10, rng=rng()).recall < 0.7


@pytest.mark.parametrize("hook", ["before_search", "after_search"])
@pytest.mark.parametrize("change", ["move", "move-near", "remove", "add-near", "swap"])
def test_what_moves_during_the_check_is_no_miss(hook: str, change: str) -> None:
    """Whatever a writer does between the exact answer and the last copy, a perfect index keeps full recall."""
    index = filled(400)
    half = list(range(0, 400, 2))
    near = directions(1, 400) + 0.05 * directions(3, 400)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    changes: dict[str, Callable[[], None]] = {
        "move": lambda: index.move(half, directions(2, 200)),
        "move-near": lambda: index.move(half, near[1::2]),
        "remove": lambda: index.remove(half),
        "add-near": lambda: index.move([f"new{place}" for place in range(400)], near),
        "swap": lambda: index.move([*half, *(place + 1 for place in half)], near[::-1]),
    }
    setattr(index, hook, changes[change])
    if change == "swap":
        with pytest.raises(EmptyIndex, match="all 128 moved; ask again later"):
            check_recall(index, 128, 10, rng=rng())
        return
    report = check_recall(index, 128, 10, rng=rng())
    assert (report.recall, report.self_miss_share) == (1.0, 0.0)
    assert report.queries == 128 if change == "add-near" else 30 < report.queries < 98


def test_who_came_and_went_during_the_check_excuses_its_place() -> None:
    """New vectors that push all neighbours out of the answer, and are far away when it is judged, cost no recall."""
    index = filled(400)
    new = [f"new{place}" for place in range(400)]
    index.before_search = lambda: index.move(new, directions(1, 400))
    index.after_search = lambda: index.move(new, -directions(1, 400))
    report = check_recall(index, 128, 10, rng=rng())
    assert (report.recall, report.self_miss_share) == (1.0, 0.0)


def test_a_query_whose_twin_moved_is_not_judged() -> None:
    """A twin that was found first and has gone since is no self-miss."""
    index = filled(100)
    index.stored = {f"twin{place}": vector for place, vector in index.stored.items()} | index.stored
    index.after_search = lambda: index.move([f"twin{place}" for place in range(50)], directions(2, 50))
    report = check_recall(index, 200, 10, rng=rng())
    assert (report.recall, report.self_miss_share) == (1.0, 0.0)
    assert 90 < report.queries < 110  # a few ties are broken by the rounding of the product


def test_misses_show_while_others_move() -> None:
    """A writer excuses what it moved, not what the index missed among the rest."""
    index = filled(400)
    index.answer = without_places(index, 1, 2, 3, 4, 5)
    index.before_search = lambda: index.move(range(0, 400, 20), directions(2, 20))
    assert 0.4 < check_recall(index, 128, 10, rng=rng()).recall < 0.6


def test_vectors_that_go_before_they_are_read_are_not_asked_for() -> None:
    """An id removed after the list of ids was taken is no query."""
    index = filled(50)
    listed = index.ids()
    index.remove(range(10))
    index.ids = lambda: listed  # type: ignore[method-assign]
    assert check_recall(index, 50, 5, rng=rng()) == RecallReport(40, 1.0, 0.0)


def test_one_vector_alone_has_nobody_to_miss() -> None:
    """Recall is 1 where there is nobody else, and the self-miss still shows."""
    index = filled(1)
    assert check_recall(index, rng=rng()) == RecallReport(1, 1.0, 0.0)
    index.answer = lambda vectors, k: Matches(np.full((1, k), None, np.object_), np.full((1, k), NAN, np.float32))
    assert check_recall(index, rng=rng()) == RecallReport(1, 1.0, 1.0)


def test_ids_may_be_strings_and_ints() -> None:
    """Ids of both kinds in one index."""
    names: list[VectorId] = [f"u{place}" if place % 2 else place for place in range(60)]
    assert check_recall(BruteIndex(dict(zip(names, directions(1, 60), strict=True))), rng=rng()).recall == 1.0


def test_an_empty_index_cannot_be_measured() -> None:
    """No vector, no recall; counts must be positive."""
    with pytest.raises(EmptyIndex, match="got one without"):
        check_recall(BruteIndex({}), rng=rng())
    with pytest.raises(InvalidNeighbours, match="queries must be 1 or more, got 0"):
        check_recall(filled(), 0, rng=rng())
    with pytest.raises(InvalidNeighbours, match="k must be 1 or more, got -1"):
        check_recall(filled(), k=-1, rng=rng())


def test_a_writer_in_another_thread_does_not_lower_the_recall() -> None:
    """Beside a writer that replaces much of the index during each check, one that scans everything stays near 1."""
    with HnswIndex(IndexConfig(dim=DIM, delta_max=1_000_000)) as index:  # one delta: every answer is exact
        index.upsert(range(2000), directions(1, 2000))
        stop = threading.Event()

        def write() -> None:
            chance = np.random.default_rng(7)
            while not stop.is_set():
                moved = chance.choice(2000, 8, replace=False).tolist()
                index.upsert(moved[:7], directions(int(chance.integers(1 << 30)), 7))
                index.remove(moved[7:])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            reports = [check_recall(index, 64, 10, rng=rng()) for _ in range(20)]
        finally:
            stop.set()
            writer.join()
    assert min(report.recall for report in reports) > 0.98
    assert max(report.self_miss_share for report in reports) == 0.0
