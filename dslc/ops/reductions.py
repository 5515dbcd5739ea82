"""Reductions over axes. `axis` is one axis or several, all of them where it is left out; `keep` leaves them with size 1."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import (
    Array,
    Index,
    broadcast_to,
    count,
    extent,
    kept,
    normal_axes,
    normal_axis,
    reduced_shape,
    reduction_index,
    require,
    reshaped,
)

F32, I32, I64, BOOL = DType.F32, DType.I32, DType.I64, DType.BOOL
Axes = int | tuple[int, ...] | None
_BOOLS = np.array([[True, False, True], [True, True, True]])


class Reduction(Operator):
    """Base of the reductions that take `axis` and `keep`."""

    family = "reduction"
    attrs = {
        "axis": Attr("axes", None, "the axes to reduce; all of them unless told"),
        "keep": Attr("bool", False, "leave the reduced axes with size 1"),
    }
    samples = [
        Sample(((5, 4),)),
        Sample(((5, 4),), {"axis": 1}),
        Sample(((5, 4),), {"axis": (0,), "keep": True}),
        Sample(((5, 3, 4),), {"axis": (0, -1)}),
        Sample(((5, 3, 2, 2),), {"axis": (1, 3), "keep": True}),
        Sample(((),)),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"axis": 2}, "no axis 2"),
        BadSample((TensorType(F32, (2, 3)),), {"axis": (0, -2)}, "named twice"),
    ]
    kind: ClassVar[str] = "floating"

    def infer(self, x: TensorType, axis: Axes, keep: bool) -> TensorType:
        require(self.kind, self.name, x)
        return x.with_shape(reduced_shape(x, normal_axes(axis, x), keep))

    def reduce(self, op: str, index: Index, x: Reader, axis: Axes, keep: bool, dtype: DType) -> Expr:
        """`op` over the elements of x, converted to `dtype`, that belong to a result's index."""
        axes = normal_axes(axis, x.type)
        if not axes:
            return loops.cast(x[index], dtype)
        extents = tuple(x.type.shape[a] for a in axes)

        def element(*inner: Dim) -> Expr:
            return loops.cast(x[reduction_index(index, axes, keep, inner, x.type.rank)], dtype)

        return loops.reduce(op, extents, element)

    def spread(self, b: Builder, dy: Value, x: Value, axis: Axes) -> Value:
        """A cotangent of the result repeated along the reduced axes."""
        return broadcast_to(b, kept(b, dy, x.type, normal_axes(axis, x.type)), x.type.shape)


@operator
class Sum(Reduction):
    """The sum over axes. Bools and integers are summed as i64. The sum of nothing is 0."""

    onnx = "ReduceSum"
    samples = [
        *Reduction.samples,
        Sample((_BOOLS,), {"axis": 0}, gradient=False),
        Sample((np.array([[200, 100], [1, 2]], np.uint8),), {"axis": 1}, gradient=False),
        Sample((np.zeros((2, 0)),), {"axis": 1}, gradient=False),
    ]

    def infer(self, x: TensorType, axis: Axes, keep: bool) -> TensorType:
        return TensorType(x.dtype if x.dtype.floating else I64, reduced_shape(x, normal_axes(axis, x), keep))

    def body(self, index: Index, x: Reader, axis: Axes, keep: bool) -> Expr:
        return self.reduce("add", index, x, axis, keep, x.type.dtype if x.type.dtype.floating else I64)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: Axes, keep: bool) -> tuple[Value | None]:
        return (self.spread(b, dy, x, axis) if x.type.dtype.floating else None,)

    def reference(self, x: Array, axis: Axes, keep: bool) -> Any:
        return np.sum(x, axis=axis, keepdims=keep, dtype=x.dtype if x.dtype.kind == "f" else np.int64)


@operator
class Mean(Reduction):
    """The mean over axes. The mean of bools is an f32: the fraction that is true. The mean of nothing is NaN."""

    onnx = "ReduceMean"
    samples = [*Reduction.samples, Sample((_BOOLS,), {"axis": 0}, gradient=False), Sample((_BOOLS,), gradient=False)]
    errors = [*Reduction.errors, BadSample((TensorType(I32, (2, 3)),), {}, "cast")]

    def infer(self, x: TensorType, axis: Axes, keep: bool) -> TensorType:
        if x.dtype.integer:
            raise TypeFailure(f"mean of whole numbers needs a cast to a floating type, not {x}", inputs=(0,), hint="mean(cast[f32](x))")
        return TensorType(x.dtype if x.dtype.floating else F32, reduced_shape(x, normal_axes(axis, x), keep))

    def body(self, index: Index, x: Reader, axis: Axes, keep: bool) -> Expr:
        dtype = x.type.dtype if x.type.dtype.floating else F32
        size = count(x.type, normal_axes(axis, x.type))
        number = loops.const(float(size), dtype) if isinstance(size, int) else loops.cast(IndexValue(size), dtype)
        return loops.binary("div", self.reduce("add", index, x, axis, keep, dtype), number)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: Axes, keep: bool) -> tuple[Value | None]:
        if not x.type.dtype.floating:
            return (None,)
        share = b.div(dy, extent(b, count(x.type, normal_axes(axis, x.type)), dy.type.dtype))
        return (self.spread(b, share, x, axis),)

    def reference(self, x: Array, axis: Axes, keep: bool) -> Any:
        return np.mean(x, axis=axis, keepdims=keep, dtype=x.dtype if x.dtype.kind == "f" else np.float32)


