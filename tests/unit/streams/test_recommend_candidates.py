"""The union of the sources, the votes, and who voted."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from streams.recommend.candidates import Candidates, Hidden, Neighbourhood, gather_candidates

NOTHING_HIDDEN = Hidden(np.zeros(2, np.int32), np.zeros(0, np.int32))
NO_CONTENT = np.full((1, 8), -1, np.int32)
NO_TREND = np.zeros((0, 0), np.int32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def neighbourhood(
    histories: list[list[int]], voices: list[float], types: list[list[int]] | None = None
) -> Neighbourhood:
    """Neighbour 0, 1, ... of one user, with their recent items, oldest first."""
    width = max(map(len, histories))
    recent, kinds = np.full((len(histories), width), -1, np.int32), np.zeros((len(histories), width), np.uint8)
    for row, items in enumerate(histories):
        recent[row, : len(items)] = items
        if types:
            kinds[row, : len(items)] = types[row]
    counts = np.ones(256, np.bool_)
    counts[6] = False
    return Neighbourhood(
        slots=np.arange(len(histories), dtype=np.int32)[None],
        voices=np.array([voices]),
        recent_items=recent,
        recent_types=kinds,
        recent_count=ints(*map(len, histories)),
        type_counts=counts,
        recency=1 / np.arange(1.0, width + 1),
    )


def gathered(
    near: Neighbourhood,
    content: np.ndarray = NO_CONTENT,
    trend: np.ndarray = NO_TREND,
    hidden: Hidden = NOTHING_HIDDEN,
    items: int = 10,
) -> Candidates:
    return gather_candidates(near, content, trend, hidden, np.ones(items, np.bool_), content.shape[1])


def votes(found: Candidates, row: int = 0) -> dict[int, float]:
    return {
        item: vote for item, vote in zip(found.items[row].tolist(), found.votes[row].tolist(), strict=True) if item >= 0
    }


def test_votes_are_weighted_by_voice_and_by_recency() -> None:
    """Newest item 1, the one before 1/2; voices 1 and .5; an item of both gets both."""
    found = gathered(neighbourhood([[1, 2], [3, 1]], [1.0, 0.5]))
    assert votes(found) == {2: 1.0, 1: 0.5 + 0.5, 3: 0.25}


def test_a_neighbour_votes_once_for_an_item() -> None:
    """Three views of one item are one vote, at its newest place."""
    assert votes(gathered(neighbourhood([[4, 4, 4]], [1.0]))) == {4: 1.0}


def test_what_a_neighbour_disliked_in_the_end_gets_no_vote() -> None:
    """The newest event on an item decides: type 6 does not count here."""
    near = neighbourhood([[4, 5, 4]], [1.0], types=[[0, 0, 6]])
    assert votes(gathered(near)) == {5: 0.5}


def test_neighbours_without_a_voice_are_silent() -> None:
    """A voice of 0 adds nothing, not even a candidate."""
    assert votes(gathered(neighbourhood([[1], [2]], [1.0, 0.0]))) == {1: 1.0}


def test_the_strongest_voters_are_named_first() -> None:
    """Four neighbours had the item: the three strongest by voice times recency, nearer first among equals."""
    found = gathered(neighbourhood([[7, 1], [7], [2, 7], [7, 2, 3]], [1.0, 0.9, 0.9, 0.8]))
    column = found.items[0].tolist().index(7)
    assert found.voters[0, column].tolist() == [1, 2, 0]


def test_each_source_proposes_and_no_item_comes_twice() -> None:
    """Votes, content and trend overlap; each item is one candidate, and carries its votes whoever proposed it."""
    near = neighbourhood([[1, 2]], [1.0])
    found = gathered(near, content=ints(2, 3, -1, -1)[None], trend=ints(3, 4, 1)[None])
    assert sorted(found.items[0].tolist()) == [-1] * 8 + [1, 2, 3, 4]
    assert votes(found) == {1: 0.5, 2: 1.0, 3: 0.0, 4: 0.0}


def test_each_source_proposes_its_best_only() -> None:
    """At one item a source: the most votes, and the first of the trend that is not hidden."""
    near = neighbourhood([[1, 2], [1]], [1.0, 0.9])
    hidden = Hidden(ints(0, 1), ints(5))
    found = gathered(near, content=ints(3)[None], trend=ints(5, 6, 7)[None], hidden=hidden)
    assert sorted(found.items[0].tolist()) == [1, 3, 6]
    assert_allclose(votes(found)[1], 1 / 2 + 0.9)


def test_each_trend_proposes_its_own_best() -> None:
    """Two rows, the second one shorter: the first item of each that is not hidden, an item of both once."""
    near = neighbourhood([[1]], [1.0])
    trend = np.array([[5, 6, 7], [7, -1, -1]], np.int32)
    for hidden, expected in (([5], [1, 6, 7]), ([5, 6], [1, 7]), ([7], [1, 5]), ([], [1, 5, 7])):
        found = gathered(near, np.full((1, 1), -1, np.int32), trend, Hidden(ints(0, len(hidden)), ints(*hidden)))
        assert sorted(item for item in found.items[0].tolist() if item >= 0) == expected


def test_a_trend_with_a_limit_of_its_own_proposes_so_many() -> None:
    """Two of the first row, none of the second, whatever each source proposes else."""
    near, trend = neighbourhood([[1]], [1.0]), np.array([[5, 6, 7], [2, 3, 4]], np.int32)
    hidden = Hidden(ints(0, 1), ints(5))
    found = gather_candidates(near, NO_CONTENT, trend, hidden, np.ones(10, np.bool_), 8, ints(2, 0))
    assert sorted(item for item in found.items[0].tolist() if item >= 0) == [1, 6, 7]


def test_equal_votes_prefer_the_smaller_slot() -> None:
    """Ties at the edge of a source are broken by slot."""
    found = gathered(neighbourhood([[8], [3], [5]], [1.0, 1.0, 1.0]), content=ints(-1, -1)[None])
    assert sorted(item for item in found.items[0].tolist() if item >= 0) == [3, 5]


def test_hidden_and_unavailable_items_are_nobodys_candidates() -> None:
    """Votes for them do not count; slots that no catalogue holds are ignored."""
    near = neighbourhood([[1, 2, 99, -1]], [1.0])
    available = np.ones(4, np.bool_)
    available[3] = False
    found = gather_candidates(near, NO_CONTENT, ints(0, 1)[None], Hidden(ints(0, 2), ints(1, 98)), available, 8)
    assert votes(found) == {2: 1 / 3, 0: 0.0}


def test_rows_do_not_leak_into_each_other() -> None:
    """What is hidden from, or voted in, the first row leaves no trace in the second."""
    one = neighbourhood([[1, 2]], [1.0])
    both = one._replace(slots=ints(0, 0)[:, None], voices=np.array([[1.0], [0.5]]))
    hidden = Hidden(ints(0, 1, 1), ints(1))
    found = gather_candidates(both, np.full((2, 8), -1, np.int32), NO_TREND, hidden, np.ones(10, np.bool_), 8)
    assert votes(found, 0) == {2: 1.0}
    assert votes(found, 1) == {2: 0.5, 1: 0.25}
