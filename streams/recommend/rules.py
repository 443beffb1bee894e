"""Business rules: what the shop's people decide about lists, and which of their wishes cannot go together.

The file they come from is `streams.recommend.rules_file`'s business; docs/rules.md is its reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import log2
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

from streams.core.events import ID_CHARS_MAX

FLOORS_MAX = 31
"""Groups with a floor: one bit of an int32 each."""


def _one_or_more(given: Any) -> Any:
    """A single name stands for a list of one."""
    if isinstance(given, str):
        return (given,)
    return tuple(given) if isinstance(given, list) else given


Name = Annotated[str, Field(min_length=1)]
ItemId = Annotated[str, Field(min_length=1, max_length=ID_CHARS_MAX)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Selector(_Table):
    """Which items a rule is about: those that fit every key that is given. Of several names, one must fit."""

    category: Names = Field(
        default=(), description='one name or several of the first four of an item, example ["shoes"]'
    )
    brand: Names = Field(default=(), description='one name or several, example ["acme"]')
    provider: Names = Field(default=(), description='one name or several, example ["acme"]')
    attribute: Names = Field(default=(), description='one token or several, example ["tag:new"]')
    item: Annotated[tuple[ItemId, ...], BeforeValidator(_one_or_more), Field(min_length=1)] = Field(
        default=(), description='one item id or several, example ["i5"]'
    )
    price_min: Price | None = Field(default=None, description="the least price, from 0")
    price_max: Price | None = Field(default=None, description="the highest price, from 0")

    @model_validator(mode="after")
    def _selects(self) -> Selector:
        if not any(getattr(self, key) not in ((), None) for key in Selector.model_fields):
            raise ValueError(f"says of no item that it is meant: add one of {', '.join(Selector.model_fields)}")
        if self.price_min is not None and self.price_max is not None and self.price_min > self.price_max:
            raise ValueError(
                f"no price is between {self.price_min:g} and {self.price_max:g}: "
                "price_min must be price_max at most, swap them"
            )
        return self


class Boost(Selector):
    """Lifts items."""

    factor: float = Field(
        gt=1, le=1000, allow_inf_nan=False, description="a factor above 1 that multiplies the score, example 1.5"
    )


class Bury(Selector):
    """Sinks items."""

    factor: float = Field(gt=0, lt=1, description="a factor between 0 and 1, example 0.5; to take out use [[drop]]")


class Pin(_Table):
    """Puts an item at a place of every list, except where the user has seen or bought it."""

    item: ItemId = Field(description="an item id")
    position: int = Field(ge=1, description="a place in the list, 1 is the first")


class Exclude(_Table):
    """What never enters a list. `seen` and `bought` follow the setting `repeats` while they are None."""

    seen: bool | None = Field(default=None, description="true, to leave out the user's recent items, or false")
    bought: bool | None = Field(
        default=None, description="true, to leave out what the user bought or disliked, or false"
    )
    unavailable: bool = Field(default=True, description="true, to leave out items whose `available` is false, or false")
    items: Annotated[tuple[ItemId, ...], Strict(strict=False)] = Field(
        default=(), description='a list of item ids, example ["i5"]'
    )


class Caps(_Table):
    """Most items of one brand, one category or one provider in a list; None is no cap."""

    brand: int | None = Field(default=None, ge=1, description="a number of items from 1; to show none use [[drop]]")
    category: int | None = Field(default=None, ge=1, description="a number of items from 1; to show none use [[drop]]")
    provider: int | None = Field(default=None, ge=1, description="a number of items from 1; to show none use [[drop]]")


class Floor(Selector):
    """A group's least share of the exposure over the window."""

    share: float = Field(gt=0, le=1, description="a share of all exposure, above 0, at most 1, example 0.1")


class Exposure(_Table):
    """How floors are counted."""

    window_lists: int = Field(
        default=1000, ge=1, le=100_000, description="a number of lists, 1 to 100000, the last published ones count"
    )
    list_share_max: float = Field(
        default=0.5, gt=0, le=1, description="a share of one list, beyond which no group is lifted, example 0.5"
    )


class Fatigue(_Table):
    """An item shown `shown` times without a reaction of the user pauses for that user."""

    shown: int = Field(ge=1, le=255, description="a number of times, 1 to 255")
    rest_hours: float = Field(gt=0, le=8760, description="the length of the pause in hours, above 0, at most 8760")
    spacing_s: float = Field(
        default=600.0,
        ge=0,
        le=86_400,
        description="seconds, 0 to 86400, within which an item that comes again counts as shown once",
    )
    count: Literal["lists", "impressions"] = Field(
        default="lists", description='"lists" (in a published list) or "impressions" (named by an event of that type)'
    )


