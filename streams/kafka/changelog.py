"""The topic `profiles`: MessagePack records of one user's profile (schema 1), schema number first.

Written inside the transaction of the batch that moved the user, read by every worker to restore and to follow.
Item ids travel as text, since a catalogue slot means something in one worker only.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from streams.core.errors import CorruptState
from streams.core.profile import ProfileColumns, ProfileLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.catalogue import Catalogue
    from streams.core.updater import ProfileUpdate

SCHEMA = 1
_COUNTERS = ("events", "version", "partition", "last_offset", "last_time_ms", "recent_total")
"""Fields that are one integer, here and in the columns, in the order of the record."""


class ProfileRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One profile as it lies on the topic. Arrays are little-endian bytes; the vector is int8 times `scale`."""

    schema: int
    user_id: str
    events: int
    version: int
    partition: int
    last_offset: int
    last_time_ms: int
    recent_total: int
    recent_items: list[str]
    recent_types: bytes
    recent_times_s: bytes
    event_ids: bytes
    excluded_items: list[str]
    model: str
    scale: float
    vector: bytes
    state: bytes


class LoadedProfiles(NamedTuple):
    """Decoded records as columns, one row a user; `foreign_model` marks states that must be re-encoded."""

    user_ids: list[str]
    columns: ProfileColumns
    excluded: list[tuple[int, ...]]
    foreign_model: NDArray[np.bool_]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ProfileRecord).decode


def encode_profiles(update: ProfileUpdate, catalogue: Catalogue, model: str) -> list[bytes]:
    """One record per user of the update, in order."""
    columns, name = update.columns, catalogue.item_ids
    scales = np.abs(update.vectors).max(axis=1, initial=0.0) / 127.0
    quantised = np.rint(update.vectors / np.where(scales > 0, scales, 1.0)[:, None])
    recent, seen = columns.recent_count.tolist(), columns.event_id_count.tolist()
    fields = zip(
        repeat(SCHEMA),
        update.users,
        *(getattr(columns, counter).tolist() for counter in _COUNTERS),
        [[name[item] for item in row[:end]] for row, end in zip(columns.recent_items.tolist(), recent, strict=True)],
        _row_bytes(columns.recent_types, "u1", recent),
        _row_bytes(columns.recent_times_s, "<u4", recent),
        _row_bytes(columns.event_ids, "<u8", seen),
        [[name[item] for item in row] for row in update.excluded],
        repeat(model),
        scales.tolist(),
        _row_bytes(quantised, "i1"),
        _row_bytes(columns.state, "<f4"),
    )
    return [_encode(ProfileRecord(*row)) for row in fields]


def decode_profile(value: bytes) -> ProfileRecord:
    """One record.

    Raises:
        CorruptState: the bytes are no profile record, or one of a newer schema.
    """
    try:
        record = _decode(value)
    except msgspec.DecodeError as error:
        raise CorruptState(
            f"A record of the profiles topic is not a profile of schema {SCHEMA} ({error}). "
            "Was it written by a newer version? Upgrade, or point --prefix at another set of topics."
        ) from error
    if record.schema != SCHEMA:
        raise CorruptState(
            f"Profile {record.user_id!r} has schema {record.schema}, this version reads {SCHEMA}. Upgrade Nearstream."
        )
    recent = len(record.recent_items)
    if (len(record.recent_types), len(record.recent_times_s)) != (recent, 4 * recent) or len(record.event_ids) % 8:
        raise CorruptState(
            f"Profile {record.user_id!r} has {recent} recent items, but {len(record.recent_types)} bytes of types, "
            f"{len(record.recent_times_s)} of times (4 each) and {len(record.event_ids)} of event ids (8 each). "
            "The record is damaged; restore the profiles topic, or point --prefix at another set of topics."
        )
    return record


def load_profiles(
    records: Sequence[ProfileRecord], catalogue: Catalogue, layout: ProfileLayout, model: str
) -> LoadedProfiles:
    """The records as columns of this worker's layout; longer histories keep their newest part."""
    columns = ProfileColumns.empty(len(records), layout)
    columns.clear(slice(None))
    for counter in _COUNTERS:
        getattr(columns, counter)[:] = [getattr(record, counter) for record in records]
    item_slots = catalogue.slots([item for record in records for item in record.recent_items])
    columns.recent_count[:] = _fill(columns.recent_items, item_slots, [len(r.recent_items) for r in records])
    _fill(
        columns.recent_types, _joined([r.recent_types for r in records], "u1"), [len(r.recent_types) for r in records]
    )
    _fill(
        columns.recent_times_s,
        _joined([r.recent_times_s for r in records], "<u4"),
        [len(r.recent_times_s) // 4 for r in records],
    )
    columns.event_id_count[:] = _fill(
        columns.event_ids, _joined([r.event_ids for r in records], "<u8"), [len(r.event_ids) // 8 for r in records]
    )
    foreign = np.array([r.model != model or len(r.state) != layout.state_width * 4 for r in records], np.bool_)
    own = np.flatnonzero(~foreign)
    states = _joined([records[row].state for row in own.tolist()], "<f4")
    columns.state[own] = states.reshape(len(own), layout.state_width)
    excluded_slots = catalogue.slots([item for record in records for item in record.excluded_items]).tolist()
    excluded, start = [], 0
    for record in records:
        end = start + len(record.excluded_items)
        excluded.append(tuple(excluded_slots[start:end]))
        start = end
    return LoadedProfiles([r.user_id for r in records], columns, excluded, foreign)


def _row_bytes(column: NDArray[Any], dtype: str, counts: Sequence[int] | None = None) -> list[bytes]:
    """The first `counts` values of each row, or all of it, as bytes; cutting one string is faster than many rows."""
    data, item, width = column.astype(dtype).tobytes(), np.dtype(dtype).itemsize, column.shape[1]
    starts = range(0, len(data), width * item)
    if counts is None:
        return [data[start : start + width * item] for start in starts]
    return [data[start : start + count * item] for start, count in zip(starts, counts, strict=True)]


def _joined(parts: list[bytes], dtype: str) -> NDArray[np.generic]:
    return np.frombuffer(b"".join(parts), dtype)


def _fill(column: NDArray[np.generic], values: NDArray[np.generic], counts: list[int]) -> NDArray[np.int32]:
    """Writes ragged values left-aligned into the rows, the newest of those that do not fit; returns the counts kept."""
    width = column.shape[1]
    given = np.array(counts, np.int32)
    kept = np.minimum(given, width)
    ends = np.cumsum(given)
    places = np.arange(width)
    filled = places < kept[:, None]
    source = (ends - kept)[:, None] + places
    column[filled] = values[source[filled]]
    return kept