class Extreme(Reduction):
    """Base of max and min. Equal extremes share the gradient evenly, as in PyTorch's amax."""

    kind = "number"
    samples = [
        *Reduction.samples,
        Sample((np.array([[3, -1], [3, 7]], np.int32),), {"axis": 1}, gradient=False),
        Sample((np.array([[1.0, np.nan, 3.0], [-np.inf, -np.inf, -np.inf]]),), {"axis": 1}, gradient=False),
    ]
    errors = [
        *Reduction.errors,
        BadSample((TensorType(BOOL, (2,)),), {}, "not bool[2]"),
        BadSample((TensorType(F32, (2, 0)),), {"axis": 1}, "no elements"),
    ]

    def infer(self, x: TensorType, axis: Axes, keep: bool) -> TensorType:
        result = super().infer(x, axis, keep)
        if count(x, normal_axes(axis, x)) == 0:
            raise TypeFailure(f"{self.name} of no elements: {x}", inputs=(0,))
        return result

    def body(self, index: Index, x: Reader, axis: Axes, keep: bool) -> Expr:
        return self.reduce(self.name, index, x, axis, keep, x.type.dtype)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: Axes, keep: bool) -> tuple[Value]:
        axes = normal_axes(axis, x.type)
        here = b.cast(b.eq(x, kept(b, y, x.type, axes)), dtype=x.type.dtype)
        share = b.div(kept(b, dy, x.type, axes), b.sum(here, axis=axes, keep=True))
        return (b.mul(here, share),)


@operator
class Max(Extreme):
    """The largest element over axes; NaN where there is one. Equal largest elements share the gradient evenly."""

    onnx = "ReduceMax"

    def reference(self, x: Array, axis: Axes, keep: bool) -> Any:
        return np.max(x, axis=axis, keepdims=keep)


@operator
class Min(Extreme):
    """The smallest element over axes; NaN where there is one. Equal smallest elements share the gradient evenly."""

    onnx = "ReduceMin"

    def reference(self, x: Array, axis: Axes, keep: bool) -> Any:
        return np.min(x, axis=axis, keepdims=keep)


@operator
class Prod(Reduction):
    """The product over axes. Bools and integers are multiplied as i64. The product of nothing is 1.

    The gradient by an element is the product of the others, made without a division: zeros are no special case.
    """

    onnx = "ReduceProd"
    samples = [
        *Reduction.samples,
        Sample((np.array([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]]),), {"axis": 1}),
        Sample((_BOOLS,), {"axis": 0}, gradient=False),
        Sample((np.array([[3, -2], [1, 2]], np.int32),), {"axis": 1}, gradient=False),
        Sample((np.zeros((2, 0)),), {"axis": 1}, gradient=False),
    ]

    def infer(self, x: TensorType, axis: Axes, keep: bool) -> TensorType:
        return TensorType(x.dtype if x.dtype.floating else I64, reduced_shape(x, normal_axes(axis, x), keep))

    def body(self, index: Index, x: Reader, axis: Axes, keep: bool) -> Expr:
        return self.reduce("mul", index, x, axis, keep, x.type.dtype if x.type.dtype.floating else I64)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: Axes, keep: bool) -> tuple[Value | None]:
        if not x.type.dtype.floating:
            return (None,)
        axes = normal_axes(axis, x.type)
        if not axes:
            return (dy,)
        stay = tuple(a for a in range(x.type.rank) if a not in axes)
        order = (*stay, *axes)
        flat = b.reshape(b.transpose(x, axes=order), shape=(*(x.type.shape[a] for a in stay), count(x.type, axes)))
        others = b.mul(b.cumprod(flat, axis=-1, exclusive=True), b.cumprod(flat, axis=-1, exclusive=True, reverse=True))
        others = b.reshape(others, shape=tuple(x.type.shape[a] for a in order))
        others = b.transpose(others, axes=tuple(order.index(a) for a in range(x.type.rank)))
        return (b.mul(kept(b, dy, x.type, axes), others),)

    def reference(self, x: Array, axis: Axes, keep: bool) -> Any:
        return np.prod(x, axis=axis, keepdims=keep, dtype=x.dtype if x.dtype.kind == "f" else np.int64)


