"""CPU time of one encoder step, as JSON: `OMP_NUM_THREADS=1 PYTHONPATH=. python tests/benchmarks/encoder_step.py`.

Microseconds per event of the served step, in batches of 512 events of as many users and one by one, beside the torch
module's own step and, where `onnx` and `onnxruntime` are installed, theirs; bytes per user; and what int8 weights and
int8 vectors do to the vectors. The least of many rounds counts: the machine has other work too.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom

from encoder.checkpoint import load_model, save_model
from encoder.features import event_features
from encoder.inference import encoder_of
from streams.core.ports import EncoderEvents
from tests.fakes_encoder import EVENT_TYPES, random_model, torch_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from encoder.checkpoint import SavedModel
    from encoder.model import SequenceModel
    from streams.core.ports import Floats

DIM, WIDTH, BATCH, ITEMS = 64, 128, 512, 2000
BATCH_ROUNDS, SINGLE_ROUNDS, SINGLE_CALLS = 300, 60, 50
INT8_MAX = 127


def model() -> SavedModel:
    """Random weights of the size that training starts from: a row of a matrix has about unit length."""
    made = random_model(DIM, items=[f"i{number}" for number in range(ITEMS)], types=EVENT_TYPES)
    for name, array in made.weights.items():
        if array.ndim == 2 and name.startswith("blocks"):
            np.divide(array, 0.3 * math.sqrt(array.shape[1]), out=array)
    return made


def some_events(count: int, users: int, rng: np.random.Generator) -> EncoderEvents:
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    return EncoderEvents(
        rows=rng.permutation(np.arange(count, dtype=np.int32) % users),
        item_vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        weights=np.ones(count, np.float32),
        gaps_s=rng.exponential(1000.0, count).astype(np.float32),
        types=rng.integers(0, len(EVENT_TYPES), count).astype(np.uint8),
        ratings=np.full(count, np.nan, np.float32),
    )


def least_us(call: Callable[[], object], rounds: int, calls: int = 1) -> float:
    call()
    took = []
    for _ in range(rounds):
        began_s = process_time()
        for _ in range(calls):
            call()
        took.append((process_time() - began_s) / calls)
    return 1e6 * min(took)


@torch.inference_mode()
def torch_step(module: SequenceModel, state: torch.Tensor, item: torch.Tensor, kind: Any, features: Any) -> Any:
    """(b, h) states and (b, d) vectors after one event each."""
    x = item * math.sqrt(DIM) + module.types(kind) + module.features(features)
    block = module.blocks[0]
    normed = block.mix_norm(x)
    decay = torch.sigmoid(block.mix.decay(normed))
    state = decay * state + (1 - decay) * block.mix.value(normed)
    x = x + block.mix.out(state * F.silu(block.mix.gate(normed)))
    x = x + block.feed_out(F.relu(block.feed_in(block.feed_norm(x))))
    return state, F.normalize(module.projection(module.norm(x)), dim=-1)


def onnx_session(saved: SavedModel) -> Any:
    """The same step as a graph for onnxruntime, on one thread."""
    import onnx  # noqa: PLC0415 - measured only where it is installed
    import onnxruntime  # noqa: PLC0415

    make = onnx.helper
    nodes, known = [], {}

    def node(kind: str, *inputs: str, **settings: Any) -> str:
        name = f"n{len(nodes)}"
        nodes.append(make.make_node(kind, list(inputs), [name], **settings))
        return name

    def constant(name: str, value: Any) -> str:
        known[name] = onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def weight(name: str) -> str:
        return constant(name, saved.weights[name])

    def linear(x: str, name: str) -> str:
        bias = [weight(f"{name}.bias")] if f"{name}.bias" in saved.weights else []
        return node("Gemm", x, weight(f"{name}.weight"), *bias, transB=1)

    def norm(x: str, name: str) -> str:
        return node("LayerNormalization", x, weight(f"{name}.weight"), weight(f"{name}.bias"), epsilon=1e-5)

    scaled = node("Mul", "item", constant("scale", np.float32(math.sqrt(DIM))))
    kinds = node("Gather", weight("types.weight"), "kind")
    x = node("Add", node("Add", scaled, kinds), linear("features", "features"))
    normed = norm(x, "blocks.0.mix_norm")
    decay = node("Sigmoid", linear(normed, "blocks.0.mix.decay"))
    left = node("Sub", constant("one", np.float32(1.0)), decay)
    new = node("Mul", left, linear(normed, "blocks.0.mix.value"))
    state = node("Add", node("Mul", decay, "state"), new)
    gate = linear(normed, "blocks.0.mix.gate")
    gated = node("Mul", state, node("Mul", gate, node("Sigmoid", gate)))
    x = node("Add", x, linear(gated, "blocks.0.mix.out"))
    hidden = node("Relu", linear(norm(x, "blocks.0.feed_norm"), "blocks.0.feed_in"))
    x = node("Add", x, linear(hidden, "blocks.0.feed_out"))
    vector = node("LpNormalization", linear(norm(x, "norm"), "projection"), axis=1)
    floats, integers = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    widths = {"state": WIDTH, "item": DIM, "features": 4}
    inputs = [make.make_tensor_value_info(name, floats, ["b", width]) for name, width in widths.items()]
    inputs.append(make.make_tensor_value_info("kind", integers, ["b"]))
    outputs = [make.make_tensor_value_info(name, floats, ["b", n]) for name, n in ((state, WIDTH), (vector, DIM))]
    graph = make.make_graph(nodes, "step", inputs, outputs, list(known.values()))
    whole = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])


def step_times(saved: SavedModel, count: int, rounds: int, calls: int) -> dict[str, float]:
    """Microseconds per event of each way, for `count` events of as many users; all agree on the vectors."""
    events = some_events(count, count, np.random.default_rng(0))
    served = encoder_of(saved, EVENT_TYPES).profiles
    states = np.zeros((count, served.state_width), np.float32)
    served.step(states, events)
    expected = served.vectors(states)[events.rows]
    module, kinds = torch_model(saved), saved.vocabulary.type_rows(EVENT_TYPES)[events.types]
    features = event_features(events.gaps_s, events.ratings)
    start = np.zeros((count, WIDTH), np.float32)
    given = [torch.from_numpy(each) for each in (start, events.item_vectors, kinds, features)]
    np.testing.assert_allclose(torch_step(module, *given)[1].numpy(), expected, atol=1e-5)
    ways: dict[str, Callable[[], object]] = {
        "served_step": lambda: served.step(states, events),
        "served_step_and_vectors": lambda: (served.step(states, events), served.vectors(states)),
        "torch_step_and_vectors": lambda: torch_step(module, *given),
    }
    if find_spec("onnx") and find_spec("onnxruntime"):
        session = onnx_session(saved)
        feeds = {"state": start, "item": events.item_vectors, "kind": kinds, "features": features}
        np.testing.assert_allclose(session.run(None, feeds)[1], expected, atol=1e-5)
        ways["onnxruntime_step_and_vectors"] = lambda: session.run(None, feeds)
    return {name: round(least_us(way, rounds, calls) / count, 2) for name, way in ways.items()}


def cosines(one: Floats, other: Floats) -> dict[str, float]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found = (one * other).sum(axis=1) / lengths
    return {"mean": round(float(found.mean()), 6), "least": round(float(found.min()), 6)}


def int8_figures(saved: SavedModel) -> dict[str, Any]:
    """Vectors of int8 weights, and int8 vectors, against float32 ones; bytes of both folders' weights."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {}
        for name in ("float32", "int8"):
            save_model(Path(folder) / name, saved, int8=name == "int8")
            (file,) = (Path(folder) / name).glob("weights-*")
            sizes[name] = file.stat().st_size
        small = load_model(Path(folder) / "int8")
    users: dict[str, Floats] = {}
    items: dict[str, Floats] = {}
    history = np.random.default_rng(1).integers(0, ITEMS, 20 * 300)
    for name, each in (("float32", saved), ("int8", small)):
        served = encoder_of(each, EVENT_TYPES)
        items[name] = served.items.encode(each.vocabulary.items, [""] * ITEMS, [()] * ITEMS)
        states = np.zeros((300, served.profiles.state_width), np.float32)
        events = some_events(len(history), 300, np.random.default_rng(2))
        served.profiles.step(states, events._replace(item_vectors=items[name][history]))
        users[name] = served.profiles.vectors(states)
    scale = np.abs(users["float32"]).max(axis=1, keepdims=True) / INT8_MAX
    rounded = (np.rint(users["float32"] / scale).astype(np.int8) * scale).astype(np.float32)
    return {
        "weights_bytes": sizes,
        "cosine_of_users_by_int8_weights": cosines(users["float32"], users["int8"]),
        "cosine_of_items_by_int8_weights": cosines(items["float32"], items["int8"]),
        "cosine_of_int8_vectors": cosines(users["float32"], rounded),
    }


def main() -> None:
    torch.set_num_threads(1)
    saved = model()
    state_bytes = 4 * (WIDTH + DIM)
    figures = {
        "conditions": {"dim": DIM, "width": WIDTH, "blocks": 1, "numpy": np.__version__, "torch": torch.__version__},
        f"us_per_event_batch_of_{BATCH}": step_times(saved, BATCH, BATCH_ROUNDS, 1),
        "us_per_event_single": step_times(saved, 1, SINGLE_ROUNDS, SINGLE_CALLS),
        "bytes_per_user": {"state": state_bytes, "int8_vector_and_scale": DIM + 4, "total": state_bytes + DIM + 4},
        "int8": int8_figures(saved),
    }
    json.dump(figures, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
