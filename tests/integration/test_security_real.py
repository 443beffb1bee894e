"""Kafka with TLS and logins: who is let in, who is not and hears why, and one event to its list."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection

from streams.config import Settings, load_settings
from streams.core.errors import AccessDenied, BrokerUnavailable
from streams.core.events import Event, EventType
from streams.core.recommendations import Recommendation
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.broker_security import BrokerSecurity
from streams.kafka.clients import client_options
from streams.kafka.codec import encode_event
from streams.kafka.observer import KafkaObserver
from streams.kafka.records import read_all
from streams.kafka.topics import Topics, create_topics, list_topics
from tests.integration.storm import WorkerProcess, drained

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import SecureKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]
EXIT_S_MAX = 60.0
CLOSE_S_MAX = 30.0
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@pytest.fixture(autouse=True)
async def _no_connection_is_left_half_closed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """aiokafka does not wait for the end of a TLS connection that failed; the test's event loop has to."""
    closing: list[asyncio.Future[None]] = []
    close = AIOKafkaConnection.close

    def remembered(connection: AIOKafkaConnection, **options: Any) -> asyncio.Future[None]:
        closing.append(close(connection, **options))
        return closing[-1]

    monkeypatch.setattr(AIOKafkaConnection, "close", remembered)
    yield
    async with asyncio.timeout(CLOSE_S_MAX):
        await asyncio.gather(*closing)


