"""The last step of a list: ranked candidates in, the final order out, as settings and business rules ask for.

Shapes: u users, M candidates, n places of a list, R recent items.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np

from streams.core.errors import UsageError
from streams.core.events import EventType
from streams.recommend.calibration import user_mixes
from streams.recommend.exposure import ExposureWindow
from streams.recommend.fatigue import NO_ITEM, REMEMBERED, Fatigue, ShownItems, joined
from streams.recommend.floor_candidates import items_wanted
from streams.recommend.floor_lift import RESERVE, Floors, lift
from streams.recommend.fusion import Reserved
from streams.recommend.kernel import PLAIN
from streams.recommend.rule_columns import RuleColumns
from streams.recommend.rules import Caps, Rules, position_weights
from streams.recommend.selection import select
from streams.recommend.wishes import DiversityBy, Facts, Wishes, candidates_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from streams.core.catalogue import Catalogue
    from streams.core.ports import Floats, Slots
    from streams.core.recommendations import ShortWord

T = TypeVar("T", bound=np.generic)

HOUR_S = 3600.0
SHOWN = ("shown_items", "shown_times", "shown_last_s")
"""Names of the saved columns of `ShownItems`."""


class ShortBecause(IntEnum):
    """Why a list is not full."""

    NOT = 0
    """It is full."""
    CATALOGUE_EXHAUSTED = 1
    """The catalogue has nothing more that the user has not seen or bought."""
    RULES = 2
    """Rules take out items for everybody: `exclude`, `drop`, `keep`."""
    FATIGUE = 3
    """Items pause that the user was shown often."""
    CAPS = 4
    """More would be too many of one brand, provider or category."""

    @property
    def word(self) -> ShortWord | None:
        """What the message says; None where it is full."""
        return _WORDS[self]


_WORDS: dict[ShortBecause, ShortWord | None] = {
    ShortBecause.NOT: None,
    ShortBecause.CATALOGUE_EXHAUSTED: "catalogue-exhausted",
    ShortBecause.RULES: "rules",
    ShortBecause.FATIGUE: "fatigue",
    ShortBecause.CAPS: "caps",
}


class Reranked(NamedTuple):
    """The final lists."""

    places: Slots
    """(u, n) columns of the candidates, none twice, padded with -1."""
    short_because: NDArray[np.uint8]
    """(u,) a `ShortBecause` each."""


@dataclass(frozen=True, slots=True)
class RerankConfig:
    """What is asked of lists beside the business rules.

    Raises:
        ValueError: a number is out of its range.
    """

    list_items: int = 20
    """n"""
    diversity: float = 0.0
    """0 is off, 1 looks only at how little the items resemble each other."""
    diversity_by: Literal["msd", "mmr", "dpp"] = "msd"
    """`msd`: far from the items of the list on average; `mmr`: unlike the most similar of them; `dpp`: unlike all of
    them together."""
    diversity_head: int = 4
    """Places, from the first, that go by score whatever `diversity` says."""
    calibration: float = 0.0
    """0 is off, 1 looks only at how well the list's categories match those of the user's recent items."""

    def __post_init__(self) -> None:
        if self.list_items < 1:
            raise ValueError(f"list_items must be at least 1, got {self.list_items}")
        if not (0 <= self.diversity <= 1 and 0 <= self.calibration <= 1):
            raise ValueError(
                f"diversity and calibration must be between 0 and 1, got {self.diversity} and {self.calibration}"
            )
        if self.diversity_by not in ("msd", "mmr", "dpp"):
            raise ValueError(f"diversity_by must be msd, mmr or dpp, got {self.diversity_by!r}")
        if self.diversity_head < 0:
            raise ValueError(f"diversity_head must be at least 0, got {self.diversity_head}")


class Reranker:
    """Orders lists by settings and rules, and remembers what was published as far as the rules need it.

    `rerank` changes nothing that is remembered: `published` does, after the commit. Not thread-safe: called in the
    compute thread only, as the catalogue.
    """

    def __init__(self, catalogue: Catalogue, config: RerankConfig) -> None:
        self.catalogue = catalogue
        self._config = config
        self._weights = np.array(position_weights(config.list_items))
        self.rules = Rules()
        """Those in service. `rules.exclude` is also the ranker's business: what it proposes at all."""
        self._columns = RuleColumns(self.rules, catalogue)
        self._exposure: ExposureWindow | None = None
        self._fatigue: Fatigue | None = None
        self._restored: dict[str, NDArray[np.generic]] = {}
        """What was saved and waits for the first rules, which say whether it is still counted."""

    def take(self, rules: Rules) -> list[str]:
        """Puts these rules into service. What was counted is kept where the new rules count the same.

        Returns warnings, one sentence each: what the rules name and the catalogue does not hold, or not yet.

        Raises:
            UsageError: an item is pinned that the rules exclude, as the catalogue describes it; the old rules serve.
        """
        columns = RuleColumns(rules, self.catalogue)
        slots = {pin.item: self.catalogue.slot_of.get(pin.item) for pin in rules.pin}
        excluded = [item for item, slot in slots.items() if slot is not None and columns.factor[slot] == 0]
        if excluded:
            raise UsageError(
                f"The rules pin {', '.join(map(repr, excluded))} and exclude the same by exclude, drop or keep: "
                "take out the pin or the exclusion. The rules of before serve on."
            )
        if not rules.floor:
            self._exposure = None
        elif (rules.floor, rules.exposure.window_lists) != (self.rules.floor, self.rules.exposure.window_lists):
            self._exposure = ExposureWindow(len(rules.floor), rules.exposure.window_lists)
        if rules.fatigue is None:
            self._fatigue = None
        elif self._fatigue is None:
            self._fatigue = Fatigue()
        self.rules, self._columns = rules, columns
        self._go_on()
        return columns.unknown_names()

    @property
    def changes_lists(self) -> bool:
        """Something is set; else lists are the first n candidates."""
        rules, config = self.rules, self._config
        return bool(
            config.diversity > 0
            or config.calibration > 0
            or any((rules.exclude.items, rules.drop, rules.keep, rules.boost, rules.bury, rules.pin, rules.floor))
            or rules.fatigue is not None
            or rules.caps != Caps()
        )

    def allowed(self) -> NDArray[np.bool_]:
        """(items,) what the rules let into lists. To propose only these keeps lists from getting short."""
        self._columns.refresh()
        return self._columns.factor > 0

    def pinned(self) -> Slots:
        """(p,) pinned items that may be in lists: to be among everybody's candidates, whatever their score."""
        pinned = self._pins()[0]
        return pinned[self.catalogue.available[pinned]] if self.rules.exclude.unavailable else pinned

    @property
    def floor_groups(self) -> NDArray[np.int32]:
        """(items,) bit f is set in those that belong to the group of floor f; a view until the catalogue changes."""
        self._columns.refresh()
        return self._columns.groups

    def wanted_of_floors(self, lists: int) -> NDArray[np.int32]:
        """(F,) how many of each floor's group should be among everybody's candidates; (0,) without floors.

        0 where the floor holds by what was published, even if the next `lists` show nothing of the group.
        """
        if self._exposure is None:
            return np.zeros(0, np.int32)
        shares = np.array([floor.share for floor in self.rules.floor])
        least = self._exposure.least_shares(lists, float(self._weights.sum()))
        return np.where(least < RESERVE * shares, items_wanted(shares, self._config.list_items), 0).astype(np.int32)

    def reserved(self, items: Slots) -> Reserved | None:
        """What must be among the candidates (u, M) given to `rerank`, of all those (u, c) that there are."""
        wanted = self.wanted_of_floors(len(items))
        if not wanted.any():
            return None
        return Reserved(_at(self.floor_groups, items, items >= 0), wanted)

    def rerank(
        self,
        users: Slots,
        items: Slots,
        scores: Floats,
        recent_items: Slots,
        recent_count: NDArray[np.int32],
        now_s: float,
    ) -> Reranked:
        """The final lists of u users.

        With nothing set they are the first n candidates. Pins stand at their place, if the candidate is there and the
        list is long enough; caps hold; floors are held as far as the candidates allow.

        Args:
            users: (u,) slots in the profile store, -1 for one not stored yet.
            items: (u, M) candidates, catalogue slots, best first, left-aligned, padded with -1, none twice in a row.
            scores: (u, M) in (0, 1] where there is a candidate.
            recent_items: (u, R) of the users.
            recent_count: (u,) how many of the R places are in use.
            now_s: epoch seconds, of the same clock as `published`'s.

        Raises:
            ValueError: the arrays do not fit each other.
        """
        _check(users, items, scores, recent_items, recent_count)
        n = self._config.list_items
        present = items >= 0
        if not self.changes_lists:
            places = np.where(present[:, :n], np.arange(min(n, items.shape[1]), dtype=np.int32), np.int32(-1))
            places = np.pad(places, ((0, 0), (0, n - places.shape[1])), constant_values=-1)
            return Reranked(places, (places[:, -1] < 0).astype(np.uint8))
        items = np.require(items, np.int32, PLAIN)
        self._columns.refresh()
        ruled = np.where(present, scores * _at(self._columns.factor, items, present), np.float32(0))
        tired = self._tired(users, items, now_s)
        facts, wishes = self._facts(), self._wishes()
        candidates = candidates_of(items, np.require(np.where(tired, 0, ruled), np.float32, PLAIN), facts, wishes)
        recent_items = np.require(recent_items, np.int32, PLAIN)
        recent_count = np.require(recent_count, np.int32, PLAIN)
        places = select(candidates, facts, wishes, recent_items, recent_count, n)
        if self._exposure is not None:
            state = self._exposure.state()
            lift(candidates, wishes, self._floors(state.window, state.totals), state.head, state.held, places)
        return Reranked(places, self._reasons(places, present, ruled > 0, tired))

    def exchangeable(self, items: Slots) -> Slots:
        """(u, n) kinds of the items of lists: two of one kind may change places and break neither pin nor floor.

        -1 for an item that must stay where it is, and past the end of a list.
        """
        stays = (items < 0) | np.isin(items, self.pinned())
        if not self.rules.floor:
            return np.where(stays, np.int32(-1), np.int32(0))
        self._columns.refresh()
        return np.where(stays, np.int32(-1), _at(self._columns.groups, items, items >= 0)).astype(np.int32)

    def published(self, users: Slots, items: Slots, now_s: float) -> None:
        """Counts lists (u, n) of catalogue slots, padded with -1, that are committed; users by their slots."""
        self._columns.refresh()
        if self._exposure is not None:
            self._exposure.record(self._exposures(items))
        if self._fatigue is not None and self.rules.fatigue is not None and self.rules.fatigue.count == "lists":
            self._show(users, items, np.full(len(users), now_s))

    def reacted(self, users: Slots, items: Slots, types: NDArray[np.uint8], times_s: NDArray[np.float64]) -> None:
        """Counts events (e,) that are committed: users by slot, items by slot, type codes, epoch seconds.

        Whatever a user does with an item ends its fatigue, but for an impression, which is counted where the rules
        count these.
        """
        if self._fatigue is None or self.rules.fatigue is None:
            return
        impressions = types == EventType.IMPRESSION.code
        if self.rules.fatigue.count == "impressions":
            self._show(users[impressions], items[impressions, None], times_s[impressions])
        self._fatigue.react(users[~impressions], items[~impressions])

    def forget(self, users: Slots) -> None:
        """Nothing is known any more of what these users were shown."""
        if self._fatigue is not None:
            self._fatigue.forget(users)
        shown = self._restored.get("shown_items", np.zeros(0))
        shown[users[users < len(shown)]] = NO_ITEM

    def exposure_shares(self) -> dict[str, float]:
        """What each floor's group had of the exposure of the last published lists, by the floor as it is written."""
        if self._exposure is None:
            return {}
        return dict(zip(self._floor_names(), self._exposure.shares().tolist(), strict=True))

    def saved(self) -> dict[str, NDArray[np.generic]]:
        """A copy of what is remembered of the lists, to be saved with the profiles; of users see `saved_users`."""
        if self._exposure is None:
            return {}
        return {"exposure": self._exposure.saved(), "floors": np.array(self._floor_names(), np.str_)}

    def saved_users(self, first: int, end: int) -> ShownItems | None:
        """A copy of what users in these slots of the store were shown, 434 bytes each; None where nothing counts it.

        Slots are those of store and catalogue. `joined_users` makes of pieces what is saved.
        """
        return None if self._fatigue is None else self._fatigue.rows(first, end)

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes over what was saved as far as the rules in service still count it.

        Where there are none yet, the first that are taken say so; until then it is kept as it is.

        Raises:
            ValueError: the arrays are not what `saved` and `joined_users` return; nothing has changed.
        """
        check_saved(arrays)
        self._restored = {name: array.copy() for name, array in arrays.items()}
        if self.rules != Rules():
            self._go_on()

    def _go_on(self) -> None:
        """Counts on from what was restored, where the rules ask for the same."""
        arrays, self._restored = self._restored, {}
        if self._exposure is not None and "floors" in arrays and arrays["floors"].tolist() == self._floor_names():
            self._exposure.record(np.asarray(arrays["exposure"], np.float64))
        if self._fatigue is not None and "shown_items" in arrays:
            items, times, last_s = (arrays[name] for name in SHOWN)
            shown = ShownItems(np.asarray(items, np.int32), np.asarray(times, np.uint8), np.asarray(last_s, np.uint32))
            self._fatigue.restore(shown)

    def warm_up(self) -> None:
        """Compiles everything, or loads it, whether or not today's rules need it."""
        nobody, nothing = np.zeros(0, np.int32), np.zeros((0, 1), np.int32)
        facts, wishes = self._facts(), self._wishes()
        candidates = candidates_of(nothing, np.zeros((0, 1), np.float32), facts, wishes)
        places = select(candidates, facts, wishes, nothing, nobody, self._config.list_items)
        user_mixes(nothing, nothing, nobody, facts.categories)
        lift(candidates, wishes, self._floors(np.zeros((1, 1)), np.zeros(1)), 0, 0, places)
        fatigue = Fatigue()
        fatigue.tired(nobody, nothing, 0.0, 1, 1.0)
        fatigue.show(nobody, nothing, np.zeros(0), 1, 1.0, 1.0)
        fatigue.react(nobody, nobody)

    def _facts(self) -> Facts:
        facts = self.catalogue.facts
        return Facts(self.catalogue.vectors, facts.brand, facts.provider, facts.categories)

    def _wishes(self) -> Wishes:
        config, caps = self._config, self.rules.caps
        pinned, places = self._pins()
        return Wishes(
            diversity=float(config.diversity),
            diversity_head=config.diversity_head,
            diversity_by=int(DiversityBy[config.diversity_by.upper()]),
            calibration=float(config.calibration),
            capped=caps != Caps(),
            caps=np.array([caps.brand or 0, caps.provider or 0, caps.category or 0], np.int32),
            pinned=pinned,
            pinned_at=places,
        )

    def _pins(self) -> tuple[Slots, Slots]:
        """Items and places from 0, by place."""
        self._columns.refresh()
        slot_of, factor = self.catalogue.slot_of, self._columns.factor
        pins = sorted((pin.position - 1, slot_of[pin.item]) for pin in self.rules.pin if pin.item in slot_of)
        pins = [(place, slot) for place, slot in pins if factor[slot] > 0]
        return np.array([slot for _, slot in pins], np.int32), np.array([place for place, _ in pins], np.int32)

    def _floors(self, window: NDArray[np.float64], totals: NDArray[np.float64]) -> Floors:
        return Floors(
            shares=np.array([floor.share for floor in self.rules.floor], np.float64),
            groups=self._columns.groups,
            list_share_max=float(self.rules.exposure.list_share_max),
            weights=self._weights,
            window=window,
            totals=totals,
        )

    def _floor_names(self) -> list[str]:
        return [floor.model_dump_json(exclude_defaults=True) for floor in self.rules.floor]

    def _exposures(self, items: Slots) -> NDArray[np.float64]:
        """(u, F + 1) of each list."""
        present = items >= 0
        weights = np.where(present, self._weights[: items.shape[1]], 0.0)
        groups = _at(self._columns.groups, items, present)
        exposures = [(weights * (groups >> bit & 1)).sum(axis=1) for bit in range(len(self.rules.floor))]
        return np.stack([*exposures, weights.sum(axis=1)], axis=1)

    def _tired(self, users: Slots, items: Slots, now_s: float) -> NDArray[np.bool_]:
        if self._fatigue is None or self.rules.fatigue is None:
            return np.zeros(items.shape, np.bool_)
        fatigue = self.rules.fatigue
        return self._fatigue.tired(users, items, float(now_s), fatigue.shown, fatigue.rest_hours * HOUR_S)

    def _show(self, users: Slots, items: Slots, times_s: NDArray[np.float64]) -> None:
        fatigue = self.rules.fatigue
        if self._fatigue is not None and fatigue is not None:
            rest_s = fatigue.rest_hours * HOUR_S
            self._fatigue.show(users, items, times_s, fatigue.shown, rest_s, float(fatigue.spacing_s))

    def _reasons(
        self, places: Slots, present: NDArray[np.bool_], ruled: NDArray[np.bool_], tired: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """The first step after which fewer than n candidates were left."""
        n = self._config.list_items
        short = places[:, -1] < 0
        too_few = present.sum(axis=1) < n
        exhausted = ShortBecause.RULES if (self._columns.factor == 0).any() else ShortBecause.CATALOGUE_EXHAUSTED
        because = np.select(
            [~short, too_few, ruled.sum(axis=1) < n, (ruled & ~tired).sum(axis=1) < n],
            [ShortBecause.NOT, exhausted, ShortBecause.RULES, ShortBecause.FATIGUE],
            ShortBecause.CAPS,
        )
        return because.astype(np.uint8)


def joined_users(pieces: Sequence[ShownItems | None]) -> dict[str, NDArray[np.generic]]:
    """What `Reranker.restore` takes of the users, from copies of consecutive slots.

    Nothing where the rules began or ceased to count what is shown while they were made.
    """
    counted = [piece for piece in pieces if piece is not None]
    return dict(zip(SHOWN, joined(counted), strict=True)) if counted and len(counted) == len(pieces) else {}


def check_saved(arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Raises ValueError unless the arrays can be what a `Reranker` saved under some rules."""
    groups, rows = len(arrays.get("floors", ())), len(arrays.get(SHOWN[0], ()))
    shown = {name: ((rows, REMEMBERED), dtype) for name, dtype in zip(SHOWN, ("i4", "u1", "u4"), strict=True)}
    lists = arrays["exposure"].shape[:1] if "exposure" in arrays else (0,)
    expected = {"exposure": ((*lists, groups + 1), "f8"), "floors": ((groups,), None), **shown}
    for together in (("exposure", "floors"), SHOWN):
        if len(together) != sum(name in arrays for name in together) != 0:
            raise ValueError(f"expected {', '.join(together)} together, got {sorted(arrays)}")
    for name, array in arrays.items():
        shape, dtype = expected.get(name, (None, None))
        if array.shape != shape or (array.dtype.kind != "U" if dtype is None else array.dtype != np.dtype(dtype)):
            raise ValueError(f"expected {name} of {dtype or 'text'} and {shape}, got {array.dtype} and {array.shape}")
    if "exposure" in arrays and not np.isfinite(np.asarray(arrays["exposure"], np.float64)).all():
        raise ValueError("expected finite exposures, got NaN or infinity")


def _at(column: NDArray[T], items: Slots, present: NDArray[np.bool_]) -> NDArray[T]:
    """Values of the items, 0 where there is none."""
    if not len(column):
        return np.zeros(items.shape, column.dtype)
    return np.where(present, column[np.where(present, items, 0)], np.zeros(1, column.dtype))


def _check(users: Slots, items: Slots, scores: Floats, recent_items: Slots, recent_count: NDArray[np.int32]) -> None:
    rows = len(users)
    shapes = {
        "items": (items, (rows, *items.shape[1:2])),
        "scores": (scores, items.shape),
        "recent_items": (recent_items, (rows, *recent_items.shape[1:2])),
        "recent_count": (recent_count, (rows,)),
    }
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {array.shape}")
    if recent_count.max(initial=0) > recent_items.shape[1]:
        raise ValueError(f"recent_count must be at most {recent_items.shape[1]}, got {recent_count.max()}")
