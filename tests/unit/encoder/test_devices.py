"""Devices by name, as far as a machine of any kind can tell."""

from __future__ import annotations

import pytest
import torch

from encoder.devices import torch_device


@pytest.mark.parametrize(("gpus", "expected"), [(0, "cpu"), (2, "cuda")])
def test_auto_is_a_gpu_where_there_is_one(gpus: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    assert torch_device("auto") == torch.device(expected)


@pytest.mark.parametrize(
    ("gpus", "name", "message"),
    [
        (0, "abacus", "There is no device 'abacus'; choose 'cpu', 'cuda' or 'auto'"),
        (0, "cuda", "torch sees no GPU, so the device 'cuda' cannot be used; choose 'cpu'"),
        (2, "cuda:2", r"There is no device 'cuda:2': torch sees 2 GPU\(s\), counted from 0"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    gpus: int, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what could be chosen instead."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=message):
        torch_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_gpus_are_told_apart_by_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one it is the first."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert torch_device(name) == torch.device(name)
    assert torch_device("cpu").type == "cpu"
