"""What the rules say of each item, as columns by catalogue slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streams.core.item_facts import grown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.catalogue import Catalogue
    from streams.core.ports import Floats, Slots
    from streams.recommend.rules import Rules, Selector


class RuleColumns:
    """Follows the catalogue: `refresh` reads those items again of which something changed."""

    def __init__(self, rules: Rules, catalogue: Catalogue) -> None:
        self._rules = rules
        self._catalogue = catalogue
        self._factor = np.ones(0, np.float32)
        self._groups = np.zeros(0, np.int32)
        self._change = -1
        self.refresh()

    @property
    def factor(self) -> Floats:
        """(items,) what a score is multiplied with; 0 means in no list."""
        return self._factor[: len(self._catalogue)]

    @property
    def groups(self) -> NDArray[np.int32]:
        """(items,) bit f is set in those that belong to the group of floor f."""
        return self._groups[: len(self._catalogue)]

    def refresh(self) -> None:
        """Takes over what has changed in the catalogue since the last call."""
        facts = self._catalogue.facts
        if facts.change == self._change:
            return
        if len(facts) > len(self._factor):
            self._factor = grown(self._factor, self._catalogue.capacity, 1)
            self._groups = grown(self._groups, self._catalogue.capacity, 0)
        changed = np.flatnonzero(facts.changes > self._change).astype(np.int32)
        self._factor[changed] = self._factors(changed)
        groups = np.zeros(len(changed), np.int32)
        for bit, floor in enumerate(self._rules.floor):
            groups |= selected(floor, changed, self._catalogue).astype(np.int32) << bit
        self._groups[changed] = groups
        self._change = facts.change

    def unknown_names(self) -> list[str]:
        """A sentence for each kind of name that the rules know and no item has, or not yet: often a typing error."""
        rules, facts = self._rules, self._catalogue.facts
        selectors = (*rules.drop, *rules.keep, *rules.boost, *rules.bury, *rules.floor)
        items = [*rules.exclude.items, *(pin.item for pin in rules.pin), *_all_of(selectors, "item")]
        unknown = {
            "items": [item for item in items if item not in self._catalogue.slot_of],
            "categories": [name for name in _all_of(selectors, "category") if not facts.category_codes([name])],
            "brands": [name for name in _all_of(selectors, "brand") if not facts.brand_codes([name])],
            "providers": [name for name in _all_of(selectors, "provider") if not facts.provider_codes([name])],
        }
        return [
            f"The rules name {kind} that are not in the catalogue so far: {', '.join(map(repr, dict.fromkeys(names)))}."
            for kind, names in unknown.items()
            if names
        ]

    def _factors(self, slots: Slots) -> Floats:
        rules, factors = self._rules, np.ones(len(slots), np.float32)
        for boost in rules.boost:
            factors[selected(boost, slots, self._catalogue)] *= np.float32(boost.factor)
        for bury in rules.bury:
            factors[selected(bury, slots, self._catalogue)] *= np.float32(bury.factor)
        for drop in rules.drop:
            factors[selected(drop, slots, self._catalogue)] = 0
        for keep in rules.keep:
            factors[~selected(keep, slots, self._catalogue)] = 0
        factors[_named(rules.exclude.items, slots, self._catalogue)] = 0
        return factors


def selected(selector: Selector, slots: Slots, catalogue: Catalogue) -> NDArray[np.bool_]:
    """(s,) which of these items the selector means. An unknown price lies in no range."""
    facts = catalogue.facts
    chosen = np.ones(len(slots), np.bool_)
    if selector.brand:
        chosen &= np.isin(facts.brand[slots], facts.brand_codes(selector.brand))
    if selector.provider:
        chosen &= np.isin(facts.provider[slots], facts.provider_codes(selector.provider))
    if selector.category:
        chosen &= np.isin(facts.categories[slots], facts.category_codes(selector.category)).any(axis=1)
    if selector.price_min is not None:
        chosen &= facts.price[slots] >= np.float32(selector.price_min)
    if selector.price_max is not None:
        chosen &= facts.price[slots] <= np.float32(selector.price_max)
    if selector.item:
        chosen &= _named(selector.item, slots, catalogue)
    if selector.attribute:
        wanted = set(selector.attribute)
        chosen &= np.array([not wanted.isdisjoint(facts.attributes[slot]) for slot in slots.tolist()], np.bool_)
    return chosen


def _all_of(selectors: Sequence[Selector], key: str) -> list[str]:
    return [name for selector in selectors for name in getattr(selector, key)]


def _named(item_ids: tuple[str, ...], slots: Slots, catalogue: Catalogue) -> NDArray[np.bool_]:
    return np.isin(slots, [catalogue.slot_of.get(item_id, -1) for item_id in item_ids])
