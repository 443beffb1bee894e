"""An explanation as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from streams.cli.show import reason_sentence

if TYPE_CHECKING:
    from streams.cli.explain_report import EventEffect, Explanation, Without

EVENTS_SHOWN_MAX = 10
COVERED_MIN = 0.9
"""Below this cosine the remembered events tell another story than the served profile; then it is said."""
SHOWN_MIN = 0.0005
"""Less would be printed as zero."""
MS_PER_S = 1000
TITLE_CHARS_MAX = 48


def sentences(explanation: Explanation) -> Iterator[str]:
    """Line by line: the place in the list, the cosine event by event, what if, and the neighbours."""
    e = explanation
    yield _standing(e)
    yield f"Its cosine with the profile of {e.user_id} ({e.model}) is {e.cosine:+.3f}. Of that"
    yield from map(_event, e.events[:EVENTS_SHOWN_MAX])
    others = e.events[EVENTS_SHOWN_MAX:]
    if others:
        yield _line(sum(event.adds for event in others), f"{len(others)} more events together")
    if e.constant:
        yield _line(e.constant, "what the model gives every user")
    if abs(e.start) >= SHOWN_MIN:
        yield _line(e.start, "what the user says of themselves")
    if abs(e.forgotten) >= SHOWN_MIN:
        yield _line(e.forgotten, "what came from events no longer remembered, dislikes and the values of ratings")
    if e.profile_covered < COVERED_MIN:
        yield (
            f"Read this with care: the remembered events alone give a profile at cosine {e.profile_covered:.2f} to the "
            "one that is served."
        )
    if e.without is not None:
        yield _what_if(e, e.without)
    if e.neighbours:
        yield "Nearest users: " + ", ".join(_neighbours(e)) + "."


def _standing(e: Explanation) -> str:
    item = _named(e.item_id, e.title)
    if e.place is None:
        return f"{item} is not in the list of {e.user_id}: {e.absent}."
    reasons = "; ".join(map(reason_sentence, e.place.reasons))
    return f"{item} is number {e.place.rank} of {e.place.of} for {e.user_id}, score {e.place.score:.3f}: {reasons}."


def _event(event: EventEffect) -> str:
    moment = datetime.fromtimestamp(event.timestamp / MS_PER_S, UTC)
    return _line(event.adds, f"{event.type} of {_named(event.item_id, event.title)}, {moment:%Y-%m-%d %H:%M} UTC")


def _line(adds: float, cause: str) -> str:
    return f"  {adds:+.3f}  {cause}"


def _what_if(e: Explanation, without: Without) -> str:
    events = "event" if without.events == 1 else f"{without.events} events"
    if without.cosine is None or without.profile_cosine is None:
        return f"Without the {events} of {without.item_id} nothing is remembered: the profile would have no direction."
    return (
        f"Without the {events} of {without.item_id} the cosine would be {without.cosine:+.3f} instead of "
        f"{e.remembered:+.3f} (by the remembered events), and the profile would lie at cosine "
        f"{without.profile_cosine:.3f} to what it is."
    )


def _neighbours(e: Explanation) -> Iterator[str]:
    for near in e.neighbours:
        facts = [f"{near.similarity:.3f}"]
        if near.similarity_without is not None:
            facts.append(f"then {near.similarity_without:.3f}")
        if near.has_item:
            facts.append("has the item")
        yield f"{near.user_id} ({', '.join(facts)})"


def _named(item_id: str, title: str | None) -> str:
    if not title:
        return item_id
    return f"{item_id} ({title if len(title) <= TITLE_CHARS_MAX else title[: TITLE_CHARS_MAX - 1] + '…'})"
