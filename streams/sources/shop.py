"""The static half of the synthetic shop: who its users are, what it sells, and who likes what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.core.errors import UsageError
from streams.sources.shop_words import BRANDS, CATEGORIES, COUNTRIES, GENDERS, OCCUPATIONS, PROVIDERS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

START_MS = 1_735_689_600_000
"""2025-01-01T00:00:00Z, the shop's opening day."""
DAY_MS = 86_400_000
COMMUNITIES_MAX = 64
USERS_MAX = 10_000_000
ITEMS_MAX = 10_000_000
PACE_EVENTS = 100_000
"""Events that an endless shop spreads over `days`."""

MAIN_SHARE, SECOND_SHARE = 0.6, 0.25
"""Of a community's interest, how much its first and its second category take; the rest roams everywhere."""
DRIFT_AT = 0.5
ZIPF_EXPONENT = 1.0
ACTIVITY_SIGMA = 1.0
PRICE_SIGMA = 0.4
BRAND_LIKED_SHARE = 0.5
TRAIT_SHARE = 0.6
"""Share of a community's members with its typical occupation, and with its typical country."""
AGE_MIN, AGE_MAX, AGE_SIGMA = 18, 80, 6.0


@dataclass(frozen=True, slots=True)
class ShopConfig:
    """Size of the shop. `events=None` never ends; the same config gives the same shop, event for event.

    Raises:
        UsageError: a number is out of range.
    """

    users: int = 2_000
    items: int = 2_000
    communities: int = 8
    events: int | None = 100_000
    days: float = 30.0
    seed: int = 0
    drifting: float = 0.1
    """Share of users who move to another community at the middle of `days`."""

    def __post_init__(self) -> None:
        for name, most in (("users", USERS_MAX), ("items", ITEMS_MAX), ("communities", COMMUNITIES_MAX)):
            if not 1 <= getattr(self, name) <= most:
                raise UsageError(f"A synthetic shop has 1 to {most} {name}, not {getattr(self, name)}.")
        if self.items < len(CATEGORIES):
            raise UsageError(f"A synthetic shop has at least {len(CATEGORIES)} items, one in each category.")
        if self.events is not None and self.events < 0:
            raise UsageError(f"events is a count or absent for an endless shop, not {self.events}.")
        if not 0 < self.days <= 3650 or not 0 <= self.drifting <= 1 or self.seed < 0:
            raise UsageError("days is in (0, 3650], drifting in [0, 1], seed not negative.")

    @property
    def drift_ms(self) -> int:
        """When the drifting users change community, epoch ms."""
        return START_MS + int(self.days * DAY_MS * DRIFT_AT)

    @property
    def events_per_ms(self) -> float:
        """Mean pace of the shop."""
        return (self.events or PACE_EVENTS) / (self.days * DAY_MS)


@dataclass(frozen=True, slots=True)
class Members:
    """The users, column by column; row = position of the user."""

    ids: list[str]
    community: Ints
    """(users,) before the drift."""
    community_later: Ints
    """(users,) from the drift on; differs only for the users who drift."""
    activity: Floats
    """(users,) cumulative share of all sessions, the last one 1."""
    age: Ints
    gender: Ints
    occupation: Ints
    country: Ints


@dataclass(frozen=True, slots=True)
class Shelf:
    """The items, column by column, category after category and the most popular of each first."""

    ids: list[str]
    first: Ints
    """(categories,) row of the category's most popular item."""
    size: Ints
    """(categories,) how many items it has."""
    category: Ints
    brand: Ints
    provider: Ints
    noun: Ints
    adjective: Ints
    price: Floats
    popularity: Floats
    """(largest size,) cumulative Zipf weights by rank, not normalised."""


@dataclass(frozen=True, slots=True)
class Tastes:
    """What each community prefers."""

    category: Floats
    """(communities, categories) cumulative preference, the last column 1."""
    mains: Ints
    """(communities, 2) its two categories."""
    brand: NDArray[np.bool_]
    """(communities, brands) whether it likes the brand."""


def recruit(config: ShopConfig, rng: np.random.Generator) -> Members:
    """The users: communities of equal size, activity skewed, attributes leaning with the community."""
    users, communities = config.users, config.communities
    community = rng.permutation(np.arange(users) % communities)
    moves = (rng.random(users) < config.drifting) & (communities > 1)
    step = rng.integers(1, max(communities, 2), users)
    later = np.where(moves, (community + step) % communities, community)
    activity = np.cumsum(rng.lognormal(0.0, ACTIVITY_SIGMA, users))
    return Members(
        ids=[f"u{number}" for number in range(users)],
        community=community,
        community_later=later,
        activity=activity / activity[-1],
        age=_ages(community, communities, rng),
        gender=_lean(community, len(GENDERS) - 1, len(GENDERS), rng),
        occupation=_lean(community, len(OCCUPATIONS), len(OCCUPATIONS), rng),
        country=_lean(community, len(COUNTRIES), len(COUNTRIES), rng),
    )


def stock(config: ShopConfig, rng: np.random.Generator) -> Shelf:
    """The items: categories of equal size; ids are shuffled, so that an id tells nothing."""
    items, categories = config.items, len(CATEGORIES)
    size = np.full(categories, items // categories) + (np.arange(categories) < items % categories)
    category = np.repeat(np.arange(categories), size)
    base_price = np.array([each.price for each in CATEGORIES])[category]
    return Shelf(
        ids=[f"i{number}" for number in rng.permutation(items).tolist()],
        first=np.concatenate([[0], np.cumsum(size)[:-1]]),
        size=size,
        category=category,
        brand=rng.integers(0, len(BRANDS), items),
        provider=rng.integers(0, len(PROVIDERS), items),
        noun=rng.integers(0, min(len(each.nouns) for each in CATEGORIES), items),
        adjective=rng.integers(0, min(len(each.adjectives) for each in CATEGORIES), items),
        price=np.round(base_price * rng.lognormal(0.0, PRICE_SIGMA, items), 2),
        popularity=np.cumsum(1.0 / np.arange(1, size.max() + 1) ** ZIPF_EXPONENT),
    )


def tastes(config: ShopConfig, rng: np.random.Generator) -> Tastes:
    """Preferences: no two communities have the same pair of categories."""
    categories, number = len(CATEGORIES), np.arange(config.communities)
    lap, place = np.divmod(number, categories // 2)
    mains = np.stack([2 * place, (2 * place + 1 + 2 * lap) % categories], axis=1)
    share = np.full((config.communities, categories), (1.0 - MAIN_SHARE - SECOND_SHARE) / categories)
    share[number, mains[:, 0]] += MAIN_SHARE
    share[number, mains[:, 1]] += SECOND_SHARE
    brand = rng.random((config.communities, len(BRANDS))) < BRAND_LIKED_SHARE
    cumulative = np.cumsum(share, axis=1)
    return Tastes(category=cumulative / cumulative[:, -1:], mains=mains, brand=brand)


def _ages(community: Ints, communities: int, rng: np.random.Generator) -> Ints:
    typical = AGE_MIN + (community + 0.5) * (AGE_MAX - AGE_MIN) / communities
    return np.clip(np.rint(rng.normal(typical, AGE_SIGMA)), AGE_MIN, AGE_MAX).astype(np.int64)


def _lean(community: Ints, typical_values: int, values: int, rng: np.random.Generator) -> Ints:
    """A trait of `values` values: mostly the community's own, else any."""
    typical = rng.random(len(community)) < TRAIT_SHARE
    return np.where(typical, community % typical_values, rng.integers(0, values, len(community)))
