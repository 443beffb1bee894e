"""What `nearstream explain` finds out of the topics: the figures of one user and one item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from encoder.errors import UnusableModel
from streams.config import Settings
from streams.core.catalogue import Catalogue
from streams.core.errors import UsageError
from streams.core.events import EVENT_TYPES, Item
from streams.core.histories import Histories
from streams.core.profile import NO_ITEM, ProfileLayout
from streams.core.recommendations import SHORT_SENTENCES, Reason, Recommendation
from streams.core.user_facts import NO_TOKENS, Tokens, start_states
from streams.kafka.changelog import ProfileRecord, load_profiles
from streams.recommend.what_if import event_effects, vectors_without

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from encoder import UserEncoder
    from encoder.attribution import Attribution
    from streams.core.ports import Floats, ProfileEncoder
    from streams.recommend.engine import Model

DIGITS = 6
MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Found:
    """What the topics hold of a user, of the items remembered or asked for, and of the neighbours in the last list."""

    profile: ProfileRecord
    list_: Recommendation | None
    items: Mapping[str, Item]
    gone: frozenset[str]
    """Items with a tombstone."""
    neighbours: Mapping[str, ProfileRecord]
    tokens: Tokens = NO_TOKENS
    """What the users topic says of the user."""


class Place(msgspec.Struct, frozen=True):
    """Where the item stands in the last list, from 1."""

    rank: int
    of: int
    score: float
    reasons: list[Reason]


class EventEffect(msgspec.Struct, frozen=True):
    """One remembered event and what it adds to the cosine. `timestamp` is epoch ms, of whole seconds."""

    item_id: str
    title: str | None
    type: str
    timestamp: int
    adds: float


class Without(msgspec.Struct, frozen=True):
    """The user if these events had never been; both cosines are None where nothing else is remembered."""

    item_id: str
    events: int
    profile_cosine: float | None
    """Of the user's vectors with and without them."""
    cosine: float | None
    """Of the vector without them and the item that is explained."""


class Near(msgspec.Struct, frozen=True):
    """A neighbour of the last list, as near as the profiles are now."""

    user_id: str
    similarity: float
    has_item: bool
    similarity_without: float | None


class Explanation(msgspec.Struct, frozen=True):
    """Why an item is near to a user.

    `cosine` = what `events` add + `constant` + `start` + `forgotten`, to 1e-5. `remembered` is the cosine without the
    last of them, from the remembered events alone, and what `without` is to be compared with.
    """

    user_id: str
    item_id: str
    title: str | None
    model: str
    cosine: float
    remembered: float
    events: list[EventEffect]
    """Largest first, whatever the sign."""
    constant: float
    """What the model gives every user."""
    start: float
    """What the user's attributes add, by which the profile began; 0 where the model knows none."""
    forgotten: float
    """What the profile has from events that it does not remember one by one: older ones, dislikes, ratings' values."""
    profile_covered: float
    """Cosine of the vector that is served and the one of the remembered events alone."""
    place: Place | None
    absent: str | None
    """Why the item is not in the list; None where it is."""
    without: Without | None
    neighbours: list[Near]


def explained(
    model: Model | UserEncoder, settings: Settings, found: Found, item: str, without: str | None
) -> Explanation:
    """The explanation of one item, and of what would be without the events of another.

    Raises:
        UsageError: the profile is another model's or remembers nothing, the item is known nowhere, or the user has no
            remembered event of `without`; the message says what to do.
    """
    _check(found, model.profiles.name, item, without)
    case = _Case(model, settings, found, item)
    effects = case.effects()
    remembered, left = case.vectors_without(without)
    cosine, place = float(case.served @ case.target), _place(found.list_, item)
    return Explanation(
        user_id=found.profile.user_id,
        item_id=item,
        title=_title(found, item),
        model=model.profiles.name,
        cosine=_rounded(cosine),
        remembered=_rounded(effects.cosines[0]),
        events=case.events(effects.events[0]),
        constant=_rounded(effects.constant[0]),
        start=_rounded(effects.start[0]),
        forgotten=_rounded(cosine - effects.cosines[0]),
        profile_covered=_rounded(case.served @ remembered),
        place=place,
        absent=None if place is not None else _absence(found, item),
        without=None if without is None else case.without(without, remembered, left),
        neighbours=case.neighbours(item, left if without is not None and left.any() else None),
    )


