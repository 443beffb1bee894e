"""`nearstream what-if`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
import msgspec

from streams.cli.options import json_option, kafka_options
from streams.cli.show import reason_sentence
from streams.config import load_settings
from streams.core.errors import UsageError, WorkerUnavailable
from streams.core.events import EVENT_TYPES, ID_CHARS_MAX, EventType
from streams.core.recommendations import SHORT_SENTENCES
from streams.core.what_if import (
    LEFT_OUT_ITEMS_MAX,
    SUPPOSED_EVENTS_MAX,
    SupposedEvent,
    WhatIf,
    WhatIfQuestion,
    WhatIfRefusal,
)
from streams.kafka.worker_directory import WorkerDirectory
from streams.kafka.worker_questions import ask_workers

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command("what-if")
@click.argument("user")
@click.option("--without", metavar="ITEM", multiple=True, help="As if USER had never touched this item.")
@click.option("--event", "events", metavar="TYPE:ITEM", multiple=True, help="And as if this came now.")
@kafka_options
@json_option
def what_if(
    user: str,
    without: tuple[str, ...],
    events: tuple[str, ...],
    bootstrap: str | None,
    prefix: str | None,
    as_json: bool,
) -> None:
    """What the list of USER would be, beside what it is. A running worker answers; nothing is sent, nothing changes."""
    question = question_of(without, events)
    settings = load_settings(bootstrap=bootstrap, prefix=prefix)
    answer = asyncio.run(ask_workers(settings, WorkerDirectory(settings), user, question))
    if isinstance(answer, WhatIfRefusal):
        raise UsageError(answer.message)
    if as_json:
        click.echo(answer)
        return
    try:
        found = msgspec.json.decode(answer, type=WhatIf)
    except msgspec.MsgspecError as error:
        raise WorkerUnavailable(f"The worker is of another version: {error}. `--json` prints its answer.") from error
    click.echo("\n".join(sentences(question, found)))


def question_of(without: tuple[str, ...], events: tuple[str, ...]) -> WhatIfQuestion:
    """The question of the options.

    Raises:
        UsageError: it is none, too long, or an event is not written as TYPE:ITEM.
    """
    if not without and not events:
        raise UsageError("Expected something to suppose, came nothing: give --without ITEM or --event TYPE:ITEM.")
    if len(without) > LEFT_OUT_ITEMS_MAX or len(events) > SUPPOSED_EVENTS_MAX:
        raise UsageError(
            f"Expected at most {LEFT_OUT_ITEMS_MAX} items to leave out and {SUPPOSED_EVENTS_MAX} events, came "
            f"{len(without)} and {len(events)}. Ask for fewer."
        )
    return WhatIfQuestion(without=list(without), events=[_event(text) for text in events])


def _event(text: str) -> SupposedEvent:
    word, _, item = text.partition(":")
    if word not in EVENT_TYPES or not 1 <= len(item) <= ID_CHARS_MAX:
        raise UsageError(
            f"Expected an event as TYPE:ITEM, such as view:a-shoe, came {text!r}. Types: {', '.join(EVENT_TYPES)}."
        )
    return SupposedEvent(item_id=item, type=EventType(word))


def sentences(question: WhatIfQuestion, found: WhatIf) -> Iterator[str]:
    """Line by line: what is supposed, the list with what changed, what left, the profile, and the neighbours."""
    yield f"{_supposed(question, found)} the list of {found.user_id} ({found.model}) would be"
    ranks = {item.item_id: rank for rank, item in enumerate(found.now.items, 1)}
    for rank, item in enumerate(found.then.items, 1):
        reasons = "; ".join(map(reason_sentence, item.reasons))
        yield f"{rank:3}. {_mark(ranks.get(item.item_id), rank):>6}  {item.item_id}  {item.score:.3f}  {reasons}"
    if found.then.short_because is not None:
        yield f"     {SHORT_SENTENCES[found.then.short_because]}"
    if found.left:
        yield "No longer in it: " + ", ".join(f"{item} (was {ranks[item]})" for item in found.left) + "."
    if not (found.entered or found.left or found.moved):
        yield "That is the list as it is now."
    if found.profile_cosine is None:
        yield "The profile would have no direction, or has none now."
    else:
        yield f"The profile would lie at cosine {found.profile_cosine:.3f} to what it is."
    if found.left_out:
        yield "Both lists are made from the remembered events alone."
    if found.then.neighbours:
        yield "Nearest users: " + ", ".join(f"{n.user_id} ({n.similarity:.3f})" for n in found.then.neighbours) + "."


def _supposed(question: WhatIfQuestion, found: WhatIf) -> str:
    parts = []
    if found.left_out:
        events = "event" if found.left_out == 1 else f"{found.left_out} events"
        parts.append(f"without the {events} of {', '.join(question.without)}")
    if question.events:
        parts.append("with " + ", ".join(f"{event.type} of {event.item_id}" for event in question.events))
    words = " and ".join(parts)
    return words[0].upper() + words[1:]


def _mark(before: int | None, rank: int) -> str:
    if before is None:
        return "new"
    return "=" if before == rank else f"was {before}"
