"""Tensor types: an element type and a shape whose sizes are integers or symbolic dimensions."""
from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dslc.ir.dims import Dim


class DType(StrEnum):
    """Element types. `bool` is one byte, 0 or 1, in memory. `f16` and `bf16` are stored so; arithmetic widens them to f32."""

    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    F64 = "f64"
    I32 = "i32"
    I64 = "i64"
    I8 = "i8"
    U8 = "u8"
    BOOL = "bool"

    @property
    def floating(self) -> bool:
        return self in (DType.F16, DType.BF16, DType.F32, DType.F64)

    @property
    def half(self) -> bool:
        """A float of 16 bits."""
        return self in (DType.F16, DType.BF16)

    @property
    def integer(self) -> bool:
        return self in (DType.I8, DType.U8, DType.I32, DType.I64)

    @property
    def narrow(self) -> bool:
        """An integer of 8 bits."""
        return self in (DType.I8, DType.U8)

    @property
    def size(self) -> int:
        """Bytes an element."""
        return int(self.memory.itemsize)

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """NumPy's type for the values; NumPy has no bf16, whose values are those of f32 with 8 bits of mantissa."""
        return np.dtype(_NUMPY[self.value])

    @property
    def memory(self) -> np.dtype[np.generic]:
        """NumPy's type for the elements in memory; bf16 lies there as its bits."""
        return np.dtype(np.uint16) if self is DType.BF16 else self.numpy


_NUMPY = {"f16": "float16", "bf16": "float32", "i8": "int8", "f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64", "u8": "uint8", "bool": "bool"}


@dataclass(frozen=True, slots=True)
class TensorType:
    """`dtype[shape]`; a scalar has the empty shape."""

    dtype: DType
    shape: tuple[Dim, ...] = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """The number of elements."""
        total: Dim = 1
        for extent in self.shape:
            total = total * extent
        return total

    def with_shape(self, shape: tuple[Dim, ...]) -> TensorType:
        return TensorType(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.value}[{', '.join(map(str, self.shape))}]"
