"""A seeded shop whose right answers are known.

Users belong to planted communities; a community prefers two categories and some brands. In the middle of the
time some users move to another community. Each session is a walk through a few items, and each item may go down
the funnel view -> click -> cart -> purchase. Items inside a category are popular by Zipf's law.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streams.core.events import Event, EventType, Item, User
from streams.sources.port import Description, Skips
from streams.sources.shop import START_MS, Floats, Ints, ShopConfig, recruit, stock, tastes
from streams.sources.shop_words import BRANDS, CATEGORIES, COUNTRIES, GENDERS, OCCUPATIONS, PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

FUNNEL = (EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE)
CLICK_AFTER_VIEW, CART_AFTER_CLICK, PURCHASE_AFTER_CART = 0.5, 0.3, 0.5
OFF_TASTE_FACTOR = 0.5
"""An item outside the community's categories goes down the funnel half as often."""
INTERESTS_MEAN, INTERESTS_MAX = 3.0, 10
GAP_MS_MEAN, GAP_MS_MIN, GAP_MS_MAX = 20_000.0, 1_000, 600_000
SESSIONS_PER_CHUNK = 2_048
"""Sessions drawn at once. Bounds the memory of an endless shop; another value gives another shop."""


class Clicks(NamedTuple):
    """Events as columns of equal length, in no particular order until sorted."""

    time_ms: Ints
    user: Ints
    row: Ints
    depth: Ints
    session: Ints

    def take(self, rows: np.ndarray) -> Clicks:
        """The same columns at these rows."""
        return Clicks(*(column[rows] for column in self))


