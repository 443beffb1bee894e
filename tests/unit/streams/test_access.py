"""Whether a failed connection may pass, and what the person is told."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from streams.config import Settings, load_settings
from streams.core.errors import AccessDenied, BrokerUnavailable
from streams.kafka import access
from streams.kafka.access import denial, diagnosed
from streams.kafka.processes import free_ports

SECRET = "open-sesame"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """A login over TLS to two brokers."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"NEARSTREAM_{name.upper()}", raising=False)
    return load_settings(
        bootstrap="k1:9093,k2:9093", security_protocol="SASL_SSL", sasl_username="me", sasl_password=SECRET
    )


def _tls(reason: str) -> ssl.SSLError:
    failure = ssl.SSLError(1, f"[SSL: {reason}] it failed")
    failure.reason = reason
    return failure


def _untrusted(message: str) -> ssl.SSLCertVerificationError:
    failure = ssl.SSLCertVerificationError(1, message)
    failure.verify_message = message
    return failure


@pytest.mark.parametrize(
    ("failure", "said", "remedy"),
    [
        (SaslAuthenticationFailed("no"), "refuses the login of user 'me' by PLAIN", "NEARSTREAM_SASL_PASSWORD"),
        (UnsupportedSaslMechanismError("enabled: GSSAPI"), "does not offer the login PLAIN", "NEARSTREAM_SASL_MECH"),
        (IllegalSaslStateError("no"), "takes no login", "NEARSTREAM_SECURITY_PROTOCOL"),
        (_untrusted("unable to get local issuer certificate"), "is not trusted", "NEARSTREAM_SSL_CAFILE"),
        (_untrusted("Hostname mismatch, certificate is not valid for 'k1'."), "another name", "SSL_CHECK_HOSTNAME"),
        (_tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "refuses our certificate", "got none"),
        (_tls("TLSV1_ALERT_UNKNOWN_CA"), "refuses our certificate", "NEARSTREAM_SSL_CERTFILE"),
        (_tls("WRONG_VERSION_NUMBER"), "does not speak TLS", "SASL_PLAINTEXT"),
    ],
    ids=lambda value: getattr(value, "reason", None) or type(value).__name__,
)
def test_what_would_fail_again_is_a_verdict(settings: Settings, failure: Exception, said: str, remedy: str) -> None:
    """With the address, what was refused and the setting to change; never with the password."""
    verdict = denial(settings, "k1:9093", failure)
    assert isinstance(verdict, AccessDenied)
    message = str(verdict)
    assert "k1:9093" in message
    assert said in message
    assert remedy in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "failure",
    [
        KafkaConnectionError("closed"),
        ConnectionRefusedError(),
        TimeoutError(),
        _tls("UNEXPECTED_EOF_WHILE_READING"),
        _tls("TLSV1_ALERT_INTERNAL_ERROR"),
    ],
    ids=repr,
)
def test_what_may_pass_is_none(settings: Settings, failure: Exception) -> None:
    """A broker that starts or goes closes connections too."""
    assert denial(settings, "k1:9093", failure) is None


def test_the_cause_behind_a_closed_connection_is_found(settings: Settings) -> None:
    """aiokafka says only that the connection was closed; why is in the cause."""
    closed = KafkaConnectionError("Connection at k1:9093 closed")
    closed.__cause__ = _tls("TLSV13_ALERT_CERTIFICATE_REQUIRED")
    assert isinstance(denial(settings, "k1:9093", closed), AccessDenied)


def _answers(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Exception | None]) -> None:
    async def probe(_settings: Settings, host: str, _port: int) -> None:
        answer = answers[host]
        if answer is not None:
            raise answer

    monkeypatch.setattr(access, "_probe", probe)


async def test_one_broker_that_lets_us_in_outweighs_one_that_refuses(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster knows us; the other broker may be behind with its users."""
    _answers(monkeypatch, {"k1": SaslAuthenticationFailed("no"), "k2": None})
    assert isinstance(await diagnosed(settings, KafkaConnectionError("x")), BrokerUnavailable)


async def test_a_refusal_outweighs_a_broker_that_is_away(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again would be refused again."""
    _answers(monkeypatch, {"k1": ConnectionRefusedError(), "k2": SaslAuthenticationFailed("no")})
    verdict = await diagnosed(settings, KafkaConnectionError("x"))
    assert isinstance(verdict, AccessDenied)
    assert "k2:9093" in str(verdict)


async def test_a_port_without_a_listener_is_no_refusal() -> None:
    """Nobody there: the message says where was looked, and hints at nothing else."""
    settings = load_settings(bootstrap=f"127.0.0.1:{free_ports(1)[0]}")
    verdict = await diagnosed(settings, KafkaConnectionError("x"))
    assert isinstance(verdict, BrokerUnavailable)
    assert "No Kafka answers at 127.0.0.1" in str(verdict)
    assert "closed the connection" not in str(verdict)


async def test_a_server_that_is_silent_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question is bounded, whatever listens there."""
    monkeypatch.setattr(access, "PROBE_S_MAX", 0.05)
    done = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(5):
            verdict = await diagnosed(load_settings(bootstrap=f"127.0.0.1:{port}"), KafkaConnectionError("x"))
        done.set()
    assert isinstance(verdict, BrokerUnavailable)
