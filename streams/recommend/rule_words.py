"""Business rules as sentences, for people who did not write the file. What a table means stands in docs/rules.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.core.worker_details import RuleSentence, shortened
from streams.recommend.rules import Caps, Exclude

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streams.recommend.rules import Fatigue, Rules, Selector

NAMES_MAX = 6
"""Names that a sentence spells out."""
SENTENCES_MAX = 40


def rule_sentences(rules: Rules) -> list[RuleSentence]:
    """A sentence for each table in force, in the order in which they work; of many the last one says how many more."""
    found = [RuleSentence(table, shortened(text)) for table, text in _sentences(rules)]
    if len(found) <= SENTENCES_MAX:
        return found
    more = len(found) - SENTENCES_MAX + 1
    return [*found[: SENTENCES_MAX - 1], RuleSentence("", f"And {more:,} tables more.")]


def _sentences(rules: Rules) -> Iterator[tuple[str, str]]:
    if rules.exclude != Exclude():
        yield "exclude", _excluded(rules.exclude)
    for drop in rules.drop:
        yield "drop", f"No list shows {selected(drop)}."
    for keep in rules.keep:
        yield "keep", f"Lists show only {selected(keep)}."
    for boost in rules.boost:
        yield "boost", f"The score of {selected(boost)} counts {boost.factor:g} times."
    for bury in rules.bury:
        yield "bury", f"The score of {selected(bury)} counts {bury.factor:g} times."
    if (fatigue := rules.fatigue) is not None:
        yield "fatigue", _tired(fatigue)
    for pin in rules.pin:
        yield "pin", f"{pin.item} stands at place {pin.position} of every list whose reader has not seen or bought it."
    if rules.caps != Caps():
        caps = [(name, getattr(rules.caps, name)) for name in ("brand", "category", "provider")]
        parts = [f"{most:,} of one {name}" for name, most in caps if most is not None]
        yield "caps", f"A list holds at most {_and(parts)}."
    for floor in rules.floor:
        yield (
            "floor",
            f"At least {floor.share:.1%} of the exposure of the last {rules.exposure.window_lists:,} lists goes to "
            f"{selected(floor)}, of one list at most {rules.exposure.list_share_max:.0%}.",
        )


def selected(selector: Selector) -> str:
    """Which items are meant."""
    parts = [
        f"of {kind} {_or(names)}" for kind in ("category", "brand", "provider") if (names := getattr(selector, kind))
    ]
    if selector.attribute:
        parts.append(f"with {_or(selector.attribute)}")
    low, high = selector.price_min, selector.price_max
    if low is not None and high is not None:
        parts.append(f"at a price from {low:g} to {high:g}")
    elif low is not None:
        parts.append(f"at a price of {low:g} or more")
    elif high is not None:
        parts.append(f"at a price of {high:g} or less")
    if not selector.item:
        return f"items {_and(parts)}"
    return " ".join([_or(selector.item), *([f"if {_and(parts)}"] if parts else [])])


def _excluded(exclude: Exclude) -> str:
    words = {True: "are left out", False: "stay in", None: "follow the setting repeats"}
    told = [
        f"items that the user has seen {words[exclude.seen]}",
        f"bought or disliked ones {words[exclude.bought]}",
        f"unavailable ones {words[exclude.unavailable]}",
    ]
    if exclude.items:
        told.append(f"{_names(exclude.items, 'and')} {'is' if len(exclude.items) == 1 else 'are'} in no list")
    text = _and(told)
    return f"{text[0].upper()}{text[1:]}."


def _tired(fatigue: Fatigue) -> str:
    counted = "in lists" if fatigue.count == "lists" else "by impressions"
    return (
        f"An item shown to a user {fatigue.shown:,} times, counted {counted}, without a reaction pauses for them for "
        f"{fatigue.rest_hours:g} hours; what comes again within {fatigue.spacing_s:g} s counts once."
    )


def _or(names: Sequence[str]) -> str:
    return _names(names, "or")


def _names(names: Sequence[str], word: str) -> str:
    """All of a few, some of many."""
    if len(names) <= NAMES_MAX:
        return _joined(names, word)
    return _joined([*names[:NAMES_MAX], f"{len(names) - NAMES_MAX:,} more"], word)


def _and(parts: Sequence[str]) -> str:
    return _joined(parts, "and")


def _joined(parts: Sequence[str], word: str) -> str:
    return " ".join(parts) if len(parts) < 2 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"
