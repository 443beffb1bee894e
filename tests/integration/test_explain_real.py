"""What `nearstream explain` reads from a real Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from streams.cli.explain import read_topics
from streams.config import Settings
from streams.core.errors import UsageError
from streams.core.events import Item, User
from streams.kafka.codec import encode_description, encode_recommendation
from streams.kafka.topics import Topics, create_topics
from tests.fakes_core import event
from tests.fakes_explain import HISTORY, ITEMS, MEAN, found_of, written_profiles

if TYPE_CHECKING:
    from streams.kafka.broker import EmbeddedKafka

pytestmark = pytest.mark.kafka


@pytest.fixture
async def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    """Topics of its own on the shared broker, with two users, their last list, and items of which one went."""
    settings = Settings(bootstrap=kafka.bootstrap, prefix=prefix, group=f"{prefix}group", partitions=3)
    await create_topics(settings)
    topics, expected = Topics(prefix), found_of(MEAN)
    everything = [*HISTORY, event("u2", "shoe"), event("u2", "boot"), event("u3", "boot")]
    records = [(topics.profiles, *pair) for pair in written_profiles(MEAN, HISTORY[:1]).items()]  # superseded below
    records += [(topics.profiles, *pair) for pair in written_profiles(MEAN, everything).items()]
    assert expected.list_ is not None
    records.append((topics.recommendations, "u1", encode_recommendation(expected.list_)))
    records.append((topics.items, "sock", encode_description(Item("sock", title="An older name"))))
    records += [(topics.items, item, encode_description(ITEMS[item])) for item in ITEMS]
    records.append((topics.items, "unrelated", encode_description(Item("unrelated"))))
    records += [(topics.users, "u1", encode_description(User("u1", age=age, gender="f"))) for age in (19, 34)]
    records.append((topics.users, "u2", encode_description(User("u2", country="PT"))))
    async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap) as sender:
        for topic, key, value in records:
            await sender.send_and_wait(topic, value, key.encode())
        await sender.send_and_wait(topics.items, None, b"lamp")
    return settings


async def test_the_newest_of_each_record_is_read(settings: Settings) -> None:
    """Profile, list and words as they are now; of the neighbours those in the list; nothing that was not asked for."""
    found, expected = await read_topics(settings, "u1", "shoe"), found_of(MEAN)
    assert found.profile == expected.profile
    assert found.list_ == expected.list_
    assert found.items == {item: ITEMS[item] for item in ("shoe", "sock", "boot")}
    assert found.gone == {"lamp"}
    assert found.neighbours == expected.neighbours
    assert found.tokens == ("age:30", "gender:f")


async def test_a_user_without_a_list_has_no_neighbours(settings: Settings) -> None:
    """A profile alone is enough to be explained."""
    found = await read_topics(settings, "u3", "boot")
    assert (found.list_, found.neighbours, set(found.items)) == (None, {}, {"boot"})
    assert found.tokens == ()


async def test_an_unknown_user_is_named(settings: Settings) -> None:
    """Nobody by that name has a profile."""
    with pytest.raises(UsageError, match="No profile of 'nobody'"):
        await read_topics(settings, "nobody", "shoe")
