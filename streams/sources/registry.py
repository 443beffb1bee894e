"""Finds the source behind a FORMAT word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streams.core.errors import UsageError
from streams.sources.ciao import Ciao
from streams.sources.csv_log import csv_log
from streams.sources.ebnerd import Ebnerd
from streams.sources.jsonl import JsonLines
from streams.sources.logs import deskdrop, rees46, retailrocket, taobao
from streams.sources.movielens import movielens
from streams.sources.online_retail import OnlineRetail
from streams.sources.s3rec import SequenceLog
from streams.sources.synthetic import synthetic

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.sources.port import Source


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is opened: `open(path, **options)` with the options that it knows."""

    open: Callable[..., Source]
    options: frozenset[str] = frozenset()
    needs_path: bool = True


FORMATS: dict[str, Format] = {
    "synthetic": Format(
        synthetic,
        frozenset({"users", "items", "communities", "events", "days", "seed", "drifting", "endless"}),
        needs_path=False,
    ),
    "deskdrop": Format(deskdrop),
    "taobao": Format(taobao),
    "rees46": Format(rees46),
    "retailrocket": Format(retailrocket),
    "online-retail": Format(OnlineRetail),
    "movielens": Format(movielens),
    "s3rec": Format(SequenceLog),
    "ebnerd": Format(Ebnerd),
    "ciao": Format(Ciao),
    "csv": Format(
        csv_log,
        frozenset({"column", "timestamp_format", "type_map", "event_type", "delimiter", "order"}),
    ),
    "jsonl": Format(JsonLines, frozenset({"order"})),
}


def open_source(name: str, path: str | None = None, **options: Any) -> Source:
    """The log at `path` as events; `-` is standard input where a format can be read in one pass.

    Args:
        name: a word of `FORMATS`.
        path: file, folder or `-`; not for `synthetic`.
        **options: options of the format; those that are None count as not given.

    Raises:
        UsageError: the format or an option is unknown, or there is no such path.
    """
    chosen = FORMATS.get(name)
    if chosen is None:
        raise UsageError(f"Unknown format {name!r}. Known formats are {', '.join(FORMATS)}.")
    given = {option: value for option, value in options.items() if value is not None}
    foreign = sorted(set(given) - chosen.options)
    if foreign:
        raise UsageError(
            f"Format {name} has no option {', '.join(foreign)}; it has {', '.join(sorted(chosen.options)) or 'none'}."
        )
    if chosen.needs_path and not path:
        raise UsageError(f"Format {name} needs a PATH: a file, a folder or - for standard input.")
    if not chosen.needs_path and path:
        raise UsageError(f"Format {name} makes its own data; leave out the path {path!r}.")
    return chosen.open(path or "", **given)
