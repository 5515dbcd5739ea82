"""Convolution and pooling blocks of the library in one, two and three dimensions, with gradients, against NumPy by definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dslc

Array = np.ndarray[Any, Any]
TEXT = """dim N <= 4
precision f64
model M(sound: f64[N, 4, 13], image: f64[N, 4, 6, 7], volume: f64[N, 2, 4, 5, 6])
    -> (a: f64[N, 6, 6], b: f64[N, 6, 12, 14], c: f64[N, 3, 2, 3, 3], d: f64[N, 4, 6], e: f64[N, 4, 7]) {
  a = Conv1D[6, 3, 2, groups = 2](sound) as a
  b = ConvTranspose2D[6, 3, 2, padding = 1, output_padding = 1, groups = 2](image) as b
  c = Conv3D[3, 3, 2, padding = 1](volume) as c
  return a, b, c, MaxPool1D[2](sound), AvgPool1D[3, 2, 1](sound)
}
"""


def conv(x: Array, w: Array, stride: int, padding: int, groups: int) -> Array:
    """The definition of a convolution over any number of axes."""
    rank = x.ndim - 2
    x = np.pad(x, ((0, 0), (0, 0), *((padding, padding),) * rank))
    out = [(n - k) // stride + 1 for n, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    y = np.zeros((len(x), len(w), *out))
    for o, *at in np.ndindex(len(w), *out):
        first = o // (len(w) // groups) * w.shape[1]
        window = [slice(i * stride, i * stride + k) for i, k in zip(at, w.shape[2:], strict=True)]
        seen = x[(slice(None), slice(first, first + w.shape[1]), *window)]
        y[(slice(None), o, *at)] = (seen * w[o]).reshape(len(x), -1).sum(1)
    return y


def conv_transpose(x: Array, w: Array, stride: int, padding: int, more: int, groups: int) -> Array:
    """Every element of x adds the kernel, times itself, to the result."""
    inner, outer = x.shape[1] // groups, w.shape[1]
    size = [(n - 1) * stride + k + more for n, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    y = np.zeros((len(x), outer * groups, *size))
    for n, c, i, j in np.ndindex(*x.shape):
        first, kernel = c // inner * outer, np.asarray(w[c])
        y[n, first : first + outer, i * stride : i * stride + w.shape[2], j * stride : j * stride + w.shape[3]] += kernel * x[n, c, i, j]
    return y[:, :, padding : size[0] - padding, padding : size[1] - padding]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Inputs, weights and results."""
    program = dslc.compile(TEXT, cache=tmp_path_factory.mktemp("cache"))
    rng = np.random.default_rng(5)
    program.load_weights({path: rng.normal(size=old.shape) for path, old in program.weights.items()})
    given = {"sound": rng.normal(size=(3, 4, 13)), "image": rng.normal(size=(3, 4, 6, 7)), "volume": rng.normal(size=(3, 2, 4, 5, 6))}
    weights = {path: np.array(a) for path, a in program.weights.items()}
    return given, weights, dict(program(**given))


def named(weights: dict[str, Array], path: str) -> Array:
    return next(a for name, a in weights.items() if f".{name}".endswith(f".{path}"))


def test_convolutions(made: tuple[dict[str, Array], dict[str, Array], dict[str, Array]]) -> None:
    given, weights, got = made

    def bias(name: str, rank: int) -> Array:
        return named(weights, f"{name}.b").reshape(-1, *(1,) * rank)

    np.testing.assert_allclose(got["a"], conv(given["sound"], named(weights, "a.w"), 2, 0, 2) + bias("a", 1), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(
        got["b"], conv_transpose(given["image"], named(weights, "b.w"), 2, 1, 1, 2) + bias("b", 2), rtol=1e-11, atol=1e-11
    )
    np.testing.assert_allclose(got["c"], conv(given["volume"], named(weights, "c.w"), 2, 1, 1) + bias("c", 3), rtol=1e-11, atol=1e-11)


def test_pools(made: tuple[dict[str, Array], dict[str, Array], dict[str, Array]]) -> None:
    given, _, got = made
    sound = given["sound"]
    np.testing.assert_array_equal(got["d"], sound[:, :, :12].reshape(3, 4, 6, 2).max(-1))
    padded = np.pad(sound, ((0, 0), (0, 0), (1, 1)))
    np.testing.assert_allclose(got["e"], np.stack([padded[:, :, i : i + 3].mean(-1) for i in range(0, 13, 2)], -1), rtol=1e-12)


@pytest.mark.parametrize("block", ["Conv1D[6, 14]", "Conv1D[6, 3, 0]", "Conv1D[6, 3, groups = 4]", "MaxPool1D[14]"])
def test_what_does_not_fit_is_refused(block: str, tmp_path: Path) -> None:
    with pytest.raises(dslc.DiagnosticError):
        dslc.compile(f"model M(x: f32[2, 6, 13]) -> f32[2, 6, 12] {{ return {block}(x) }}\n", cache=tmp_path)
