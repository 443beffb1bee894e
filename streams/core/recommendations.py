"""The record of the public topic `recommendations` (schema v1)."""

from __future__ import annotations

from typing import Literal

import msgspec


class Source(msgspec.Struct, frozen=True):
    """The last event that the list reflects: the witness of freshness. `event_time` is epoch ms."""

    topic: str
    partition: int
    offset: int
    event_time: int


class ProfileSummary(msgspec.Struct, frozen=True):
    """`events` counts the accepted events of this user since the first: the witness of exactly-once effect."""

    events: int
    version: int
    model: str


class IndexSummary(msgspec.Struct, frozen=True):
    """`epoch` grows with every committed batch that changed the index; `users` is how many can be found."""

    epoch: int
    users: int


class Neighbour(msgspec.Struct, frozen=True, gc=False):
    """A user nearby; `similarity` is the cosine, best first."""

    user_id: str
    similarity: float


class SimilarUsers(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="similar-users"):
    """Neighbours had this item; `share` is this reason's part of the score."""

    users: list[str]
    share: float


class BecauseOf(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="because-of"):
    """The item resembles `item_id`, which the user had."""

    item_id: str
    share: float


class TogetherWith(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="together-with"):
    """People had the item shortly before or after `item_id`, which the user had."""

    item_id: str
    share: float


class PopularIn(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="popular-in"):
    """Many people have the item in `category`, which the user's last items are of."""

    category: str
    share: float


class NewIn(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="new-in"):
    """Nobody had the item yet; it is in `category`, which the user's last items are of."""

    category: str
    share: float


class PopularAmong(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="popular-among"):
    """Popular among people of the same group, such as `occupation:student`."""

    group: str
    share: float


class Again(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="again"):
    """The user had the item lately."""

    share: float


class Rising(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="rising"):
    """Many more people have the item of late than ever before."""

    share: float


class Trending(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="trending"):
    """Many people have the item right now."""

    share: float


Reason = SimilarUsers | BecauseOf | TogetherWith | PopularIn | NewIn | PopularAmong | Again | Rising | Trending
"""A reader takes `share` of a kind that it does not know: later versions may add kinds, and each has one."""


class RecommendedItem(msgspec.Struct, frozen=True, gc=False):
    """One item with its score and at least one reason; the shares of its reasons sum to 1."""

    item_id: str
    score: float
    reasons: list[Reason]


ShortWord = Literal["catalogue-exhausted", "rules", "fatigue", "caps"]
SHORT_SENTENCES: dict[ShortWord, str] = {
    "catalogue-exhausted": "The catalogue has nothing more that this user has not seen or bought.",
    "rules": "The rules take out whatever else there is.",
    "fatigue": "Whatever else there is pauses: this user was shown it often.",
    "caps": "More would be too many of one brand, provider or category.",
}


class Recommendation(msgspec.Struct, frozen=True):
    """A user's refreshed list. `generated_at` is epoch ms.

    `short_because` says why there are fewer items than asked for; it is left out where there are as many.
    """

    rec_id: str
    user_id: str
    generated_at: int
    cause: Literal["event", "neighbour", "model", "command"]
    source: Source
    profile: ProfileSummary
    index: IndexSummary
    neighbours: list[Neighbour]
    items: list[RecommendedItem]
    short_because: ShortWord | msgspec.UnsetType = msgspec.UNSET
