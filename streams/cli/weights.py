"""`nearstream weights`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import orjson

from streams.cli.options import json_option, kafka_options
from streams.config import load_settings
from streams.kafka.weights_topic import WeightsCommand, give_command, read_weights
from streams.recommend.position_bias import PositionBias

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.kafka.weights_topic import Learned, WeightsState

PLACES_PRINTED = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50)


@click.group()
def weights() -> None:
    """What each source of recommendations counts: show, reset, freeze, thaw."""


@weights.command()
@kafka_options
@json_option
def show(bootstrap: str | None, prefix: str | None, as_json: bool) -> None:
    """What each worker has learned, as it last wrote it.

    Of the sources (a, l) for all users alike; of the places of a list how often each is looked at, the first being 1.
    """
    settings = load_settings(bootstrap=bootstrap, prefix=prefix)
    state = asyncio.run(read_weights(settings))
    if as_json:
        click.echo(orjson.dumps(_state_json(state)))
    else:
        _print_state(state)


@weights.command()
@kafka_options
@json_option
def reset(bootstrap: str | None, prefix: str | None, as_json: bool) -> None:
    """Begin anew with equal weights and nothing known of places, on every worker."""
    _give(bootstrap, prefix, WeightsCommand.reset, "the weights begin anew", as_json=as_json)


@weights.command()
@kafka_options
@json_option
def freeze(bootstrap: str | None, prefix: str | None, as_json: bool) -> None:
    """Keep the weights as they are, also over restarts; live quality is measured on."""
    _give(bootstrap, prefix, WeightsCommand.freeze, "the weights stay as they are", as_json=as_json)


@weights.command()
@kafka_options
@json_option
def thaw(bootstrap: str | None, prefix: str | None, as_json: bool) -> None:
    """Learn on after a freeze."""
    _give(bootstrap, prefix, WeightsCommand.thaw, "the weights are learned again", as_json=as_json)


def _give(
    bootstrap: str | None,
    prefix: str | None,
    change: Callable[[WeightsCommand, int], WeightsCommand],
    done: str,
    *,
    as_json: bool,
) -> None:
    settings = load_settings(bootstrap=bootstrap, prefix=prefix)
    command = asyncio.run(give_command(settings, change))
    click.echo(orjson.dumps(_command_json(command)) if as_json else f"{done}, on running workers within seconds")


def _command_json(command: WeightsCommand) -> dict[str, Any]:
    """Times in epoch ms, None for what was never commanded."""
    return {"frozen": command.frozen, "reset_at": command.reset_ms or None, "asked_at": command.asked_ms or None}


def _state_json(state: WeightsState) -> dict[str, Any]:
    return {
        "command": _command_json(state.command),
        "workers": {worker: _learned_json(learned) for worker, learned in sorted(state.workers.items())},
        "unreadable": state.unreadable,
    }


def _learned_json(learned: Learned) -> dict[str, Any]:
    shared = zip(learned.sources, learned.weights.shared.tolist(), strict=True)
    return {
        "lessons": learned.lessons,
        "written_at": learned.written_ms,
        "frozen": learned.frozen,
        "sources": {source: dict(zip("al", pair, strict=True)) for source, pair in shared},
        "places": _places_json(learned),
    }


def _places_json(learned: Learned) -> dict[str, Any] | None:
    """None where places make no difference."""
    if learned.reactions is None:
        return None
    bias = PositionBias(learned.reactions)
    return {
        "exploration": learned.exploration,
        "reactions": round(bias.reactions, 1),
        "propensities": np.round(bias.propensities, 4).tolist(),
    }


def _print_state(state: WeightsState) -> None:
    click.echo("frozen by command" if state.command.frozen else "learned from every event")
    if state.command.reset_ms:
        click.echo(f"last reset {_moment(state.command.reset_ms)}")
    for worker, learned in sorted(state.workers.items()):
        frozen = ", frozen" if learned.frozen else ""
        click.echo(f"\n{worker}: {learned.lessons:,} lessons, written {_moment(learned.written_ms)}{frozen}")
        click.echo(f"  {'source':<16} {'a':>8} {'l':>8}")
        for source, (linear, logarithmic) in zip(learned.sources, learned.weights.shared.tolist(), strict=True):
            click.echo(f"  {source:<16} {linear:8.3f} {logarithmic:8.3f}")
        if learned.reactions is not None:
            _print_places(PositionBias(learned.reactions), learned.exploration)
    if not state.workers:
        click.echo("no worker has written weights within the last day", err=True)
    if state.unreadable:
        click.echo(f"{state.unreadable} records cannot be read and are passed over", err=True)


def _print_places(bias: PositionBias, exploration: float) -> None:
    click.echo(f"  {bias.reactions:,.0f} reactions to lists; {exploration:.1%} of the lists try a pair of items")
    click.echo(f"  {'place':<16} " + " ".join(f"{place:5d}" for place in PLACES_PRINTED))
    click.echo(
        f"  {'is looked at':<16} " + " ".join(f"{bias.propensities[place - 1]:5.2f}" for place in PLACES_PRINTED)
    )


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
