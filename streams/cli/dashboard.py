"""`nearstream dashboard`."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click

from streams.cli.options import kafka_options
from streams.config import load_settings
from streams.dashboard.server import serve_dashboard
from streams.kafka.clients import LogRateLimit
from streams.kafka.observer import KafkaObserver
from streams.logs import configure_logging

if TYPE_CHECKING:
    from streams.config import Settings


@click.command()
@kafka_options
@click.option("--group", help="Consumer group of the workers to watch.")
@click.option("--host", "dashboard_host", help="Address to listen on; the page has no login, keep it local.")
@click.option("--port", "dashboard_port", type=int, help="Port to listen on; 0 = any free one.")
def dashboard(**flags: object) -> None:
    """Serve the live page until stopped: lag, freshness, workers, dead letters, one user's list."""
    settings = load_settings(**flags)
    configure_logging(settings, LogRateLimit())
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with KafkaObserver(settings) as observer:
        await serve_dashboard(observer, settings, ready=click.echo, stop=stop)
