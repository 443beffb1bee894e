"""`nearstream topics`."""

from __future__ import annotations

import asyncio

import click
import orjson

from streams.cli.options import json_option, kafka_options
from streams.config import load_settings
from streams.kafka.topics import create_topics, list_topics


@click.group()
def topics() -> None:
    """Create and list the topics."""


@topics.command()
@kafka_options
@click.option("--partitions", type=int, help="Partitions of each topic that is created.")
@click.option("--replication", type=int, help="Replication factor of each topic that is created.")
@json_option
def create(
    bootstrap: str | None, prefix: str | None, partitions: int | None, replication: int | None, as_json: bool
) -> None:
    """Create the topics that are missing."""
    settings = load_settings(bootstrap=bootstrap, prefix=prefix, partitions=partitions, replication=replication)
    created = asyncio.run(create_topics(settings))
    if as_json:
        click.echo(orjson.dumps({"created": created}))
    elif created:
        click.echo("\n".join(f"created {name}" for name in created))
    else:
        click.echo("all topics exist")


@topics.command("list")
@kafka_options
@json_option
def list_(bootstrap: str | None, prefix: str | None, as_json: bool) -> None:
    """List our topics with their partition counts."""
    counts = asyncio.run(list_topics(load_settings(bootstrap=bootstrap, prefix=prefix)))
    if as_json:
        click.echo(orjson.dumps(counts))
    elif counts:
        click.echo("\n".join(f"{name}\t{partitions} partitions" for name, partitions in counts.items()))
    else:
        click.echo("no topics yet; create them with `nearstream topics create`", err=True)
