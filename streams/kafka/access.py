"""Why Kafka cannot be used: nobody answers, or it answers and we or it refuse.

aiokafka tells only that it could not connect. Whether trying again can help is found out by one connection of our own.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import IllegalSaslStateError, KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError
from aiokafka.protocol.metadata import MetadataRequest

from streams.core.errors import AccessDenied, BrokerUnavailable, NearstreamError
from streams.kafka.clients import bounded, client_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.config import Settings

PROBE_S_MAX = 5.0
CLOSE_S_MAX = 1.0
CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER", "UNKNOWN_PROTOCOL")
"""Words of OpenSSL's reasons; other reasons may pass."""


async def diagnosed(settings: Settings, error: BaseException) -> NearstreamError:
    """The verdict on a failed connection, found by asking each bootstrap address once more, five seconds each at most.

    AccessDenied when an address refuses and none lets us in, since trying again would do the same; else
    BrokerUnavailable, because of `error`.

    Raises:
        UsageError: a TLS file cannot be read.
    """
    denied: AccessDenied | None = None
    hint = ""
    for host, port, _ in collect_hosts(settings.bootstrap):
        try:
            async with asyncio.timeout(PROBE_S_MAX):
                await _probe(settings, host, port)
        except (KafkaError, OSError) as failure:  # TimeoutError is one
            denied = denied or denial(settings, f"{host}:{port}", failure)
            hint = hint or _hint(settings, failure)
        else:
            return unreachable(settings, error)
    return denied or unreachable(settings, error, hint)


def unreachable(settings: Settings, error: BaseException, hint: str = "") -> BrokerUnavailable:
    """The error that says where Kafka was looked for and what to do."""
    return BrokerUnavailable(
        f"No Kafka answers at {settings.bootstrap} ({type(error).__name__}).{hint} Start one with "
        "`nearstream kafka start`, or set --bootstrap / NEARSTREAM_BOOTSTRAP to yours."
    )


async def _probe(settings: Settings, host: str, port: int) -> None:
    """Connects, logs in and asks something that needs a login."""
    options = client_options(settings)
    del options["bootstrap_servers"]
    connection = await create_conn(host, port, **options)
    try:
        await connection.send(MetadataRequest([]))
    finally:
        await bounded(_closed(connection), CLOSE_S_MAX)


async def _closed(connection: AIOKafkaConnection) -> None:
    await connection.close()


def denial(settings: Settings, address: str, failure: BaseException) -> AccessDenied | None:
    """What a failure means that would come again; None for one that may pass, as a broker that starts."""
    for cause in _causes(failure):
        sentence = _tls_refusal(settings, address, cause) or _login_refusal(settings, address, cause)
        if sentence is not None:
            return AccessDenied(sentence)
    return None


def _causes(failure: BaseException | None) -> Iterator[BaseException]:
    while failure is not None:
        yield failure
        failure = failure.__cause__ or failure.__context__


def _tls_refusal(settings: Settings, address: str, failure: BaseException) -> str | None:
    """Sentences for a refused certificate, ours or Kafka's, or a port without TLS."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        trusted = settings.ssl_cafile or "the authorities that this system trusts"
        what = failure.verify_message or str(failure)
        if "match" in what.lower() or "hostname" in what.lower():
            return (
                f"The certificate of Kafka at {address} is for another name ({what}). Expected one that names the "
                "address in NEARSTREAM_BOOTSTRAP: use a name of the certificate, or switch the check off with "
                "NEARSTREAM_SSL_CHECK_HOSTNAME=false."
            )
        return (
            f"The certificate of Kafka at {address} is not trusted ({what}). Expected one signed by {trusted}: set "
            "NEARSTREAM_SSL_CAFILE to the PEM file of the cluster's certificate authority."
        )
    if not isinstance(failure, ssl.SSLError):
        return None
    reason = failure.reason or str(failure)
    if "ALERT" in reason.upper() and any(word in reason.upper() for word in CERTIFICATE_ALERTS):
        return (
            f"Kafka at {address} refuses our certificate ({reason}). Expected one signed by an authority that the "
            f"cluster trusts, got {settings.ssl_certfile or 'none'}: set NEARSTREAM_SSL_CERTFILE and "
            "NEARSTREAM_SSL_KEYFILE."
        )
    if any(word in reason.upper() for word in NOT_TLS):
        return (
            f"Kafka at {address} does not speak TLS ({reason}), which security_protocol {settings.security_protocol} "
            "expects. Use the port of its TLS listener, or set NEARSTREAM_SECURITY_PROTOCOL to PLAINTEXT or "
            "SASL_PLAINTEXT."
        )
    return None


def _login_refusal(settings: Settings, address: str, failure: BaseException) -> str | None:
    """Sentences for a refused login; the password is in none of them."""
    if isinstance(failure, SaslAuthenticationFailed):
        return (
            f"Kafka at {address} refuses the login of user {settings.sasl_username!r} by {settings.sasl_mechanism}: "
            "authentication failed. Correct NEARSTREAM_SASL_USERNAME, NEARSTREAM_SASL_PASSWORD or "
            "NEARSTREAM_SASL_MECHANISM."
        )
    if isinstance(failure, UnsupportedSaslMechanismError):
        return (
            f"Kafka at {address} does not offer the login {settings.sasl_mechanism} ({failure}). Set "
            "NEARSTREAM_SASL_MECHANISM to one that it offers."
        )
    if isinstance(failure, IllegalSaslStateError):
        return (
            f"Kafka at {address} takes no login, and security_protocol {settings.security_protocol} sends one. Use the "
            "port of its SASL listener, or set NEARSTREAM_SECURITY_PROTOCOL to SSL or PLAINTEXT."
        )
    return None


def _hint(settings: Settings, failure: BaseException) -> str:
    """A sentence for a connection that was opened and closed without an answer, as by a listener of another kind."""
    if isinstance(failure, KafkaError):
        return (
            f" Something closed the connection without an answer: is security_protocol {settings.security_protocol} "
            "what this port expects?"
        )
    return ""