def _export(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """The settings of security as variables, for children."""
    for name in ("security_protocol", "sasl_mechanism", "sasl_username", "ssl_cafile"):
        monkeypatch.setenv(f"NEARSTREAM_{name.upper()}", str(getattr(settings, name)))
    assert settings.sasl_password is not None
    monkeypatch.setenv("NEARSTREAM_SASL_PASSWORD", settings.sasl_password.get_secret_value())


def settings_of(broker: EmbeddedKafka, prefix: str) -> Settings:
    """Settings of a worker with a login over a connection in the clear."""
    return load_settings(
        bootstrap=broker.bootstrap,
        security_protocol="SASL_PLAINTEXT",
        sasl_username="worker",
        sasl_password="open-sesame",
        prefix=prefix,
        group=prefix.strip("."),
        partitions=1,
    )


async def _refusal(settings: Settings, verdict: type[Exception]) -> str:
    with pytest.raises(verdict) as refused:
        await list_topics(settings)
    return str(refused.value)


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_each_mechanism_logs_in_over_tls(sasl_ssl_kafka: SecureKafka, prefix: str, mechanism: str) -> None:
    """Topics are made and listed by every mechanism that settings know."""
    settings = sasl_ssl_kafka.settings(sasl_mechanism=mechanism, prefix=prefix, partitions=1)
    made = await create_topics(settings)
    assert set(await list_topics(settings)) == set(made)


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_wrong_password_is_a_verdict(sasl_ssl_kafka: SecureKafka, mechanism: str) -> None:
    """It names the user, the mechanism and the settings, and not the password."""
    wrong = sasl_ssl_kafka.settings(sasl_mechanism=mechanism, sasl_password="not-my-secret")
    message = await _refusal(wrong, AccessDenied)
    assert "authentication failed" in message
    assert "'worker'" in message
    assert mechanism in message
    assert "NEARSTREAM_SASL_PASSWORD" in message
    assert "not-my-secret" not in message


async def test_a_broker_whose_authority_is_not_trusted_gets_no_password(sasl_ssl_kafka: SecureKafka) -> None:
    """The certificate is refused before the login; the message names the file of trust."""
    settings = sasl_ssl_kafka.settings(ssl_cafile=sasl_ssl_kafka.certificates.stranger)
    message = await _refusal(settings, AccessDenied)
    assert "is not trusted" in message
    assert "stranger.pem" in message
    assert "NEARSTREAM_SSL_CAFILE" in message


async def test_a_certificate_for_another_name_is_refused_unless_told_otherwise(sasl_ssl_kafka: SecureKafka) -> None:
    """The broker's certificate names 127.0.0.1 only."""
    other_name = sasl_ssl_kafka.broker.bootstrap.replace("127.0.0.1", "localhost")
    message = await _refusal(sasl_ssl_kafka.settings(bootstrap=other_name), AccessDenied)
    assert "is for another name" in message
    await list_topics(sasl_ssl_kafka.settings(bootstrap=other_name, ssl_check_hostname=False))


@pytest.mark.parametrize(
    "changes",
    [
        {"security_protocol": "PLAINTEXT", "ssl_cafile": None},
        {"security_protocol": "SASL_PLAINTEXT", "ssl_cafile": None},
        {"security_protocol": "SSL"},
    ],
    ids=lambda changes: changes["security_protocol"],
)
async def test_a_protocol_that_the_port_does_not_speak_is_hinted_at(
    sasl_ssl_kafka: SecureKafka, changes: dict[str, Any]
) -> None:
    """Kafka only closes such a connection, as a broker that starts may: it may pass, and the message says what else."""
    message = await _refusal(sasl_ssl_kafka.settings(**changes), BrokerUnavailable)
    assert f"is security_protocol {changes['security_protocol']} what this port expects?" in message


async def test_a_client_certificate_opens_the_door(mtls_kafka: SecureKafka) -> None:
    """With it topics can be listed, without it or with a stranger's they cannot."""
    certificates = mtls_kafka.certificates
    await list_topics(mtls_kafka.settings(ssl_certfile=certificates.client, ssl_keyfile=certificates.client_key))
    assert "refuses our certificate" in await _refusal(mtls_kafka.settings(), AccessDenied)
    stranger = mtls_kafka.settings(ssl_certfile=certificates.stranger_client)
    assert "stranger_client.pem" in await _refusal(stranger, AccessDenied)


async def test_a_login_where_none_is_taken_is_a_verdict(mtls_kafka: SecureKafka) -> None:
    """A password for a port without SASL."""
    certificates = mtls_kafka.certificates
    settings = mtls_kafka.settings(
        security_protocol="SASL_SSL",
        sasl_username="worker",
        sasl_password="open-sesame",
        ssl_certfile=certificates.client,
        ssl_keyfile=certificates.client_key,
    )
    assert "takes no login" in await _refusal(settings, AccessDenied)


async def test_an_event_becomes_a_list_through_a_worker_with_a_login(
    sasl_ssl_kafka: SecureKafka, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every client of the worker gets in over SASL_SSL, and the password is neither in its log nor in the status."""
    settings = sasl_ssl_kafka.settings(
        sasl_mechanism="SCRAM-SHA-512", prefix=prefix, group=prefix.strip("."), partitions=2
    )
    _export(monkeypatch, settings)
    monkeypatch.setenv("NEARSTREAM_LOG_LEVEL", "debug")
    await create_topics(settings)
    now_ms = int(time.time() * 1000)
    async with AIOKafkaProducer(**client_options(settings)) as producer:
        for place, user in enumerate(("u1", "u2", "u1")):
            event = Event(user_id=user, item_id=f"i{place}", type=EventType.VIEW, timestamp=now_ms + place)
            await producer.send_and_wait(Topics(prefix).events, key=user.encode(), value=encode_event(event))
    with WorkerProcess("worker", settings, tmp_path / "worker.log") as worker:
        worker.start()
        await drained(settings, 3)
        worker.end(signal.SIGTERM)
    lists = [
        msgspec.json.decode(record.value, type=Recommendation)
        async for record in read_all(settings, Topics(prefix).recommendations)
    ]
    assert {each.user_id for each in lists} == {"u1", "u2"}
    statuses = [record.value async for record in read_all(settings, Topics(prefix).status)]
    assert statuses
    log = (tmp_path / "worker.log").read_bytes()
    assert log
    assert not any(b"open-sesame" in text for text in (log, *statuses))


async def test_a_worker_with_a_wrong_password_ends(
    sasl_ssl_kafka: SecureKafka, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1 and a sentence, instead of trying for ever; the password is not in it."""
    settings = sasl_ssl_kafka.settings(sasl_password="not-my-secret", prefix=prefix)
    _export(monkeypatch, settings)
    with WorkerProcess("worker", settings, tmp_path / "worker.log") as worker:
        worker.start()
        assert worker.process is not None
        assert worker.process.wait(EXIT_S_MAX) == 1
    log = (tmp_path / "worker.log").read_text()
    assert "authentication failed. Correct NEARSTREAM_SASL_USERNAME" in log
    assert "not-my-secret" not in log


async def test_a_worker_whose_login_is_withdrawn_ends(
    jars_dir: Path, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka comes back and does not know the password any more: exit 1 with the sentence, no waiting for ever."""
    folder = tmp_path / "kafka"

    def broker(password: str) -> EmbeddedKafka:
        security = BrokerSecurity("SASL_PLAINTEXT", users={"nodes": "between-brokers", "worker": password})
        return EmbeddedKafka(folder, 1, port=0, die_with_owner=True, jars_dir=jars_dir, security=security)

    with broker("open-sesame") as first, WorkerProcess("worker", settings_of(first, prefix), tmp_path / "w") as worker:
        settings = worker.settings
        monkeypatch.setenv("NEARSTREAM_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
        monkeypatch.setenv("NEARSTREAM_SASL_USERNAME", "worker")
        monkeypatch.setenv("NEARSTREAM_SASL_PASSWORD", "open-sesame")
        await create_topics(settings)
        worker.start()
        async with AIOKafkaProducer(**client_options(settings)) as producer:
            event = Event(user_id="u1", item_id="i1", type=EventType.VIEW, timestamp=int(time.time() * 1000))
            await producer.send_and_wait(Topics(prefix).events, key=b"u1", value=encode_event(event))
        await drained(settings, 1)
        first.stop()
        with broker("another"):
            assert worker.process is not None
            assert await asyncio.to_thread(worker.process.wait, EXIT_S_MAX) == 1
    assert "authentication failed. Correct NEARSTREAM_SASL_USERNAME" in (tmp_path / "w").read_text()


async def test_the_page_says_why_it_is_not_let_in(sasl_ssl_kafka: SecureKafka, prefix: str) -> None:
    """The sentence is beside the state; a page that is let in says connected."""
    wrong = sasl_ssl_kafka.settings(sasl_password="not-my-secret", prefix=prefix)
    async with KafkaObserver(wrong) as observer, asyncio.timeout(EXIT_S_MAX):
        while observer.snapshot().connection.error is None:
            await asyncio.sleep(0.05)
        connection = observer.snapshot().connection
    assert connection.state == "unreachable"
    assert "authentication failed" in str(connection.error)
    assert "not-my-secret" not in str(connection.error)
    right = sasl_ssl_kafka.settings(prefix=prefix, partitions=1)
    await create_topics(right)
    async with KafkaObserver(right) as observer, asyncio.timeout(EXIT_S_MAX):
        while observer.snapshot().connection.state != "connected":
            await asyncio.sleep(0.05)


def test_a_command_with_a_login_lists_topics_and_without_one_says_why(
    sasl_ssl_kafka: SecureKafka, nearstream: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables reach every command; a refusal is exit 1 and one sentence on stderr."""
    _export(monkeypatch, sasl_ssl_kafka.settings())
    command = [
        nearstream,
        "topics",
        "list",
        "--bootstrap",
        sasl_ssl_kafka.broker.bootstrap,
        "--prefix",
        prefix,
        "--json",
    ]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    json.loads(listed.stdout)
    monkeypatch.setenv("NEARSTREAM_SASL_PASSWORD", "not-my-secret")
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "authentication failed" in refused.stderr
    assert "not-my-secret" not in refused.stderr
