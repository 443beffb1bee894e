"""How every Kafka client of the program connects, and what keeps aiokafka calm while a broker is away."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer

from streams.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from aiokafka import AIOKafkaConsumer
    from aiokafka.client import AIOKafkaClient

    from streams.config import Settings

logger = logging.getLogger(__name__)

METADATA_PACE_S = 0.1
PRODUCER_STOP_S = 2.0
CONSUMER_STOP_S = 2.0
CANCEL_GRACE_S = 0.5
LOG_RECORDS_PER_S_MAX = 5


def client_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments shared by aiokafka's consumer, producer and admin client: address and security.

    Raises:
        UsageError: a TLS file cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = tls_context(settings)
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        if settings.sasl_password is not None:
            options["sasl_plain_password"] = settings.sasl_password.get_secret_value()
    return options


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Whom we trust and how we show ourselves; certificates are always checked.

    Raises:
        UsageError: a TLS file cannot be read, or the password of the key is missing or wrong.
    """
    context = _trusting(settings.ssl_cafile)
    context.check_hostname = settings.ssl_check_hostname
    if settings.ssl_certfile is not None:
        _show_certificate(context, settings.ssl_certfile, settings)
    return context


def _trusting(cafile: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:  # ssl.SSLError is one
        raise _unusable("ssl_cafile", cafile, "the certificate authority to trust", error) from error


def _show_certificate(context: ssl.SSLContext, certfile: Path, settings: Settings) -> None:
    """Loads our own certificate; an encrypted key never asks for its password on the terminal."""
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return "" if settings.ssl_key_password is None else settings.ssl_key_password.get_secret_value()

    for setting, path in (("ssl_certfile", certfile), ("ssl_keyfile", settings.ssl_keyfile)):
        if path is not None and not path.is_file():
            raise _unusable(setting, path, "a certificate or key", FileNotFoundError("no such file"))
    try:
        context.load_cert_chain(certfile, settings.ssl_keyfile, password)
    except OSError as error:
        if asked:
            raise UsageError(
                f"The key of {certfile} is encrypted and ssl_key_password does not open it. Set "
                "NEARSTREAM_SSL_KEY_PASSWORD to its password, or give a key without one."
            ) from error
        key = f" and of its key in ssl_keyfile ({settings.ssl_keyfile})" if settings.ssl_keyfile else " and of its key"
        raise _unusable("ssl_certfile", certfile, f"the client's certificate{key}", error) from error


def _unusable(setting: str, path: Path | None, content: str, error: OSError) -> UsageError:
    return UsageError(
        f"The TLS file {path} of {setting} cannot be used ({error}). Expected a readable PEM file of {content}: "
        f"correct NEARSTREAM_{setting.upper()}."
    )


async def bounded(work: Coroutine[Any, Any, object], limit_s: float) -> BaseException | None:
    """Awaits a clean-up at most `limit_s`; returns its failure instead of raising it.

    Past the limit it is cancelled. One that does not heed that is left behind: a second bound, not a wait for ever.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(mark_seen)
    try:
        await asyncio.wait({task}, timeout=limit_s)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
            return TimeoutError(f"not done within {limit_s} s")
    finally:
        task.cancel()  # when we are cancelled ourselves; does nothing to one that is done
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def mark_seen(future: asyncio.Future[Any]) -> None:
    """Reads the exception, which asyncio would otherwise report as never retrieved."""
    if not future.cancelled():
        future.exception()


async def started_producer(settings: Settings, **options: object) -> AIOKafkaProducer:
    """A producer that waits for all replicas, connected; one that cannot connect is closed.

    Raises aiokafka's KafkaError when Kafka does not answer.
    """
    producer = AIOKafkaProducer(**client_options(settings), acks="all", **options)
    pace_metadata_updates(producer.client)
    try:
        await producer.start()
    except BaseException:
        await close_producer(producer)
        raise
    return producer


async def close_producer(producer: AIOKafkaProducer | None) -> None:
    """Stops a producer in bounded time.

    `stop()` waits for a flush that never ends while the broker is away (rule 14), so past the bound the sender
    is cancelled and the connections closed. An open transaction is left to the next `InitProducerId`.
    """
    if producer is None:
        return
    if await bounded(producer.stop(), PRODUCER_STOP_S) is None:
        return
    sender_task = producer._sender.sender_task  # aiokafka has no public way to give up
    if sender_task is not None and not sender_task.done():
        sender_task.cancel()
    await bounded(producer.client.close(), PRODUCER_STOP_S)


async def close_consumer(consumer: AIOKafkaConsumer, limit_s: float = CONSUMER_STOP_S) -> None:
    """Stops a consumer in bounded time, its connections included; what failed is logged.

    While the broker is away `stop()` may end in the CancelledError of its own fetch task and leave them open.
    """
    for close in (consumer.stop, consumer._client.close):  # aiokafka has no public way to the client
        failure = await bounded(close(), limit_s)
        if failure is not None:
            logger.debug("a consumer did not close cleanly: %r", failure)


def pace_metadata_updates(client: AIOKafkaClient) -> None:
    """At most one forced metadata update per 100 ms.

    aiokafka 0.14 asks in a loop without a pause while a leader is unknown and connections are refused, which
    burns a core for as long as the broker is away.
    """
    update_now, close_now = client.force_metadata_update, client.close
    pending: asyncio.Future[Any] | None = None

    async def update_later() -> Any:
        await asyncio.sleep(METADATA_PACE_S)
        return await update_now()

    def paced() -> asyncio.Future[Any]:
        nonlocal pending
        if pending is None or pending.done():
            pending = asyncio.ensure_future(update_later())
            pending.add_done_callback(mark_seen)
        return asyncio.shield(pending)

    async def close() -> None:
        if pending is not None:
            pending.cancel()
        await close_now()

    client.force_metadata_update = paced
    client.close = close


class LogRateLimit(logging.Filter):
    """Lets at most n records a second of each library logger through and says how many it held back (rule 14).

    Our own loggers pass: they speak once per event that matters.
    """

    def __init__(self, per_s_max: int = LOG_RECORDS_PER_S_MAX) -> None:
        super().__init__()
        self._per_s_max = per_s_max
        self._seen: dict[str, tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True when the record may pass."""
        if record.name.startswith(__package__.partition(".")[0]):
            return True
        second = int(record.created)
        then, count = self._seen.get(record.name, (second, 0))
        if then != second:
            if count > self._per_s_max:
                record.msg = f"{record.getMessage()} ({count - self._per_s_max} records held back before this)"
                record.args = ()
            count = 0
        self._seen[record.name] = (second, count + 1)
        return count < self._per_s_max
