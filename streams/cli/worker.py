"""`nearstream worker`."""

from __future__ import annotations

import click

from streams.app import run_worker
from streams.cli.options import kafka_options
from streams.config import load_settings
from streams.kafka.clients import LogRateLimit
from streams.logs import configure_logging


@click.command()
@kafka_options
@click.option("--group", help="Consumer group of the workers.")
@click.option("--worker-id", help="Name on the page; default host-pid.")
@click.option("--web-port", type=int, help="Port of /metrics, /healthz and /readyz.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Least severe level logged."
)
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]), help="Log lines for people or machines.")
def worker(**flags: object) -> None:
    """Turn events into refreshed lists until stopped."""
    settings = load_settings(**flags)
    configure_logging(settings, LogRateLimit())
    run_worker(settings)
