from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streams.core.errors import UsageError
from streams.core.events import Event, EventType, Item, User
from streams.sources import open_source

if TYPE_CHECKING:
    from pathlib import Path

DESKDROP = (
    "timestamp,eventType,contentId,personId,sessionId,userAgent,userRegion,userCountry\n"
    '20,LIKE,-1,-2,3,"Mozilla, like",SP,BR\n'
    "10,COMMENT CREATED,-1,-2,3,,,\n"
    "20,FOLLOW,-1,-2,3,,,\n"
    "10,COMMENT CREATED,-1,-2,3,,,\n"
)


def test_deskdrop_sorts_and_gives_repeats_the_id_of_the_first(tmp_path: Path) -> None:
    """Rows come out by time, the order of the log inside a second; equal rows, and only they, share an id."""
    (tmp_path / "users_interactions.csv").write_text(DESKDROP)
    events = list(open_source("deskdrop", str(tmp_path)).events())
    assert [(event.timestamp, event.type) for event in events] == [
        (10_000, EventType.COMMENT),
        (10_000, EventType.COMMENT),
        (20_000, EventType.LIKE),
        (20_000, EventType.FOLLOW),
    ]
    ids = [event.event_id for event in events]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert {(event.user_id, event.item_id, event.session_id) for event in events} == {("-2", "-1", "3")}


def test_an_event_id_is_the_same_in_every_reading_and_version(tmp_path: Path) -> None:
    """The id is a digest of the row alone: reading again, or on another machine, gives the same event."""
    (tmp_path / "users_interactions.csv").write_text(DESKDROP)
    source = open_source("deskdrop", str(tmp_path))
    assert [event.event_id for event in source.events()] == [event.event_id for event in source.events()]
    assert next(source.events()).event_id == "5d938dbda90a32f4"


def test_deskdrop_titles_come_from_beside_the_log(tmp_path: Path) -> None:
    """Titles are items where the file is there, also when the path names the log itself."""
    log = tmp_path / "users_interactions.csv"
    log.write_text(DESKDROP)
    assert list(open_source("deskdrop", str(log)).items()) == []
    (tmp_path / "item_titles.csv").write_text('contentId,title\n-1,"Olá, mundo"\n')
    assert list(open_source("deskdrop", str(log)).items()) == [Item("-1", title="Olá, mundo")]


def test_taobao_has_no_header_and_its_categories_become_items(tmp_path: Path) -> None:
    """The first row is an event; each item appears once, with its category."""
    path = tmp_path / "UserBehavior.csv"
    path.write_text("1,7,70,pv,5\n1,7,70,buy,6\n2,8,70,fav,4\n")
    source = open_source("taobao", str(path))
    assert [(event.user_id, event.type, event.timestamp) for event in source.events()] == [
        ("2", EventType.BOOKMARK, 4000),
        ("1", EventType.VIEW, 5000),
        ("1", EventType.PURCHASE, 6000),
    ]
    assert list(source.items()) == [Item("7", categories=["70"]), Item("8", categories=["70"])]


def test_rees46_rows_give_category_path_brand_and_price(tmp_path: Path) -> None:
    """Items are what the log first says of them; a bad price skips no event twice."""
    path = tmp_path / "2019-Oct.csv"
    path.write_text(
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
        "2019-10-01 00:00:00 UTC,view,9,20,a.b.c,acme,35.79,u,s\n"
        "2019-10-01 00:00:01 UTC,purchase,9,20,,,1,u,s\n"
        "2019-10-01 00:00:02 UTC,remove_from_cart,10,21,,,,u,s\n"
        "2019-10-01 00:00:03 UTC,view,11,21,,,dear,u,s\n"
    )
    source = open_source("rees46", str(path))
    assert list(source.items()) == [
        Item("9", categories=["a", "b", "c"], brand="acme", price=35.79),
        Item("10", categories=["21"]),
    ]
    first, *_, last = source.events()
    assert (first.timestamp, first.value, first.session_id) == (1_569_888_000_000, 35.79, "s")
    assert (last.type, last.value) == (EventType.REMOVE, None)
    assert source.skips.counts == {"invalid-schema": 1}


def test_movielens_1m_splits_on_double_colons(tmp_path: Path) -> None:
    """Ratings, films and people of the `.dat` dialect, in its Latin-1 text."""
    (tmp_path / "ratings.dat").write_text("1::10::5::7\n")
    (tmp_path / "movies.dat").write_bytes("10::Amélie: a film (2001)::Comedy|Romance\nbroken\n".encode("latin-1"))
    (tmp_path / "users.dat").write_text("1::F::25::12::02460\n2::F::25::99::02460\n")
    source = open_source("movielens", str(tmp_path))
    [event] = source.events()
    assert (event.user_id, event.item_id, event.type, event.timestamp, event.value) == (
        "1", "10", EventType.RATING, 7000, 5.0,
    )  # fmt: skip
    assert list(source.items()) == [Item("10", title="Amélie: a film (2001)", categories=["Comedy", "Romance"])]
    assert list(source.users()) == [User("1", age=25, gender="F", occupation="programmer", attributes={"zip": "02460"})]
    assert source.skips.counts == {"invalid-schema": 2}


def test_movielens_csv_has_a_header_and_no_genre_is_no_category(tmp_path: Path) -> None:
    """The later dialect names its columns."""
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,3.5,7\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,Film (2016),(no genres listed)\n")
    source = open_source("movielens", str(tmp_path))
    assert [event.value for event in source.events()] == [3.5]
    assert list(source.items()) == [Item("10", title="Film (2016)")]
    assert list(source.users()) == []


def test_movielens_tags_become_tags_of_the_films(tmp_path: Path) -> None:
    """Each tag once, in lower case, in the order in which it was first given."""
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,3.5,7\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,Film,Drama\n11,Other,Drama\n")
    (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,10,Slow,7\n2,10,slow ,8\n2,10,Rome,9\n")
    assert [film.tags for film in open_source("movielens", str(tmp_path)).items()] == [["slow", "rome"], []]


def test_movielens_sends_a_file_of_sequences_to_its_format(tmp_path: Path) -> None:
    """`ml-1m_sas.txt` has no ratings; the error names the format that reads it."""
    (tmp_path / "ml-1m_sas.txt").write_text("1 1\n")
    with pytest.raises(UsageError, match="Read it as format s3rec"):
        open_source("movielens", str(tmp_path / "ml-1m_sas.txt"))


def test_rows_that_had_to_be_sorted_are_counted(tmp_path: Path) -> None:
    """A row older than the one before it is put in order and counted, not skipped; a log as it is counts none."""
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp,type\nu,i,5,view\nu,i,3,view\nu,i,4,view\nu,i,4,view\n")
    source = open_source("csv", str(path))
    assert [event.timestamp for event in source.events()] == [3, 4, 4, 5]
    assert source.skips.unsorted == 1
    assert not source.skips.counts


def test_a_reading_does_not_hold_the_log(tmp_path: Path) -> None:
    """Events stream: the first one is there before a bad header-less tail has been seen."""
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp,type\nu,i,1,view\nbad\n")
    source = open_source("csv", str(path), order="log")
    assert next(iter(source.events())) == Event("u", "i", EventType.VIEW, 1)
    assert not source.skips.counts
