from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from streams.core.errors import UsageError
from streams.core.events import Event, EventType, Item, User
from streams.sources import Source, open_source
from streams.sources.timestamps import DAY_MS, FIRST_DAY_MS, nth_day

BEAUTY = "1 5 6 7\n2 6\n"


def write(folder: Path, **files: str) -> Path:
    """Files by name, `__` for the dot."""
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def steps(source: Source) -> list[tuple[str, str, int]]:
    return [(event.user_id, event.item_id, event.timestamp) for event in source.events()]


def test_a_line_is_a_user_and_what_was_bought_in_order(tmp_path: Path) -> None:
    """The n-th item of each user is a purchase on day n, so that time order keeps every user's order."""
    source = open_source("s3rec", str(write(tmp_path, Beauty__txt=BEAUTY)))
    assert steps(source) == [
        ("1", "5", FIRST_DAY_MS),
        ("2", "6", FIRST_DAY_MS),
        ("1", "6", FIRST_DAY_MS + DAY_MS),
        ("1", "7", FIRST_DAY_MS + 2 * DAY_MS),
    ]
    assert {event.type for event in source.events()} == {EventType.PURCHASE}
    assert source.describe().order_only


def test_a_user_may_go_on_in_a_later_line(tmp_path: Path) -> None:
    """`user item` per line, as SASRec writes it, is the same log as all items in one line."""
    one = steps(open_source("s3rec", str(write(tmp_path, a__txt="1 5 6 7\n2 8\n") / "a")))
    other = steps(open_source("s3rec", str(write(tmp_path, b__txt="1 5\n2 8\n1 6\n1 7\n") / "b")))
    assert one == other
    assert one == [("1", "5", nth_day(0)), ("2", "8", nth_day(0)), ("1", "6", nth_day(1)), ("1", "7", nth_day(2))]


def test_times_line_by_line_are_real(tmp_path: Path) -> None:
    """With a file of times events have theirs, in the line's order inside a day; texts count items otherwise."""
    write(tmp_path, Beauty_items__txt="1 5 6 7\n2 6\n", Beauty_times__txt="1 200 200 300\n2 100\n")
    source = open_source("s3rec", str(tmp_path / "Beauty"))
    assert steps(source) == [("2", "6", 100_000), ("1", "5", 200_000), ("1", "6", 200_000), ("1", "7", 300_000)]
    assert not source.describe().order_only
    write(tmp_path, Beauty_items__tsv="item_id\tasin\ttext\n5\tB00A\tnail lacquer\n")
    assert list(source.items()) == []


def test_times_that_do_not_fit_cost_their_line(tmp_path: Path) -> None:
    """Another user, another number of times and a word for a time are counted; other lines stay."""
    write(
        tmp_path,
        B_items__txt="1 5\n2 5\n3 5\n4 5\n",
        B_times__txt="9 100\n2 100 200\n3 soon\n4 100\n",
    )
    source = open_source("s3rec", str(tmp_path))
    assert steps(source) == [("4", "5", 100_000)]
    assert source.skips.counts == {"invalid-schema": 3}
    assert "1 items of user 1 stand beside 1 times of user 9" in source.skips.examples[0]


def test_a_file_of_times_that_ends_early_is_told(tmp_path: Path) -> None:
    """A cut-off file of times stops the reading instead of losing the rest."""
    write(tmp_path, B_items__txt="1 5\n2 5\n", B_times__txt="1 100\n")
    with pytest.raises(UsageError, match=r"B_times\.txt ends before line 2"):
        list(open_source("s3rec", str(tmp_path)).events())


def test_a_line_without_items_is_counted(tmp_path: Path) -> None:
    """A user alone, or an id beyond the limit, costs only the line."""
    source = open_source("s3rec", str(write(tmp_path, B__txt=f"1\n\n2 {'x' * 257}\n3 5\n")))
    assert steps(source) == [("3", "5", nth_day(0))]
    assert source.skips.counts == {"invalid-schema": 2}
    assert "line 3:" in source.skips.examples[1]


