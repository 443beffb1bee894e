"""May a saved memory go on with the changelog as it is now? What the log tells, and the verdict."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from streams.kafka.access import diagnosed
from streams.kafka.clients import client_options
from streams.kafka.reader import reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.config import Settings

logger = logging.getLogger(__name__)

DELETE_RETENTION = "delete.retention.ms"
DELETE_RETENTION_MS_DEFAULT = 86_400_000
AGE_SHARE_MAX = 5 / 6
"""Of the time that Kafka keeps a tombstone: the rest is for reading the log, and for clocks that differ."""
CLOCK_SKEW_S_MAX = 10.0
"""Between this machine's clock and those that stamped the records."""


class LogFigures(NamedTuple):
    """One topic as Kafka tells of it; dicts by partition."""

    begins: dict[int, int]
    ends: dict[int, int]
    """Committed ones."""
    after_save: dict[int, int | None]
    """The first offset stamped later than the save, clocks' skew allowed for; None where there is none."""
    delete_retention_s: float
    """How long a tombstone is kept."""


def refusal(offsets: Mapping[int, int], saved_at_s: float, log: LogFigures, now_s: float) -> str | None:
    """Why a memory with these offsets may not go on with this log, as a sentence; None when it may."""
    age_s, age_s_max = now_s - saved_at_s, AGE_SHARE_MAX * log.delete_retention_s
    if not -CLOCK_SKEW_S_MAX <= age_s <= age_s_max:
        return (
            f"It was saved {age_s / 3600:.1f} h ago; at most {age_s_max / 3600:.1f} h are safe, for Kafka keeps the "
            f"tombstones of forgotten users {log.delete_retention_s / 3600:.1f} h."
        )
    if set(offsets) != set(log.ends):
        return f"It has {len(offsets)} partitions, the topic has {len(log.ends)}."
    for partition, offset in sorted(offsets.items()):
        begin, end, after = log.begins[partition], log.ends[partition], log.after_save[partition]
        if not begin <= offset <= end:
            return f"It goes on at offset {offset} of partition {partition}, which holds {begin} to {end}."
        if after is not None and after < offset:
            return (
                f"Offset {after} of partition {partition} was written after the save, yet lies before {offset}, "
                "where it goes on: the topic was made anew."
            )
    return None


async def read_cluster_id(settings: Settings) -> str:
    """The id of the cluster that answers.

    Raises:
        BrokerUnavailable: Kafka does not answer.
    """
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        return str((await admin.describe_cluster())["cluster_id"])
    except (KafkaError, OSError) as error:
        raise await diagnosed(settings, error) from error
    finally:
        await admin.close()


async def read_log(settings: Settings, topic: str, partitions: int, saved_at_s: float) -> LogFigures:
    """The figures that `refusal` asks for.

    Raises:
        BrokerUnavailable: Kafka does not answer.
    """
    assigned = [TopicPartition(topic, number) for number in range(partitions)]
    stamped_ms = int((saved_at_s + CLOCK_SKEW_S_MAX) * 1000)
    try:
        async with reader(settings, isolation_level="read_committed") as consumer:
            begins = await consumer.beginning_offsets(assigned)
            ends = await consumer.end_offsets(assigned)
            later = await consumer.offsets_for_times(dict.fromkeys(assigned, stamped_ms))
        delete_retention_s = await _delete_retention_s(settings, topic)
    except (KafkaError, OSError) as error:
        raise await diagnosed(settings, error) from error
    return LogFigures(
        begins={tp.partition: begins[tp] for tp in assigned},
        ends={tp.partition: ends[tp] for tp in assigned},
        after_save={tp.partition: None if later.get(tp) is None else later[tp].offset for tp in assigned},
        delete_retention_s=delete_retention_s,
    )


async def _delete_retention_s(settings: Settings, topic: str) -> float:
    """As the topic is configured; Kafka's default where it may not be asked."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        wanted = ConfigResource(ConfigResourceType.TOPIC, topic, configs={DELETE_RETENTION: None})
        (answer,) = await admin.describe_configs([wanted])
    finally:
        await admin.close()
    (resource,) = answer.to_object()["resources"]
    values = {entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]}
    if DELETE_RETENTION not in values:
        logger.info("%s of %s is not told (%s); Kafka's default counts", DELETE_RETENTION, topic, resource)
    return int(values.get(DELETE_RETENTION, DELETE_RETENTION_MS_DEFAULT)) / 1000
