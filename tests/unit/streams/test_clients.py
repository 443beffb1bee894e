"""How clients connect and close: options, bounded clean-ups, paced metadata updates, logs that do not flood."""

from __future__ import annotations

import asyncio
import logging
import ssl
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from streams.config import Settings, load_settings
from streams.core.errors import UsageError
from streams.kafka import clients
from streams.kafka.clients import (
    LogRateLimit,
    bounded,
    client_options,
    close_consumer,
    close_producer,
    pace_metadata_updates,
    started_producer,
)

SECOND = 1_700_000_000.0


@pytest.fixture(autouse=True)
def _clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of the machine counts."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"NEARSTREAM_{name.upper()}", raising=False)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=test", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the program openssl to make a certificate")
    return cert, key


def test_plain_connections_need_only_an_address() -> None:
    """No TLS, no SASL."""
    options = client_options(load_settings(bootstrap="k1:9092,k2:9092"))
    assert options == {"bootstrap_servers": "k1:9092,k2:9092", "security_protocol": "PLAINTEXT"}


def test_tls_trusts_the_system_unless_told_otherwise() -> None:
    """Certificates are checked, host names too."""
    context = client_options(load_settings(security_protocol="SSL"))["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_tls_files_are_loaded(certificate: tuple[Path, Path]) -> None:
    """The authority to trust, and the client's own certificate with its key."""
    cert, key = certificate
    settings = load_settings(security_protocol="SSL", ssl_cafile=cert, ssl_certfile=cert, ssl_keyfile=key)
    context = client_options(settings)["ssl_context"]
    assert [dict(entry[0] for entry in ca["subject"]) for ca in context.get_ca_certs()] == [{"commonName": "test"}]


@pytest.mark.parametrize("setting", ["ssl_cafile", "ssl_certfile"])
@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path, setting: str, content: bytes | None) -> None:
    """Missing or not PEM: a sentence with the path, no traceback of ssl."""
    path = tmp_path / "some.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"some\.pem"):
        client_options(load_settings(security_protocol="SSL", **{setting: path}))


def test_the_check_of_the_host_name_can_be_switched_off(certificate: tuple[Path, Path]) -> None:
    """The certificate is checked all the same."""
    settings = load_settings(security_protocol="SSL", ssl_cafile=certificate[0], ssl_check_hostname=False)
    context = client_options(settings)["ssl_context"]
    assert not context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(("password", "opens"), [("key-secret", True), ("not-it", False), (None, False)])
def test_an_encrypted_key_is_opened_by_its_password_or_refused(
    certificate: tuple[Path, Path], tmp_path: Path, password: str | None, opens: bool
) -> None:
    """It never asks on the terminal, and the message does not repeat the password."""
    cert, key = certificate
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkcs8", "-topk8", "-in", str(key), "-out", str(locked), "-passout", "pass:key-secret"]
    subprocess.run(command, check=True, capture_output=True)
    settings = load_settings(
        security_protocol="SSL", ssl_cafile=cert, ssl_certfile=cert, ssl_keyfile=locked, ssl_key_password=password
    )
    if opens:
        assert client_options(settings)["ssl_context"] is not None
    else:
        with pytest.raises(UsageError, match="Set NEARSTREAM_SSL_KEY_PASSWORD") as refused:
            client_options(settings)
        assert "not-it" not in str(refused.value)


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_sasl_carries_name_and_password(protocol: str) -> None:
    """The password leaves its wrapper only here; TLS comes with SASL_SSL alone."""
    options = client_options(
        load_settings(
            security_protocol=protocol, sasl_mechanism="SCRAM-SHA-512", sasl_username="me", sasl_password="open-sesame"
        )
    )
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("me", "open-sesame")
    assert ("ssl_context" in options) == (protocol == "SASL_SSL")


async def test_a_clean_up_in_time_reports_nothing() -> None:
    """None says that all went well."""
    assert await bounded(asyncio.sleep(0), 5.0) is None


async def test_a_failed_clean_up_reports_its_failure() -> None:
    """It is handed back, not raised: one part that fails must not keep the others from closing."""

    async def fail() -> None:
        raise ConnectionError("gone")

    failure = await bounded(fail(), 5.0)
    assert isinstance(failure, ConnectionError)


async def test_a_clean_up_cancelled_from_inside_is_a_failure_too() -> None:
    """A library that awaits its own cancelled task must not cancel whoever closes it."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    assert isinstance(await bounded(cancelled(), 5.0), asyncio.CancelledError)


async def test_a_clean_up_without_end_is_cancelled() -> None:
    """At the limit, and the caller hears that it was not done."""
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    assert isinstance(await bounded(hang(), 0.01), TimeoutError)
    assert ended == ["cancelled"]


async def test_a_clean_up_that_ignores_cancelling_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound holds all the same."""
    monkeypatch.setattr(clients, "CANCEL_GRACE_S", 0.01)
    release, ended = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    async with asyncio.timeout(5):
        assert isinstance(await bounded(stubborn(), 0.01), TimeoutError)
        release.set()
        await ended.wait()


async def test_who_is_cancelled_while_cleaning_up_stops() -> None:
    """And the clean-up with it."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(bounded(hang(), 60.0))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        await ended.wait()


class HangingProducer:
    """A producer whose broker is away: `stop` waits for a flush that never ends."""

    def __init__(self) -> None:
        self.closed = False
        self._sender = SimpleNamespace(sender_task=asyncio.ensure_future(asyncio.Event().wait()))
        self.client = SimpleNamespace(close=self._close)

    async def stop(self) -> None:
        """Never returns."""
        await asyncio.Event().wait()

    async def _close(self) -> None:
        self.closed = True


async def test_a_producer_without_broker_is_closed_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender is cancelled and the connections are closed, in bounded time."""
    monkeypatch.setattr(clients, "PRODUCER_STOP_S", 0.01)
    producer: Any = HangingProducer()
    await close_producer(producer)
    assert producer.closed
    with pytest.raises(asyncio.CancelledError):
        await producer._sender.sender_task


