"""`nearstream tail`."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import click
import msgspec
import orjson

from streams.cli.options import json_option, kafka_options
from streams.config import Settings, load_settings
from streams.core.errors import CorruptState, UsageError
from streams.core.recommendations import Recommendation
from streams.kafka.changelog import decode_profile
from streams.kafka.codec import decode_recommendation
from streams.kafka.records import follow
from streams.kafka.topics import Topics

if TYPE_CHECKING:
    from streams.kafka.records import Record

TOPICS = ("recommendations", "events", "items", "users", "profiles", "dead_letters", "status")
SHOWN_MAX = 5


@click.command()
@click.argument("topic", type=click.Choice(TOPICS), default="recommendations")
@kafka_options
@click.option("--user", help="Only records with this key.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many records.")
@click.option("--from-beginning", is_flag=True, help="Start with the oldest record, not with the next.")
@json_option
def tail(
    topic: str,
    bootstrap: str | None,
    prefix: str | None,
    user: str | None,
    limit: int | None,
    from_beginning: bool,
    as_json: bool,
) -> None:
    """Follow a topic as its records are committed, by default the recommendations. Ctrl-C ends."""
    settings = load_settings(bootstrap=bootstrap, prefix=prefix)
    asyncio.run(_print_records(settings, topic, user, limit, from_beginning=from_beginning, as_json=as_json))


async def _print_records(
    settings: Settings, topic: str, user: str | None, limit: int | None, *, from_beginning: bool, as_json: bool
) -> None:
    wanted = None if user is None else user.encode()
    shown = 0
    records = follow(settings, getattr(Topics(settings.prefix), topic), from_beginning=from_beginning)
    async with aclosing(records):  # type: ignore[type-var]
        async for record in records:
            if wanted is not None and record.key != wanted:
                continue
            click.echo(_as_json(topic, record) if as_json else _as_line(topic, record))
            shown += 1
            if shown == limit:
                return


def _as_json(topic: str, record: Record) -> bytes:
    """The message itself where it is JSON already; else its fields."""
    if record.value is None:
        return orjson.dumps({"key": _text(record.key), "tombstone": True})
    if topic == "profiles":
        return orjson.dumps(profile_fields(record.value))
    if topic == "dead_letters":
        headers = {name: _text(value) for name, value in record.headers}
        return orjson.dumps({"key": _text(record.key), "value": _text(record.value), "headers": headers})
    return bytes(record.value)


def _as_line(topic: str, record: Record) -> str:
    if topic == "recommendations" and record.value is not None:
        return recommendation_line(decode_recommendation(record.value))
    return f"{record.partition}:{record.offset}  {_text(record.key)}  {_as_json(topic, record).decode()}"


def profile_fields(value: bytes) -> dict[str, object]:
    """A profile record in JSON's types, without its packed arrays."""
    try:
        record = decode_profile(value)
    except CorruptState as error:
        raise UsageError(str(error)) from error
    fields = msgspec.structs.asdict(record)
    return {name: field for name, field in fields.items() if not isinstance(field, bytes)}


def recommendation_line(list_: Recommendation) -> str:
    """One line for people: who, after how many events, nearest users, best items."""
    neighbours = ", ".join(f"{n.user_id} {n.similarity:.2f}" for n in list_.neighbours[:SHOWN_MAX])
    items = ", ".join(f"{i.item_id} {i.score:.2f}" for i in list_.items[:SHOWN_MAX])
    return (
        f"{list_.user_id}  event {list_.profile.events} at {list_.source.partition}:{list_.source.offset}"
        f"  near [{neighbours}]  items [{items}]"
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
