"""The served item tower, judged by the torch one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from encoder.checkpoint import SavedModel
from encoder.errors import UnusableModel
from encoder.inference import encoder_of
from encoder.items import HashedItemEncoder
from encoder.tower import ContentVectors, TowerItemEncoder, hash_text
from tests.fakes_encoder import random_model, torch_model

Floats = NDArray[np.float32]

DIM, CONTENT = 16, 12
ITEMS = [f"i{number}" for number in range(6)]
TEXTS = ["red shoes", "", "blue shoes", "a mug", "   ", "new words"]
ATTRIBUTES = [["brand:a"], [], ["brand:b", "brand:a", "brand:new"], ["brand:new"], [], ["brand:b"]]


class LetterCounts:
    """A text's vector is a fixed random direction per letter, summed."""

    name, dim = "letters@1", CONTENT

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> Floats:
        self.asked += texts
        letters = np.random.default_rng(0).standard_normal((128, CONTENT)).astype(np.float32)
        totals = np.stack([letters[[ord(letter) for letter in text]].sum(axis=0) for text in texts])
        return np.asarray(totals / np.linalg.norm(totals, axis=1, keepdims=True))


def content(known: Sequence[str] = (), letters: LetterCounts | None = None) -> ContentVectors:
    counts = letters or LetterCounts()
    stored = (
        {}
        if not known
        else {
            "hashes": np.array([hash_text(text) for text in known], np.uint64),
            "vectors": LetterCounts().encode(known).astype(np.float16),
        }
    )
    return ContentVectors(stored, lambda: counts, CONTENT)


def served(saved: SavedModel, vectors: ContentVectors | None) -> TowerItemEncoder:
    return TowerItemEncoder(saved.vocabulary, saved.weights, vectors, saved.model.dim)


def by_torch(saved: SavedModel, vectors: ContentVectors | None) -> Floats:
    words = saved.vocabulary
    rows = torch.tensor([words.item_rows.get(item, -1) for item in ITEMS])
    attributes = torch.from_numpy(words.item_attribute_rows(ATTRIBUTES)) if words.item_attributes else None
    texts = None if vectors is None else torch.from_numpy(vectors.encode(TEXTS))
    with torch.inference_mode():
        return np.asarray(torch_model(saved).tower(rows, texts, attributes).numpy())


@pytest.mark.parametrize("content_dim", [0, CONTENT])
@pytest.mark.parametrize("brands", [(), ("brand:a", "brand:b")])
def test_the_served_tower_is_the_trained_one(content_dim: int, brands: tuple[str, ...]) -> None:
    """With and without words and attributes, known items and new ones have the torch tower's vectors, to 1e-6."""
    saved = random_model(DIM, items=ITEMS[:5], item_attributes=brands, content_dim=content_dim)
    vectors = content() if content_dim else None
    found, expected = served(saved, vectors).encode(ITEMS, TEXTS, ATTRIBUTES), by_torch(saved, vectors)
    told = expected.any(axis=1)
    assert told[:5].all()
    np.testing.assert_allclose(found[told], expected[told], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


def test_images_count_as_in_training() -> None:
    """Items with an image have the torch tower's vectors to 1e-6; those without, and new ones, what else is known."""
    saved = random_model(DIM, items=ITEMS[:5], item_attributes=("brand:a", "brand:b"), image_dim=7, seed=3)
    images = np.random.default_rng(1).random((len(ITEMS), 7)).astype(np.float16)
    images[[1, 4]] = 0.0
    matrix, mean = saved.weights["tower.image.weight"], saved.weights["tower.image_mean"]
    rows = np.array([0, 2, 3])
    parts = (images[rows].astype(np.float32) - mean) @ matrix.T
    kept = {"rows": rows, "parts": parts}
    found = TowerItemEncoder(saved.vocabulary, saved.weights, None, DIM, kept).encode(ITEMS, TEXTS, ATTRIBUTES)
    images[5] = 0.0  # it came after the training
    with torch.inference_mode():
        expected = torch_model(saved).tower(
            torch.tensor([saved.vocabulary.item_rows.get(item, -1) for item in ITEMS]),
            None,
            torch.from_numpy(saved.vocabulary.item_attribute_rows(ATTRIBUTES)),
            torch.from_numpy(images).float(),
        )
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)
    without = TowerItemEncoder(saved.vocabulary, saved.weights, None, DIM).encode(ITEMS, TEXTS, ATTRIBUTES)
    assert [bool(np.allclose(*pair)) for pair in zip(found, without, strict=True)] == [
        item not in {"i0", "i2", "i3"} for item in ITEMS
    ]


def test_images_that_come_later_count_as_in_training() -> None:
    """New items, known ones without an image and those with another have torch's vectors; zeros take an image away."""
    saved = random_model(DIM, items=ITEMS[:5], item_attributes=("brand:a", "brand:b"), image_dim=7, seed=3)
    trained, later = np.random.default_rng(1).normal(size=(2, len(ITEMS), 7)).astype(np.float32)
    parts = (trained[[3, 0]] - saved.weights["tower.image_mean"]) @ saved.weights["tower.image.weight"].T
    kept = {"rows": np.array([3, 0]), "parts": parts}
    tower = TowerItemEncoder(saved.vocabulary, saved.weights, None, DIM, kept, image_dim=7, image_encoder="pictures@1")
    assert tower.image_encoder == "pictures@1"
    seen = np.zeros((len(ITEMS), 7), np.float32)
    seen[[0, 3]] = trained[[0, 3]]

    def check() -> None:
        with torch.inference_mode():
            expected = torch_model(saved).tower(
                torch.tensor([saved.vocabulary.item_rows.get(item, -1) for item in ITEMS]),
                None,
                torch.from_numpy(saved.vocabulary.item_attribute_rows(ATTRIBUTES)),
                torch.from_numpy(seen),
            )
        found = tower.encode(ITEMS, TEXTS, ATTRIBUTES)
        told = expected.numpy().any(axis=1)  # of the others nothing is known but their ids
        np.testing.assert_allclose(found[told], expected.numpy()[told], rtol=0, atol=1e-6)

    check()
    seen[[1, 3, 5]] = later[[1, 3, 5]]
    tower.learn_images([ITEMS[row] for row in (1, 3, 5)], later[[1, 3, 5]])
    check()
    seen[[1, 0]] = 0.0
    tower.learn_images([ITEMS[1], ITEMS[0]], np.zeros((2, 7), np.float32))
    check()


