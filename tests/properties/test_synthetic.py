from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.errors import UsageError
from streams.core.events import Event, EventType
from streams.sources import ShopConfig, SyntheticShop, open_source
from streams.sources.port import Description
from streams.sources.shop_words import CATEGORIES

FUNNEL = [EventType.VIEW, EventType.CLICK, EventType.CART, EventType.PURCHASE]

configs = st.builds(
    ShopConfig,
    users=st.integers(1, 60),
    items=st.integers(len(CATEGORIES), 80),
    communities=st.integers(1, 64),
    events=st.integers(0, 600),
    days=st.floats(0.01, 400),
    seed=st.integers(0, 2**32),
    drifting=st.floats(0, 1),
)


@pytest.fixture(scope="module")
def shop() -> SyntheticShop:
    return SyntheticShop(ShopConfig(events=60_000, seed=7))


@pytest.fixture(scope="module")
def events(shop: SyntheticShop) -> list[Event]:
    return list(shop.events())


@settings(max_examples=30, deadline=None)
@given(config=configs)
def test_the_same_config_gives_the_same_shop(config: ShopConfig) -> None:
    """Every record of two shops of one config is equal, in every reading."""
    one, other = SyntheticShop(config), SyntheticShop(config)
    assert list(one.events()) == list(other.events()) == list(one.events())
    assert list(one.items()) == list(other.items())
    assert list(one.users()) == list(other.users())


@settings(max_examples=30, deadline=None)
@given(config=configs)
def test_every_shop_keeps_its_books(config: ShopConfig) -> None:
    """Counts are as configured, time never runs backwards, ids are unique, and events know their items and users."""
    shop = SyntheticShop(config)
    made, items, users = list(shop.events()), list(shop.items()), list(shop.users())
    assert (len(made), len(items), len(users)) == (config.events, config.items, config.users)
    assert shop.describe() == Description(config.events, config.items, config.users)
    assert all(earlier.timestamp <= later.timestamp for earlier, later in pairwise(made))
    assert len({event.event_id for event in made}) == len(made)
    assert {event.item_id for event in made} <= {item.item_id for item in items}
    assert {event.user_id for event in made} <= {user.user_id for user in users}
    assert len({item.item_id for item in items}) == len(items)


@settings(max_examples=30, deadline=None)
@given(config=configs)
def test_the_funnel_has_no_gaps(config: ShopConfig) -> None:
    """Inside a session an item is clicked only after it was viewed, put in the cart only after the click, and so on."""
    seen: defaultdict[tuple[str | None, str, str], Counter[EventType]] = defaultdict(Counter)
    for event in SyntheticShop(config).events():
        steps = seen[event.session_id, event.user_id, event.item_id]
        if event.type is not EventType.VIEW:
            before = FUNNEL[FUNNEL.index(event.type) - 1]
            assert steps[before] > steps[event.type]
        steps[event.type] += 1
        assert (event.value is not None) == (event.type is EventType.PURCHASE)


def test_a_session_belongs_to_one_user(events: list[Event]) -> None:
    """A session id stands for one visit of one person."""
    owners = defaultdict(set)
    for event in events:
        owners[event.session_id].add(event.user_id)
    assert {len(users) for users in owners.values()} == {1}


def test_sessions_interleave_in_time_order(events: list[Event]) -> None:
    """Across all chunks of a long shop time never runs backwards, and visits overlap."""
    assert all(earlier.timestamp <= later.timestamp for earlier, later in pairwise(events))
    switches = sum(earlier.session_id != later.session_id for earlier, later in pairwise(events))
    assert switches > 1.2 * len({event.session_id for event in events})


def test_another_seed_is_another_shop(events: list[Event]) -> None:
    """The seed changes what happens."""
    other = SyntheticShop(ShopConfig(events=60_000, seed=8))
    assert list(islice(other.events(), 100)) != events[:100]


def test_an_endless_shop_begins_like_the_default_one_and_goes_on() -> None:
    """Without a number of events the shop does not end; its beginning is that of a shop of the same pace."""
    endless = open_source("synthetic", endless=True, seed=3)
    assert endless.describe().events is None
    begun = list(islice(endless.events(), 120_000))
    assert begun[:100_000] == list(SyntheticShop(ShopConfig(seed=3)).events())
    assert begun[-1].timestamp > begun[0].timestamp


