"""The topics, their names and how they are created and checked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code
from aiokafka.errors import TopicAlreadyExistsError as TopicAlreadyExists

from streams.core.errors import UsageError
from streams.kafka.access import diagnosed
from streams.kafka.clients import client_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.config import Settings

DAY_MS = 86_400_000
KNOWN_S_MAX = 10.0
KNOWN_POLL_S = 0.02
_COMPACTED = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.3", "segment.ms": str(DAY_MS)}


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of all topics under one prefix."""

    prefix: str = ""

    @property
    def events(self) -> str:
        """In: what people do. Key `user_id`."""
        return f"{self.prefix}events"

    @property
    def items(self) -> str:
        """In, compacted: the catalogue. Key `item_id`."""
        return f"{self.prefix}items"

    @property
    def users(self) -> str:
        """In, compacted: personal attributes. Key `user_id`."""
        return f"{self.prefix}users"

    @property
    def recommendations(self) -> str:
        """Out, compacted: the current list of each user. Key `user_id`."""
        return f"{self.prefix}recommendations"

    @property
    def profiles(self) -> str:
        """Internal, compacted: changelog of the profiles. Key `user_id`."""
        return f"{self.prefix}profiles"

    @property
    def dead_letters(self) -> str:
        """Out: records that could not count, untouched, with the reason in headers."""
        return f"{self.prefix}events.dlq"

    @property
    def status(self) -> str:
        """Internal, compacted: one record a second per worker. Key: the worker's name."""
        return f"{self.prefix}status"

    @property
    def weights(self) -> str:
        """Internal, compacted: what each worker has learned of the sources. Key: the worker's name, or `command`."""
        return f"{self.prefix}weights"

    def definitions(self, partitions: int) -> dict[str, tuple[int, dict[str, str]]]:
        """Partitions and configuration of each topic. Rule 10: input, profiles and lists are co-partitioned."""
        retained = {"retention.ms": str(14 * DAY_MS)}
        return {
            self.events: (partitions, {"retention.ms": str(7 * DAY_MS)}),
            self.items: (partitions, _COMPACTED),
            self.users: (partitions, _COMPACTED),
            self.recommendations: (partitions, _COMPACTED),
            self.profiles: (partitions, _COMPACTED),
            self.dead_letters: (partitions, retained),
            self.status: (1, {**_COMPACTED, "retention.ms": str(DAY_MS), "cleanup.policy": "compact,delete"}),
            self.weights: (1, {**_COMPACTED, "segment.bytes": str(1 << 20)}),  # small: read whole at each start
        }


async def create_topics(settings: Settings) -> list[str]:
    """Creates the topics that are missing and returns their names.

    Raises:
        UsageError: a topic exists with a partition count that breaks co-partitioning, or creation was refused.
        BrokerUnavailable: Kafka does not answer.
        AccessDenied: it answers and refuses us, or we do not trust it.
    """
    wanted = Topics(settings.prefix).definitions(settings.partitions)
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
    except (KafkaError, OSError) as error:
        raise await diagnosed(settings, error) from error
    try:
        present = await _partition_counts(admin, list(wanted))
        missing = [name for name in wanted if name not in present]
        response = await admin.create_topics(
            [NewTopic(n, wanted[n][0], settings.replication, topic_configs=wanted[n][1]) for n in missing]
        )
        for topic, code, *message in response.topic_errors:
            failure = for_code(code)
            if code and failure is not TopicAlreadyExists:
                raise UsageError(f"Kafka refused to create topic {topic!r}: {failure.__name__} {message}.")
        await _until_known(admin, settings, list(wanted))
    finally:
        await admin.close()
    check_topics({**{n: wanted[n][0] for n in missing}, **present}, Topics(settings.prefix))
    return missing


async def list_topics(settings: Settings) -> dict[str, int]:
    """Partition count of each of our topics that exists.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        AccessDenied: it answers and refuses us, or we do not trust it.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
    except (KafkaError, OSError) as error:
        raise await diagnosed(settings, error) from error
    try:
        return await _partition_counts(admin, list(Topics(settings.prefix).definitions(1)))
    finally:
        await admin.close()


def check_topics(counts: dict[str, int], topics: Topics) -> None:
    """What a worker cannot do without, from partition counts by name.

    Raises:
        UsageError: a topic is missing, `weights` aside, which older prefixes lack; or input, profiles, lists, dead
            letters and users are not co-partitioned.
    """
    absent = [name for name in topics.definitions(1) if name not in counts and name != topics.weights]
    if absent:
        raise missing_topics(absent)
    together = [
        topics.events,
        topics.profiles,
        topics.recommendations,
        topics.dead_letters,
        topics.users,  # who owns a user's events forgets the user
    ]
    if len({counts[name] for name in together}) > 1:
        found = ", ".join(f"{name}: {counts[name]}" for name in together)
        raise UsageError(
            f"Input, profiles, lists, dead letters and users need the same number of partitions, found {found}. "
            "Use a new --prefix, or recreate the topics."
        )


def missing_topics(names: Sequence[str]) -> UsageError:
    """What to do about topics that do not exist."""
    which = f"There is no topic {names[0]}" if len(names) == 1 else f"These topics do not exist: {', '.join(names)}"
    return UsageError(f"{which}. Create what is missing with `nearstream topics create`.")


async def _until_known(admin: AIOKafkaAdminClient, settings: Settings, names: list[str]) -> None:
    """Waits until brokers tell of the topics: Kafka answers a creation before they do."""
    try:
        async with asyncio.timeout(KNOWN_S_MAX):
            while True:
                if len(await _partition_counts(admin, names)) == len(names):
                    return
                await asyncio.sleep(KNOWN_POLL_S)
    except TimeoutError as error:
        raise await diagnosed(settings, error) from error


async def _partition_counts(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    # Only topics that exist are asked for by name: naming another one creates it on brokers with auto-creation.
    present = sorted(set(names) & set(await admin.list_topics()))
    if not present:
        return {}
    described: list[dict[str, Any]] = await admin.describe_topics(present)
    return {t["topic"]: len(t["partitions"]) for t in described if t["error_code"] == 0}
