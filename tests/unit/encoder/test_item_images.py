"""A folder of images becomes the vectors of a catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.errors import UnusableData
from encoder.item_images import BAD_NAMED_MAX, ImageVectors, file_vectors, image_vectors

Floats = NDArray[np.float32]


class FirstBytes:
    """An image's vector points along the axis that its first letter names; `-` is no image. Notes what it reads."""

    dim = 26

    def __init__(self, name: str = "letters@1") -> None:
        self.name = name
        self.read: list[str] = []

    def encode(self, paths: Sequence[Path], *, on_bad: Callable[[UnusableData], None]) -> Floats:
        vectors = np.zeros((len(paths), self.dim), np.float32)
        for row, path in enumerate(paths):
            self.read.append(path.name)
            letter = path.read_text()[0]
            if letter == "-":
                on_bad(UnusableData(f"{path} cannot be read as an image."))
            else:
                vectors[row, ord(letter) - ord("a")] = 1.0
        return vectors


class Shelf:
    """A folder of images, a cache, and what was said of bad ones."""

    def __init__(self, folder: Path) -> None:
        self.images, self.cache = folder / "images", folder / "cache"
        self.images.mkdir()
        self.bad: list[str] = []
        self.encoder = FirstBytes()

    def put(self, **files: str) -> None:
        for name, content in files.items():
            (self.images / name.replace("_", ".")).write_text(content)

    def vectors(self, *item_ids: str) -> ImageVectors:
        return image_vectors(
            self.encoder,
            self.images,
            item_ids,
            self.cache,
            on_progress=lambda _done, _total: None,
            on_bad=self.bad.append,
        )

    def letters(self, *item_ids: str) -> str:
        vectors = self.vectors(*item_ids).vectors
        return "".join("abcdefghijklmnopqrstuvwxyz"[row.argmax()] if row.any() else "." for row in vectors)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_file_belongs_to_the_item_of_its_name(shelf: Shelf) -> None:
    """In the order of the items, zeros for one without an image; other files and folders are not read."""
    shelf.put(i1_png="a", i2_jpg="b", readme_txt="-")
    (shelf.images / "i3.png").mkdir()
    found = shelf.vectors("i2", "i3", "i1")
    assert found.version == "letters@1"
    assert found.vectors.dtype == np.float16
    assert shelf.letters("i2", "i3", "i1") == "b.a"
    assert sorted(shelf.encoder.read) == ["i1.png", "i2.jpg"]
    assert shelf.bad == []


def test_only_the_last_suffix_is_cut_and_the_first_file_counts(shelf: Shelf) -> None:
    """Ids may hold dots; of several files of one item the first by name is its image."""
    (shelf.images / "v1.2.png").write_text("a")
    shelf.put(i1_png="c", i1_jpg="b")
    assert shelf.letters("v1.2", "i1", "v1") == "ab."


def test_an_image_is_encoded_once_for_all_its_items_and_trainings(shelf: Shelf) -> None:
    """Equal bytes under two names, and again under a third in the next training; another encoder reads anew."""
    shelf.put(i1_png="a", i2_png="a")
    assert shelf.letters("i1", "i2") == "aa"
    assert shelf.encoder.read == ["i1.png"]
    shelf.put(i3_png="a", i4_png="b")
    assert shelf.letters("i3", "i4") == "ab"
    assert shelf.encoder.read == ["i1.png", "i4.png"]
    shelf.encoder = FirstBytes("letters@2")
    assert shelf.letters("i1") == "a"
    assert shelf.encoder.read == ["i1.png"]


def test_a_bad_image_is_named_each_time_and_the_others_count(shelf: Shelf) -> None:
    """The first training, and the next one, which finds it in the cache."""
    shelf.put(i1_png="a", i2_png="-")
    for _ in range(2):
        assert shelf.letters("i1", "i2") == "a."
        assert shelf.bad == [f"{shelf.images / 'i2.png'} cannot be read as an image."]
        shelf.bad.clear()


def test_a_mended_image_counts(shelf: Shelf) -> None:
    """The cache knows contents, not names."""
    shelf.put(i1_png="a", i2_png="-")
    shelf.letters("i1", "i2")
    shelf.put(i2_png="b")
    assert shelf.letters("i1", "i2") == "ab"


def test_many_bad_images_are_counted(shelf: Shelf) -> None:
    """Ten by name, the rest in one sentence."""
    items = [f"i{n}" for n in range(BAD_NAMED_MAX + 3)]
    for n, item in enumerate(items):
        (shelf.images / f"{item}.png").write_text(f"-{n}")
    shelf.put(good_png="a")
    assert shelf.letters("good", *items) == "a" + "." * len(items)
    assert len(shelf.bad) == BAD_NAMED_MAX + 1
    assert shelf.bad[-1] == "3 more files cannot be read as images either."


def test_nothing_to_learn_from_is_said(shelf: Shelf, tmp_path: Path) -> None:
    """No folder, no file named as an item, no image among those that are."""
    shelf.images.rename(tmp_path / "elsewhere")
    with pytest.raises(UnusableData, match="named by item id"):
        shelf.vectors("i1")
    shelf.images.mkdir()
    shelf.put(x_png="a")
    with pytest.raises(UnusableData, match=r"None of the 1 files .* such as i1\.jpg"):
        shelf.vectors("i2", "i1")
    shelf.put(i1_png="-")
    with pytest.raises(UnusableData, match="None of the 1 images"):
        shelf.vectors("i1")
    assert len(shelf.bad) == 1


def test_files_have_vectors_in_their_order_and_bad_ones_are_told_of(shelf: Shelf) -> None:
    """Zeros for a file that is missing or no image, each told of with its place and reason; others are not held up."""
    shelf.put(x_png="a", y_png="-", z_png="c")
    paths = [shelf.images / name for name in ("z.png", "absent.png", "y.png", "x.png", "z.png")]
    told: list[tuple[int, str]] = []
    vectors = file_vectors(shelf.encoder, paths, shelf.cache, on_bad=lambda row, reason: told.append((row, reason)))
    assert vectors.argmax(axis=1).tolist() == [2, 0, 0, 0, 2]
    assert vectors.any(axis=1).tolist() == [True, False, False, True, True]
    assert sorted(row for row, _ in told) == [1, 2]
    assert "absent.png cannot be read: No such file" in dict(told)[1]
    assert "y.png cannot be read as an image" in dict(told)[2]


def test_a_file_seen_before_is_not_encoded_again(shelf: Shelf) -> None:
    """By its content, whatever its name; nothing at all for no files."""
    shelf.put(x_png="a", copy_png="a")
    for name in ("x.png", "copy.png"):
        file_vectors(shelf.encoder, [shelf.images / name], shelf.cache, on_bad=lambda _row, _reason: None)
    assert shelf.encoder.read == ["x.png"]
    assert file_vectors(shelf.encoder, [], shelf.cache, on_bad=lambda _row, _reason: None).shape == (0, 26)
