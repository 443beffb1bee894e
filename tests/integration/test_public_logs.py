"""Every public log in `../shared/data` through its reader: the counts that its description gives, and its problems."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streams.core.events import Item, User
from streams.sources import open_source
from streams.sources.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.core.events import Event
    from streams.sources import Description, Skips, Source

pytestmark = pytest.mark.logs

LOGS = Path(__file__).resolve().parents[2] / "../shared/data"


@dataclass(frozen=True)
class Log:
    """What a log holds. Counts of its description where it has them; where ours differ, the comment says why."""

    format: str
    path: str
    users: int
    items: int
    types: dict[str, int]
    time: tuple[str, str]
    catalogue: tuple[int, int, int] = (0, 0, 0)
    """Entries; items with events that have an entry; and a text."""
    people: tuple[int, int] = (0, 0)
    """Entries; users with events that have attributes."""
    problems: dict[str, int] = field(default_factory=dict)
    """Those that rows cause."""
    order_only: bool = False


DATA = [
    Log(
        "deskdrop", "deskdrop", 1_895, 2_987,
        {"view": 61_086, "like": 5_745, "bookmark": 2_463, "comment": 1_611, "follow": 1_407},
        ("2016-03-14T13:54:36Z", "2017-02-28T19:21:51Z"),
        # titles: 1,273 rows; 7 of articles without events, and 10 of the other 1,266 are empty
        catalogue=(1_273, 1_266, 1_256),
        problems={"exact duplicates": 11, "unsorted rows": 36_047},
    ),
    Log(
        "taobao", "taobao_userbehavior", 983, 64_467,
        {"view": 89_710, "cart": 5_446, "bookmark": 2_744, "purchase": 2_101},
        ("2017-09-11T08:16:39Z", "2017-12-03T15:59:23Z"),
        catalogue=(64_467, 64_467, 0),
        problems={"unsorted rows": 982, "events outside the bulk of time": 44},
    ),
    Log(
        "rees46", "rees46_multicategory_head", 4_504, 6_493,
        {"view": 17_055, "purchase": 214, "cart": 165},
        ("2019-10-01T00:00:00Z", "2019-10-01T02:50:00Z"),
        catalogue=(6_493, 6_493, 0),
        problems={"exact duplicates": 5},
    ),
    Log(
        "retailrocket", "retailrocket_sample", 5_000, 6_610,
        {"view": 9_076, "cart": 263, "purchase": 46},
        ("2015-05-03T03:02:00Z", "2015-09-18T01:16:53Z"),
        problems={"exact duplicates": 3, "unsorted rows": 4_614},
    ),
    Log(
        # 541,909 rows and 4,070 items with those of unknown customers, 135,080 rows, which are nobody's events
        "online-retail", "online_retail", 4_372, 3_684,
        {"purchase": 397_924, "remove": 8_905},
        ("2010-12-01T08:26:00Z", "2011-12-09T12:50:00Z"),
        catalogue=(3_922, 3_668, 3_668),
        people=(4_372, 4_372),
        problems={"skipped: no-customer": 135_080, "exact duplicates": 5_225},
    ),
    Log(
        "movielens", "movielens_100k", 943, 1_682, {"rating": 100_000},
        ("1997-09-20T03:05:10Z", "1998-04-22T23:10:38Z"),
        catalogue=(1_682, 1_682, 1_682),
        people=(943, 943),
        problems={"unsorted rows": 50_031},
    ),
    Log(
        "movielens", "movielens_1m", 2_999, 3_615, {"rating": 487_650},
        ("2000-10-04T00:52:14Z", "2003-02-27T23:31:15Z"),
        catalogue=(3_883, 3_615, 3_615),
        people=(6_040, 2_999),
        problems={"unsorted rows": 238_110, "events outside the bulk of time": 69},
    ),
    Log(
        # its 1,296 tags become tags of the films, not events
        "movielens", "movielens_latest_small", 671, 9_066, {"rating": 100_004},
        ("1995-01-09T11:46:49Z", "2016-10-16T17:57:24Z"),
        catalogue=(9_125, 9_066, 9_066),
        problems={"unsorted rows": 48_926},
    ),
    Log(
        "s3rec", "amazon_s3rec/Beauty", 22_363, 12_101, {"purchase": 198_502},
        ("1980-01-01T00:00:00Z", "1980-07-22T00:00:00Z"),
        catalogue=(12_101, 12_101, 12_100),
        order_only=True,
    ),
    Log(
        "s3rec", "amazon_s3rec/Sports_and_Outdoors", 35_598, 18_357, {"purchase": 296_337},
        ("1980-01-01T00:00:00Z", "1980-10-22T00:00:00Z"),
        catalogue=(18_357, 18_357, 18_357),
        order_only=True,
    ),
    Log(
        # sparse before 2008
        "s3rec", "amazon_timeline", 22_363, 12_101, {"purchase": 198_502},
        ("2002-06-12T00:00:00Z", "2014-07-23T00:00:00Z"),
        problems={"events outside the bulk of time": 1_069},
    ),
    Log(
        "s3rec", "movielens_1m", 6_040, 3_416, {"rating": 999_611},
        ("1980-01-01T00:00:00Z", "1986-03-26T00:00:00Z"),
        catalogue=(3_416, 3_416, 3_416),
        people=(6_040, 6_040),
        order_only=True,
    ),
    Log(
        # 1,046 impressions of 38 users show 10,848 articles, 306 of them on an article's page; 6 users have only
        # a history, and all 44 histories hold 8,303 articles read
        "ebnerd", "ebnerd_test_sample", 44, 3_378,
        {"impression": 10_848, "view": 8_303 + 306, "click": 1_047},
        ("2023-02-02T07:00:31Z", "2023-03-02T06:28:54Z"),
        people=(38, 38),
    ),
    Log(
        # 284,086 reviews of 105,114 products, 34 of them without stars; 7,297 people are trusted
        "ciao", "ciao_trust", 7_375, 105_114 + 7_297,
        {"rating": 284_086 - 34, "comment": 34, "follow": 111_781},
        ("1980-01-01T00:00:00Z", "1984-03-27T00:00:00Z"),
        catalogue=(112_411, 112_411, 0),
        problems={"exact duplicates": 652},
        order_only=True,
    ),
]  # fmt: skip
ROW_PROBLEMS = ("skipped", "exact duplicates", "unsorted rows", "events outside the bulk of time")


class Watched:
    """A source whose events are seen to come in time order while something else reads them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name = source.name
        self.disorder = 0

    @property
    def skips(self) -> Skips:
        return self._source.skips

    def describe(self) -> Description:
        return self._source.describe()

    def items(self) -> Iterator[Item]:
        return self._source.items()

    def users(self) -> Iterator[User]:
        return self._source.users()

    def events(self) -> Iterator[Event]:
        for earlier, later in pairwise(self._source.events()):
            yield earlier
            self.disorder += later.timestamp < earlier.timestamp
        yield later


