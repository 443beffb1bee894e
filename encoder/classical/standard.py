"""The baselines that stand in every table of results."""

from __future__ import annotations

from encoder.classical.item_based import EASE_ITEMS_MAX, CooccurrenceRules, Ease, ItemKnn
from encoder.classical.popularity import DecayedPopularity, Popularity
from encoder.classical.user_based import UserKnn
from encoder.dataset import EventTable
from encoder.evaluate import Recommender


def standard_baselines(table: EventTable) -> list[Recommender]:
    """All that can work on this log: without times no decayed popularity, with too many items no EASE."""
    baselines: list[Recommender] = [Popularity(), ItemKnn(), UserKnn(), CooccurrenceRules()]
    if table.times_s.min() < table.times_s.max():
        baselines.append(DecayedPopularity())
    if len(table.item_ids) <= EASE_ITEMS_MAX:
        baselines.append(Ease())
    return baselines
