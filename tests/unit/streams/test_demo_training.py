"""What the demo trains, when it does, and how it stops."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from encoder import EncoderConfig, load_encoder
from streams import demo_training
from streams.cli.demo import SHOP_PAST_EVENTS, training_plan
from streams.core.errors import UsageError
from streams.demo import TrainingPlan
from streams.demo_training import TrainingStopped, train_on_past
from streams.sources import ShopConfig, SyntheticShop

SHOP = SyntheticShop(ShopConfig(users=60, items=60, communities=4, events=4_000))


class Watched:
    """Keeps what the training tells, and stops it after so many calls."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.calls: list[tuple[str, int, int | None, float]] = []
        self._stop_after = stop_after

    def tell(self, stage: str, done: int, total: int | None, best: float) -> None:
        self.calls.append((stage, done, total, best))

    def is_stopped(self) -> bool:
        return self._stop_after is not None and len(self.calls) >= self._stop_after


def test_the_past_becomes_a_model_that_can_be_served(tmp_path: Path) -> None:
    """The folder loads as a model; progress tells stages, steps of steps and the best validation."""
    watched = Watched()
    trained = train_on_past(SHOP, 2_000, tmp_path / "m", tmp_path / "t", watched.tell, watched.is_stopped)
    events = list(SHOP.events())
    assert trained.past_events == 2_000
    assert 0 <= events[1_999].timestamp - trained.last_ms < 1_000
    assert load_encoder(EncoderConfig(str(tmp_path / "m"))).profiles.name.startswith("gated-recurrence@")
    assert {stage for stage, *_ in watched.calls} >= {"reading the past", "training"}
    stage, done, total, best = watched.calls[-1]
    assert (stage, done) == ("training", total)
    assert 0 < best < 1


def test_half_of_a_log_is_its_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a number the first half is learned, up to a bound."""
    watched = Watched()

    def past() -> int:
        return train_on_past(SHOP, None, tmp_path / "m", tmp_path / "t", watched.tell, watched.is_stopped).past_events

    assert past() == 2_000
    monkeypatch.setattr(demo_training, "LOG_PAST_EVENTS_MAX", 1_500)
    assert past() == 1_500


def test_a_stop_ends_it_at_once(tmp_path: Path) -> None:
    """Whoever does not want to wait is not told anything more."""
    watched = Watched(stop_after=5)
    with pytest.raises(TrainingStopped):
        train_on_past(SHOP, 2_000, tmp_path / "m", tmp_path / "t", watched.tell, watched.is_stopped)
    assert len(watched.calls) == 5


def test_time_that_is_up_leaves_the_best_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine the training ends after the first validation that lies past the limit."""
    monkeypatch.setattr(demo_training, "TRAINING_S_MAX", 0.0)
    watched = Watched()
    train_on_past(SHOP, 2_000, tmp_path / "m", tmp_path / "t", watched.tell, watched.is_stopped)
    steps = [(done, total, best) for stage, done, total, best in watched.calls if stage == "training" and total]
    assert 0 < steps[-1][0] < steps[-1][1] / 2
    assert not math.isnan(steps[-1][2])
    load_encoder(EncoderConfig(str(tmp_path / "m")))


def test_nothing_to_learn_is_said(tmp_path: Path) -> None:
    """One user, or one event, cannot be learned from."""
    watched = Watched()
    lonely = SyntheticShop(ShopConfig(users=1, items=20, communities=1, events=100))
    with pytest.raises(UsageError, match="1 user"):
        train_on_past(lonely, 50, tmp_path / "m", tmp_path / "t", watched.tell, watched.is_stopped)
    single = SyntheticShop(ShopConfig(users=1, items=20, communities=1, events=1))
    with pytest.raises(UsageError, match="1 event"):
        train_on_past(single, None, tmp_path / "m", tmp_path / "t", watched.tell, watched.is_stopped)
    assert not (tmp_path / "m").exists()


def test_the_shop_is_trained_and_logs_when_asked() -> None:
    """A default training may fail, one that was asked for may not; a model that the settings name is left alone."""
    shop = TrainingPlan(SHOP_PAST_EVENTS, required=False)
    plan = {"wanted": None, "synthetic": True, "model_is_given": False, "can_train": True}
    assert training_plan(**plan) == shop
    assert training_plan(**{**plan, "wanted": False}) is None
    assert training_plan(**{**plan, "model_is_given": True}) is None
    assert training_plan(**{**plan, "synthetic": False}) is None
    assert training_plan(**{**plan, "synthetic": False, "wanted": True}) == TrainingPlan(None, required=True)


def test_without_the_extra_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """The shop then runs on the built-in model after one line; `--train` is refused."""
    plan = {"synthetic": True, "model_is_given": False, "can_train": False}
    assert training_plan(wanted=None, **plan) is None
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UsageError, match=r"nearstream\[train\]"):
        training_plan(wanted=True, **plan)
