"""A trained model as a folder.

```
DIR/manifest.json           what the model is, its configs and figures; size and SHA-256 of every other file; checksum
DIR/weights-<hash>.safetensors      float32, or int8 rows with a scale each
DIR/vocabulary-<hash>.json          items, attributes and types; their order is the rows of the embeddings
DIR/content-<hash>.safetensors      frozen text vectors of the items known so far, by hash of their words (optional)
DIR/images-<hash>.safetensors       what the images of the items known so far add to their vectors (optional)
DIR/training-<hash>.safetensors     what a stopped training needs to go on (optional)
```

Files are named by their content and written before the manifest, which is replaced by one rename; files that it no
longer names are deleted after that. Killed at any moment, a writer leaves the old model or the new one, whole, and a
reader that finds a file deleted reads the new manifest. This file needs no torch: a worker reads what it serves with
numpy.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from encoder.config import ModelConfig, TrainingConfig
from encoder.errors import UnusableModel
from encoder.vocabulary import Vocabulary

SCHEMA = 1
MANIFEST = "manifest.json"
HASH_DIGITS = 12
INT8_MAX = 127
SCALE_SUFFIX = ".int8_scale"
READS_MAX = 8
"""A model that is replaced this often while it is read is given up."""

Arrays = dict[str, NDArray[Any]]
Found = TypeVar("Found")

PART_NAME = re.compile(
    rf"(weights|vocabulary|content|images|training)-[0-9a-f]{{{HASH_DIGITS}}}\.(safetensors|json)(\.part)?"
)


@dataclass(frozen=True)
class SavedModel:
    """What a model folder holds."""

    model: ModelConfig
    vocabulary: Vocabulary
    weights: Mapping[str, NDArray[Any]]
    """Parameters by their names in `encoder.model.SequenceModel`, float32."""
    text_encoder: str = ""
    """Name of the text encoder, as `encoder.text_encoders` knows it; "" for a model without texts."""
    text_encoder_version: str = ""
    """The encoder's own name and version: vectors of another one are not comparable."""
    content: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """`hashes` (n,) uint64 of the words of items and `vectors` (n, c) float16."""
    image_encoder_version: str = ""
    """The image encoder's own name and version; "" for a model without images."""
    images: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """`rows` (n,) int64 of items in the vocabulary and `parts` (n, d) float32: their projected images."""
    training: TrainingConfig | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Validation figures of these weights."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained on, for people: format, events, users, last time."""
    history: Sequence[Mapping[str, Any]] = ()
    """How the training went, for people: what each look at the validation queries saw, oldest first."""
    trained_at_s: int | None = None
    """When these weights were saved, epoch seconds; folders of before have none."""
    fingerprint: str = ""
    """Filled in by `load_model` and `save_model`: 12 hexadecimal digits that differ between any two models."""

    @property
    def name(self) -> str:
        """Name and version, as published with every list."""
        return f"{self.model.kind}@{self.fingerprint}"


