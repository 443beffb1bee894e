"""What the page shows of workers' settings, models and rules: alike ones once, differences marked. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streams.core.worker_details import ModelReport, RulesReport, SettingReport
from streams.dashboard.view import is_reporting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.core.observation import Observation
    from streams.core.worker_details import WorkerDetails

OWN_SETTINGS = frozenset({"worker_id", "group_instance_id", "web_host", "web_port", "data_dir"})
"""Which each worker has its own of, so that a difference says nothing."""


class SettingValue(msgspec.Struct, frozen=True):
    """A value with its source, and the workers that have it so."""

    value: str
    source: str
    workers: list[str]


class SettingRow(msgspec.Struct, frozen=True):
    """A setting over all workers. `differs`: workers have different values where they should have the same."""

    name: str
    description: str
    values: list[SettingValue]
    differs: bool


class ModelsView(msgspec.Struct, frozen=True):
    """The model in service of these workers, and the one before it."""

    workers: list[str]
    models: list[ModelReport]


class RulesView(msgspec.Struct, frozen=True):
    """The rules of these workers; None where their settings name no file. Times are those of the latest worker."""

    workers: list[str]
    rules: RulesReport | None


class DetailsView(msgspec.Struct, frozen=True):
    """Of the workers that report now. `unheard` have not told their details yet: theirs is an older program, or the
    page has just begun to watch."""

    workers: list[str]
    unheard: list[str]
    settings: list[SettingRow]
    models: list[ModelsView]
    rules: list[RulesView]


def details_view(seen: Observation, now_ms: int, descriptions: Mapping[str, str]) -> DetailsView:
    """The details of all reporting workers; `descriptions` of settings, by name."""
    at_ms = seen.polled_at if seen.polled_at is not None else now_ms
    reporting = sorted((w for w in seen.workers if is_reporting(w, at_ms)), key=lambda w: w.worker)
    told = {worker.worker: worker.details for worker in reporting if worker.details is not None}
    return DetailsView(
        workers=list(told),
        unheard=[worker.worker for worker in reporting if worker.details is None],
        settings=_setting_rows({name: details.settings for name, details in told.items()}, descriptions),
        models=_models(told),
        rules=_rules(told),
    )


def _setting_rows(reports: Mapping[str, Sequence[SettingReport]], descriptions: Mapping[str, str]) -> list[SettingRow]:
    """In the order of the first worker's settings; those that only others have come last."""
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for worker, settings in reports.items():
        for setting in settings:
            found.setdefault(setting.name, {}).setdefault((setting.value, setting.source), []).append(worker)
    return [
        SettingRow(
            name=name,
            description=descriptions.get(name, ""),
            values=[SettingValue(value, source, workers) for (value, source), workers in values.items()],
            differs=name not in OWN_SETTINGS and _differ(values, len(reports)),
        )
        for name, values in found.items()
    ]


def _differ(values: Mapping[tuple[str, str], list[str]], workers: int) -> bool:
    """Also where a worker does not know the setting: its program is another one."""
    return len({value for value, _ in values}) > 1 or sum(map(len, values.values())) < workers


def _models(told: Mapping[str, WorkerDetails]) -> list[ModelsView]:
    found: list[ModelsView] = []
    for worker, details in told.items():
        alike = next((view for view in found if view.models == details.models), None)
        if alike is not None:
            alike.workers.append(worker)
        elif details.models:
            found.append(ModelsView([worker], details.models))
    return found


def _rules(told: Mapping[str, WorkerDetails]) -> list[RulesView]:
    found: list[RulesView] = []
    for worker, details in told.items():
        place = next((n for n, view in enumerate(found) if _timeless(view.rules) == _timeless(details.rules)), None)
        if place is None:
            found.append(RulesView([worker], details.rules))
        else:
            known = found[place]
            found[place] = RulesView([*known.workers, worker], _later(known.rules, details.rules))
    return found


def _timeless(rules: RulesReport | None) -> RulesReport | None:
    return None if rules is None else msgspec.structs.replace(rules, loaded_at=None, checked_at=None)


def _later(one: RulesReport | None, other: RulesReport | None) -> RulesReport | None:
    if one is None or other is None:
        return one
    return one if (one.loaded_at or 0) >= (other.loaded_at or 0) else other
