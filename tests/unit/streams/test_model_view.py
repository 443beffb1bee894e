"""The page's sentence about a worker's model folder."""

from __future__ import annotations

import msgspec
import pytest

from streams.core.status import ModelStatus, WorkerStatus
from streams.dashboard.history import History
from streams.dashboard.view import overview
from tests.fakes import START_MS, observation, worker_status

SOUND = ModelStatus("models/shop", False, None, None, 0.0, 1, 0, 12.0, 3.0)


def said(folder: ModelStatus | None, message: str | None = None) -> str | None:
    """Beside the worker's state."""
    seen = observation([], [worker_status(folder=folder, message=message)])
    (worker,) = overview(seen, History(), "g", START_MS).workers
    return worker.message


@pytest.mark.parametrize("folder", [None, SOUND])
def test_a_model_in_good_order_is_not_worth_a_word(folder: ModelStatus | None) -> None:
    """Nor is a built-in one."""
    assert said(folder) is None


def test_a_model_that_comes_is_shown_with_its_progress() -> None:
    """And what serves until then."""
    coming = msgspec.structs.replace(SOUND, coming="gated-recurrence@1a2b", progress=0.42)
    assert said(coming) == "gated-recurrence@1a2b is made ready, 42%; decayed-mean@1 serves."


def test_a_folder_that_is_not_used_is_shown_with_the_reason() -> None:
    """Whatever serves in its place."""
    bad = msgspec.structs.replace(SOUND, fallback=True, problem="weights are damaged: train again.")
    assert said(bad) == "The model of models/shop is not used, decayed-mean@1 serves: weights are damaged: train again."


def test_what_the_worker_itself_says_comes_first() -> None:
    """It waits for Kafka, say; the model can wait too."""
    bad = msgspec.structs.replace(SOUND, problem="weights are damaged: train again.")
    assert said(bad, "Kafka does not answer.") == "Kafka does not answer."


def test_a_status_keeps_its_folder_and_old_records_have_none() -> None:
    """A record written before there were model folders still decodes."""
    status = worker_status(folder=SOUND)
    written = msgspec.json.encode(status)
    assert msgspec.json.decode(written, type=WorkerStatus) == status
    old = msgspec.json.decode(written)
    del old["folder"]
    assert msgspec.json.decode(msgspec.json.encode(old), type=WorkerStatus).folder is None
