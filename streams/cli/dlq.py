"""`nearstream dlq`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click
import msgspec
import orjson

from streams.cli.options import json_option, kafka_options
from streams.config import load_settings
from streams.core.errors import RejectReason, UsageError
from streams.kafka.dlq_read import EXAMPLES_PER_REASON, UNKNOWN_REASON, DeadLetterReport, list_dead_letters
from streams.kafka.dlq_replay import ReplayReport, replay_dead_letters
from streams.kafka.mend import Mend

if TYPE_CHECKING:
    from collections.abc import Sequence

_reason_option = click.option(
    "--reason", type=click.Choice([*map(str, RejectReason), UNKNOWN_REASON]), help="Only letters of this reason."
)


@click.group()
def dlq() -> None:
    """Dead letters: list by reason, mend and send back."""


@dlq.command("list")
@kafka_options
@_reason_option
@click.option(
    "--limit", type=click.IntRange(0), default=EXAMPLES_PER_REASON, show_default=True, help="Examples of each reason."
)
@json_option
def list_(bootstrap: str | None, prefix: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """Count the dead letters that wait, by reason, with examples."""
    settings = load_settings(bootstrap=bootstrap, prefix=prefix)
    report = asyncio.run(list_dead_letters(settings, reason, limit))
    if as_json:
        click.echo(orjson.dumps({"topic": report.topic, **_waiting_json(report)}))
    else:
        _print_waiting(report)


@dlq.command()
@kafka_options
@_reason_option
@click.option("--set", "sets", multiple=True, metavar="FIELD=JSON", help="Set a field, e.g. --set type='\"view\"'.")
@click.option("--drop", "drops", multiple=True, metavar="FIELD", help="Drop a field.")
@click.option("--rekey", is_flag=True, help="Take the message's user_id as its key.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@json_option
def replay(
    bootstrap: str | None,
    prefix: str | None,
    reason: str | None,
    sets: Sequence[str],
    drops: Sequence[str],
    rekey: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Mend the dead letters that wait and send those that then count back to `events`, each at most once."""
    settings = load_settings(bootstrap=bootstrap, prefix=prefix)
    mend = Mend(dict(map(_assignment, sets)), frozenset(drops), rekey)
    report = asyncio.run(replay_dead_letters(settings, mend, reason, dry_run))
    if as_json:
        click.echo(orjson.dumps(_replay_json(report)))
        return
    verb = "would be sent" if dry_run else "sent"
    click.echo(f"{report.replayed.total()} {verb} back to events")
    _print_waiting(report.remaining)


def _assignment(text: str) -> tuple[str, Any]:
    field, equals, literal = text.partition("=")
    try:
        value = msgspec.json.decode(literal)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _misused(text, str(error)) from None
    if not (field and equals):
        raise _misused(text, "no field is named")
    return field, value


def _misused(text: str, why: str) -> UsageError:
    return UsageError(
        f"Expected --set FIELD=JSON, came {text!r} ({why}). Quote strings inside the shell's quotes: "
        "--set 'type=\"view\"'."
    )


def _replay_json(report: ReplayReport) -> dict[str, Any]:
    return {
        "topic": report.topic,
        "dry_run": report.dry_run,
        "replayed": report.replayed.total(),
        "replayed_by_reason": dict(report.replayed),
        **_waiting_json(report.remaining),
    }


def _waiting_json(report: DeadLetterReport) -> dict[str, Any]:
    return {
        "waiting": report.waiting.total(),
        "by_reason": dict(report.waiting.most_common()),
        "replayed_before": report.replayed_before,
        "examples": [example._asdict() for example in report.examples],
    }


def _print_waiting(report: DeadLetterReport) -> None:
    """Keys and messages are shown escaped: they are anybody's bytes, and this may be a terminal."""
    click.echo(
        f"{report.waiting.total()} dead letters wait in {report.topic}, {report.replayed_before} were sent back before"
    )
    for reason, count in report.waiting.most_common():
        click.echo(f"\n{reason}: {count}")
        for example in report.examples:
            if example.reason == reason:
                place = f"{example.topic}/{example.partition}/{example.offset}"
                message = example.message.encode("unicode_escape").decode()
                click.echo(f"  {place}  key {example.key!a}  {message}")