class SyntheticShop:
    """A `Source` that also tells the truth behind its events: `community_of`, `category_of`, `drift_ms`."""

    def __init__(self, config: ShopConfig | None = None) -> None:
        self.name = "synthetic"
        self.skips = Skips()
        self.config = config or ShopConfig()
        rng = np.random.default_rng([self.config.seed, 0])
        self._members = recruit(self.config, rng)
        self._shelf = stock(self.config, rng)
        self._tastes = tastes(self.config, rng)
        self._user_rows = {user_id: row for row, user_id in enumerate(self._members.ids)}
        self._item_rows = {item_id: row for row, item_id in enumerate(self._shelf.ids)}

    @property
    def drift_ms(self) -> int:
        """When drifting users change community, epoch ms of the shop's own time."""
        return self.config.drift_ms

    def community_of(self, user_id: str, at_ms: int = START_MS) -> int:
        """The planted community of a user at a moment of the shop's time. Raises KeyError for a stranger."""
        row = self._user_rows[user_id]
        era = self._members.community if at_ms < self.drift_ms else self._members.community_later
        return int(era[row])

    def categories_of(self, community: int) -> tuple[str, str]:
        """The two categories that a community prefers, the stronger one first."""
        first, second = self._tastes.mains[community].tolist()
        return CATEGORIES[first].name, CATEGORIES[second].name

    def category_of(self, item_id: str) -> str:
        """The category of an item. Raises KeyError for an unknown one."""
        return CATEGORIES[int(self._shelf.category[self._item_rows[item_id]])].name

    def describe(self) -> Description:
        """Exact counts; `events` is None when the shop never closes."""
        return Description(events=self.config.events, items=self.config.items, users=self.config.users)

    def items(self) -> Iterator[Item]:
        """The catalogue, in the order of the shelf."""
        for row in range(self.config.items):
            yield self._item(row)

    def users(self) -> Iterator[User]:
        """All users with their attributes."""
        people = self._members
        for row, user_id in enumerate(people.ids):
            yield User(
                user_id=user_id,
                age=int(people.age[row]),
                gender=GENDERS[people.gender[row]],
                occupation=OCCUPATIONS[people.occupation[row]],
                country=COUNTRIES[people.country[row]],
            )

    def events(self) -> Iterator[Event]:
        """What people do, from opening day on; `config.events` of it, or without end."""
        return islice(self._endless_events(), self.config.events)

    def _item(self, row: int) -> Item:
        shelf = self._shelf
        category = CATEGORIES[shelf.category[row]]
        noun, adjective = category.nouns[shelf.noun[row]], category.adjectives[shelf.adjective[row]]
        brand = BRANDS[shelf.brand[row]]
        return Item(
            item_id=shelf.ids[row],
            title=f"{brand} {adjective} {noun}",
            categories=[category.name],
            brand=brand,
            provider=PROVIDERS[shelf.provider[row]],
            price=float(shelf.price[row]),
            tags=[adjective],
            text=f"{adjective.capitalize()} {noun} {category.purpose}.",
        )

    def _endless_events(self) -> Iterator[Event]:
        number = 0
        for clicks in self._endless_clicks():
            yield from self._as_events(clicks, number)
            number += len(clicks.time_ms)

    def _as_events(self, clicks: Clicks, number: int) -> Iterator[Event]:
        users, items = self._members.ids, self._shelf.ids
        prices = self._shelf.price[clicks.row].tolist()
        columns = zip(*(column.tolist() for column in clicks), prices, strict=True)
        for count, (time_ms, user, row, depth, session, price) in enumerate(columns, number):
            value = price if depth == len(FUNNEL) - 1 else None
            yield Event(users[user], items[row], FUNNEL[depth], time_ms, f"e{count:x}", value, None, f"s{session:x}")

    def _endless_clicks(self) -> Iterator[Clicks]:
        """Chunks in time order. A chunk gives out what happens before the next chunk's first session."""
        rng = np.random.default_rng([self.config.seed, 1])
        clock_ms, first_session = float(START_MS), 0
        waiting = Clicks(*(np.empty(0, np.int64) for _ in Clicks._fields))
        while True:
            starts = clock_ms + np.cumsum(rng.exponential(self._session_gap_ms(), SESSIONS_PER_CHUNK))
            fresh = self._sessions(starts, first_session, rng)
            both = Clicks(*(np.concatenate(pair) for pair in zip(waiting, fresh, strict=True)))
            both = both.take(np.argsort(both.time_ms, kind="stable"))
            clock_ms, first_session = float(starts[-1]), first_session + SESSIONS_PER_CHUNK
            due = int(np.searchsorted(both.time_ms, int(clock_ms)))
            waiting = both.take(np.arange(due, len(both.time_ms)))
            yield both.take(np.arange(due))

    def _session_gap_ms(self) -> float:
        steps = 1 + CLICK_AFTER_VIEW * (1 + CART_AFTER_CLICK * (1 + PURCHASE_AFTER_CART))
        return INTERESTS_MEAN * steps / self.config.events_per_ms

    def _sessions(self, starts: Floats, first_session: int, rng: np.random.Generator) -> Clicks:
        """All events of the sessions that begin at `starts` (sessions,)."""
        members = self._members
        user = np.searchsorted(members.activity, rng.random(len(starts)), side="right")
        community = np.where(starts < self.drift_ms, members.community[user], members.community_later[user])
        interests = np.minimum(rng.geometric(1 / INTERESTS_MEAN, len(starts)), INTERESTS_MAX)
        session = np.repeat(np.arange(len(starts)), interests)
        row = self._choose_items(community[session], rng)
        steps = 1 + self._depths(community[session], row, rng)
        event = np.repeat(np.arange(len(row)), steps)
        depth = np.arange(len(event)) - np.repeat(np.cumsum(steps) - steps, steps)
        time_ms = starts[session[event]] + _elapsed_within(session[event], rng)
        return Clicks(time_ms.astype(np.int64), user[session[event]], row[event], depth, first_session + session[event])

    def _choose_items(self, community: Ints, rng: np.random.Generator) -> Ints:
        """An item for each interest (interests,): popular, in a preferred category, of a liked brand if it can be."""
        category = (self._tastes.category[community] < rng.random(len(community))[:, None]).sum(axis=1)
        first, second = self._popular(category, rng), self._popular(category, rng)
        liked_first = self._tastes.brand[community, self._shelf.brand[first]]
        liked_second = self._tastes.brand[community, self._shelf.brand[second]]
        return np.where(~liked_first & liked_second, second, first)

    def _popular(self, category: Ints, rng: np.random.Generator) -> Ints:
        weights = self._shelf.popularity
        drawn = rng.random(len(category)) * weights[self._shelf.size[category] - 1]
        rank = np.minimum(np.searchsorted(weights, drawn, side="right"), self._shelf.size[category] - 1)
        return self._shelf.first[category] + rank

    def _depths(self, community: Ints, row: Ints, rng: np.random.Generator) -> Ints:
        """How many steps beyond the view each interest goes (interests,), 0 to 3."""
        on_taste = (self._tastes.mains[community] == self._shelf.category[row][:, None]).any(axis=1)
        drawn = rng.random(len(row)) / np.where(on_taste, 1.0, OFF_TASTE_FACTOR)
        reach = np.cumprod([CLICK_AFTER_VIEW, CART_AFTER_CLICK, PURCHASE_AFTER_CART])
        depths: Ints = (drawn[:, None] < reach).sum(axis=1)
        return depths


def _elapsed_within(session: Ints, rng: np.random.Generator) -> Floats:
    """Milliseconds since the session's start for events (events,) grouped by session; each gap at least a second."""
    gaps = np.clip(rng.exponential(GAP_MS_MEAN, len(session)), GAP_MS_MIN, GAP_MS_MAX)
    elapsed = np.cumsum(gaps)
    opens = np.flatnonzero(np.diff(session, prepend=-1))
    return elapsed - np.repeat(elapsed[opens], np.diff(opens, append=len(session)))


def synthetic(_path: str, *, endless: bool = False, **options: float) -> SyntheticShop:
    """The shop of these `ShopConfig` fields, or one that never closes; it needs no path."""
    given: dict[str, Any] = {**options, "events": None} if endless else options
    return SyntheticShop(ShopConfig(**given))
