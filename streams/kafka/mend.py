"""Mending a dead letter: pure, and never trusted; what comes out goes through the codec like any event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.core.errors import RejectedRecord, RejectReason
from streams.core.events import DESCRIPTION_BYTES_MAX
from streams.kafka.examine import checked_bytes


@dataclass(frozen=True, slots=True)
class Mend:
    """What to change in each message: fields to drop, then fields to set, then the key."""

    set_fields: Mapping[str, Any] = field(default_factory=dict)
    drop_fields: frozenset[str] = frozenset()
    rekey: bool = False
    """Take the message's `user_id` as the key."""

    def __call__(self, key: bytes | None, value: bytes | None) -> tuple[bytes | None, bytes | None]:
        """The mended key and value; the value's bytes are untouched when no field changes.

        Raises:
            RejectedRecord: the value is no JSON object, so its fields cannot be reached.
        """
        if not (self.set_fields or self.drop_fields or self.rekey):
            return key, value
        message = _object(value)
        if self.set_fields or self.drop_fields:
            message = {name: came for name, came in message.items() if name not in self.drop_fields}
            message |= self.set_fields
            # Half a surrogate pair passes through as bytes that the codec then rejects.
            value = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
        user_id = message.get("user_id")
        if self.rekey and isinstance(user_id, str):
            key = user_id.encode(errors="surrogatepass")
        return key, value


def _object(value: bytes | None) -> dict[str, Any]:
    """The message as Python's own lenient parser reads it: NaN may pass, so that a mend can drop it."""
    try:
        message = json.loads(checked_bytes(value, DESCRIPTION_BYTES_MAX).decode())
    except ValueError as error:
        raise RejectedRecord(
            RejectReason.NOT_JSON,
            f"Expected a JSON object to mend, came text that cannot be read: {error}. Send the event again by hand.",
        ) from None
    if not isinstance(message, dict):
        raise RejectedRecord(
            RejectReason.INVALID_SCHEMA,
            f"Expected a JSON object to mend, came {type(message).__name__}. Send the event again by hand.",
        )
    return message
