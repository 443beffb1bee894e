"""`nearstream explain`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
import msgspec

from streams.cli.explain_report import Found, explained
from streams.cli.explain_words import sentences
from streams.cli.options import json_option, kafka_options
from streams.config import Settings, load_settings
from streams.core.errors import UsageError
from streams.core.user_facts import UserFacts
from streams.kafka.changelog import decode_profile
from streams.kafka.codec import decode_items, decode_recommendation, decode_users
from streams.kafka.records import read_all, read_newest
from streams.kafka.topics import Topics
from streams.wiring import load_served

if TYPE_CHECKING:
    from streams.core.user_facts import Tokens
    from streams.kafka.records import Record


@click.command()
@click.argument("user")
@click.argument("item")
@click.option("--without", metavar="ITEM", help="Also tell what would be if USER had never touched this item.")
@kafka_options
@json_option
def explain(
    user: str, item: str, without: str | None, bootstrap: str | None, prefix: str | None, as_json: bool
) -> None:
    """Why ITEM is near to USER: its place and reasons in the last list, and what each past event adds."""
    settings = load_settings(bootstrap=bootstrap, prefix=prefix)
    found = asyncio.run(read_topics(settings, user, item))
    explanation = explained(load_served(settings), settings, found, item, without)
    if as_json:
        click.echo(msgspec.json.encode(explanation))
    else:
        click.echo("\n".join(sentences(explanation)))


async def read_topics(settings: Settings, user: str, item: str) -> Found:
    """Everything committed up to now that the explanation needs; one pass over `items` and two over `profiles`.

    Raises:
        UsageError: the user has no profile.
        BrokerUnavailable: Kafka does not answer.
    """
    topics = Topics(settings.prefix)
    value, list_value, tokens = await asyncio.gather(
        read_newest(settings, topics.profiles, user),
        read_newest(settings, topics.recommendations, user),
        _tokens(settings, topics.users, user),
    )
    if value is None:
        raise UsageError(f"No profile of {user!r}: no event of this user has been committed under this prefix.")
    profile = decode_profile(value)
    list_ = None if list_value is None else decode_recommendation(list_value)
    items = await _newest(settings, topics.items, {item, *profile.recent_items})
    near = await _newest(settings, topics.profiles, {n.user_id for n in list_.neighbours} if list_ else set())
    described = decode_items(list(items.values()))
    return Found(
        profile=profile,
        list_=list_,
        items={described_item.item_id: described_item for described_item in described.upserts},
        gone=frozenset(described.tombstones),
        neighbours={key: decode_profile(record.value) for key, record in near.items() if record.value is not None},
        tokens=tokens,
    )


async def _tokens(settings: Settings, topic: str, user: str) -> Tokens:
    """What the user says, as a worker reads it; nothing where the last word cannot be read."""
    record = (await _newest(settings, topic, {user})).get(user)
    facts = UserFacts()
    facts.put(decode_users([] if record is None else [record]).upserts)
    return facts.tokens([user])[0]


async def _newest(settings: Settings, topic: str, keys: set[str]) -> dict[str, Record]:
    """The last record of each of these keys that has any."""
    wanted, found = {key.encode() for key in keys}, {}
    if wanted:
        async for record in read_all(settings, topic):
            if record.key in wanted:
                found[record.key.decode()] = record
    return found