def test_communities_keep_to_their_categories(shop: SyntheticShop, events: list[Event]) -> None:
    """About nine events in ten lie in the two categories of the user's community at that time."""
    on_taste = sum(
        shop.category_of(event.item_id) in shop.categories_of(shop.community_of(event.user_id, event.timestamp))
        for event in events
    )
    assert 0.85 < on_taste / len(events) < 0.95


def test_no_two_communities_share_both_categories() -> None:
    """All 64 communities can be told apart by their pair of categories."""
    shop = SyntheticShop(ShopConfig(communities=64, users=64, events=0))
    assert len({frozenset(shop.categories_of(community)) for community in range(64)}) == 64


def test_drifters_change_what_they_buy_when_they_change_community(shop: SyntheticShop, events: list[Event]) -> None:
    """Before the drift their events lie in the old community's categories, afterwards in the new one's."""
    fits: Counter[tuple[bool, bool]] = Counter()
    for event in events:
        old = shop.community_of(event.user_id)
        new = shop.community_of(event.user_id, shop.drift_ms)
        if old != new:
            in_old = shop.category_of(event.item_id) in shop.categories_of(old)
            fits[event.timestamp - shop.drift_ms > 6 * 3_600_000, in_old] += 1
    assert fits[False, True] > 4 * fits[False, False]
    assert fits[True, False] > 4 * fits[True, True]


def test_one_user_in_ten_drifts(shop: SyntheticShop) -> None:
    """The share of drifting users is the configured one, and they really move."""
    moved = [shop.community_of(user.user_id) != shop.community_of(user.user_id, shop.drift_ms) for user in shop.users()]
    assert 0.07 < sum(moved) / len(moved) < 0.13


def test_the_funnel_narrows(events: list[Event]) -> None:
    """Each step is taken by fewer than the one before, and purchases are not rare."""
    counts = Counter(event.type for event in events)
    views, clicks, carts, purchases = (counts[kind] for kind in FUNNEL)
    assert views > 1.5 * clicks > 3 * carts > 4 * purchases > 0.04 * views


def test_popularity_is_skewed_inside_each_category(shop: SyntheticShop, events: list[Event]) -> None:
    """In every category the top tenth of the items draws well over a third of the views."""
    views: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        views[shop.category_of(event.item_id)][event.item_id] += 1
    sizes = Counter(category for item in shop.items() for category in item.categories)
    assert len(views) == len(CATEGORIES)
    for category, counts in views.items():
        top = counts.most_common(sizes[category] // 10)
        assert sum(count for _, count in top) > 0.35 * counts.total()


def test_titles_tell_the_category(shop: SyntheticShop) -> None:
    """The words of a category's titles are its own: no noun is sold in two categories."""
    nouns = [noun for category in CATEGORIES for noun in category.nouns]
    assert len(set(nouns)) == len(nouns)
    for item in shop.items():
        [category] = [each for each in CATEGORIES if each.name in item.categories]
        assert any(noun in (item.title or "") for noun in category.nouns)
        assert shop.category_of(item.item_id) == category.name
        assert item.price is not None
        assert item.price > 0


def test_attributes_lean_with_the_community(shop: SyntheticShop) -> None:
    """Most members of a community share its typical occupation and country."""
    jobs: defaultdict[int, Counter[str | None]] = defaultdict(Counter)
    countries: defaultdict[int, Counter[str | None]] = defaultdict(Counter)
    for user in shop.users():
        jobs[shop.community_of(user.user_id)][user.occupation] += 1
        countries[shop.community_of(user.user_id)][user.country] += 1
    for traits in (*jobs.values(), *countries.values()):
        assert traits.most_common(1)[0][1] > 0.5 * traits.total()


def test_events_spread_over_the_days() -> None:
    """The shop's time span is about the configured number of days, whatever the number of events."""
    for days in (1.0, 100.0):
        made = list(SyntheticShop(ShopConfig(events=20_000, days=days)).events())
        assert made[-1].timestamp - made[0].timestamp == pytest.approx(days * 86_400_000, rel=0.15)


@pytest.mark.parametrize(
    "options", [{"users": 0}, {"items": 3}, {"communities": 65}, {"events": -1}, {"days": 0}, {"seed": -1}]
)
def test_impossible_shops_are_refused(options: dict[str, int]) -> None:
    """A number out of range ends in an error that names it."""
    with pytest.raises(UsageError, match=next(iter(options))):
        open_source("synthetic", **options)
