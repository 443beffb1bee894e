"""The records of the public topics `events`, `items` and `users` (schema v1).

Decoding and validation of bytes is `streams.kafka.codec`'s business; here live the shapes, the limits and the
meaning of an event type.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

EVENT_ID_CHARS_MAX = 128
ID_CHARS_MAX = 256
IMAGE_CHARS_MAX = 1024
PROPERTIES_BYTES_MAX = 4096
EVENT_BYTES_MAX = 32_768
"""Room for the longest event of the contract with every character escaped (about 18 KB), and unknown fields."""
DESCRIPTION_BYTES_MAX = 1_048_576
"""An item or a user: what a Kafka topic takes by default."""
NESTING_MAX = 16
"""Objects and arrays inside one another, the message itself included."""
FUTURE_MS_MAX = 3_600_000
PERSON_PREFIX = "user:"
"""Where people are recommended, `user:<user_id>` is the item that a `follow` of that user names."""
PERSON_CATEGORY = "person"
"""Of such items, so that what is popular and what is new among people is told apart from products."""

Id = Annotated[str, Meta(min_length=1, max_length=ID_CHARS_MAX)]


class EventType(StrEnum):
    """What a person did with an item. `code`, its place in this order, is stored in profiles: append only."""

    code: int

    def __init__(self, _word: str) -> None:
        self.code = len(type(self).__members__)

    VIEW = "view"
    CLICK = "click"
    CART = "cart"
    PURCHASE = "purchase"
    RATING = "rating"
    LIKE = "like"
    DISLIKE = "dislike"
    COMMENT = "comment"
    SHARE = "share"
    BOOKMARK = "bookmark"
    FOLLOW = "follow"
    SEARCH = "search"
    IMPRESSION = "impression"
    REMOVE = "remove"


EVENT_TYPES: tuple[EventType, ...] = tuple(EventType)


Timestamp = Annotated[int, Meta(ge=0, description="Epoch milliseconds, UTC.")]
TimestampText = Annotated[
    str, Meta(description="RFC 3339 with an offset or Z.", extra_json_schema={"format": "date-time"})
]


class EventMessage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing a person did, as a producer sends it. The Kafka key is `user_id`; unknown fields are ignored."""

    user_id: Id
    item_id: Id
    type: EventType
    timestamp: Timestamp | TimestampText
    event_id: (
        Annotated[
            str,
            Meta(max_length=EVENT_ID_CHARS_MAX, description="Seen before for this user: a retry, without effect."),
        ]
        | None
    ) = None
    value: Annotated[float, Meta(description="Rating, price, quantity or dwell seconds; finite.")] | None = None
    rec_id: Annotated[str, Meta(max_length=ID_CHARS_MAX, description="The list that showed the item.")] | None = None
    session_id: Annotated[str, Meta(max_length=ID_CHARS_MAX)] | None = None
    properties: (
        Annotated[dict[str, Any], Meta(description=f"Anything else, at most {PROPERTIES_BYTES_MAX} bytes as sent.")]
        | None
    ) = None


class Event(EventMessage, frozen=True, gc=False, omit_defaults=True):
    """One thing a person did. `timestamp` is epoch milliseconds UTC, whatever form the producer sent."""

    timestamp: int


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the catalogue knows of an item; a tombstone on the topic means the item is gone."""

    item_id: Id
    title: str | None = None
    categories: list[str] = []
    brand: str | None = None
    provider: str | None = None
    price: float | None = None
    tags: list[str] = []
    text: str | None = None
    available: bool = True
    image: (
        Annotated[
            str,
            Meta(
                max_length=IMAGE_CHARS_MAX,
                description="Path of the item's picture below the workers' folder of images (NEARSTREAM_IMAGES).",
            ),
        ]
        | None
    ) = None

    def attributes(self) -> list[str]:
        """Tokens of what the item belongs to; a price is told by its power of two, in whatever currency."""
        tokens = [f"category:{category}" for category in self.categories]
        tokens += [f"brand:{self.brand}"] if self.brand else []
        tokens += [f"provider:{self.provider}"] if self.provider else []
        tokens += [f"tag:{tag}" for tag in self.tags]
        if self.price is not None and math.isfinite(self.price):
            tokens.append(f"price:{math.floor(math.log2(self.price))}" if self.price > 0 else "price:free")
        return tokens

    def description(self) -> str:
        """The words that stand for the item; empty when it has none."""
        words = [tag for tag in self.tags if not any(map(str.isdigit, tag))]  # with a digit it is a code
        parts = [self.title, *self.categories, self.brand, *words, self.text]
        return " ".join(part for part in parts if part)


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    """Personal attributes; a tombstone on the topic means: forget this user."""

    user_id: Id
    age: int | None = None
    gender: str | None = None
    occupation: str | None = None
    country: str | None = None
    attributes: dict[str, Any] = {}

    def tokens(self) -> list[str]:
        """Tokens of what is known of the person; an age is told by its decade."""
        tokens = [] if self.age is None else [f"age:{self.age // 10 * 10}"]
        named = {"gender": self.gender, "occupation": self.occupation, "country": self.country}
        tokens += [f"{name}:{value}" for name, value in named.items() if value]
        tokens += [f"{name}:{value}" for name, value in self.attributes.items() if isinstance(value, str | int | bool)]
        return tokens
