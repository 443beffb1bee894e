"""The rules file: text in, rules or a message that names line, table and key out."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from streams.core.errors import UsageError
from streams.recommend.rules import Boost, Bury, Caps, Exclude, Exposure, Fatigue, Fault, Floor, Pin, Rules, Selector
from streams.recommend.rules import contradictions as contradictions_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

RULES_BYTES_MAX = 1_048_576
TABLES: dict[str, type[BaseModel]] = {
    "exclude": Exclude, "drop": Selector, "keep": Selector, "boost": Boost, "bury": Bury, "pin": Pin, "caps": Caps,
    "floor": Floor, "exposure": Exposure, "fatigue": Fatigue,
}  # fmt: skip
REPEATED = frozenset({"drop", "keep", "boost", "bury", "pin", "floor"})
HEADER = re.compile(r"\s*\[{1,2}\s*([A-Za-z0-9_-]+)")


class Reload(NamedTuple):
    """What became of a changed file."""

    rules: Rules
    """Those to serve from now on: the file's, or with a problem the ones of before."""
    problem: str | None


class RulesFile:
    """The rules in service. The shell reads the file and shows the content here as often as it likes."""

    def __init__(self, name: str, list_items: int) -> None:
        self.rules = Rules()
        """The last that were good; none at all before."""
        self._name = name
        self._list_items = list_items
        self._content: bytes | None = b""

    def look(self, content: bytes | None) -> Reload | None:
        """Takes over the rules if the content differs from the last one shown; None stands for a missing file.

        Returns None when nothing has changed. A file that is not usable changes nothing but is reported, once.
        """
        if content == self._content:
            return None
        self._content = content
        try:
            self.rules = parse_rules(content, self._name, self._list_items)
        except UsageError as error:
            return Reload(self.rules, str(error))
        return Reload(self.rules, None)


def parse_rules(content: bytes | None, name: str, list_items: int) -> Rules:
    """The rules of a file of that name, for lists of `list_items`.

    Raises:
        UsageError: the file is missing, too long or no TOML; a table or key is unknown; a value is of the wrong type
            or out of range; or two rules contradict each other. All faults are named with their lines.
    """
    text = _text(content, name)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: expected TOML, got {error}; nothing of it is used. Correct that line.") from error
    try:
        rules = Rules.model_validate(tables)
    except ValidationError as error:
        faults = [_fault(details) for details in error.errors()]
    else:
        faults = contradictions_of(rules, list_items)
        if not faults:
            return rules
    lines = [f"  {_place(text, fault)}: {fault.message}" for fault in faults]
    raise UsageError(
        f"{name} is not usable, nothing of it is used:\n" + "\n".join(lines) + "\nCorrect it; see docs/rules.md."
    )


def _text(content: bytes | None, name: str) -> str:
    if content is None:
        raise UsageError(f"{name}: expected a TOML file with rules, there is none. Put it there or unset the setting.")
    if len(content) > RULES_BYTES_MAX:
        raise UsageError(f"{name}: expected at most {RULES_BYTES_MAX} bytes, got {len(content)}. Is it a rules file?")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: expected UTF-8, got {error}. Save it as UTF-8.") from error


def _fault(details: ErrorDetails) -> Fault:
    """Of an error at (table,), (table, index), (table, key, ...) or (table, index, key, ...)."""
    table, *inside = details["loc"]
    number = next((index + 1 for index in inside[:1] if isinstance(index, int)), None)
    key = next((name for name in inside if isinstance(name, str)), None)
    return Fault(str(table), number, key, _message(details, str(table), key))


def _message(details: ErrorDetails, table: str, key: str | None) -> str:
    model = TABLES.get(table)
    kind, got = details["type"], _shown(details["input"])
    if model is None:
        return f"unknown table: expected one of {', '.join(TABLES)}"
    if kind == "extra_forbidden":
        return f"unknown key: expected one of {', '.join(model.model_fields)}"
    if kind == "missing":
        return f"missing: expected {model.model_fields[str(key)].description}"
    if kind == "value_error":
        return details["msg"].removeprefix("Value error, ")
    if key is None:
        brackets = f"[[{table}]]" if table in REPEATED else f"[{table}]"
        return f"expected tables {brackets}, got {got}" if kind != "too_long" else details["msg"]
    complaint = details["msg"][:1].lower() + details["msg"][1:]
    return f"expected {model.model_fields[key].description}, got {got} ({complaint})"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _place(text: str, fault: Fault) -> str:
    line = line_of(text, fault)
    parts = [] if line is None else [f"line {line}"]
    parts.append(f"[[{fault.table}]]" if fault.table in REPEATED else f"[{fault.table}]")
    parts += [] if fault.number is None else [f"number {fault.number}"]
    parts += [] if fault.key is None else [f"key {fault.key}"]
    return ", ".join(parts)


def line_of(text: str, fault: Fault) -> int | None:
    """The line of the fault's key, else of its table, counted from 1; None where it is not written as a table."""
    table, seen, header = None, 0, None
    key = None if fault.key is None else re.compile(rf"\s*[\"']?{re.escape(fault.key)}[\"']?\s*=")
    for number, line in enumerate(text.splitlines(), 1):
        found = HEADER.match(line)
        if found is not None:
            table = found[1]
            seen += table == fault.table
            if table == fault.table and seen == (fault.number or 1):
                header = number
        elif table == fault.table and seen == (fault.number or 1) and key is not None and key.match(line):
            return number
    return header
