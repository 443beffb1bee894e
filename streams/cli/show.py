"""`nearstream show`."""

from __future__ import annotations

import asyncio

import click
import numpy as np
import orjson

from streams.cli.options import json_option, kafka_options
from streams.cli.tail import profile_fields
from streams.config import Settings, load_settings
from streams.core.errors import UsageError
from streams.core.recommendations import (
    SHORT_SENTENCES,
    Again,
    BecauseOf,
    NewIn,
    PopularAmong,
    PopularIn,
    Reason,
    Recommendation,
    Rising,
    SimilarUsers,
    TogetherWith,
    Trending,
)
from streams.kafka.changelog import decode_profile
from streams.kafka.codec import decode_recommendation
from streams.kafka.records import read_newest
from streams.kafka.topics import Topics


@click.command()
@click.argument("user")
@kafka_options
@json_option
def show(user: str, bootstrap: str | None, prefix: str | None, as_json: bool) -> None:
    """One user: profile, vector and last list."""
    settings = load_settings(bootstrap=bootstrap, prefix=prefix)
    profile, list_ = asyncio.run(_read(settings, user))
    if profile is None:
        raise UsageError(f"No profile of {user!r}: no event of this user has been committed under this prefix.")
    record = decode_profile(profile)
    vector = (np.frombuffer(record.vector, np.int8).astype(np.float32) * record.scale).round(4).tolist()
    if as_json:
        recommendation = None if list_ is None else orjson.loads(list_)
        fields = {**profile_fields(profile), "vector": vector}
        click.echo(orjson.dumps({"profile": fields, "recommendation": recommendation}))
        return
    click.echo(f"{record.user_id}: {record.events} events, model {record.model}, partition {record.partition}")
    click.echo(f"recent   {', '.join(record.recent_items[::-1])}")
    click.echo(f"vector   [{', '.join(f'{x:+.2f}' for x in vector[:8])}, …] ({len(vector)} dimensions)")
    if list_ is not None:
        print_list(decode_recommendation(list_))


async def _read(settings: Settings, user: str) -> tuple[bytes | None, bytes | None]:
    topics = Topics(settings.prefix)
    return await asyncio.gather(
        read_newest(settings, topics.profiles, user), read_newest(settings, topics.recommendations, user)
    )


def print_list(list_: Recommendation) -> None:
    """Neighbours, items with their reasons and, where it is short, why."""
    click.echo("nearest  " + ", ".join(f"{n.user_id} ({n.similarity:.3f})" for n in list_.neighbours))
    for place, item in enumerate(list_.items, 1):
        click.echo(f"{place:3}. {item.item_id}  {item.score:.3f}  {'; '.join(map(reason_sentence, item.reasons))}")
    if isinstance(list_.short_because, str):
        click.echo(f"short    {SHORT_SENTENCES[list_.short_because]}")


def reason_sentence(reason: Reason) -> str:
    """A reason in words, its share first."""
    match reason:
        case SimilarUsers():
            words = f"similar users ({', '.join(reason.users)})"
        case BecauseOf():
            words = f"because of {reason.item_id}"
        case TogetherWith():
            words = f"often together with {reason.item_id}"
        case PopularIn():
            words = f"popular in {reason.category}"
        case NewIn():
            words = f"new in {reason.category}"
        case PopularAmong():
            words = f"popular among {reason.group}"
        case Again():
            words = "had before"
        case Rising():
            words = "rising"
        case Trending():
            words = "trending"
    return f"{reason.share:.0%} {words}"
