"""Blocks of the library against plain NumPy: normalisations, squeeze-excite, separable convolution, inverted residual."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dslc

Array = np.ndarray[Any, Any]
INPUTS = {"images": (6, 5, 4), "sounds": (6, 7), "vectors": (3, 6)}
# name: block, input, shape of the result behind the batch
BLOCKS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "group_images_1": ("GroupNorm[1]", "images", (6, 5, 4)),
    "group_images_3": ("GroupNorm[3]", "images", (6, 5, 4)),
    "group_sounds_2": ("GroupNorm[2]", "sounds", (6, 7)),
    "group_sounds_6": ("GroupNorm[6]", "sounds", (6, 7)),
    "instance_images": ("InstanceNorm", "images", (6, 5, 4)),
    "instance_sounds": ("InstanceNorm[affine = true, eps = 0.1]", "sounds", (6, 7)),
    "rms": ("RMSNorm", "vectors", (3, 6)),
    "squeeze": ("SqueezeExcite[3]", "images", (6, 5, 4)),
    "squeeze_hard": ("SqueezeExcite[2, silu, hard_sigmoid]", "images", (6, 5, 4)),
    "separable": ("SeparableConv2D[8, 3, 2, padding = 1]", "images", (8, 3, 2)),
    "residual": ("InvertedResidual[6]", "images", (6, 5, 4)),
    "residual_wider": ("InvertedResidual[8, expand = 2]", "images", (8, 5, 4)),
    "residual_strided": ("InvertedResidual[6, 2, 1]", "images", (6, 3, 2)),
}
Case = tuple[Array, Array, dict[str, Array]]


def dims(shape: tuple[int, ...]) -> str:
    return ", ".join(["N", *map(str, shape)])


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Input, result and weights of each block, all in one program; weights are random, variances positive."""
    inputs = ", ".join(f"{name}: f64[{dims(shape)}]" for name, shape in INPUTS.items())
    results = ", ".join(f"{name}: f64[{dims(shape)}]" for name, (_, _, shape) in BLOCKS.items())
    lines = [f"  y_{name} = {block}({given}) as {name}" for name, (block, given, _) in BLOCKS.items()]
    text = "\n".join(
        ["dim N <= 8", f"model M({inputs}) -> ({results}) {{", *lines, f"  return {', '.join(f'y_{name}' for name in BLOCKS)}", "}", ""]
    )
    program = dslc.compile("precision f64\n" + text, cache=tmp_path_factory.mktemp("cache"))
    rng = np.random.default_rng(3)
    program.load_weights(
        {p: rng.uniform(0.5, 1.5, w.shape) if "var" in p else rng.normal(size=w.shape) for p, w in program.weights.items()}
    )
    given = {name: rng.normal(1, 2, (4, *shape)) for name, shape in INPUTS.items()}
    made, first = program(**given), program(**{name: x[:1] for name, x in given.items()})
    found = {}
    for name, (_, what, _) in BLOCKS.items():
        assert (made[name][:1] == first[name]).all(), f"{name} depends on the batch"
        weights = {path.split(f"{name}.", 1)[1]: a for path, a in program.weights.items() if f".{name}." in f".{path}"}
        found[name] = given[what], made[name], weights
    return found


def standard(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def laid(v: Array, x: Array) -> Array:
    return v.reshape(-1, *[1] * (x.ndim - 2))


def conv(x: Array, w: Array, stride: int = 1, padding: int = 0, groups: int = 1) -> Array:
    """The definition of a convolution."""
    n, _, h, wide = x.shape
    out, per, k, _ = w.shape
    x = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    result = np.zeros((n, out, (h + 2 * padding - k) // stride + 1, (wide + 2 * padding - k) // stride + 1))
    for o in range(out):
        first = o // (out // groups) * per
        for i, j in np.ndindex(*result.shape[2:]):
            window = x[:, first : first + per, i * stride : i * stride + k, j * stride : j * stride + k]
            result[:, o, i, j] = (window * w[o]).sum((1, 2, 3))
    return result


def batch_norm(x: Array, w: dict[str, Array], name: str) -> Array:
    mean, var, scale, bias = (laid(w[f"{name}.{part}"], x) for part in ("running_mean", "running_var", "scale", "bias"))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def close(got: Array, want: Array, tolerance: float = 1e-11) -> None:
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in BLOCKS if name.startswith("group")])
def test_group_norm(name: str, cases: dict[str, Case]) -> None:
    x, y, w = cases[name]
    cut = standard(x.reshape(len(x), int(name[-1]), -1), (2,), 1e-5).reshape(x.shape)
    close(y, cut * laid(w["scale"], x) + laid(w["bias"], x))


def test_instance_norm(cases: dict[str, Case]) -> None:
    x, y, w = cases["instance_images"]
    assert not w
    close(y, standard(x, (2, 3), 1e-5))
    x, y, w = cases["instance_sounds"]
    close(y, standard(x, (2,), 0.1) * laid(w["scale"], x) + laid(w["bias"], x))


def test_rms_norm(cases: dict[str, Case]) -> None:
    x, y, w = cases["rms"]
    close(y, x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w["scale"])


def test_squeeze_excite(cases: dict[str, Case]) -> None:
    x, y, w = cases["squeeze"]
    hidden = np.maximum(x.mean((2, 3)) @ w["squeeze.w"] + w["squeeze.b"], 0)
    share = 1 / (1 + np.exp(-(hidden @ w["excite.w"] + w["excite.b"])))
    close(y, x * share[:, :, None, None])


def test_squeeze_excite_with_other_functions(cases: dict[str, Case]) -> None:
    x, y, w = cases["squeeze_hard"]
    hidden = x.mean((2, 3)) @ w["squeeze.w"] + w["squeeze.b"]
    hidden = hidden / (1 + np.exp(-hidden))
    close(y, x * (np.clip(hidden @ w["excite.w"] + w["excite.b"] + 3, 0, 6) / 6)[:, :, None, None])


def test_separable_convolution(cases: dict[str, Case]) -> None:
    x, y, w = cases["separable"]
    assert sorted(w) == ["depthwise.w", "pointwise.b", "pointwise.w"]
    close(y, conv(conv(x, w["depthwise.w"], 2, 1, 6), w["pointwise.w"]) + laid(w["pointwise.b"], x))


@pytest.mark.parametrize(("name", "stride", "expand"), [("residual", 1, 6), ("residual_wider", 1, 2), ("residual_strided", 2, 1)])
def test_inverted_residual(name: str, stride: int, expand: int, cases: dict[str, Case]) -> None:
    x, y, w = cases[name]
    h = x
    if expand > 1:
        h = np.clip(batch_norm(conv(h, w["expand.w"]), w, "expand_norm"), 0, 6)
    h = np.clip(batch_norm(conv(h, w["depthwise.w"], stride, 1, 6 * expand), w, "depthwise_norm"), 0, 6)
    h = batch_norm(conv(h, w["project.w"]), w, "project_norm")
    close(y, h + x if name == "residual" else h)


@pytest.mark.parametrize("block", ["GroupNorm[4]", "GroupNorm[0]", "SeparableConv2D[8, 9]", "InvertedResidual[6, 0]"])
def test_sizes_that_do_not_fit_are_refused(block: str) -> None:
    with pytest.raises(dslc.DiagnosticError):
        dslc.compile(f"dim N <= 8\nmodel M(x: f32[N, 6, 4, 4]) -> f32[N, 6, 4, 4] {{\n  return {block}(x)\n}}\n")
