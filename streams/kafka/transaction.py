"""The transactional producer of one input partition: what a micro-batch becomes, in one Kafka transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import aiokafka.producer.sender
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from streams.core.errors import PartitionLost
from streams.kafka.clients import client_options, close_producer, mark_seen, pace_metadata_updates

if TYPE_CHECKING:
    from streams.config import Settings
    from streams.kafka.commit_note import CommitNote
    from streams.kafka.processor import Output
    from streams.kafka.topics import Topics
    from streams.kafka.traces import Headers

BATCH_BYTES_MAX = 1 << 20

# Rule 15: aiokafka waits 20 ms before it repeats AddPartitionsToTxn after CONCURRENT_TRANSACTIONS, which follows every
# transaction at once; 2 ms was measured faster back to back.
aiokafka.producer.sender.BACKOFF_OVERRIDE = 0.002


class PartitionProducer:
    """Writes to the output topics' partition of the same number, and moves the group's offset with it."""

    def __init__(self, settings: Settings, topics: Topics, partition: TopicPartition) -> None:
        self._settings = settings
        self._outputs = (topics.recommendations, topics.profiles, topics.dead_letters)
        self._partition = partition
        self._producer: AIOKafkaProducer | None = None

    @property
    def is_started(self) -> bool:
        """Whether it was started and not closed since."""
        return self._producer is not None

    async def start(self) -> None:
        """Connects, which fences the partition's old owner and aborts what that left open. Close the one of before.

        Raises aiokafka's KafkaError when Kafka does not answer.
        """
        settings = self._settings
        self._producer = AIOKafkaProducer(
            **client_options(settings),
            # Rule 2: the id names the partition, never the worker; it is the fence.
            transactional_id=f"{settings.group}-{self._partition.topic}-{self._partition.partition}",
            transaction_timeout_ms=settings.transaction_timeout_ms,
            max_batch_size=BATCH_BYTES_MAX,
            retry_backoff_ms=50,
            request_timeout_ms=10_000,
        )
        await self._producer.start()

    async def find_topics(self) -> None:
        """Asks where the outputs are. Rule 12: metadata first, so that one AddPartitionsToTxn covers all of them."""
        producer = self._started()
        for topic in self._outputs:
            await producer.partitions_for(topic)
        pace_metadata_updates(producer.client)

    async def close(self) -> None:
        """Closes in bounded time; does nothing where nothing was started."""
        producer, self._producer = self._producer, None
        await close_producer(producer)

    async def commit(self, output: Output, next_offset: int, headers: Mapping[bytes, Headers]) -> list[tuple[int, int]]:
        """Rule 3: outputs, changelog and the offset in one transaction. No abort on failure: the next
        `InitProducerId`, ours or the next owner's, aborts what is open, whatever state this client is in.

        Args:
            output: what is sent.
            next_offset: where the group goes on in the input.
            headers: of lists, by key.

        Returns:
            The batches of the changelog: first offset and records of each.

        Raises:
            PartitionLost: a newer producer fenced this one.
        """
        producer = self._started()
        recommendations, profiles, dead_letters = self._outputs
        sends: list[asyncio.Future[Any]] = []
        try:
            await producer.begin_transaction()
            await self._send(
                recommendations, ((key, value, headers.get(key, [])) for key, value in output.lists), sends
            )
            lists_end = len(sends)
            changelog_records = await self._send(profiles, ((key, value, []) for key, value in output.profiles), sends)
            await self._send(dead_letters, ((d.key, d.value, d.headers) for d in output.dead_letters), sends)
            outcomes = await asyncio.gather(*sends)  # rule 12: aiokafka commits even when a batch failed
            await self._end(producer, next_offset, output.late.note)
        except ProducerFenced as error:
            raise self._lost() from error
        finally:
            for send in sends:  # of several failures one is raised; the others count as seen
                send.add_done_callback(mark_seen)
        offsets = [outcome.offset for outcome in outcomes[lists_end : lists_end + len(changelog_records)]]
        return list(zip(offsets, changelog_records, strict=True))

    async def commit_offset(self, next_offset: int, note: CommitNote) -> None:
        """Moves the group's offset and sends nothing.

        Raises:
            PartitionLost: a newer producer fenced this one.
        """
        producer = self._started()
        try:
            await producer.begin_transaction()
            await self._end(producer, next_offset, note)
        except ProducerFenced as error:
            raise self._lost() from error

    async def _end(self, producer: AIOKafkaProducer, next_offset: int, note: CommitNote) -> None:
        end = OffsetAndMetadata(next_offset, note.encode())
        await producer.send_offsets_to_transaction({self._partition: end}, self._settings.group)
        await producer.commit_transaction()

    async def _send(
        self,
        topic: str,
        rows: Iterable[tuple[bytes | None, bytes | None, Any]],
        sends: list[asyncio.Future[Any]],
    ) -> list[int]:
        """Rule 8: whole batches, to the input's own partition; their futures are appended to `sends`.

        Returns how many records each batch has.

        Raises:
            ValueError: a record that fits no batch.
        """
        producer, partition = self._started(), self._partition.partition
        records: list[int] = []
        batch, filled = producer.create_batch(), 0
        for key, value, headers in rows:
            if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                sends.append(await producer.send_batch(batch, topic, partition=partition))
                records.append(filled)
                batch, filled = producer.create_batch(), 0
                if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                    raise ValueError(f"A record for {topic} is larger than {BATCH_BYTES_MAX} bytes.")
            filled += 1
        if filled:
            sends.append(await producer.send_batch(batch, topic, partition=partition))
            records.append(filled)
        return records

    def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise RuntimeError("A transaction needs a producer that was started.")
        return self._producer

    def _lost(self) -> PartitionLost:
        return PartitionLost(
            f"Partition {self._partition.partition} was taken over by another worker; this one stops writing to it."
        )