async def test_a_producer_that_cannot_connect_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries again makes another one; it waits for all replicas and has the options that were asked for."""
    made: list[Any] = []

    class Refused(HangingProducer):
        """Nobody listens."""

        def __init__(self, **options: object) -> None:
            super().__init__()
            self.options = options
            self.client.force_metadata_update = None
            made.append(self)

        async def start(self) -> None:
            """As aiokafka does it."""
            raise KafkaConnectionError("refused")

    monkeypatch.setattr(clients, "PRODUCER_STOP_S", 0.01)
    monkeypatch.setattr(clients, "AIOKafkaProducer", Refused)
    with pytest.raises(KafkaConnectionError, match="refused"):
        await started_producer(Settings(bootstrap="nobody:1"), request_timeout_ms=7)
    (producer,) = made
    assert producer.closed
    assert (producer.options["acks"], producer.options["request_timeout_ms"]) == ("all", 7)
    assert producer.options["bootstrap_servers"] == "nobody:1"


async def test_a_producer_that_stops_is_left_alone() -> None:
    """Nothing is forced when `stop` returns; no producer is nothing to close."""
    stops: list[str] = []

    async def stop() -> None:
        stops.append("stop")

    producer: Any = SimpleNamespace(stop=stop)
    await close_producer(producer)
    await close_producer(None)
    assert stops == ["stop"]


async def test_a_consumer_is_closed_with_its_connections() -> None:
    """Also when `stop` fails or never returns, as it may while the broker is away."""
    for stop in (asyncio.sleep(0), asyncio.Event().wait()):
        client = FakeClient()
        consumer: Any = SimpleNamespace(stop=lambda stop=stop: stop, _client=client)
        await close_consumer(consumer, limit_s=0.01)
        assert client.closed


class FakeClient:
    """Counts the metadata updates that reach it."""

    def __init__(self) -> None:
        self.updates = 0
        self.closed = False

    async def close(self) -> None:
        """Remembers it."""
        self.closed = True

    def force_metadata_update(self) -> asyncio.Future[bool]:
        """As aiokafka's: returns a future."""
        self.updates += 1
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        done.set_result(True)
        return done


async def test_forced_metadata_updates_are_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask while one is due, they share it; the next asks anew."""
    monkeypatch.setattr(clients, "METADATA_PACE_S", 0.01)
    client: Any = FakeClient()
    pace_metadata_updates(client)
    assert await asyncio.gather(*(client.force_metadata_update() for _ in range(50))) == [True] * 50
    assert client.updates == 1
    assert await client.force_metadata_update()
    assert client.updates == 2


async def test_one_who_gives_up_leaves_the_update_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling one waiter cancels neither the update nor the other waiters."""
    monkeypatch.setattr(clients, "METADATA_PACE_S", 0.01)
    client: Any = FakeClient()
    pace_metadata_updates(client)
    first, second = client.force_metadata_update(), client.force_metadata_update()
    first.cancel()
    assert await second


async def test_closing_the_client_waits_for_no_update() -> None:
    """An update that is due is called off, and nothing of it runs on after the close."""
    client: Any = FakeClient()
    pace_metadata_updates(client)
    waiting = client.force_metadata_update()
    await client.close()
    assert client.closed
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert client.updates == 0


def record(name: str, at_s: float, message: str = "gone", *arguments: object) -> logging.LogRecord:
    """A log record of a moment."""
    made = logging.LogRecord(name, logging.ERROR, __file__, 1, message, arguments, None)
    made.created = at_s
    return made


def test_a_library_may_say_so_much_a_second() -> None:
    """The rest is held back, and the first record of a later second says how many."""
    limit = LogRateLimit(per_s_max=3)
    passed = [limit.filter(record("aiokafka.conn", SECOND + n / 100, "lost %s", "k1")) for n in range(10)]
    assert passed == [True] * 3 + [False] * 7
    later = record("aiokafka.conn", SECOND + 1.5, "lost %s", "k1")
    assert limit.filter(later)
    assert later.getMessage() == "lost k1 (7 records held back before this)"
    following = record("aiokafka.conn", SECOND + 2.5, "back, at %s", "k1")
    assert limit.filter(following)
    assert following.getMessage() == "back, at k1"


def test_as_much_as_is_allowed_holds_nothing_back() -> None:
    """Exactly the limit is no flood, and nothing is said about it."""
    limit = LogRateLimit(per_s_max=2)
    assert all(limit.filter(record("aiokafka", SECOND + n / 10)) for n in range(2))
    later = record("aiokafka", SECOND + 1, "back")
    assert limit.filter(later)
    assert later.getMessage() == "back"


def test_a_held_back_record_may_hold_per_cent_signs() -> None:
    """The count is added to the finished text, which is not formatted again."""
    limit = LogRateLimit(per_s_max=1)
    for _ in range(2):
        limit.filter(record("kafka", SECOND, "%s", "100%"))
    later = record("kafka", SECOND + 1, "%s", "100% %d")
    assert limit.filter(later)
    assert later.getMessage() == "100% %d (1 records held back before this)"


def test_loggers_are_limited_apart_and_ours_not_at_all() -> None:
    """A flood of one library hides nothing of another, and nothing that we say."""
    limit = LogRateLimit(per_s_max=1)
    assert [limit.filter(record(name, SECOND)) for name in ("aiokafka", "aiokafka", "faust")] == [True, False, True]
    assert all(limit.filter(record("streams.kafka.pipeline", SECOND)) for _ in range(100))
