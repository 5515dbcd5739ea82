"""Resizing: published values, what stands at borders and beside NaN, the library's blocks, gradients as sums of what was read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dslc
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.types import DType
from dslc.transforms.autodiff import gradients
from dslc.transforms.expand import expand_composites


def resized(x: np.ndarray, **attrs: Any) -> np.ndarray:
    b = Builder()
    y = b.resize(b.input(DType.F64, *x.shape), **attrs)
    return interpret(expand_composites(b.graph(y)), [x])[0]


def test_bilinear_values_of_the_pytorch_manual() -> None:
    x = np.array([[1.0, 2.0], [3.0, 4.0]])[None, None]
    halves = [[1, 1.25, 1.75, 2], [1.5, 1.75, 2.25, 2.5], [2.5, 2.75, 3.25, 3.5], [3, 3.25, 3.75, 4]]
    np.testing.assert_allclose(resized(x, scale=2, mode="bilinear")[0, 0], halves)
    thirds = (np.arange(4) / 3)[None] + 2 * (np.arange(4) / 3)[:, None] + 1
    np.testing.assert_allclose(resized(x, scale=2, mode="bilinear", align_corners=True)[0, 0], thirds)


def test_bicubic_values_of_the_onnx_manual() -> None:
    """The first row of the example resize_upsample_scales_cubic."""
    x = np.arange(1.0, 17).reshape(1, 1, 4, 4)
    first = [0.47265625, 0.76953125, 1.24609375, 1.875, 2.28125, 2.91015625, 3.38671875, 3.68359375]
    np.testing.assert_allclose(resized(x, scale=2, mode="bicubic")[0, 0, 0], first)


def test_nearest_repeats_and_drops_pixels() -> None:
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    np.testing.assert_array_equal(resized(x, scale=2), x.repeat(2, 2).repeat(2, 3))
    np.testing.assert_array_equal(resized(x, size=(1, 2))[0, 0], [[0, 1]])


def test_pixels_of_weight_zero_do_not_spread_nan() -> None:
    x = np.array([[1.0, 2.0, np.nan, 4.0, 5.0]])[:, None]
    got = resized(x, size=(9,), mode="bilinear", align_corners=True)[0, 0]
    np.testing.assert_array_equal(np.isnan(got), [False, False, False, True, True, True, False, False, False])


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_gradients_give_each_pixel_its_share(mode: str) -> None:
    """A sum over all results gives every result's weights, which add up to 1, back to the pixels."""
    b = Builder()
    x = b.input(DType.F64, 1, 1, 5, 6)
    y = b.resize(x, size=(11, 8), mode=mode)
    (dx,) = gradients(b, b.sum(y), [x])
    got = interpret(expand_composites(b.graph(dx)), [np.zeros((1, 1, 5, 6))])[0]
    assert got.shape == (1, 1, 5, 6)
    np.testing.assert_allclose(got.sum(), 88)
    np.testing.assert_allclose(got, got[:, :, :, :1] * got[:, :, :1] / got[0, 0, 0, 0])  # one axis does not know of the other


SOURCE = """
dim N <= 4
model Net(x: f32[N, 2, 6, 20]) -> (up: f32[N, 2, 12, 40], wide: f32[N, 2, 9, 7], means: f32[N, 2, 4, 3], tops: f32[N, 2, 4, 4]) {
  return Upsample2D[2, "bilinear"](x), Resize[9, 7](x), AdaptiveAvgPool2D[4, 3](x), AdaptiveMaxPool2D[4](x)
}
"""


def test_blocks_of_the_library() -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 6, 20)).astype(np.float32)
    results = dslc.compile(SOURCE)(x=x)
    up, wide, means, tops = (np.asarray(results[name]) for name in ("up", "wide", "means", "tops"))
    np.testing.assert_allclose(up, resized(x.astype(np.float64), scale=2, mode="bilinear"), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(wide, resized(x.astype(np.float64), size=(9, 7), mode="bilinear"), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(means[:, :, 1, 1], x[:, :, 1:3, 6:14].mean((2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(tops[:, :, 3, 0], x[:, :, 4:6, 0:5].max((2, 3)))
