"""`Program.load_weights`: weights of another network, and of PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import dslc

TEXT = """
dim N <= 8

model Net(image: f32[N, 1, 6, 6]) -> f32[N, 5] {
  return image |> Conv2D[5, 2] as stem |> BatchNorm |> relu |> GlobalAvgPool |> Dense[5, tanh] as hidden |> Dense[5] as head
}
"""
NORM = ("running_mean", "running_var", "weight", "bias")


@pytest.fixture
def net() -> dslc.Program:
    return dslc.compile(TEXT, threads=1)


@pytest.fixture
def state() -> dict[str, np.ndarray]:
    """A state dict as PyTorch has it."""
    rng = np.random.default_rng(0)
    shapes = {"stem.weight": (5, 1, 2, 2), "stem.bias": (5,)}
    shapes |= {f"norm.{leaf}": (5,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {"norm.num_batches_tracked": (), "fc1.weight": (5, 5), "fc1.bias": (5,), "fc2.weight": (5, 5), "fc2.bias": (5,)}
    return {name: rng.uniform(0.5, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def expected(state: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """What the network of PyTorch computes."""
    windows = np.lib.stride_tricks.sliding_window_view(image[:, 0], (2, 2), axis=(1, 2))
    x = np.einsum("nyxhw,chw->ncyx", windows, state["stem.weight"][:, 0]) + state["stem.bias"][:, None, None]
    mean, variance, gain, bias = (state[f"norm.{leaf}"][:, None, None] for leaf in NORM)
    x = np.maximum((x - mean) / np.sqrt(variance + 1e-5) * gain + bias, 0).mean((2, 3))
    x = np.tanh(x @ state["fc1.weight"].T + state["fc1.bias"])
    result: np.ndarray = x @ state["fc2.weight"].T + state["fc2.bias"]
    return result


IMAGE = np.random.default_rng(1).standard_normal((3, 1, 6, 6)).astype(np.float32)


def test_a_state_dict(net: dslc.Program, state: dict[str, np.ndarray]) -> None:
    net.load_weights(state, layout="torch")
    np.testing.assert_allclose(net(image=IMAGE), expected(state, IMAGE), rtol=1e-5)


def test_a_state_dict_in_a_file(net: dslc.Program, state: dict[str, np.ndarray], tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    net.load_weights(tmp_path / "w.safetensors", layout="torch")
    np.testing.assert_allclose(net(image=IMAGE), expected(state, IMAGE), rtol=1e-5)


def test_a_new_head(net: dslc.Program, state: dict[str, np.ndarray]) -> None:
    """Its weights keep the values that they have."""
    before = net.weights
    net.load_weights(state, rename=[("fc2.*", None)], fresh=["head.*"], layout="torch")
    after = net.weights
    assert (after["Net.head.w"] == before["Net.head.w"]).all()
    assert (after["Net.hidden.w"] == state["fc1.weight"].T).all()


def test_renamed_weights(net: dslc.Program, tmp_path: Path) -> None:
    other = dslc.compile(TEXT.replace("Net", "Old").replace("as hidden", "as middle"), threads=1, seed=3)
    other.save_weights(tmp_path / "old.safetensors")
    with pytest.raises(dslc.DiagnosticError, match="these are weights of `Old`"):
        net.load_weights(tmp_path / "old.safetensors")
    net.load_weights(tmp_path / "old.safetensors", rename=[("Old.middle.*", "hidden.*"), ("Old.*", "*")])
    assert (net(image=IMAGE) == other(image=IMAGE)).all()


def test_nothing_is_loaded_in_part(net: dslc.Program, state: dict[str, np.ndarray]) -> None:
    before = net.weights
    state["fc2.bias"] = np.zeros(4, np.float32)
    with pytest.raises(dslc.DiagnosticError, match=r"`Net.head.b` \(`fc2.bias`\) is \[4\] there and \[5\] here"):
        net.load_weights(state, layout="torch")
    assert all((a == before[name]).all() for name, a in net.weights.items())
