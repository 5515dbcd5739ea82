"""Variance and standard deviation over axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.reductions import Axes, Reduction
from dslc.ops.shapes import Array, count, extent, kept, normal_axes, reduced_shape, require

F32, I32 = DType.F32, DType.I32


class _Spread(Operator):
    """Base of var and std."""

    family = "reduction"
    attrs = {**Reduction.attrs, "correction": Attr("int", 0, "subtracted from the number of elements: 1 for the unbiased estimate")}
    samples = [
        *(s for s in Reduction.samples if s.inputs != ((),)),
        Sample(((5, 4),), {"axis": 1, "correction": 1}),
        Sample(((5, 40),), {"axis": (0, 1), "correction": 1, "keep": True}, gradient=False),
    ]
    errors = [
        *Reduction.errors,
        BadSample((TensorType(I32, (2, 3)),), {}, "floating-point"),
        BadSample((TensorType(F32, (2, 3)),), {"axis": 0, "correction": 2}, "more than 2 elements"),
        BadSample((TensorType(F32, (2, 3)),), {"correction": -1}, "at least 0"),
    ]

    def infer(self, x: TensorType, axis: Axes, keep: bool, correction: int) -> TensorType:
        require("floating", self.name, x)
        axes = normal_axes(axis, x)
        size = count(x, axes)
        if correction < 0:
            raise TypeFailure(f"the correction of {self.name} is at least 0, not {correction}")
        if isinstance(size, int) and size <= correction:
            raise TypeFailure(f"{self.name} of {x} with correction {correction} needs more than {correction} elements", inputs=(0,))
        return x.with_shape(reduced_shape(x, axes, keep))

    def parts(self, b: Builder, x: Value, axis: Axes, correction: int) -> tuple[Value, Value]:
        """Deviations from the mean, and the number that their squares are divided by."""
        axes = normal_axes(axis, x.type)
        return b.sub(x, b.mean(x, axis=axes, keep=True)), extent(b, count(x.type, axes) - correction, x.type.dtype)


@operator
class Var(_Spread):
    """The variance over axes: the mean of the squared deviations from the mean, or with a `correction` their sum over n - correction."""

    def expand(self, b: Builder, x: Value, axis: Axes, keep: bool, correction: int) -> Value:
        deviation, number = self.parts(b, x, axis, correction)
        result: Value = b.div(b.sum(b.mul(deviation, deviation), axis=axis, keep=keep), number)
        return result

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: Axes, keep: bool, correction: int) -> tuple[Value]:
        deviation, number = self.parts(b, x, axis, correction)  # the mean's own share is 0, for deviations sum to 0
        slope = b.div(b.mul(dy, b.scalar(2.0, x.type.dtype)), number)
        return (b.mul(deviation, kept(b, slope, x.type, normal_axes(axis, x.type))),)

    def reference(self, x: Array, axis: Axes, keep: bool, correction: int) -> Any:
        return np.var(x, axis=axis, keepdims=keep, ddof=correction)


@operator
class Std(_Spread):
    """The standard deviation over axes: the square root of `var`. Its gradient is 0 where all elements are equal."""

    def expand(self, b: Builder, x: Value, axis: Axes, keep: bool, correction: int) -> Value:
        result: Value = b.sqrt(b.var(x, axis=axis, keep=keep, correction=correction))
        return result

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: Axes, keep: bool, correction: int) -> tuple[Value]:
        deviation, number = self.parts(b, x, axis, correction)
        zero, one = b.scalar(0.0, y.type.dtype), b.scalar(1.0, y.type.dtype)
        slope = b.div(dy, b.mul(b.where(b.eq(y, zero), one, y), number))
        return (b.mul(deviation, kept(b, slope, x.type, normal_axes(axis, x.type))),)

    def reference(self, x: Array, axis: Axes, keep: bool, correction: int) -> Any:
        return np.std(x, axis=axis, keepdims=keep, ddof=correction)
