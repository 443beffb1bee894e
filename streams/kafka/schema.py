"""JSON Schema of the public messages. `python -m streams.kafka.schema` writes `docs/schema/*.json`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec

from streams.core.events import EventMessage, Item, User
from streams.core.recommendations import Recommendation

PUBLIC_MESSAGES: dict[str, type[msgspec.Struct]] = {
    "event": EventMessage,
    "item": Item,
    "user": User,
    "recommendation": Recommendation,
}
SCHEMA_DIR = Path("docs/schema")


def json_schemas() -> dict[str, str]:
    """The text of each file in `docs/schema`, by name without suffix."""
    return {name: _text(_schema(name, message)) for name, message in PUBLIC_MESSAGES.items()}


def _schema(name: str, message: type[msgspec.Struct]) -> dict[str, Any]:
    (root,), components = msgspec.json.schema_components([message], ref_template="#/$defs/{name}")
    top: dict[str, Any] = components.pop(root["$ref"].rpartition("/")[2])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:nearstream:v1:{name}",
        **top,
        "title": f"Nearstream {name}, schema v1",
        **({"$defs": components} if components else {}),
    }


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> None:
    """Writes every schema into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in json_schemas().items():
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Writes the JSON Schema of the public messages.")
    arguments.add_argument("folder", nargs="?", type=Path, default=SCHEMA_DIR, help="default: %(default)s")
    write(arguments.parse_args().folder)