class _Case:
    """One user, as the model sees the remembered events, and one item."""

    def __init__(self, model: Model | UserEncoder, settings: Settings, found: Found, item: str) -> None:
        self._encoder: ProfileEncoder = model.profiles
        self._found, self._catalogue = found, Catalogue(model.items)
        self._catalogue.put(list(found.items.values()))
        slot = int(self._catalogue.slots([item])[0])
        layout = ProfileLayout(model.profiles.state_width, settings.recent_items, settings.event_id_window)
        records = [found.profile, *found.neighbours.values()]
        loaded = load_profiles(records, self._catalogue, layout, model.profiles.name)
        if loaded.foreign_model[0]:
            raise UsageError(
                f"The state of {found.profile.user_id!r} has {len(found.profile.state) // 4} numbers, the model of the "
                f"settings {layout.state_width}: set NEARSTREAM_DIM as it is for the worker."
            )
        self._history = Histories.of(loaded.columns, slice(0, 1))
        self._start: Floats = start_states(model.profiles, [found.tokens])[0]
        self._weights = np.array([settings.type_weights[kind] for kind in EVENT_TYPES], np.float32)
        vectors = model.profiles.vectors(loaded.columns.state)
        self.served: Floats = vectors[0]
        self.target: Floats = self._catalogue.vectors[slot]
        own = np.flatnonzero(~loaded.foreign_model[1:])
        self._near, self._near_vectors = [records[row + 1] for row in own.tolist()], vectors[1:][own]

    def effects(self) -> Attribution:
        """What each remembered event adds to the cosine."""
        items = self._catalogue.vectors
        try:
            return event_effects(self._history, self._encoder, items, self._weights, self.target[None], self._start)
        except UnusableModel as error:
            raise UsageError(str(error)) from error

    def events(self, parts: NDArray[np.float64]) -> list[EventEffect]:
        """The remembered events with their parts (e,), largest first."""
        kinds, times_s = self._history.types[0].tolist(), self._history.times_s[0].tolist()
        names = [self._catalogue.item_ids[slot] for slot in self._history.items[0, : len(parts)].tolist()]
        return [
            EventEffect(
                item_id=names[event],
                title=_title(self._found, names[event]),
                type=EVENT_TYPES[kinds[event]].value,
                timestamp=times_s[event] * MS_PER_S,
                adds=_rounded(parts[event]),
            )
            for event in np.argsort(-np.abs(parts), kind="stable").tolist()
        ]

    def _events_of(self, item: str | None) -> NDArray[np.bool_]:
        """(R,) which remembered events are of the item."""
        slot = self._catalogue.slot_of.get(item, NO_ITEM) if item is not None else NO_ITEM
        marked: NDArray[np.bool_] = (self._history.items[0] == slot) & (slot != NO_ITEM)
        return marked

    def vectors_without(self, item: str | None) -> Floats:
        """(2, d) of all remembered events, and of those that are not of the item."""
        removed = np.stack([self._events_of(None), self._events_of(item)])
        items = self._catalogue.vectors
        return vectors_without(self._history, removed, self._encoder, items, self._weights, self._start)

    def without(self, item: str, remembered: Floats, left: Floats) -> Without:
        """The user without the events of an item."""
        is_empty = not left.any()
        return Without(
            item_id=item,
            events=int(self._events_of(item).sum()),
            profile_cosine=None if is_empty else _rounded(remembered @ left),
            cosine=None if is_empty else _rounded(left @ self.target),
        )

    def neighbours(self, item: str, left: Floats | None) -> list[Near]:
        """Those of the last list whose vectors are of this model, nearest first."""
        now = (self._near_vectors @ self.served).tolist()
        then = repeat(None) if left is None else map(_rounded, self._near_vectors @ left)
        near = [
            Near(record.user_id, _rounded(similarity), item in record.recent_items, without)
            for record, similarity, without in zip(self._near, now, then, strict=False)
        ]
        return sorted(near, key=lambda each: -each.similarity)


def _check(found: Found, model: str, item: str, without: str | None) -> None:
    profile = found.profile
    if profile.model != model:
        raise UsageError(
            f"The profile of {profile.user_id!r} was made by the model {profile.model}, the settings name {model}: set "
            "NEARSTREAM_MODEL as it is for the worker, or wait until the worker has taken the new model over."
        )
    if not profile.recent_items:
        raise UsageError(
            f"The profile of {profile.user_id!r} remembers no event that attracted the user: there is nothing to "
            f"explain. Its {profile.events} events were impressions, dislikes or the like."
        )
    near = (*found.neighbours.values(), profile)
    listed = [] if found.list_ is None else [each.item_id for each in found.list_.items]
    known = (found.items, found.gone, listed, profile.excluded_items, *(each.recent_items for each in near))
    if not any(item in place for place in known):
        raise UsageError(
            f"There is no item {item!r}: it is neither on the items topic nor in the list or the memory of "
            f"{profile.user_id!r} and the neighbours. Is the id spelled as in the events?"
        )
    if without is not None and without not in profile.recent_items:
        raise UsageError(
            f"{profile.user_id!r} has no remembered event of {without!r}; remembered are events of "
            f"{', '.join(dict.fromkeys(reversed(profile.recent_items)))}."
        )


def _place(list_: Recommendation | None, item: str) -> Place | None:
    for rank, each in enumerate(list_.items if list_ is not None else [], 1):
        if list_ is not None and each.item_id == item:
            return Place(rank, len(list_.items), each.score, each.reasons)
    return None


def _absence(found: Found, item: str) -> str:
    if found.list_ is None:
        return "no list has been published yet"
    if item in found.profile.excluded_items:
        return "it was bought or disliked"
    if item in found.profile.recent_items:
        return "the user has seen it"
    if item in found.gone or (item in found.items and not found.items[item].available):
        return "it is not available"
    if isinstance(found.list_.short_because, str):
        why = SHORT_SENTENCES[found.list_.short_because].removesuffix(".")
        return f"the list has only {len(found.list_.items)} items: {why[0].lower()}{why[1:]}"
    return f"the {len(found.list_.items)} items of the list rank higher"


def _title(found: Found, item: str) -> str | None:
    return found.items[item].title if item in found.items else None


def _rounded(value: Any) -> float:
    return round(float(value), DIGITS)
