"""What the page shows of each worker's index: its figures, and a sentence for each that is past its limit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from streams.core.status import IndexStatus, IndexTrigger, IndexWarning

if TYPE_CHECKING:
    from streams.core.status import WorkerStatus


class IndexWarningView(msgspec.Struct, frozen=True):
    """What a figure past its limit means, and what to do."""

    trigger: IndexTrigger
    sentence: str


class IndexView(msgspec.Struct, frozen=True):
    """One worker's index."""

    worker: str
    figures: IndexStatus
    warnings: list[IndexWarningView]


def index_views(reporting: Iterable[WorkerStatus]) -> list[IndexView]:
    """The indexes of workers that report one, by the worker's name."""
    return [
        IndexView(
            worker.worker,
            worker.index,
            [IndexWarningView(warning.trigger, index_sentence(warning)) for warning in worker.index.warnings],
        )
        for worker in sorted(reporting, key=lambda w: w.worker)
        if worker.index is not None
    ]


def index_sentence(warning: IndexWarning) -> str:
    """What it means and what to do, with the figure and its limit."""
    unit, sentence = SENTENCES[warning.trigger]
    return sentence.format(value=unit(warning.value), limit=unit(warning.limit))


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.0f} h"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


SENTENCES: dict[IndexTrigger, tuple[Callable[[float], str], str]] = {
    "low-recall": (
        _percent,
        "Lists miss near users: searches find {value} of the exact neighbours, the bar is {limit}. "
        "A new graph is asked for; if this stays after it, see the runbook.",
    ),
    "self-miss": (
        _percent,
        "{value} of users do not find themselves, {limit} may: parts of the graph cannot be reached. "
        "A new graph is asked for; if this stays after it, see the runbook.",
    ),
    "erasure-late": (
        _minutes,
        "Forgotten users are in no list, but have been in the graph's bytes for {value}; {limit} is the limit. "
        "A build takes them out: does the worker get any time for one?",
    ),
    "build-failed": (
        _count,
        "Builds failed since the last good graph: {value}. Searches go on with what there is, ever more slowly. "
        "The worker's log says why; a build is tried again every ten minutes.",
    ),
    "check-failed": (
        _count,
        "Checks failed in a row: {value}. The recall shown is old or missing. The worker's log says why.",
    ),
    "delta-full": (
        _count,
        "{value} changed users are scanned one by one, {limit} is the limit: changes outrun the builds, and searches "
        "slow down. Give the worker a core, or slow the producer.",
    ),
    "dead-rows": (
        _percent,
        "{value} of the graph's rows belong to nobody, {limit} may: searches waste their time on them. "
        "A build removes them and is asked for.",
    ),
    "old-graph": (
        _hours,
        "The graph is {value} old though users have moved since; {limit} is the limit. "
        "A build is asked for; if none comes, the worker's log says why.",
    ),
    "slow-build": (
        _minutes,
        "The last graph took {value} to build, {limit} is the limit: changes and erasures wait that long. "
        "Give the worker a core.",
    ),
    "memory": (
        _gigabytes,
        "The index holds {value}, more than half of what this worker may use ({limit}): the next build may not fit "
        "beside it. Give the worker more memory.",
    ),
}
"""The unit of each trigger's figures, and what it means and asks for."""