def test_images_of_another_width_are_refused() -> None:
    """By a model that sees images of another width or none at all; nothing has moved."""
    saved = random_model(DIM, items=ITEMS[:5])
    blind = TowerItemEncoder(saved.vocabulary, saved.weights, None, DIM)
    before = blind.encode(ITEMS, TEXTS, ATTRIBUTES)
    with pytest.raises(UnusableModel, match=r"of the shape \(1, 0\), got \(1, 7\)"):
        blind.learn_images([ITEMS[0]], np.ones((1, 7), np.float32))
    np.testing.assert_array_equal(blind.encode(ITEMS, TEXTS, ATTRIBUTES), before)


@pytest.mark.parametrize(
    "images",
    [
        {"rows": np.array([0])},
        {"rows": np.array([0]), "parts": np.zeros((1, DIM + 1), np.float32)},
        {"rows": np.array([2]), "parts": np.zeros((1, DIM), np.float32)},
        {"rows": np.array([-1]), "parts": np.zeros((1, DIM), np.float32)},
        {"rows": np.array([0]), "parts": np.full((1, DIM), np.nan, np.float32)},
    ],
)
def test_images_that_do_not_fit_are_refused(images: dict[str, NDArray[np.float32]]) -> None:
    """Without parts, of another width, of items that are not there, or not finite."""
    saved = random_model(DIM)
    with pytest.raises(UnusableModel, match="train again"):
        TowerItemEncoder(saved.vocabulary, saved.weights, None, DIM, images)


def test_an_item_without_anything_has_a_direction_of_its_own() -> None:
    """A new item without words and attributes gets the direction of its id, the same at each call."""
    encoder = served(random_model(DIM, content_dim=CONTENT), content())
    first = encoder.encode(["new", "other"], ["", " "], [(), ["brand:new"]])
    np.testing.assert_array_equal(first, HashedItemEncoder(DIM).directions(["new", "other"]))


def test_a_new_item_is_near_one_with_its_words() -> None:
    """Two items that training never saw and that have the same words have the same vector."""
    encoder = served(random_model(DIM, content_dim=CONTENT), content())
    one, other, third = encoder.encode(["new", "newer", "newest"], ["red shoes", "red shoes", "a mug"], [(), (), ()])
    np.testing.assert_array_equal(one, other)
    assert not np.allclose(one, third)


def test_stored_words_need_no_text_encoder() -> None:
    """Words that came with the model are looked up; only others open the encoder, once, and blank ones never."""
    letters, opened = LetterCounts(), []

    def open_encoder() -> LetterCounts:
        opened.append(letters)
        return letters

    stored = {
        "hashes": np.array([hash_text("red shoes")], np.uint64),
        "vectors": LetterCounts().encode(["red shoes"]).astype(np.float16),
    }
    vectors = ContentVectors(stored, open_encoder, CONTENT)
    assert not vectors.encode(["", "  "]).any()
    known = vectors.encode(["red shoes"])
    assert opened == []
    new = vectors.encode(["a mug", "red shoes", "a mug"])
    vectors.encode(["a mug"])
    assert (len(opened), set(letters.asked)) == (1, {"a mug"})
    np.testing.assert_array_equal(new[1], known[0])


def test_a_restart_moves_no_item() -> None:
    """Words give the same bits whether they came with the model or were encoded anew."""
    np.testing.assert_array_equal(content(["a mug"]).encode(["a mug"]), content().encode(["a mug"]))


def test_a_hash_is_the_same_on_every_machine() -> None:
    """The hash of words is part of the format of a model folder."""
    assert hash_text("red shoes") == 12417761723067243242


def test_a_vocabulary_of_another_model_is_refused() -> None:
    """A vocabulary with more items or attributes than the weights have rows is named with both shapes."""
    small, large = random_model(DIM), random_model(DIM, items=("i1", "i2", "i3"), item_attributes=("brand:a",))
    with pytest.raises(
        UnusableModel, match=r"tower.ids.weight do not fit: expected the shape \(3, 16\), got the shape"
    ):
        encoder_of(SavedModel(large.model, large.vocabulary, small.weights), ())
    missing = {name: array for name, array in large.weights.items() if name != "tower.attributes.weight"}
    with pytest.raises(UnusableModel, match=r"tower.attributes.weight do not fit.*got nothing"):
        encoder_of(SavedModel(large.model, large.vocabulary, missing), ())


def test_columns_of_different_lengths_are_refused() -> None:
    """There must be one text and one list of attributes per id."""
    with pytest.raises(ValueError, match="got 2 item ids, 1 descriptions and 2 lists"):
        served(random_model(DIM), None).encode(["a", "b"], [""], [(), ()])