def test_texts_and_attributes_describe_the_items(tmp_path: Path) -> None:
    """Title from the table, attribute numbers as tags; an empty text is none."""
    write(
        tmp_path,
        Beauty__txt=BEAUTY,
        Beauty_items__tsv='item_id\tasin\ttext\n5\tB00A\tnail "lacquer"\n6\tB00B\t\n',
        Beauty_item2attributes__json='{"5": [3, 1]}',
    )
    assert list(open_source("s3rec", str(tmp_path)).items()) == [
        Item("5", title='nail "lacquer"', tags=["attribute-3", "attribute-1"]),
        Item("6"),
    ]


def test_attributes_alone_describe_items_too(tmp_path: Path) -> None:
    """Without a table of texts the attributes are the catalogue; without either there is none."""
    source = open_source("s3rec", str(write(tmp_path, B__txt=BEAUTY)))
    assert list(source.items()) == []
    write(tmp_path, B_item2attributes__json='{"5": [3]}')
    assert list(source.items()) == [Item("5", tags=["attribute-3"])]
    write(tmp_path, B_item2attributes__json='{"5": 3}')
    with pytest.raises(UsageError, match="is not an object of item id"):
        list(source.items())


def test_films_and_people_come_through_the_maps_of_ids(tmp_path: Path) -> None:
    """A log named `ml-…` holds ratings without stars; its own ids name the originals."""
    write(
        tmp_path,
        **{"ml-1m_sas__txt": "1 1\n1 2\n"},
        sas_to_original_items__txt="1 1198\n2 3552\n",
        sas_to_original_users__txt="1 5988\n",
        movies__dat="1198::Raiders::Action\n3552::Caddyshack::Comedy\n9::Left out::Drama\n",
        users__dat="5988::F::25::12::02460\n7::F::25::12::02460\n",
        README="words",
    )
    source = open_source("s3rec", str(tmp_path))
    assert [(event.type, event.value) for event in source.events()] == [(EventType.RATING, None)] * 2
    assert list(source.items()) == [
        Item("1", title="Raiders", categories=["Action"]),
        Item("2", title="Caddyshack", categories=["Comedy"]),
    ]
    assert list(source.users()) == [User("1", age=25, gender="F", occupation="programmer", attributes={"zip": "02460"})]


def test_without_the_maps_there_are_no_films(tmp_path: Path) -> None:
    """Titles of other ids would be wrong, so none are given."""
    write(tmp_path, **{"ml-1m__txt": "1 1\n"}, movies__dat="1::Toy Story::Comedy\n", users__dat="1::F::1::1::0\n")
    source = open_source("s3rec", str(tmp_path))
    assert list(source.items()) == list(source.users()) == []


@pytest.mark.parametrize("path", ["Beauty.txt.xz", "Beauty", ""])
def test_a_log_is_found_by_file_name_and_folder(tmp_path: Path, path: str) -> None:
    """The compressed file, folder and name, and a folder that holds one log are the same source."""
    (tmp_path / "Beauty.txt.xz").write_bytes(lzma.compress(BEAUTY.encode()))
    (tmp_path / "README.txt").write_text("words")
    assert len(steps(open_source("s3rec", str(tmp_path / path)))) == 4


def test_a_folder_of_several_logs_asks_for_a_name(tmp_path: Path) -> None:
    """The names to choose from are told; so is a path that means nothing."""
    write(tmp_path, Beauty__txt=BEAUTY, Sports__txt=BEAUTY, Beauty_items__tsv="")
    with pytest.raises(UsageError, match="holds 2 logs: Beauty, Sports"):
        open_source("s3rec", str(tmp_path))
    with pytest.raises(UsageError, match=r"nor .*Toys\.txt"):
        open_source("s3rec", str(tmp_path / "Toys"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no sequences"):
        open_source("s3rec", str(tmp_path / "empty"))


def test_event_ids_tell_the_steps_of_a_user_apart(tmp_path: Path) -> None:
    """The same item at two places is two events, with the same ids at each reading."""
    source = open_source("s3rec", str(write(tmp_path, B__txt="1 5 5\n")))
    first, second = source.events()
    assert first.event_id != second.event_id
    assert list(source.events()) == [first, second]
    assert isinstance(first, Event)
