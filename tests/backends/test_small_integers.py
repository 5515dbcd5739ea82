"""i8 and u8: arithmetic wraps as in NumPy, sums of products are exact in i32 and wrap there."""

from __future__ import annotations

import numpy as np
import pytest

import dslc
from dslc.ir.operator import OPERATORS

Array = np.ndarray
TYPES = {"i8": np.int8, "u8": np.uint8}


def drawn(dtype: type, *shape: int, seed: int = 0) -> Array:
    """Uniform over the type, with its ends."""
    info = np.iinfo(dtype)
    made = np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)
    made.reshape(-1)[:2] = info.min, info.max
    return made


@pytest.mark.parametrize(("name", "width"), [("i8", 16), ("i8", 4), ("u8", 8)])
def test_arithmetic_is_that_of_numpy(name: str, width: int) -> None:
    text = f"""
model M(x: {name}[256, 256], y: {name}[256, 256]) -> (a: {name}[256, 256], s: {name}[256, 256], m: {name}[256, 256],
    q: {name}[256, 256], r: {name}[256, 256], lo: {name}[256, 256], hi: {name}[256, 256], less: bool[256, 256],
    total: i64[256], first: i64[256], wide: f32[256, 256]) {{
  return x + y, x - y, x * y, x // y, x % y, minimum(x, y), maximum(x, y), x < y, sum[axis = 1](x), argmax[axis = 1](x), cast[f32](x)
}}
"""
    everything = np.arange(256).astype(TYPES[name])
    x, y = np.repeat(everything[:, None], 256, 1), np.repeat(everything[None], 256, 0)
    got = dslc.compile(text, width=width)(x=x, y=y)
    with np.errstate(all="ignore"):
        want = {"a": x + y, "s": x - y, "m": x * y, "q": x // y, "r": x % y, "lo": np.minimum(x, y), "hi": np.maximum(x, y), "less": x < y}
    want |= {"total": x.sum(1, dtype=np.int64), "first": x.argmax(1), "wide": x.astype(np.float32)}
    for key, array in want.items():
        assert got[key].dtype == array.dtype
        np.testing.assert_array_equal(got[key], array, err_msg=key)


@pytest.mark.parametrize(
    ("left", "right", "m", "k", "n", "width"),
    [
        ("i8", "i8", 1, 700, 33, 16),
        ("i8", "i8", 5, 1301, 50, 8),
        ("u8", "i8", 40, 64, 100, 16),
        ("u8", "i8", 5, 1301, 50, 4),
        ("i8", "u8", 17, 3, 1, 8),
        ("u8", "u8", 5, 1301, 50, 16),
    ],
)
def test_matmul_is_exact(left: str, right: str, m: int, k: int, n: int, width: int) -> None:
    x, y = drawn(TYPES[left], m, k), drawn(TYPES[right], k, n, seed=1)
    got = dslc.compile(f"model M(x: {left}[{m}, {k}], y: {right}[{k}, {n}]) -> i32[{m}, {n}] {{ return x @ y }}", width=width)(x=x, y=y)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, x.astype(np.int64) @ y.astype(np.int64))


def test_a_dot_product_and_an_epilogue() -> None:
    """Lanes along the reduction; what a quantised layer does behind the sum."""
    text = """
dim N <= 9
model M(x: u8[N, 300], w: i8[7, 300], b: i32[7]) -> (y: f32[N, 7], z: i32[N]) {
  s = einsum["nk,ok->no"](x, w) + b
  return cast[f32](maximum(s, 0)) * 0.01, einsum["nk,nk->n"](x, x)
}
"""
    x, w, b = drawn(np.uint8, 6, 300), drawn(np.int8, 7, 300, seed=1), np.arange(-3, 4, dtype=np.int32) * 1000
    got = dslc.compile(text)(x=x, w=w, b=b)
    wide = x.astype(np.int64)
    total = wide @ w.astype(np.int64).T + b
    np.testing.assert_array_equal(got["y"], np.maximum(total, 0).astype(np.float32) * np.float32(0.01))
    np.testing.assert_array_equal(got["z"], (wide * wide).sum(1))


def test_sums_wrap_in_32_bits() -> None:
    x = np.full((1, 1 << 16), 255, np.uint8)
    got = dslc.compile("model M(x: u8[1, 65536], y: u8[65536, 1]) -> i32[1, 1] { return x @ y }")(x=x, y=x.T.copy())
    assert got.item() == (255 * 255 * 65536 + 2**31) % 2**32 - 2**31


CONVOLUTIONS = {
    "plain": ("u8", "i8", (2, 20, 9, 9), (24, 20, 3, 3), "padding = 1", {"padding": 1}),
    "strided": ("i8", "i8", (1, 3, 11, 10), (8, 3, 5, 3), "stride = 2, padding = [2, 1]", {"stride": 2, "padding": (2, 1)}),
    "depthwise": ("u8", "u8", (1, 32, 7, 7), (32, 1, 3, 3), "padding = 1, groups = 32", {"padding": 1, "groups": 32}),
    "pointwise": ("i8", "u8", (3, 64, 4, 4), (48, 64, 1, 1), "stride = 1", {}),
}


@pytest.mark.parametrize(("case", "width"), [*((case, 16) for case in CONVOLUTIONS), ("plain", 8), ("depthwise", 4)])
def test_convolution_is_exact(case: str, width: int) -> None:
    left, right, of_x, of_w, settings, attrs = CONVOLUTIONS[case]
    x, w = drawn(TYPES[left], *of_x), drawn(TYPES[right], *of_w, seed=1)
    whole = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | attrs
    want = OPERATORS["conv2d"].reference(x.astype(np.int64), w.astype(np.int64), **whole)
    shapes = [", ".join(map(str, s)) for s in (of_x, of_w, want.shape)]
    text = f"model M(x: {left}[{shapes[0]}], w: {right}[{shapes[1]}]) -> i32[{shapes[2]}] {{ return conv2d[{settings}](x, w) }}"
    got = dslc.compile(text, width=width)(x=x, w=w)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, want)


def test_i32_and_i64_products_wrap() -> None:
    for name, dtype in (("i32", np.int32), ("i64", np.int64)):
        x, y = drawn(dtype, 4, 90), drawn(dtype, 90, 20, seed=2)
        got = dslc.compile(f"model M(x: {name}[4, 90], y: {name}[90, 20]) -> {name}[4, 20] {{ return x @ y }}")(x=x, y=y)
        np.testing.assert_array_equal(got, x @ y)
