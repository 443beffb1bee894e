from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from streams.core.errors import UsageError
from streams.core.events import EventType, Item
from streams.sources import open_source
from streams.sources.timestamps import nth_day

if TYPE_CHECKING:
    from pathlib import Path

    from streams.sources import Source

scipy_io = pytest.importorskip("scipy.io", reason="scipy is missing; install nearstream[logs]")


def reviews(tmp_path: Path, ratings: list[list[int]], trust: list[list[int]] | None = None) -> Source:
    scipy_io.savemat(tmp_path / "ciao_rating.mat", {"rating": np.array(ratings, np.int32).reshape(-1, 5)})
    if trust is not None:
        scipy_io.savemat(tmp_path / "ciao_trustnetwork.mat", {"trustnetwork": np.array(trust, np.uint16)})
    return open_source("ciao", str(tmp_path))


def told(source: Source) -> list[tuple[Any, ...]]:
    return [(e.user_id, e.item_id, e.type, e.value, e.timestamp) for e in source.events()]


def test_a_review_is_a_rating_on_the_users_next_day(tmp_path: Path) -> None:
    """The log has no times: the n-th review of each user stands on day n, also when users alternate."""
    source = reviews(tmp_path, [[1, 10, 3, 5, 2], [2, 11, 3, 1, 2], [1, 12, 3, 4, 2]])
    assert told(source) == [
        ("1", "10", EventType.RATING, 5.0, nth_day(0)),
        ("2", "11", EventType.RATING, 1.0, nth_day(0)),
        ("1", "12", EventType.RATING, 4.0, nth_day(1)),
    ]
    assert source.describe().order_only


def test_stars_outside_the_scale_make_a_comment(tmp_path: Path) -> None:
    """0 stars are no opinion of 0: the review counts, its stars do not."""
    assert [row[2:4] for row in told(reviews(tmp_path, [[1, 10, 3, 0, 2]]))] == [(EventType.COMMENT, None)]


def test_trust_is_following_a_person_before_the_review_of_the_day(tmp_path: Path) -> None:
    """People have ids of their own, and neither edges nor reviews delay each other."""
    source = reviews(tmp_path, [[1, 2, 3, 5, 2], [1, 4, 3, 5, 2]], [[1, 2], [1, 3]])
    assert [row[1:3] + row[4:] for row in told(source)] == [
        ("user:2", EventType.FOLLOW, nth_day(0)),
        ("2", EventType.RATING, nth_day(0)),
        ("user:3", EventType.FOLLOW, nth_day(1)),
        ("4", EventType.RATING, nth_day(1)),
    ]
    assert source.describe().events == 4


def test_a_repeated_row_is_the_same_event_at_the_same_time(tmp_path: Path) -> None:
    """An exact repeat has id and day of its first and moves no later review; another rating of the pair is new."""
    source = reviews(tmp_path, [[1, 10, 3, 5, 2], [1, 11, 3, 5, 2], [1, 10, 3, 5, 2], [1, 10, 3, 4, 2]])
    events = {event.event_id: event for event in source.events()}
    assert sorted((event.timestamp, event.value) for event in events.values()) == [
        (nth_day(0), 5.0), (nth_day(1), 5.0), (nth_day(2), 4.0),
    ]  # fmt: skip
    assert len(list(source.events())) == 4


def test_items_are_products_by_first_category_then_people(tmp_path: Path) -> None:
    """A product keeps the category of its first review; who is trusted is an item of category `person`."""
    source = reviews(tmp_path, [[1, 10, 3, 5, 2], [2, 10, 4, 5, 2], [1, 9, 4, 5, 2]], [[1, 2], [3, 2]])
    assert list(source.items()) == [
        Item("10", categories=["3"]),
        Item("9", categories=["4"]),
        Item("user:2", categories=["person"]),
    ]
    assert list(source.users()) == []


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"x" * 1000])
def test_a_file_that_is_no_matlab_file_is_told(tmp_path: Path, content: bytes) -> None:
    """Whatever the bytes, the error says what is wrong with the file."""
    (tmp_path / "ciao_rating.mat").write_bytes(content)
    with pytest.raises(UsageError, match=r"ciao_rating\.mat is damaged or no MATLAB file"):
        list(open_source("ciao", str(tmp_path)).events())


def test_a_cut_file_is_told(tmp_path: Path) -> None:
    """A file that ends early is never read as a shorter log."""
    reviews(tmp_path, [[1, 10, 3, 5, 2]] * 100)
    path = tmp_path / "ciao_rating.mat"
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(UsageError, match="damaged"):
        list(open_source("ciao", str(tmp_path)).events())


@pytest.mark.parametrize(
    "content",
    [{"other": np.ones((2, 5), np.int32)}, {"rating": np.ones((2, 4), np.int32)}, {"rating": np.full((2, 5), np.nan)}],
)
def test_a_matrix_of_another_kind_is_told(tmp_path: Path, content: dict[str, Any]) -> None:
    """Name, columns and whole numbers are checked before anything is read from it."""
    scipy_io.savemat(tmp_path / "rating.mat", content)
    with pytest.raises(UsageError, match="holds no matrix 'rating' of whole numbers in 5 columns"):
        list(open_source("ciao", str(tmp_path)).events())


def test_an_empty_matrix_is_no_event(tmp_path: Path) -> None:
    """No reviews and no edges are an empty log, not an error."""
    assert told(reviews(tmp_path, [])) == []
