"""Every verdict of the program, in one tree.

```
NearstreamError
├── UsageError            the person must change a command, a setting or a file; nothing was done
├── RejectedRecord        this record cannot count: dead letter it and go on
├── DeadLetterLimit       too many rejects in a row or in share: stop the worker and say why
├── PartitionLost         another worker owns this partition now: stop at once, keep nothing
├── BrokerUnavailable     Kafka does not answer: back off, stay visible, try again
├── WorkerUnavailable     no worker answers a question, or this one is too busy: say so; asking again may help
├── AccessDenied          Kafka answers and refuses us, or we do not trust it: stop and say so, trying again cannot help
├── ModelUnusable         a model folder cannot be served: go on with what serves, say so, look again when it changes
└── CorruptState          the changelog holds what this version cannot read: stop, never guess
```

A message is one sentence or two: what was expected, what came, what to do.
"""

from __future__ import annotations

from enum import StrEnum


class RejectReason(StrEnum):
    """Why a record became a dead letter; the value of the header `errors.reason`."""

    EMPTY_VALUE = "empty-value"
    OVERSIZED = "oversized"
    INVALID_UTF8 = "invalid-utf8"
    NOT_JSON = "not-json"
    TOO_DEEP = "too-deep"
    INVALID_SCHEMA = "invalid-schema"
    NOT_FINITE = "not-finite"
    KEY_MISMATCH = "key-mismatch"
    """The key is missing or differs from the id inside."""
    FUTURE_TIMESTAMP = "future-timestamp"
    WRONG_PARTITION = "wrong-partition"
    """The key's murmur2 partition is another one."""


class NearstreamError(Exception):
    """Root of every error that Nearstream raises on purpose."""


class UsageError(NearstreamError):
    """A command, setting or file is not usable; the message says what to change."""


class RejectedRecord(NearstreamError):
    """One record that cannot count; it belongs into the dead letters."""

    def __init__(self, reason: RejectReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class DeadLetterLimit(NearstreamError):
    """The share or the run of dead letters passed its bound, as after a bad deploy of a producer."""


class PartitionLost(NearstreamError):
    """A newer producer fenced this one: another worker owns the partition."""


class BrokerUnavailable(NearstreamError):
    """Kafka did not answer in time."""


class WorkerUnavailable(NearstreamError):
    """What only a running worker can answer has no answer now."""


class AccessDenied(NearstreamError):
    """Login, certificate or protocol is refused by Kafka, or Kafka's certificate by us."""


class ModelUnusable(NearstreamError):
    """The folder of the settings holds no model that this worker can serve."""


class CorruptState(NearstreamError):
    """A stored profile cannot be read by this version."""
