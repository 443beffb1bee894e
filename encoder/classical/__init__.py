"""Recommenders without neural training, which every table of results shows beside the product's own.

Each states what it may see of the log. Scores are higher for better, -inf where it cannot judge.
"""

from encoder.classical.item_based import CooccurrenceRules, Ease, ItemKnn
from encoder.classical.popularity import DecayedPopularity, Popularity
from encoder.classical.standard import standard_baselines
from encoder.classical.user_based import UserKnn, VectorUserKnn
from encoder.classical.validated import LearnsValidation

__all__ = [
    "CooccurrenceRules",
    "DecayedPopularity",
    "Ease",
    "ItemKnn",
    "LearnsValidation",
    "Popularity",
    "UserKnn",
    "VectorUserKnn",
    "standard_baselines",
]
