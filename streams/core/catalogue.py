"""Items by slot: their ids, vectors and whether they may be recommended."""

from __future__ import annotations

from itertools import islice, repeat
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from streams.core.item_facts import ItemFacts, grown
from streams.core.profile import GROWTH, ROWS_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streams.core.events import Item
    from streams.core.ports import Floats, ItemEncoder, Slots


class Words(NamedTuple):
    """What is known of an item, as its encoder reads it."""

    description: str
    attributes: Sequence[str]


NO_WORDS = Words("", ())


class ItemWords(NamedTuple):
    """What an encoder needs to know of some items, as of one moment."""

    slots: Slots
    revisions: NDArray[np.int32]
    """Which words these are: a number that grows with every change of the item's."""
    item_ids: list[str]
    words: list[Words]


@runtime_checkable
class SeesImages(Protocol):
    """An item encoder whose vectors an item's image moves too."""

    @property
    def image_encoder(self) -> str:
        """Name and version of what makes the image vectors; "" for a model that sees no images."""
        ...

    def learn_images(self, item_ids: Sequence[str], vectors: Floats) -> None:
        """From now on these (n, m) are the vectors of the items' images; zeros for one that has none any more."""
        ...


class Catalogue:
    """Every item seen in events or on the items topic. A slot is given once and never reused.

    The words of each item are kept, so that another model can be taken into service (`ItemWords`, `replace_vectors`).
    Not thread-safe: read and written in the compute thread only.
    """

    def __init__(self, encoder: ItemEncoder) -> None:
        self._encoder = encoder
        self._vectors = np.zeros((ROWS_MIN, encoder.dim), np.float32)
        self._described = np.zeros(ROWS_MIN, np.bool_)
        self._available = np.zeros(ROWS_MIN, np.bool_)
        self._revisions = np.zeros(ROWS_MIN, np.int32)
        self._words: list[Words] = []
        self._images: dict[str, str] = {}
        self._unseen: dict[str, str | None] = {}
        """Images that the encoder does not know, in the order in which they came; None is one that is no more."""
        self.facts = ItemFacts()
        self.item_ids: list[str] = []
        self.slot_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def vectors(self) -> Floats:
        """(items, d) unit vectors; a view, valid until the next change of the catalogue."""
        return self._vectors[: len(self)]

    @property
    def capacity(self) -> int:
        """Items there is room for before the columns grow."""
        return len(self._vectors)

    @property
    def described(self) -> NDArray[np.bool_]:
        """(items,) the vector comes from the item's own words or image, so that its neighbours mean something."""
        return self._described[: len(self)]

    @property
    def available(self) -> NDArray[np.bool_]:
        """(items,) may be recommended."""
        return self._available[: len(self)]

    def words_since(self, revisions: NDArray[np.int32], items_max: int) -> ItemWords:
        """Of at most `items_max` items whose words are not those of `revisions` (items, or fewer); 0 is none yet."""
        known = self._revisions[: len(self)].copy()
        compared = min(len(known), len(revisions))
        stale = known > 0
        stale[:compared] = known[:compared] != revisions[:compared]
        slots = np.flatnonzero(stale)[:items_max].astype(np.int32)
        picked = slots.tolist()
        return ItemWords(
            slots, known[slots], [self.item_ids[slot] for slot in picked], [self._words[slot] for slot in picked]
        )

    def replace_vectors(self, encoder: ItemEncoder, vectors: Floats) -> tuple[ItemEncoder, Floats]:
        """Takes over the unit vectors (capacity, d) of another model, and its encoder for whatever comes next.

        Returns what was there before.

        Raises:
            ValueError: the vectors are no matrix of that many rows; nothing has changed.
        """
        if vectors.shape != (self.capacity, encoder.dim):
            raise ValueError(f"expected vectors of the shape {(self.capacity, encoder.dim)}, got {vectors.shape}")
        former = self._encoder, self._vectors
        self._encoder, self._vectors = encoder, vectors
        return former

    @property
    def image_encoder(self) -> SeesImages | None:
        """The encoder, if images move its vectors."""
        encoder = self._encoder
        return encoder if isinstance(encoder, SeesImages) and encoder.image_encoder else None

    @property
    def unseen_images(self) -> int:
        """How many items `take_unseen_images` would give."""
        return len(self._unseen)

    def take_unseen_images(self, items_max: int) -> dict[str, str | None]:
        """At most so many items whose image changed since it was taken, oldest first; None is an image that is no more.

        Whoever takes them brings their vectors to `learn_images`: they are not given twice.
        """
        return {item_id: self._unseen.pop(item_id) for item_id in list(islice(self._unseen, items_max))}

    def forget_seen_images(self) -> None:
        """Gives every image anew, for an encoder that has not learned them."""
        self._unseen = dict(self._images)

    def learn_images(self, item_ids: Sequence[str], vectors: Floats) -> None:
        """Moves the items' vectors by those of their images (n, m); zeros take an image away. Their words stay.

        Raises:
            ValueError: the encoder sees no images.
        """
        if (encoder := self.image_encoder) is None:
            raise ValueError("expected an encoder that sees images, the one that serves does not")
        encoder.learn_images(item_ids, vectors)
        slots = self.slots(item_ids)
        self._described[slots] |= vectors.any(axis=1)
        words = [self._words[slot] for slot in slots.tolist()]
        self._vectors[slots] = self._encoder.encode(
            item_ids, [known.description for known in words], [known.attributes for known in words]
        )

    def slots(self, item_ids: Sequence[str]) -> Slots:
        """Slots of the items; those never seen enter with a random direction of their own."""
        slots = np.fromiter(map(self.slot_of.get, item_ids, repeat(-1)), np.int32, len(item_ids))
        if (slots < 0).any():
            unknown = list(dict.fromkeys(item_ids[row] for row in np.flatnonzero(slots < 0).tolist()))
            self._add(unknown, self._encoder.encode(unknown, [""] * len(unknown), [()] * len(unknown)))
            slots = np.fromiter(map(self.slot_of.__getitem__, item_ids), np.int32, len(item_ids))
        return slots

    def restore(self, item_ids: Sequence[str]) -> None:
        """Gives these items the slots 0, 1, ... with random directions; their words come by `put`.

        Raises:
            ValueError: there are items already, or an id is there twice.
        """
        if len(self) or len(set(item_ids)) != len(item_ids):
            raise ValueError(f"expected an empty catalogue and distinct ids, got {len(self)} items")
        self.slots(item_ids)

    def put(self, items: Sequence[Item]) -> None:
        """Takes over what is now known of the items; their vectors follow their words at once."""
        items = list({item.item_id: item for item in items}.values())
        descriptions = [item.description() for item in items]
        ids = [item.item_id for item in items]
        attributes = [item.attributes() for item in items]
        vectors = self._encoder.encode(ids, descriptions, attributes)
        known = np.array([item_id in self.slot_of for item_id in ids], np.bool_)
        fresh = np.flatnonzero(~known)
        self._add([ids[row] for row in fresh.tolist()], vectors[fresh])
        slots = self.slots(ids)
        self._vectors[slots] = vectors
        was_described = self._described[slots].tolist()
        self._described[slots] = [
            bool(text) or (was and item.image is not None and item.image == self._images.get(item.item_id))
            for text, was, item in zip(descriptions, was_described, items, strict=True)
        ]
        self._available[slots] = [item.available for item in items]
        self._revisions[slots] += 1
        self.facts.put(slots, items, attributes)
        for slot, description, known_attributes in zip(slots.tolist(), descriptions, attributes, strict=True):
            self._words[slot] = Words(description, known_attributes)
        for item in items:
            self._note_image(item)

    def withdraw(self, item_ids: Sequence[str]) -> None:
        """Items that are gone are recommended no more; profiles keep what they learned from them.

        One never seen is remembered too: after a restart the tombstone is read before the events of the item.
        """
        self._available[self.slots(item_ids)] = False

    def _note_image(self, item: Item) -> None:
        image = item.image or None
        if image == self._images.get(item.item_id):
            return
        self._unseen[item.item_id] = image
        if image is None:
            del self._images[item.item_id]
        else:
            self._images[item.item_id] = image

    def _add(self, item_ids: Sequence[str], vectors: Floats) -> None:
        first, end = len(self), len(self) + len(item_ids)
        if end > len(self._vectors):
            rows = max(end, int(len(self._vectors) * GROWTH))
            self._vectors = grown(self._vectors, rows, 0)
            self._described = grown(self._described, rows, 0)
            self._available = grown(self._available, rows, 0)
            self._revisions = grown(self._revisions, rows, 0)
        self._vectors[first:end] = vectors
        self._available[first:end] = True
        self._revisions[first:end] = 1
        self._words.extend(repeat(NO_WORDS, len(item_ids)))
        self.facts.extend(len(item_ids))
        self.slot_of.update(zip(item_ids, range(first, end), strict=True))
        self.item_ids.extend(item_ids)
