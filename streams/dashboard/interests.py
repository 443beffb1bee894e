"""How a user's profile moved, as a picture: its last vectors on the plane that shows most of their movement. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from streams.core.observation import ProfileMoment


class InterestPoint(msgspec.Struct, frozen=True):
    """The profile after `events` events; `moved` is the cosine distance from the point before, 0 for the first."""

    x: float
    y: float
    time: int
    events: int
    moved: float
    item: str | None


class Interests(msgspec.Struct, frozen=True):
    """Oldest first. `shown` is the share of all movement, 0 to 1, that the plane keeps."""

    points: list[InterestPoint]
    shown: float


def interests(moments: Sequence[ProfileMoment], title_of: Callable[[str], str | None]) -> Interests | None:
    """The principal plane of the moments of the newest model; None with fewer than two, which is no movement."""
    kept = [m for m in moments if (m.model, len(m.vector)) == (moments[-1].model, len(moments[-1].vector))]
    if len(kept) < 2:
        return None
    vectors = np.array([m.vector for m in kept], np.float64)
    places, shown = _principal_plane(vectors)
    norms = np.linalg.norm(vectors, axis=1)
    cosines = (vectors[1:] * vectors[:-1]).sum(axis=1) / np.maximum(norms[1:] * norms[:-1], 1e-12)
    moved = [0.0, *np.clip(1.0 - cosines, 0.0, 2.0).tolist()]
    return Interests(
        [
            InterestPoint(
                round(float(x), 4),
                round(float(y), 4),
                moment.timestamp,
                moment.events,
                round(distance, 4),
                None if moment.last_item is None else title_of(moment.last_item) or moment.last_item,
            )
            for (x, y), moment, distance in zip(places.tolist(), kept, moved, strict=True)
        ],
        round(shown, 4),
    )


def _principal_plane(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """(n, 2) coordinates by PCA, and the share of the variance they keep; the path ends to the right of its start."""
    centred = vectors - vectors.mean(axis=0)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(vectors), 2))
    axes = min(2, len(spread))
    places[:, :axes] = left[:, :axes] * spread[:axes]
    places *= np.where(places[-1] < places[0], -1.0, 1.0)
    variance = float((spread**2).sum())
    return places, float((spread[:axes] ** 2).sum()) / variance if variance > 0 else 1.0
