"""Tensors without tensor arguments, sizes as numbers, and the identities that only steer gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import ConstantData, Value
from dslc.ir.loops import Expr, IndexValue, Reader
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index, Shape, check_shape, ints

F32, F64, I32, I64, BOOL = DType.F32, DType.F64, DType.I32, DType.I64, DType.BOOL
_SHAPE = Attr("shape", (), "the shape; a scalar unless told")
_DTYPE = Attr("dtype", F32, "the element type")


@operator
class Full(Operator):
    """A tensor filled with one number."""

    family = "constant"
    inputs = ()
    differentiable = False
    attrs = {"value": Attr("float", doc="the number"), "shape": _SHAPE, "dtype": _DTYPE}
    samples = [
        Sample((), {"value": 1.5, "shape": (5, 2)}),
        Sample((), {"value": -0.0, "dtype": F64}),
        Sample((), {"value": 7, "shape": (3,), "dtype": I32}),
        Sample((), {"value": True, "dtype": BOOL}),
    ]
    errors = [BadSample((), {"value": 1.0, "shape": (-1,)}, "at least 0")]

    def infer(self, value: float | bool, shape: Shape, dtype: DType) -> TensorType:
        return TensorType(dtype, check_shape(shape))

    def body(self, index: Index, value: float | bool, shape: Shape, dtype: DType) -> Expr:
        return loops.const(dtype.numpy.type(value).item(), dtype)

    def reference(self, value: float | bool, shape: Shape, dtype: DType) -> Any:
        return np.full(ints(shape), value, dtype.numpy)


class _Repeated(Operator):
    """A tensor of one number, `element`."""

    family = "constant"
    inputs = ()
    differentiable = False
    attrs = {"shape": _SHAPE, "dtype": _DTYPE}
    samples = [Sample((), {"shape": (5, 2)}), Sample((), {"shape": (3,), "dtype": I64})]
    errors = [BadSample((), {"shape": (-1,)}, "at least 0")]
    element: int

    def infer(self, shape: Shape, dtype: DType) -> TensorType:
        return TensorType(dtype, check_shape(shape))

    def expand(self, b: Builder, shape: Shape, dtype: DType) -> Value:
        return b.like(float(self.element) if dtype.floating else self.element, TensorType(dtype, tuple(shape)))

    def reference(self, shape: Shape, dtype: DType) -> Any:
        return np.full(ints(shape), self.element, dtype.numpy)


@operator
class Zeros(_Repeated):
    """A tensor of zeros."""

    element = 0


@operator
class Ones(_Repeated):
    """A tensor of ones."""

    element = 1


@operator
class Iota(Operator):
    """The numbers 0, 1, ..., n - 1."""

    family = "constant"
    inputs = ()
    differentiable = False
    attrs = {"size": Attr("dim", doc="how many"), "dtype": _DTYPE}
    samples = [Sample((), {"size": 5}), Sample((), {"size": 3, "dtype": I64}), Sample((), {"size": 4, "dtype": F64})]
    errors = [BadSample((), {"size": -1}, "at least 0"), BadSample((), {"size": 3, "dtype": BOOL}, "not bool")]

    def infer(self, size: Dim, dtype: DType) -> TensorType:
        if dtype == BOOL:
            raise TypeFailure("iota counts in numbers, not bool")
        return TensorType(dtype, check_shape((size,)))

    def body(self, index: Index, size: Dim, dtype: DType) -> Expr:
        return loops.cast(IndexValue(index[0]), dtype)

    def reference(self, size: int, dtype: DType) -> Any:
        return np.arange(size).astype(dtype.numpy)


@operator
class Constant(Operator):
    """A tensor whose elements are given; lowering keeps it in a buffer."""

    family = "constant"
    inputs = ()
    meta = True
    internal = True
    differentiable = False
    attrs = {"data": Attr("any", doc="type and bytes")}

    def infer(self, data: ConstantData) -> TensorType:
        return data.type

    def reference(self, data: ConstantData) -> Any:
        return np.frombuffer(data.data, data.type.dtype.numpy).reshape(ints(data.type.shape))


@operator
class Extent(Operator):
    """A size as a scalar number: where a symbolic size meets arithmetic on tensors."""

    family = "constant"
    inputs = ()
    internal = True
    differentiable = False
    attrs = {"size": Attr("dim", doc="the size"), "dtype": Attr("dtype", I64, "the element type")}
    samples = [Sample((), {"size": 5}), Sample((), {"size": 3, "dtype": F32})]
    errors = [BadSample((), {"size": 3, "dtype": BOOL}, "not bool")]

    def infer(self, size: Dim, dtype: DType) -> TensorType:
        if dtype == BOOL:
            raise TypeFailure("a size is a number, not bool")
        return TensorType(dtype)

    def body(self, index: Index, size: Dim, dtype: DType) -> Expr:
        return loops.cast(IndexValue(size), dtype)

    def reference(self, size: int, dtype: DType) -> Any:
        return np.asarray(size, dtype.numpy)


@operator
class Size(Operator):
    """The number of elements of x, an i64 that is known when compiled but for the batch."""

    onnx = "Size"
    family = "constant"
    differentiable = False
    samples = [Sample(((5, 4),)), Sample(((),))]

    def infer(self, x: TensorType) -> TensorType:
        return TensorType(I64)

    def body(self, index: Index, x: Reader) -> Expr:
        return IndexValue(x.type.size)

    def reference(self, x: Array) -> Any:
        return np.asarray(x.size, np.int64)


@operator
class Identity(Operator):
    """x itself."""

    moves = True
    onnx = "Identity"
    elementwise = True
    samples = [Sample(((5, 2),)), Sample((np.array([True, False]),), gradient=False)]

    def infer(self, x: TensorType) -> TensorType:
        return x

    def body(self, index: Index, x: Reader) -> Expr:
        return x[index]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (dy,)

    def reference(self, x: Array) -> Any:
        return x


@operator
class StopGradient(Operator):
    """x itself, through which no gradient flows."""

    moves = True
    elementwise = True
    differentiable = False
    samples = [Sample(((5, 2),))]

    def infer(self, x: TensorType) -> TensorType:
        return x

    def body(self, index: Index, x: Reader) -> Expr:
        return x[index]

    def reference(self, x: Array) -> Any:
        return x
