"""A log's past and what comes after it."""

from __future__ import annotations

import pytest

from streams.sources import ShopConfig, SyntheticShop
from streams.sources.stretch import Stretch

SHOP = SyntheticShop(ShopConfig(users=20, items=50, events=300))


def test_past_and_present_are_the_whole_log() -> None:
    """Every event falls into exactly one of the two, in the log's order and unchanged."""
    past, present = Stretch(SHOP, 0, 120), Stretch(SHOP, 120)
    assert [*past.events(), *present.events()] == list(SHOP.events())
    assert len(list(past.events())) == 120


def test_counts_are_those_of_the_stretch() -> None:
    """Known counts are cut to the stretch; without a known end the present's are unknown."""
    endless = SyntheticShop(ShopConfig(users=20, items=50, events=None))
    assert Stretch(SHOP, 100, 120).describe().events == 20
    assert Stretch(SHOP, 250, 1000).describe().events == 50
    assert Stretch(SHOP, 400).describe().events == 0
    assert Stretch(endless, 100).describe().events is None
    assert Stretch(endless, 100, 120).describe().events == 20


def test_only_times_move() -> None:
    """`shift_ms` moves each event's time and nothing else."""
    plain, moved = Stretch(SHOP, 0, 50).events(), Stretch(SHOP, 0, 50, shift_ms=7_000).events()
    for before, after in zip(plain, moved, strict=True):
        assert after.timestamp - before.timestamp == 7_000
        assert (after.user_id, after.item_id, after.event_id) == (before.user_id, before.item_id, before.event_id)


def test_events_only_tells_nothing_else() -> None:
    """Items and users, told with the past already, are left out on request; skips are the log's own."""
    bare = Stretch(SHOP, 10, events_only=True)
    assert list(bare.items()) == list(bare.users()) == []
    assert bare.describe()[:3] == (290, 0, 0)
    assert list(Stretch(SHOP, 10).items()) == list(SHOP.items())
    assert bare.skips is SHOP.skips


def test_an_end_before_its_beginning_is_refused() -> None:
    """The message says which numbers came."""
    with pytest.raises(ValueError, match="got 5 to 3"):
        Stretch(SHOP, 5, 3)
