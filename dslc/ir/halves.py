"""bf16 in NumPy, which has no such type: the values are kept as f32, the bits as uint16. f16 is NumPy's own float16.

Rounding is to nearest, ties to even, and exact from f64 too: on the way through f32 an inexact value gets an odd last bit, so that
the second rounding cannot take it for a tie (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir.types import DType

Array = np.ndarray[Any, Any]


def bf16_bits(values: Array) -> Array:
    """The bits of `values`, numbers of any kind, rounded to bf16, as uint16. A NaN stays one."""
    values = np.asarray(values)
    with np.errstate(all="ignore"):
        single = np.ascontiguousarray(values, np.float32).reshape(values.shape)
        bits = single.view(np.uint32).astype(np.int64)
        if values.dtype.kind in "iuf" and values.dtype.itemsize > 2 and values.dtype != np.float32:
            exact, near = values.astype(np.float64), single.astype(np.float64)
            loose = (near != exact) & ~np.isnan(exact) & (bits & 1 == 0)
            bits = np.where(loose, np.where(np.abs(near) > np.abs(exact), bits - 1, bits + 1), bits)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(single), bits >> 16 | 0x40, rounded).astype(np.uint16)


def bf16_values(bits: Array) -> Array:
    """The f32 values of bf16 numbers given by their bits; exact."""
    return (np.asarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32)


def as_values(array: Array, dtype: DType) -> Array:
    """`array` converted to the values of an element type."""
    if dtype is DType.BF16:
        return bf16_values(bf16_bits(array))
    return array.astype(dtype.numpy, copy=False)


def to_memory(array: Array, dtype: DType) -> Array:
    """`array` as the elements lie in memory."""
    return bf16_bits(array) if dtype is DType.BF16 else array.astype(dtype.memory, copy=False)


def from_memory(array: Array, dtype: DType) -> Array:
    """The values of elements as they lie in memory."""
    return bf16_values(array) if dtype is DType.BF16 else array
