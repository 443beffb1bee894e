"""What `nearstream weights show` says of the topic's records."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

import streams.cli.weights as command
from streams.kafka.weights_topic import Learned, WeightsCommand, WeightsState
from streams.recommend.fusion import FusionWeights
from streams.recommend.position_bias import PRIOR
from streams.recommend.shown_lists import PLACES

LEARNED = Learned(("profile", "trend"), FusionWeights.start(2, 8.0), 10, 1_700_000_000_000, 0, frozen=False)


def shown(monkeypatch: pytest.MonkeyPatch, learned: Learned, *words: str) -> str:
    """The output for one worker's record."""

    async def read(_settings: object) -> WeightsState:
        return WeightsState(WeightsCommand(), {"w1": learned}, 0)

    monkeypatch.setattr(command, "read_weights", read)
    result = CliRunner().invoke(command.weights, ["show", *words])
    assert result.exit_code == 0, result.output
    return result.output


def test_places_are_shown_where_they_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """How often each is looked at, by how many reactions, and how much is tried."""
    counts = np.zeros((3, PLACES))
    counts[0, :3] = 500.0
    text = shown(monkeypatch, LEARNED._replace(reactions=counts, exploration=0.02))
    assert "1,500 reactions to lists; 2.0% of the lists try a pair of items" in text
    assert text.split("is looked at")[1].split()[:4] == ["1.00", "0.63", "0.50", "0.43"]
    found = orjson.loads(shown(monkeypatch, LEARNED._replace(reactions=counts, exploration=0.02), "--json"))
    places = found["workers"]["w1"]["places"]
    assert (places["reactions"], places["exploration"]) == (1500.0, 0.02)
    np.testing.assert_allclose(places["propensities"], PRIOR, atol=1e-4)


def test_nothing_is_said_of_places_where_they_are_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched off, or a record of an older worker."""
    assert "looked at" not in shown(monkeypatch, LEARNED)
    assert orjson.loads(shown(monkeypatch, LEARNED, "--json"))["workers"]["w1"]["places"] is None
