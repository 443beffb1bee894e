"""Which topics a worker needs, and what is said about those that are missing."""

from __future__ import annotations

import pytest

from streams.core.errors import UsageError
from streams.kafka.topics import Topics, check_topics

TOPICS = Topics("shop.")


def counts(*without: str) -> dict[str, int]:
    """Partitions of every topic but these."""
    return {name: count for name, (count, _) in TOPICS.definitions(3).items() if name not in without}


@pytest.mark.parametrize("name", sorted(set(TOPICS.definitions(3)) - {TOPICS.weights}))
def test_a_missing_topic_is_named_with_the_command_that_makes_it(name: str) -> None:
    """Each of those that a worker reads or writes."""
    with pytest.raises(UsageError) as raised:
        check_topics(counts(name), TOPICS)
    assert str(raised.value) == (f"There is no topic {name}. Create what is missing with `nearstream topics create`.")


def test_missing_topics_are_named_together() -> None:
    """So that one look is enough."""
    with pytest.raises(UsageError, match=r"These topics do not exist: shop\.items, shop\.users\. "):
        check_topics(counts(TOPICS.items, TOPICS.users), TOPICS)


def test_weights_may_be_missing() -> None:
    """Prefixes from before there was that topic go on, without keeping weights."""
    check_topics(counts(TOPICS.weights), TOPICS)


@pytest.mark.parametrize("name", [TOPICS.profiles, TOPICS.recommendations, TOPICS.dead_letters, TOPICS.users])
def test_partition_counts_must_agree(name: str) -> None:
    """Whoever owns a user's events writes the profile, the list and the dead letters, and forgets the user."""
    with pytest.raises(UsageError, match=rf"{name}: 4.*Use a new --prefix"):
        check_topics({**counts(), name: 4}, TOPICS)