class Rules(_Table):
    """All rules. Without any, lists are what the ranker made them."""

    exclude: Exclude = Exclude()
    drop: Annotated[tuple[Selector, ...], Strict(strict=False)] = ()
    """Items that one of these selects are in no list."""
    keep: Annotated[tuple[Selector, ...], Strict(strict=False)] = ()
    """Items that one of these does not select are in no list."""
    boost: Annotated[tuple[Boost, ...], Strict(strict=False)] = ()
    bury: Annotated[tuple[Bury, ...], Strict(strict=False)] = ()
    pin: Annotated[tuple[Pin, ...], Strict(strict=False)] = ()
    caps: Caps = Caps()
    floor: Annotated[tuple[Floor, ...], Strict(strict=False), Field(max_length=FLOORS_MAX)] = ()
    exposure: Exposure = Exposure()
    fatigue: Fatigue | None = None


class Fault(NamedTuple):
    """Something of a rules file that cannot be served."""

    table: str
    number: int | None
    """Which of the tables of that name, from 1; None where there is one."""
    key: str | None
    message: str


def contradictions(rules: Rules, list_items: int) -> list[Fault]:
    """What cannot be true of one list of `list_items` items, whatever the catalogue holds."""
    return [*_of_pins(rules, list_items), *_of_floors(rules, list_items)]


def _of_pins(rules: Rules, list_items: int) -> Iterator[Fault]:
    out = {*rules.exclude.items, *(item for drop in rules.drop if _only(drop, "item") for item in drop.item)}
    kept = [set(keep.item) for keep in rules.keep if keep.item]
    items, positions = Counter(pin.item for pin in rules.pin), Counter(pin.position for pin in rules.pin)
    for number, pin in enumerate(rules.pin, 1):
        if pin.item in out or not all(pin.item in each for each in kept):
            yield Fault("pin", number, "item", f"{pin.item!r} is pinned here and excluded elsewhere: choose one")
        if pin.position > list_items:
            yield Fault(
                "pin", number, "position", f"lists have {list_items} places (setting list_items), got {pin.position}"
            )
        if items[pin.item] > 1:
            yield Fault("pin", number, "item", f"{pin.item!r} is pinned {items[pin.item]} times: keep one")
        if positions[pin.position] > 1:
            yield Fault("pin", number, "position", f"place {pin.position} is given to several items: keep one")


def _of_floors(rules: Rules, list_items: int) -> Iterator[Fault]:
    total = sum(floor.share for floor in rules.floor)
    if total > 1 + 1e-9:
        yield Fault("floor", None, "share", f"the floors' shares must sum to 1 at most, got {total:g}: lower some")
    for number, floor in enumerate(rules.floor, 1):
        if floor.share > rules.exposure.list_share_max:
            yield Fault(
                "floor",
                number,
                "share",
                f"{floor.share:g} is more than one list may give to a group: raise exposure.list_share_max, "
                f"which is {rules.exposure.list_share_max:g}, or lower the share",
            )
        if any(_excludes(drop, floor) for drop in rules.drop) or any(_misses(keep, floor) for keep in rules.keep):
            yield Fault("floor", number, None, "its items are excluded by [[drop]] or [[keep]]: choose one")
        most = _share_under_caps(floor, rules.caps, list_items)
        if floor.share > most:
            yield Fault("floor", number, "share", f"the caps leave it {most:.3g} at most, got {floor.share:g}")


KINDS = ("category", "brand", "provider", "attribute", "item")


def _only(selector: Selector, key: str) -> bool:
    """Nothing but this key says what is meant."""
    return all(getattr(selector, other) in ((), None) for other in Selector.model_fields if other != key)


def _excludes(drop: Selector, group: Selector) -> bool:
    """Whoever belongs to the group is dropped: one key of both is all that `drop` asks."""
    return any(
        _only(drop, kind) and getattr(group, kind) and set(getattr(group, kind)) <= set(getattr(drop, kind))
        for kind in KINDS
    )


def _misses(keep: Selector, group: Selector) -> bool:
    """Nobody of the group is kept; an item may have several categories and attributes, but one brand."""
    return any(
        getattr(keep, kind) and getattr(group, kind) and not set(getattr(keep, kind)) & set(getattr(group, kind))
        for kind in ("brand", "provider", "item")
    )


def _share_under_caps(floor: Floor, caps: Caps, list_items: int) -> float:
    """The largest share of a list that the capped names of the group can have, at the top of it."""
    most = min(
        [list_items]
        + [
            getattr(caps, kind) * len(getattr(floor, kind))
            for kind in ("brand", "category", "provider")
            if getattr(caps, kind) is not None and getattr(floor, kind)
        ]
    )
    weights = position_weights(list_items)
    return sum(weights[:most]) / sum(weights)


def position_weights(places: int) -> list[float]:
    """Exposure of each place, best first: 1 / log2(place + 1), as DCG discounts (Järvelin and Kekäläinen, 2002)."""
    return [1 / log2(place + 1) for place in range(1, places + 1)]