def opened(format_name: str, path: str) -> Source:
    folder = path.partition("/")[0]
    if not (LOGS / folder).is_dir():
        pytest.skip(f"the public logs are not here: no folder {folder} in ../shared/data")
    return open_source(format_name, str(LOGS / path))


@pytest.mark.parametrize("log", DATA, ids=lambda log: f"{log.format}-{Path(log.path).name}")
def test_a_public_log_gives_the_counts_of_its_description(log: Log) -> None:
    """Users, items, types, times, catalogue, people and problems are those the log is known for, in time order."""
    source = Watched(opened(log.format, log.path))
    summary = summarise(source)
    assert source.disorder == 0
    assert (summary.users, summary.items) == (log.users, log.items)
    assert {each.type.value: each.events for each in summary.types} == log.types
    assert (summary.time.first, summary.time.last) == log.time
    assert (summary.catalogue.entries, summary.catalogue.described, summary.catalogue.text) == log.catalogue
    assert (summary.people.entries, summary.people.with_attributes) == log.people
    found = {each.problem: each.count for each in summary.problems if each.problem.startswith(ROW_PROBLEMS)}
    assert found == log.problems
    assert summary.time.order_only is log.order_only
    expected = source.describe().events
    assert expected is None or expected == summary.events + sum(source.skips.counts.values())


def test_sequences_of_beauty_keep_their_order() -> None:
    """Each user's events by time are the items of the line, so that the last one is the test item of the tables."""
    source = opened("s3rec", "amazon_s3rec/Beauty.txt.xz")
    first = [event.item_id for event in source.events() if event.user_id == "1"]
    assert first == ["1", "2", "3", "4", "5"]


def test_films_of_the_sequences_are_the_originals() -> None:
    """Film 1 and user 1 of `ml-1m_sas` are film 1198 and user 5988 of MovieLens 1M."""
    source = opened("s3rec", "movielens_1m/ml-1m_sas.txt.xz")
    films = {film.item_id: film for film in source.items()}
    people = {person.user_id: person for person in source.users()}
    assert films["1"] == Item("1", title="Raiders of the Lost Ark (1981)", categories=["Action", "Adventure"])
    assert people["1"] == User("1", age=25, gender="M", occupation="scientist", attributes={"zip": "94022"})


def test_click_and_impression_of_a_list_share_its_number() -> None:
    """Every click of EB-NeRD is on an article that the same list showed."""
    events = list(opened("ebnerd", "ebnerd_test_sample").events())
    shown = {(event.rec_id, event.item_id) for event in events if event.type.value == "impression"}
    clicked = {(event.rec_id, event.item_id) for event in events if event.type.value == "click"}
    assert len(clicked) == 1_047
    assert clicked <= shown
