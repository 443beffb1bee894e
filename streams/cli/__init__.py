"""The command `nearstream`. Commands are loaded when they are called, so that `--help` answers at once."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import NoReturn

import click

from streams.core.errors import NearstreamError, UsageError

EXIT_FAILED, EXIT_MISUSE, EXIT_INTERRUPTED = 1, 2, 130

COMMANDS = {
    "demo": ("streams.cli.demo", "Everything on this machine: Kafka, events, worker and the live page."),
    "kafka": ("streams.cli.kafka", "The embedded Kafka broker: start, stop, status."),
    "topics": ("streams.cli.topics", "Create and list the topics."),
    "worker": ("streams.cli.worker", "Turn events into refreshed lists until stopped."),
    "feed": ("streams.cli.feed", "Publish a public log, a file or the synthetic shop as events."),
    "data": ("streams.cli.data", "Count a log before it is used: users, items, times, funnel, problems."),
    "tail": ("streams.cli.tail", "Follow a topic, by default the recommendations."),
    "show": ("streams.cli.show", "One user: profile, vector and last list."),
    "explain": ("streams.cli.explain", "Why an item is near to a user, event by event, and what if not."),
    "what-if": ("streams.cli.what_if", "What a user's list would be without some events, or with others."),
    "replay": ("streams.cli.replay", "The whole engine over a log, without a broker, judged by what comes next."),
    "digest": ("streams.cli.digest", "Counts and a hash over all profiles."),
    "dlq": ("streams.cli.dlq", "Dead letters: list by reason, mend and send back."),
    "weights": ("streams.cli.weights", "What each source counts: show, reset, freeze, thaw."),
    "dashboard": ("streams.cli.dashboard", "The live page: lag, freshness, one user's list."),
    "train": ("streams.cli.train", "Train the profile model on a log or on the topics."),
    "evaluate": ("streams.cli.evaluate", "Rank held-out events: the model, yardsticks and baselines."),
    "bench": ("streams.cli.bench", "Measure ingest, latency, memory and the index on this machine."),
}


class LazyCommands(click.Group):
    """Imports a command's module when the command is looked up, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order of a newcomer's path."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, from its module's attribute of the same name, dashes as underscores."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nearstream")
def cli() -> None:
    """Events in, fresh neighbours and recommendations out, each event counted exactly once.

    Settings come from flags over NEARSTREAM_* variables over nearstream.toml over defaults.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # commands say themselves what failed


def main() -> NoReturn:
    """Runs the command line. Exit 0: done, 1: failed, 2: misuse, 130: interrupted."""
    try:
        result = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except UsageError as error:
        click.echo(f"nearstream: {error}", err=True)
        sys.exit(EXIT_MISUSE)
    except NearstreamError as error:
        click.echo(f"nearstream: {error}", err=True)
        sys.exit(EXIT_FAILED)
    sys.exit(result if isinstance(result, int) else 0)
