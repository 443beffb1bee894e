"""HashedItemEncoder and TextItemEncoder: words first, then the id."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.items import HashedItemEncoder, TextItemEncoder
from encoder.text import StaticTextEncoder

GOLDEN = ["-++--+-+---++---", "++++-+++---++--+"]


def test_an_ids_direction_never_changes() -> None:
    """The signs of known ids are the ones that earlier versions drew: stored profiles depend on them."""
    drawn = HashedItemEncoder(16, seed=7).directions(["i1", "café"])
    signs = ["".join("+" if value > 0 else "-" for value in row) for row in drawn]
    assert signs == GOLDEN
    assert np.unique(np.abs(drawn)).tolist() == [0.25]


def test_directions_look_random() -> None:
    """Over many ids the cosines have mean 0 and deviation 1/√d, and each axis is balanced."""
    vectors = HashedItemEncoder(64).directions([f"item-{n}" for n in range(2000)])
    cosines = (vectors @ vectors.T)[np.triu_indices(2000, 1)]
    assert abs(cosines.mean()) < 0.001
    assert cosines.std() == pytest.approx(1 / 8, rel=0.02)
    assert np.abs(vectors.mean(axis=0) * 8).max() < 0.1


def test_the_seed_draws_other_directions() -> None:
    """Two seeds give unrelated directions to one id."""
    first, second = (HashedItemEncoder(256, seed).directions(["a"])[0] for seed in (0, 1))
    assert abs(float(first @ second)) < 0.3


def test_any_id_and_width_is_taken() -> None:
    """Widths that are no multiple of 8 work, and so do empty ids, long ids and lone surrogates."""
    vectors = HashedItemEncoder(13).directions(["", "x" * 256, "\ud800", "日本"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_words_decide_where_there_are_any() -> None:
    """With words the vector is the text's whatever the id; without, the id's own direction."""
    text_encoder = StaticTextEncoder(32)
    encoder = TextItemEncoder(text_encoder, seed=3)
    vectors = encoder.encode(["a", "b", "c", "d"], ["red shoes", "", "red shoes", "  "], [()] * 4)
    assert vectors[0].tobytes() == vectors[2].tobytes() == text_encoder.encode(["red shoes"])[0].tobytes()
    assert vectors[[1, 3]].tobytes() == HashedItemEncoder(32, seed=3).directions(["b", "d"]).tobytes()


@pytest.mark.parametrize("encoder", [HashedItemEncoder(8), TextItemEncoder(StaticTextEncoder(8))])
def test_ids_and_descriptions_come_in_pairs(encoder: HashedItemEncoder | TextItemEncoder) -> None:
    """One description and one list of attributes is due per id."""
    with pytest.raises(ValueError, match="2 item ids, 1 descriptions"):
        encoder.encode(["a", "b"], ["only one"], [(), ()])


@pytest.mark.parametrize(("dim", "seed"), [(0, 0), (8, -1), (8, 2**64)])
def test_senseless_parameters_of_items_are_refused(dim: int, seed: int) -> None:
    """A width below 1 or a seed outside 64 bits is refused at once."""
    with pytest.raises(ValueError, match="must"):
        HashedItemEncoder(dim, seed)