class _Truth(Reduction):
    """Base of any and all."""

    family = "logic"
    differentiable = False
    kind = "bool"
    samples = [
        Sample((_BOOLS,)),
        Sample((_BOOLS,), {"axis": 0}),
        Sample((_BOOLS[:, ::2] ^ True,), {"axis": 1, "keep": True}),
        Sample((np.arange(5 * 40).reshape(5, 40) % 37 == 0,), {"axis": 1}),
        Sample((np.zeros((5, 2, 2), np.bool_),), {"axis": (0, -1)}),
        Sample((np.array(True),)),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {}, "a bool tensor"),
        BadSample((TensorType(BOOL, (2, 3)),), {"axis": (0, -2)}, "named twice"),
    ]


@operator
class AnyTrue(_Truth):
    """Whether one of the elements over axes is true. None of nothing is."""

    name = "any"

    def body(self, index: Index, x: Reader, axis: Axes, keep: bool) -> Expr:
        return self.reduce("max", index, x, axis, keep, BOOL)

    def reference(self, x: Array, axis: Axes, keep: bool) -> Array:
        return np.asarray(np.any(x, axis=axis, keepdims=keep))


@operator
class AllTrue(_Truth):
    """Whether every element over axes is true. All of nothing are."""

    name = "all"

    def body(self, index: Index, x: Reader, axis: Axes, keep: bool) -> Expr:
        return self.reduce("min", index, x, axis, keep, BOOL)

    def reference(self, x: Array, axis: Axes, keep: bool) -> Array:
        return np.asarray(np.all(x, axis=axis, keepdims=keep))


class _Position(Operator):
    """Base of argmax and argmin."""

    family = "reduction"
    differentiable = False
    attrs = {
        "axis": Attr("axis", None, "the axis to search; all elements in row-major order unless told"),
        "keep": Attr("bool", False, "leave the axis with size 1"),
    }
    samples = [
        Sample(((5, 4),), {"axis": 1}),
        Sample(((5, 4),), {"axis": 0, "keep": True}),
        Sample(((5, 2, 3),)),
        Sample((np.array([[1.0, 3.0, 3.0], [2.0, np.nan, 9.0], [2.0, 1.0, 1.0]]),), {"axis": -1}),
        Sample((np.array([[4, 4], [1, 2]], np.int32),), {"axis": 1}),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"axis": 2}, "no axis 2"),
        BadSample((TensorType(BOOL, (2, 3)),), {"axis": 1}, "not bool[2, 3]"),
        BadSample((TensorType(F32, (2, 0)),), {"axis": 1}, "no elements"),
    ]

    def axes(self, x: TensorType, axis: int | None) -> tuple[int, ...]:
        return normal_axes(None, x) if axis is None else (normal_axis(axis, x),)

    def infer(self, x: TensorType, axis: int | None, keep: bool) -> TensorType:
        require("number", self.name, x)
        axes = self.axes(x, axis)
        if count(x, axes) == 0:
            raise TypeFailure(f"{self.name} of no elements: {x}", inputs=(0,))
        return TensorType(I64, reduced_shape(x, axes, keep))

    def body(self, index: Index, x: Reader, axis: int | None, keep: bool) -> Expr:
        axes = self.axes(x.type, axis)
        if not axes:
            return loops.const(0, I64)
        extents = tuple(x.type.shape[a] for a in axes)
        return loops.reduce(self.name, extents, lambda *inner: x[reduction_index(index, axes, keep, inner, x.type.rank)])


@operator
class Argmax(_Position):
    """The position, as i64, of the first largest element along an axis (of the flattened tensor without one); NaN is largest."""

    onnx = "ArgMax"

    def reference(self, x: Array, axis: int | None, keep: bool) -> Any:
        return np.asarray(np.argmax(x, axis=axis, keepdims=keep), np.int64)


@operator
class Argmin(_Position):
    """The position, as i64, of the first smallest element along an axis (of the flattened tensor without one); NaN is smallest."""

    onnx = "ArgMin"

    def reference(self, x: Array, axis: int | None, keep: bool) -> Any:
        return np.asarray(np.argmin(x, axis=axis, keepdims=keep), np.int64)


