"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def kafka_options(command: F) -> F:
    """--bootstrap and --prefix; absent flags arrive as None, so that variables and file still count."""
    command = click.option("--prefix", help="Put before every topic name.")(command)
    return click.option("--bootstrap", help="Kafka bootstrap servers, host:port[,host:port].")(command)


def json_option(command: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")(command)
