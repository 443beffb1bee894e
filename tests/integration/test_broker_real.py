"""The embedded Kafka for real: a JVM, its data, its deaths."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import TopicPartition

from streams.core.errors import BrokerUnavailable, UsageError
from streams.kafka import broker as broker_module
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.processes import free_ports, has_ended, port_is_free, wait_ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kafka

OWNER = """
import sys, time
from pathlib import Path
from streams.kafka.broker import EmbeddedKafka
data_dir, jars_dir, die = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "die"
broker = EmbeddedKafka(data_dir, port=0, die_with_owner=die, jars_dir=jars_dir)
print(broker.start().pids[0], flush=True)
time.sleep(300)
"""


async def test_a_transaction_is_seen_whole_or_not_at_all(kafka: EmbeddedKafka, prefix: str) -> None:
    """aiokafka's transactions work: committed records are read, aborted ones are not."""
    topic = f"{prefix}events"
    await _create(kafka.bootstrap, topic)
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"{prefix}tx") as producer:
        async with producer.transaction():
            await producer.send_and_wait(topic, b"kept")
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"dropped")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"last")
    assert await _values(kafka.bootstrap, topic, 2) == [b"kept", b"last"]


async def test_topics_do_not_appear_by_being_named(kafka: EmbeddedKafka, prefix: str) -> None:
    """A typing error in a topic's name is an error, not a new topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        described = await admin.describe_topics([f"{prefix}typo"])
        assert described[0]["error_code"] != 0
        assert f"{prefix}typo" not in await admin.list_topics()
    finally:
        await admin.close()


async def test_data_outlives_kill_9_and_a_clean_restart(tmp_path: Path, jars_dir: Path, prefix: str) -> None:
    """What was acknowledged is there after a crash and after a stop, at the same address."""
    topic = f"{prefix}events"
    with EmbeddedKafka(tmp_path, port=0, die_with_owner=True, jars_dir=jars_dir) as kafka:
        await _create(kafka.bootstrap, topic)
        await _send(kafka.bootstrap, topic, b"one")
        kafka.kill(1)
        status = kafka.status()
        assert status is not None
        assert not status.running
        kafka.start_node(1)
        await _send(kafka.bootstrap, topic, b"two")
        address = kafka.bootstrap
        kafka.stop()
        assert port_is_free(status.ports[0])
        kafka.start()
        assert kafka.bootstrap == address
        assert await _values(kafka.bootstrap, topic, 2) == [b"one", b"two"]


def test_a_broker_whose_starter_was_killed_is_found_again(tmp_path: Path, jars_dir: Path) -> None:
    """kill -9 of the parent leaves the broker running; the next start takes over the same process."""
    with _owner(tmp_path, jars_dir, "stay") as owner:
        pid = _first_line(owner)
        owner.send_signal(signal.SIGKILL)
    kafka = EmbeddedKafka(tmp_path, jars_dir=jars_dir)
    try:
        info = kafka.start()
        assert info.pids == (pid,)
        assert not info.started
    finally:
        kafka.stop()
    assert has_ended(pid, str(tmp_path))


def test_a_broker_that_dies_with_its_owner_leaves_no_orphan(tmp_path: Path, jars_dir: Path) -> None:
    """kill -9 of the owner ends the broker, and the data directory is ready for the next."""
    with _owner(tmp_path, jars_dir, "die") as owner:
        pid = _first_line(owner)
        owner.send_signal(signal.SIGKILL)
    assert wait_ended(pid, str(tmp_path), 30.0)
    status = EmbeddedKafka(tmp_path, jars_dir=jars_dir).status()
    assert status is not None
    assert status.pids == ()


def test_a_broker_that_hangs_is_replaced(tmp_path: Path, jars_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is there and does not answer gives way to a new one, and the person is told."""
    monkeypatch.setattr(broker_module, "TAKE_OVER_WAIT_S", 0.5)
    monkeypatch.setattr("streams.kafka.node.STOP_GRACE_S", 0.5)
    said: list[str] = []
    with EmbeddedKafka(tmp_path, port=0, die_with_owner=True, jars_dir=jars_dir) as kafka:
        (hung,) = _pids(kafka)
        os.kill(hung, signal.SIGSTOP)
        info = kafka.start(lambda text, *_: said.append(text))
        assert info.running
        assert info.pids != (hung,)
        assert has_ended(hung, str(tmp_path))
    assert any("does not answer" in text for text in said)


def test_another_port_than_the_running_one_is_refused(kafka: EmbeddedKafka, jars_dir: Path) -> None:
    """A running broker is not moved; nor is a found one stopped by who only found it."""
    info = kafka.status()
    assert info is not None
    with pytest.raises(UsageError, match=rf"runs on port {info.ports[0]}"):
        EmbeddedKafka(info.data_dir, port=free_ports(1)[0], jars_dir=jars_dir).start()
    with EmbeddedKafka(info.data_dir, jars_dir=jars_dir) as second:
        assert second.bootstrap == kafka.bootstrap
    assert _pids(kafka) == info.pids


