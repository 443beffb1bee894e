"""MovieLens in its three dialects: 100k (`u.data`), 1M (`ratings.dat`) and the later ones (`ratings.csv`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from streams.core.errors import UsageError
from streams.core.events import EventType, Item, User
from streams.sources.files import find_beside, find_file
from streams.sources.layout import Layout
from streams.sources.table import TableSource, read_table
from streams.sources.timestamps import from_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.sources.port import Skips

Record = TypeVar("Record", Item, User)

RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
SEQUENCES = "ml-1m_sas"
TAGS_MAX = 20
"""Of one film, in the order in which they were first given."""
NO_GENRES = "(no genres listed)"
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
OCCUPATIONS_1M = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SideTable(Generic[Record]):
    """A file beside the ratings; without `columns` its first row names them."""

    file: str
    build: Callable[[dict[str, str]], Record]
    delimiter: str
    columns: tuple[str, ...]
    encoding: str = "iso-8859-1"

    def read(self, log: str, skips: Skips) -> Iterator[Record]:
        """Its records; none when the file is not there."""
        path = find_beside(log, [self.file])
        if path is None:
            return iter(())
        return read_table(
            path, self.build, skips, columns=self.columns, delimiter=self.delimiter, encoding=self.encoding
        )


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one edition writes its files."""

    ratings: tuple[str, ...]
    delimiter: str
    columns: tuple[str, ...]
    items: SideTable[Item]
    users: SideTable[User] | None


def movielens(path: str) -> TableSource:
    """The unpacked folder of an edition, or its file of ratings. Ratings are events of type `rating`.

    Tags that users gave, in the later editions, become tags of the items.
    """
    log = find_file(path, [name for dialect in _DIALECTS for name in dialect.ratings])
    if SEQUENCES in log:
        raise UsageError(f"{log} holds sequences without times, not ratings. Read it as format s3rec.")
    dialect = next((d for d in _DIALECTS if any(name in log for name in d.ratings)), _DIALECTS[-1])
    layout = Layout(
        user="userId",
        item="movieId",
        timestamp="timestamp",
        milliseconds_of=from_seconds,
        constant_type=EventType.RATING,
        value="rating",
        id_from_row=True,
        columns=dialect.columns,
        delimiter=dialect.delimiter,
    )
    users = dialect.users
    return TableSource(
        "movielens",
        log,
        layout,
        items=lambda skips: _tagged(dialect.items.read(log, skips), log, skips),
        users=None if users is None else lambda skips: users.read(log, skips),
    )


def _tagged(films: Iterator[Item], log: str, skips: Skips) -> Iterator[Item]:
    path = find_beside(log, ["tags.csv"])
    tags: dict[str, dict[str, None]] = {}
    if path is not None:
        for film_id, tag in read_table(path, _tag, skips):
            of_film = tags.setdefault(film_id, {})
            if tag and len(of_film) < TAGS_MAX:
                of_film[tag] = None
    for film in films:
        yield msgspec.structs.replace(film, tags=list(tags.get(film.item_id, ())))


def _tag(row: dict[str, str]) -> tuple[str, str]:
    return row["movieId"], row["tag"].strip().lower()


def _item_100k(row: dict[str, str]) -> Item:
    genres = [genre for genre in GENRES_100K if row[genre] == "1"]
    return Item(item_id=row["movieId"], title=row["title"], categories=genres)


def _item(row: dict[str, str]) -> Item:
    genres = [] if row["genres"] == NO_GENRES else row["genres"].split("|")
    return Item(item_id=row["movieId"], title=row["title"], categories=genres)


def _user_100k(row: dict[str, str]) -> User:
    return _user(row, row["occupation"])


def _user_1m(row: dict[str, str]) -> User:
    """Ages are the lower bounds of the survey's ranges."""
    return _user(row, OCCUPATIONS_1M[int(row["occupation"])])


def _user(row: dict[str, str], occupation: str) -> User:
    return User(
        user_id=row["userId"],
        age=int(row["age"]),
        gender=row["gender"],
        occupation=occupation,
        attributes={"zip": row["zip"]},
    )


MOVIES_1M = SideTable("movies.dat", _item, "::", ("movieId", "title", "genres"))
USERS_1M = SideTable("users.dat", _user_1m, "::", ("userId", "gender", "age", "occupation", "zip"))
_DIALECTS = (
    Dialect(
        ratings=("u.data",),
        delimiter="\t",
        columns=RATING_COLUMNS,
        items=SideTable("u.item", _item_100k, "|", ("movieId", "title", "released", "video", "url", *GENRES_100K)),
        users=SideTable("u.user", _user_100k, "|", ("userId", "age", "gender", "occupation", "zip")),
    ),
    Dialect(
        ratings=("ratings.dat", "ratings_users1-2999.dat"),
        delimiter="::",
        columns=RATING_COLUMNS,
        items=MOVIES_1M,
        users=USERS_1M,
    ),
    Dialect(
        ratings=("ratings.csv",),
        delimiter=",",
        columns=(),
        items=SideTable("movies.csv", _item, ",", (), encoding="utf-8"),
        users=None,
    ),
)
