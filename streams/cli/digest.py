"""`nearstream digest`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import click
import orjson

from streams.cli.options import json_option, kafka_options
from streams.config import load_settings
from streams.kafka.digest import digest_of, read_profiles


@click.command()
@kafka_options
@json_option
def digest(bootstrap: str | None, prefix: str | None, as_json: bool) -> None:
    """Counts and a hash over all profiles: equal for two runs over the same events."""
    result = digest_of(asyncio.run(read_profiles(load_settings(bootstrap=bootstrap, prefix=prefix))))
    if as_json:
        click.echo(orjson.dumps(asdict(result)))
    else:
        click.echo(f"{result.users:,} users, {result.events:,} events, sha256 {result.sha256}")