@contextmanager
def _answering(port: int) -> Iterator[None]:
    """Another program on the port, which answers whoever asks."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(self.request.recv(64)[:8])

    with socketserver.ThreadingTCPServer(("127.0.0.1", port), Answer) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield
        server.shutdown()


def test_a_port_taken_while_kafka_starts_is_replaced(tmp_path: Path, jars_dir: Path) -> None:
    """Whoever answers there is not taken for ours: it starts again with another port, and the person is told."""
    said: list[str] = []
    with ExitStack() as others:

        def hear(text: str, *_: int) -> None:
            said.append(text)
            starting = re.search(r"starting .* on port (\d+)", text)
            if starting and len([each for each in said if "starting" in each]) == 1:
                others.enter_context(_answering(int(starting[1])))

        with EmbeddedKafka(tmp_path, port=0, die_with_owner=True, jars_dir=jars_dir) as kafka:
            kafka.stop()
            first = kafka.bootstrap
            info = kafka.start(hear)
            assert info.running
            assert info.bootstrap != first
            assert any(f"port {first.rpartition(':')[2]} is taken" in text for text in said)


def test_a_port_that_was_asked_for_and_is_taken_meanwhile_is_an_error(tmp_path: Path, jars_dir: Path) -> None:
    """It is never replaced; nothing of the attempt is left running."""
    (port,) = free_ports(1)
    kafka = EmbeddedKafka(tmp_path, port=port, die_with_owner=True, jars_dir=jars_dir)
    with ExitStack() as others:

        def hear(text: str, *_: int) -> None:
            if "starting" in text:
                others.enter_context(_answering(port))

        with pytest.raises(UsageError, match=f"Port {port} of 127.0.0.1 is taken"):
            kafka.start(hear)
    assert _pids(kafka) == ()


def test_damaged_data_is_reported_with_kafkas_own_words(tmp_path: Path, jars_dir: Path) -> None:
    """Kafka's reason reaches the person, with the log and the way out; nothing is left running."""
    kafka = EmbeddedKafka(tmp_path, port=0, die_with_owner=True, jars_dir=jars_dir)
    kafka.start()
    kafka.stop()
    (tmp_path / "kafka" / "node-1" / "data" / "meta.properties").write_text("version=1\ncluster.id=other\nnode.id=7\n")
    with pytest.raises(BrokerUnavailable, match=r"(?s)node 1 ended while it started.*node.*starts afresh"):
        kafka.start()
    assert _pids(kafka) == ()


async def test_three_brokers_survive_the_loss_of_one(tmp_path: Path, jars_dir: Path, prefix: str) -> None:
    """With one node killed, acknowledged writes go on and nothing is lost; the node comes back."""
    topic = f"{prefix}events"
    with EmbeddedKafka(tmp_path, 3, port=0, die_with_owner=True, jars_dir=jars_dir) as kafka:
        await _create(kafka.bootstrap, topic, replication=3)
        await _send(kafka.bootstrap, topic, b"one")
        kafka.kill(2)
        assert len(_pids(kafka)) == 2
        await _send(kafka.bootstrap, topic, b"two")
        kafka.start_node(2)
        assert len(_pids(kafka)) == 3
        assert await _values(kafka.bootstrap, topic, 2) == [b"one", b"two"]


def test_the_command_starts_finds_and_stops(tmp_path: Path, jars_dir: Path) -> None:
    """`nearstream kafka` as scripts use it: JSON on stdout, a broker that outlives the command."""
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "jars").symlink_to(jars_dir, target_is_directory=True)
    port = str(free_ports(1)[0])
    try:
        started = _command("start", "--port", port, "--data-dir", str(tmp_path))
        assert started["running"] is True
        assert started["bootstrap"] == f"127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", int(port)), 5):
            pass
        assert _command("start", "--data-dir", str(tmp_path))["pids"] == started["pids"]
        assert _command("status", "--data-dir", str(tmp_path)) == started
    finally:
        stopped = _command("stop", "--data-dir", str(tmp_path))
    assert stopped["running"] is False
    assert port_is_free(int(port))


def _command(*arguments: str) -> dict[str, object]:
    command = [sys.executable, "-m", "streams", "kafka", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def _owner(data_dir: Path, jars_dir: Path, fate: str) -> subprocess.Popen[str]:
    arguments = [str(data_dir), str(jars_dir), fate]
    return subprocess.Popen([sys.executable, "-c", OWNER, *arguments], stdout=subprocess.PIPE, text=True)


def _first_line(owner: subprocess.Popen[str]) -> int:
    assert owner.stdout is not None
    return int(owner.stdout.readline())


def _pids(kafka: EmbeddedKafka) -> tuple[int, ...]:
    info = kafka.status()
    assert info is not None
    return info.pids


async def _create(bootstrap: str, topic: str, replication: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(topic, 1, replication)])
        assert [error[1] for error in answer.topic_errors] == [0]
    finally:
        await admin.close()


async def _send(bootstrap: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, value)


async def _values(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()
