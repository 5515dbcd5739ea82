"""Running sums and products along an axis, and the linear recurrence that all of them are cases of."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import Carried, Carry, Expr, Reader, Recurrence
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index, cut, normal_axis, require

F32, I32, I64, BOOL = DType.F32, DType.I32, DType.I64, DType.BOOL
_REVERSE = Attr("bool", False, "from the last element to the first")
_SAMPLES = [
    Sample(((5,),)),
    Sample(((5, 3),), {"axis": 1}),
    Sample(((5, 2, 3),), {"axis": 1, "reverse": True}),
    Sample(((5, 4),), {"axis": 0, "exclusive": True}),
    Sample(((5, 4),), {"axis": -1, "reverse": True, "exclusive": True}),
    Sample(((5, 1),), {"axis": 1, "exclusive": True}),
    Sample(((33, 18),), {"axis": 0}, gradient=False),
    Sample(((2, 33, 5),), {"axis": 1}, gradient=False),
    Sample((np.array([[3, -2, 4], [1, 0, 7]], np.int32),), {"axis": 1}, gradient=False),
    Sample((np.array([[True, False, True]]),), {"axis": 1}, gradient=False),
    Sample((np.array([[1.0, np.inf, 2.0, -np.inf], [np.nan, 1.0, 0.0, 1.0]]),), {"axis": 1}, gradient=False),
    Sample((np.zeros((2, 0)),), {"axis": 1}, gradient=False),
]
_ERRORS = [
    BadSample((TensorType(F32, (2, 3)),), {"axis": 2}, "no axis 2"),
    BadSample((TensorType(F32, ()),), {}, "no axis 0"),
]


class _Running(Operator):
    """Base of running sums and products."""

    family = "scan"
    attrs = {
        "axis": Attr("axis", 0, "the axis along which elements are taken together"),
        "reverse": _REVERSE,
        "exclusive": Attr("bool", False, "leave out the element itself: the first result is that of nothing"),
    }
    errors = _ERRORS

    def infer(self, x: TensorType, axis: int, reverse: bool, exclusive: bool) -> TensorType:
        normal_axis(axis, x)
        return TensorType(x.dtype if x.dtype.floating else I64, x.shape)

    def running(self, op: str, start: int, index: Index, x: Reader, axis: int, reverse: bool, exclusive: bool) -> Recurrence:
        dtype = x.type.dtype if x.type.dtype.floating else I64
        initial = loops.const(float(start) if dtype.floating else start, dtype)
        before = Carry("total", dtype)
        after = loops.binary(op, before, loops.cast(x[index], dtype))
        value: Expr = before if exclusive else after
        return Recurrence(normal_axis(axis, x.type), reverse, (Carried("total", initial, after),), value)


def _running_reference(function: Any, start: int, x: Array, axis: int, reverse: bool, exclusive: bool) -> Array:
    x = x if x.dtype.kind == "f" else x.astype(np.int64)
    turned = np.flip(x, axis) if reverse else x
    made = function(turned, axis=axis, dtype=x.dtype)
    if exclusive and x.shape[axis]:
        made = np.roll(made, 1, axis)
        made[tuple(slice(0, 1) if a == axis % x.ndim else slice(None) for a in range(x.ndim))] = start
    return np.asarray(np.flip(made, axis) if reverse else made)


@operator
class Cumsum(_Running):
    """The sum of each element and those before it along an axis. Bools and integers are summed as i64.

    Sums are made in the order of the elements, in their own precision.
    """

    onnx = "CumSum"
    samples = _SAMPLES

    def recurrence(self, index: Index, x: Reader, axis: int, reverse: bool, exclusive: bool) -> Recurrence:
        return self.running("add", 0, index, x, axis, reverse, exclusive)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: int, reverse: bool, exclusive: bool) -> tuple[Value | None]:
        if not x.type.dtype.floating:
            return (None,)
        return (b.cumsum(dy, axis=axis, reverse=not reverse, exclusive=exclusive),)

    def reference(self, x: Array, axis: int, reverse: bool, exclusive: bool) -> Any:
        return _running_reference(np.cumsum, 0, x, axis, reverse, exclusive)


@operator
class Cumprod(_Running):
    """The product of each element and those before it along an axis. Bools and integers are multiplied as i64.

    The gradient is right where elements are 0, too; it takes two passes over the axis, whatever its length.
    """

    onnx = "CumProd"
    samples = [*_SAMPLES, Sample((np.array([2.0, 0.0, -3.0, 0.5]),)), Sample((np.array([2.0, 0.0, 0.0, 0.5]),), {"exclusive": True})]

    def recurrence(self, index: Index, x: Reader, axis: int, reverse: bool, exclusive: bool) -> Recurrence:
        return self.running("mul", 1, index, x, axis, reverse, exclusive)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: int, reverse: bool, exclusive: bool) -> tuple[Value | None]:
        # dx[k] = (product of x before k) * s[k], where s[k] sums dy[i] * (product of x between k and i) over i from k on:
        # s[k] = dy[k] + x[k + 1] * s[k + 1]; exclusive results begin one later.
        if not x.type.dtype.floating:
            return (None,)
        at = normal_axis(axis, x.type)
        before = b.cumprod(x, axis=at, reverse=reverse, exclusive=True)
        ahead = shifted(b, x, at, -1 if reverse else 1)
        wanted = shifted(b, dy, at, -1 if reverse else 1) if exclusive else dy
        return (b.mul(before, b.linear_recurrence(ahead, wanted, axis=at, reverse=not reverse)),)

    def reference(self, x: Array, axis: int, reverse: bool, exclusive: bool) -> Any:
        return _running_reference(np.cumprod, 1, x, axis, reverse, exclusive)


def shifted(b: Builder, x: Value, axis: int, by: int) -> Value:
    """The element that lies `by` (1 or -1) further along an axis; 0 beyond its end."""
    size = x.type.shape[axis]
    if size == 0:
        return x
    part = cut(b, x, axis, 1, size) if by == 1 else cut(b, x, axis, 0, size - 1)
    sides = tuple(1 if a == axis else 0 for a in range(x.type.rank))
    none = (0,) * x.type.rank
    result: Value = b.pad(part, low=none if by == 1 else sides, high=sides if by == 1 else none, value=0.0)
    return result


@operator
class LinearRecurrence(Operator):
    """h[t] = a[t] * h[t - 1] + b[t] along an axis, from h = 0 before the first element; with `reverse` from the last one, h[t + 1].

    The recurrence of linear state-space models and of exponential averages. A product and a sum a step, each rounded.
    """

    family = "scan"
    inputs = ("a", "b")
    attrs = {"axis": Attr("axis", 0, "the axis of the steps"), "reverse": _REVERSE}
    samples = [
        Sample(((5,), (5,))),
        Sample(((5, 3), (5, 3)), {"axis": 1}),
        Sample(((5, 4), (5, 4)), {"reverse": True}),
        Sample(((2, 5, 3), (2, 5, 3)), {"axis": -2, "reverse": True}),
        Sample(((3, 1), (3, 1)), {"axis": 1}),
        Sample(((2, 20, 18), (2, 20, 18)), {"axis": 1}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)), TensorType(F32, (2, 3))), {"axis": 2}, "no axis 2"),
        BadSample((TensorType(F32, (2, 3)), TensorType(F32, (3,))), {}, "of one type"),
        BadSample((TensorType(I32, (2,)), TensorType(I32, (2,))), {}, "floating-point"),
    ]

    def infer(self, a: TensorType, b: TensorType, axis: int, reverse: bool) -> TensorType:
        require("floating", self.name, a, b)
        if a != b:
            raise TypeFailure(f"linear_recurrence needs factors and addends of one type, not {a} and {b}", inputs=(0, 1))
        normal_axis(axis, a)
        return a

    def recurrence(self, index: Index, a: Reader, b: Reader, axis: int, reverse: bool) -> Recurrence:
        dtype = a.type.dtype
        after = loops.binary("add", loops.binary("mul", a[index], Carry("h", dtype)), b[index])
        return Recurrence(normal_axis(axis, a.type), reverse, (Carried("h", loops.const(0.0, dtype), after),), after)

    def vjp(self, builder: Builder, dh: Value, h: Value, a: Value, b: Value, axis: int, reverse: bool) -> tuple[Value, Value]:
        # g[t] = dh[t] + a[t + 1] * g[t + 1] is the gradient by b[t]; h[t - 1] * g[t] that by a[t].
        at, forward = normal_axis(axis, a.type), -1 if reverse else 1
        g = builder.linear_recurrence(shifted(builder, a, at, forward), dh, axis=at, reverse=not reverse)
        return builder.mul(g, shifted(builder, h, at, -forward)), g

    def reference(self, a: Array, b: Array, axis: int, reverse: bool) -> Any:
        a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
        h = np.zeros_like(b)
        last = np.zeros_like(b[0]) if len(b) else b
        for t in reversed(range(len(b))) if reverse else range(len(b)):
            last = h[t] = a[t] * last + b[t]
        return np.moveaxis(h, 0, axis)
