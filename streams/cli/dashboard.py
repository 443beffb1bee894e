"""`nearstream dashboard`."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click
import uvloop

from streams.api.access import check_binding
from streams.cli.options import kafka_options
from streams.config import load_settings
from streams.dashboard.server import serve_dashboard
from streams.kafka.api_backend import KafkaBackend
from streams.kafka.clients import LogRateLimit
from streams.kafka.observer import KafkaObserver
from streams.logs import configure_logging

if TYPE_CHECKING:
    from streams.config import Settings


@click.command()
@kafka_options
@click.option("--group", help="Consumer group of the workers to watch.")
@click.option(
    "--host", "dashboard_host", help="Address to listen on; beyond this machine it needs a login, see docs/api.md."
)
@click.option("--port", "dashboard_port", type=int, help="Port to listen on; 0 = any free one.")
def dashboard(**flags: object) -> None:
    """Serve the live page and the HTTP API until stopped: lag, freshness, workers, dead letters, users' lists."""
    settings = load_settings(**flags)
    configure_logging(settings, LogRateLimit())
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    check_binding(settings)
    async with KafkaObserver(settings) as observer, KafkaBackend(settings) as backend:
        await serve_dashboard(observer, settings, ready=click.echo, stop=stop, backend=backend)
