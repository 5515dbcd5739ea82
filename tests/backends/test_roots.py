"""Square roots of f32: correctly rounded for every mantissa, whatever instructions made them."""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
import pytest
from contractions import load

from dslc.backends.cpu import roots
from dslc.backends.cpu.contract import KernelSource
from dslc.backends.cpu.native import compile_object

SOURCE = """
def kernel(row, thread, threads, batch):
    x = ptr_f32(arg(row, 0))
    y = ptr_f32(arg(row, 1))
    for i in range(batch):
        vstore_f32(y, i * {width}, vsqrt(vload_f32(x, i * {width})))
"""


def square_roots(x: np.ndarray, width: int) -> np.ndarray:
    y = np.empty_like(x)
    load(KernelSource(SOURCE.format(width=width), "kernel", (0, 1), width)).run([x, y], len(x) // width, 1)
    return y


@pytest.mark.parametrize("width", [16, 8, 4])
def test_every_mantissa(width: int) -> None:
    """Two neighbouring exponents hold every case: scaling by four scales the root by two, exactly."""
    x = np.arange(0x3F800000, 0x40800000, dtype=np.uint32).view(np.float32)  # 1 to 4
    np.testing.assert_array_equal(square_roots(x, width), np.sqrt(x))


@pytest.mark.parametrize("width", [16, 8, 4])
def test_every_exponent_and_special_values(width: int) -> None:
    """Among them 0, -0, subnormals, infinities, NaN and negative numbers; equal to the bit but for the payload of NaN."""
    rng = np.random.default_rng(0)
    exponents = np.arange(512, dtype=np.uint32) << 23  # both signs
    mantissas = np.concatenate([[0, 1, 0x7FFFFF], rng.integers(0, 1 << 23, 61)]).astype(np.uint32)
    x = (exponents[:, None] | mantissas).reshape(-1).view(np.float32)
    rng.shuffle(x)  # usual and unusual numbers meet in a vector
    with np.errstate(invalid="ignore"):
        want = np.sqrt(x)
    got = square_roots(x, width)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    assert got[~np.isnan(want)].tobytes() == want[~np.isnan(want)].tobytes()


def test_the_divider_where_there_is_no_estimate() -> None:
    features = llvm.get_host_cpu_features().flatten()
    assert "rsqrt14" not in roots.definition(16, "+avx2,+fma")
    assert "rsqrt14" not in roots.definition(8, "+avx512f"), "narrow estimates need AVX-512VL"
    plain = ",".join(f if "avx512" not in f else f.replace("+", "-") for f in features.split(","))
    _, _, assembly = compile_object(SOURCE.format(width=8), "kernel", 8, features=plain, assembly=True)
    assert "sqrtps" in assembly.replace("rsqrtps", "") and "rsqrt" not in assembly