@operator
class Logsumexp(Reduction):
    """log(sum(exp(x))) over axes, shifted by the maximum so that nothing overflows; -inf where every element is."""

    onnx = "ReduceLogSumExp"
    samples = [*Reduction.samples, Sample((np.array([[1000.0, 1001.0], [-np.inf, -np.inf], [np.inf, 0.0]]),), {"axis": 1}, gradient=False)]

    def expand(self, b: Builder, x: Value, axis: Axes, keep: bool) -> Value:
        axes = normal_axes(axis, x.type)
        top = b.max(x, axis=axes, keep=True)
        infinite = b.eq(b.abs(top), b.scalar(np.inf, x.type.dtype))
        shift = b.where(infinite, b.scalar(0.0, x.type.dtype), top)  # inf - inf would be NaN
        result: Value = b.add(b.log(b.sum(b.exp(b.sub(x, shift)), axis=axes, keep=True)), shift)
        return result if keep else reshaped(b, result, reduced_shape(x.type, axes, False))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: Axes, keep: bool) -> tuple[Value]:
        axes = normal_axes(axis, x.type)
        return (b.mul(kept(b, dy, x.type, axes), b.exp(b.sub(x, kept(b, y, x.type, axes)))),)

    def reference(self, x: Array, axis: Axes, keep: bool) -> Any:
        axes = range(x.ndim) if axis is None else tuple(np.atleast_1d(axis) % x.ndim)
        for a in axes:  # one at a time: NumPy does not reorder logaddexp
            x = np.logaddexp.reduce(x, axis=a, keepdims=True)
        return x if keep else np.squeeze(x, axis=tuple(axes))


@operator
class Norm(Reduction):
    """The Euclidean norm sqrt(sum(x * x)) over axes. Its gradient at 0 is 0."""

    onnx = "ReduceL2"

    def expand(self, b: Builder, x: Value, axis: Axes, keep: bool) -> Value:
        result: Value = b.sqrt(b.sum(b.mul(x, x), axis=axis, keep=keep))
        return result

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: Axes, keep: bool) -> tuple[Value]:
        axes = normal_axes(axis, x.type)
        zero, one = b.scalar(0.0, y.type.dtype), b.scalar(1.0, y.type.dtype)
        scale = b.div(dy, b.where(b.eq(y, zero), one, y))
        return (b.mul(x, kept(b, scale, x.type, axes)),)

    def reference(self, x: Array, axis: Axes, keep: bool) -> Any:
        return np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keep))


@operator
class Moments(Operator):
    """The mean and the biased variance over all axes but `keep`, which may name one axis, several or none.

    For x of [N, C, H, W] and keep = 1 both results are [C]. The variance is the mean of the squared deviations.
    """

    family = "norm"
    attrs = {"keep": Attr("axes", (), "the axes that stay")}
    samples = [
        Sample(((5, 3),), {"keep": 1}),
        Sample(((5, 3, 2, 2),), {"keep": 1}),
        Sample(((5, 4, 2),), {"keep": (0, -1)}),
        Sample(((5, 4),)),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"keep": 2}, "no axis 2"),
        BadSample((TensorType(I32, (2, 3)),), {"keep": 1}, "floating-point"),
    ]

    def axes(self, x: TensorType, keep: Axes) -> tuple[int, ...]:
        stay = () if keep is None else normal_axes(keep, x)
        return tuple(axis for axis in range(x.rank) if axis not in stay)

    def infer(self, x: TensorType, keep: Axes) -> tuple[TensorType, TensorType]:
        require("floating", self.name, x)
        result = x.with_shape(reduced_shape(x, self.axes(x, keep), False))
        return result, result

    def expand(self, b: Builder, x: Value, keep: Axes) -> tuple[Value, Value]:
        axes = self.axes(x.type, keep)
        mean = b.mean(x, axis=axes)
        deviation = b.sub(x, kept(b, mean, x.type, axes))
        return mean, b.mean(b.mul(deviation, deviation), axis=axes)

    def vjp(self, b: Builder, dy: tuple[Value | None, ...], y: tuple[Value, ...], x: Value, keep: Axes) -> tuple[Value]:
        axes = self.axes(x.type, keep)
        share = extent(b, count(x.type, axes), x.type.dtype)
        dmean, dvariance = dy
        parts: list[Value] = []
        if dmean is not None:
            parts.append(broadcast_to(b, kept(b, b.div(dmean, share), x.type, axes), x.type.shape))
        if dvariance is not None:  # the mean's own share is 0, for deviations sum to 0
            deviation = b.sub(x, kept(b, y[0], x.type, axes))
            slope = b.div(b.mul(dvariance, b.scalar(2.0, x.type.dtype)), share)
            parts.append(b.mul(deviation, kept(b, slope, x.type, axes)))
        return (parts[0] if len(parts) == 1 else b.add(*parts),)

    def reference(self, x: Array, keep: Axes) -> Any:
        stay = () if keep is None else np.atleast_1d(keep) % x.ndim
        axes = tuple(axis for axis in range(x.ndim) if axis not in stay)
        return np.mean(x, axis=axes), np.var(x, axis=axes)
