"""What a worker tells of itself that seldom changes: its settings, its models and their training, its rules."""

from __future__ import annotations

import msgspec

TEXT_CHARS_MAX = 2000
"""Of one text in a record: what is longer is cut."""


class SettingReport(msgspec.Struct, frozen=True):
    """A setting in force. `value` is text as people write it, JSON where it is no string; a secret's is `hidden`.
    `source` is flag, environment, nearstream.toml or default."""

    name: str
    value: str
    source: str


class TrainingCurve(msgspec.Struct, frozen=True):
    """How a training went, in columns of one length, oldest first. `metrics` are validation figures, such as ndcg@10
    and hr@10, or rmse; `losses` are means since the look before; `best` is the place of the weights that serve."""

    steps: list[int]
    losses: list[float]
    metrics: dict[str, list[float | None]]
    best: int


class TrainingReport(msgspec.Struct, frozen=True):
    """What a model folder says of its training; None or 0 where it was written by a program that did not say.

    Times are epoch ms. `cpu_s` is of the whole training, `metrics` are those of the weights that serve.
    """

    objective: str | None = None
    trained_at: int | None = None
    source: str | None = None
    protocol: str | None = None
    events: int | None = None
    users: int | None = None
    items: int | None = None
    last_event_at: int | None = None
    cpu_s: float | None = None
    metrics: dict[str, float] = {}
    curve: TrainingCurve | None = None


class ModelReport(msgspec.Struct, frozen=True):
    """A model that serves, or did. `training` is None for a built-in one, which was not trained."""

    name: str
    kind: str
    dim: int
    training: TrainingReport | None = None


class RuleSentence(msgspec.Struct, frozen=True):
    """What a table of the rules file does, in a sentence; `table` as it is written there."""

    table: str
    text: str


class RulesReport(msgspec.Struct, frozen=True):
    """The rules file that the settings name. `problem` says what is wrong with what the file says now, with lines; then
    the rules of before serve, or none, which `sentences` describe. Times are epoch ms; `loaded_at` is None before the
    first good file, `checked_at` is when the file's content was looked at that `problem` or its absence is about."""

    path: str
    loaded_at: int | None
    checked_at: int | None
    problem: str | None
    warnings: list[str]
    sentences: list[RuleSentence]


class WorkerDetails(msgspec.Struct, frozen=True):
    """`models` begins with the one in service; the other, if there is one, served before it. `rules` is None where
    the settings name no file."""

    settings: list[SettingReport] = []
    models: list[ModelReport] = []
    rules: RulesReport | None = None


def shortened(text: str) -> str:
    """The text, cut where it is longer than TEXT_CHARS_MAX."""
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[: TEXT_CHARS_MAX - 1]}…"