def save_model(folder: Path, saved: SavedModel, *, resume: Arrays | None = None, int8: bool = False) -> str:
    """Writes the folder, in place of what was there; returns the fingerprint.

    Args:
        folder: made when missing.
        saved: the model.
        resume: state of a training that can go on.
        int8: a quarter of the size; each row of a matrix as int8 with its own scale.

    Raises:
        OSError: the disk is full or the folder cannot be written; what was there before stays whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = _in_order(saved.weights)
    contents = {
        "weights": ("safetensors", save(_quantised(weights) if int8 else weights)),
        "vocabulary": ("json", json.dumps(_words(saved.vocabulary)).encode()),
    }
    if saved.content:
        contents["content"] = ("safetensors", save(dict(saved.content)))
    if saved.images:
        contents["images"] = ("safetensors", save(_in_order(saved.images)))
    if resume:
        contents["training"] = ("safetensors", save(_in_order(resume)))
    files = {part: _write_part(folder, part, suffix, content) for part, (suffix, content) in contents.items()}
    fingerprint = _fingerprint(files, saved.model)
    manifest = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "model": asdict(saved.model),
        "text_encoder": {"name": saved.text_encoder, "version": saved.text_encoder_version},
        "image_encoder": {"version": saved.image_encoder_version},
        "weights": "int8" if int8 else "float32",
        "training": None if saved.training is None else asdict(saved.training),
        "metrics": dict(saved.metrics),
        "data": dict(saved.data),
        "history": [dict(seen) for seen in saved.history],
        "trained_at_s": saved.trained_at_s,
        "files": files,
    }
    manifest["checksum"] = _checksum(json.loads(json.dumps(manifest)))  # of what a reader will see
    _replace(folder / MANIFEST, json.dumps(manifest, indent=2).encode())
    _delete_unnamed(folder, {entry["name"] for entry in files.values()})
    return fingerprint


def load_model(folder: Path) -> SavedModel:
    """Reads a model, checked byte for byte.

    Raises:
        UnusableModel: there is none, a file is missing, truncated or changed, or a newer program wrote it.
    """
    return _consistent(folder, _load)


def _load(folder: Path, manifest: Mapping[str, Any]) -> SavedModel:
    return SavedModel(
        model=_model_config(manifest["model"], folder),
        vocabulary=_vocabulary(folder, manifest),
        weights=_dequantised(_safetensors(folder, manifest, "weights")),
        text_encoder=manifest["text_encoder"]["name"],
        text_encoder_version=manifest["text_encoder"]["version"],
        content=_safetensors(folder, manifest, "content") if "content" in manifest["files"] else {},
        image_encoder_version=manifest.get("image_encoder", {"version": ""})["version"],
        images=_safetensors(folder, manifest, "images") if "images" in manifest["files"] else {},
        training=None if manifest["training"] is None else _training_config(manifest["training"], folder),
        metrics=manifest["metrics"],
        data=manifest["data"],
        history=manifest.get("history", ()),
        trained_at_s=manifest.get("trained_at_s"),
        fingerprint=manifest["fingerprint"],
    )


def load_resume(folder: Path) -> Arrays:
    """The state of a training that can go on; empty when the folder holds none.

    Raises:
        UnusableModel: as `load_model`.
    """
    return _consistent(
        folder,
        lambda _, manifest: _safetensors(folder, manifest, "training") if "training" in manifest["files"] else {},
    )


def read_fingerprint(folder: Path) -> str:
    """Which model the folder holds, without reading it.

    Raises:
        UnusableModel: there is none.
    """
    return str(read_manifest(folder)["fingerprint"])


class _PartMissing(UnusableModel):
    """A file that the manifest names does not exist: lost, or deleted by a writer meanwhile."""


def _consistent(folder: Path, read: Callable[[Path, Mapping[str, Any]], Found]) -> Found:
    """Reads what one manifest names; anew when a writer has replaced it and deleted what the old one named."""
    manifest = read_manifest(folder)
    for _ in range(READS_MAX - 1):
        try:
            return read(folder, manifest)
        except _PartMissing:
            newer = read_manifest(folder)
            if newer == manifest:
                raise
            manifest = newer
    return read(folder, manifest)


def _in_order(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    # not ascontiguousarray, which makes a vector of a number
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def _checksum(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _words(vocabulary: Vocabulary) -> dict[str, list[str]]:
    return {f.name: getattr(vocabulary, f.name) for f in fields(Vocabulary) if f.init}


def _fingerprint(files: Mapping[str, Mapping[str, Any]], model: ModelConfig) -> str:
    served = [files[part]["sha256"] for part in ("weights", "vocabulary")]
    return hashlib.sha256(json.dumps([served, asdict(model)], sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]


def _write_part(folder: Path, part: str, suffix: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    name = f"{part}-{digest[:HASH_DIGITS]}.{suffix}"
    _replace(folder / name, content)
    return {"name": name, "bytes": len(content), "sha256": digest}


def _replace(path: Path, content: bytes) -> None:
    """Writes beside, syncs, renames: a reader sees the old bytes or the new."""
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _delete_unnamed(folder: Path, named: set[str]) -> None:
    for path in folder.iterdir():
        if PART_NAME.fullmatch(path.name) and path.name not in named:
            path.unlink(missing_ok=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the folder says of its model, its checksum and schema checked.

    Raises:
        UnusableModel: there is none, it is damaged, or a newer program wrote it.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        schema = manifest["schema"]
    except FileNotFoundError:
        raise UnusableModel(
            f"There is no model in {folder}: expected a folder with {MANIFEST}, as `nearstream train --out` writes it."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableModel(f"{path} is damaged ({error}): train again or restore the folder from a copy.") from error
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise UnusableModel(
            f"{path} has the schema {schema}, this program reads up to {SCHEMA}: it was written by a newer one; update."
        )
    if manifest.get("checksum") != _checksum(manifest):
        raise UnusableModel(
            f"{path} is damaged (its checksum does not fit): train again or restore the folder from a copy."
        )
    return dict(manifest)


def _part(folder: Path, manifest: Mapping[str, Any], part: str) -> bytes:
    entry = manifest["files"].get(part)
    if entry is None:
        raise UnusableModel(f"{folder / MANIFEST} names no file of {part}: train again or restore the folder.")
    path = folder / str(entry["name"])
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _PartMissing(f"{path} is missing: train again or restore the folder from a copy.") from None
    if len(content) != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise UnusableModel(
            f"{path} is damaged: expected {entry['bytes']} bytes with the SHA-256 of the manifest, got {len(content)}; "
            "train again or restore the folder from a copy."
        )
    return content


def _safetensors(folder: Path, manifest: Mapping[str, Any], part: str) -> Arrays:
    try:
        return dict(load(_part(folder, manifest, part)))
    except SafetensorError as error:
        raise UnusableModel(f"The {part} of {folder} cannot be read: {error}.") from error


def _vocabulary(folder: Path, manifest: Mapping[str, Any]) -> Vocabulary:
    try:
        return Vocabulary(**json.loads(_part(folder, manifest, "vocabulary")))
    except (TypeError, ValueError) as error:
        raise UnusableModel(f"The vocabulary of {folder} is not usable: {error}") from error


def _model_config(given: Mapping[str, Any], folder: Path) -> ModelConfig:
    """Fields that an older program did not know get their defaults; one that this program does not know may matter."""
    unknown = sorted(set(given) - {f.name for f in fields(ModelConfig)})
    if unknown:
        raise UnusableModel(
            f"The model in {folder} has settings that this program does not know: {', '.join(unknown)}; "
            "it was written by a newer one; update."
        )
    try:
        return ModelConfig(**given)
    except (TypeError, ValueError) as error:
        raise UnusableModel(f"The model's settings in {folder} are not usable: {error}") from error


def _training_config(given: Mapping[str, Any], folder: Path) -> TrainingConfig:
    """As above, but what a newer program trained with is no reason not to serve the model."""
    known = {f.name for f in fields(TrainingConfig)}
    try:
        return TrainingConfig(**{name: _tuples(value) for name, value in given.items() if name in known})
    except (TypeError, ValueError) as error:
        raise UnusableModel(f"The training's settings in {folder} are not usable: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def _quantised(weights: Arrays) -> Arrays:
    """Matrices as int8 rows with a float32 scale each; vectors and numbers stay as they are."""
    small: Arrays = {}
    for name, array in weights.items():
        if array.ndim != 2:
            small[name] = array
            continue
        scale = np.abs(array).max(axis=1, keepdims=True) / INT8_MAX
        small[name] = np.rint(np.divide(array, scale, out=np.zeros_like(array), where=scale > 0)).astype(np.int8)
        small[name + SCALE_SUFFIX] = scale.astype(np.float32)
    return small


def _dequantised(weights: Arrays) -> Arrays:
    return {
        name: array * weights[name + SCALE_SUFFIX] if array.dtype == np.int8 else array
        for name, array in weights.items()
        if not name.endswith(SCALE_SUFFIX)
    }
