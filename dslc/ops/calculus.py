"""The gradient as an operator of the graph, until the autodiff transform replaces it."""

from __future__ import annotations

from dslc.ir.operator import BadSample, Operator, TypeFailure, operator
from dslc.ir.types import DType, TensorType

_F32 = TensorType(DType.F32)


@operator
class Grad(Operator):
    """The gradients of a scalar with respect to values that it was computed from, one of each value's type."""

    family = "calculus"
    inputs = ("loss", "*xs")
    meta = True
    internal = True
    differentiable = False
    errors = [
        BadSample((TensorType(DType.F32, (2,)), _F32), {}, "a scalar"),
        BadSample((_F32, TensorType(DType.I32)), {}, "floating-point"),
        BadSample((_F32,), {}, "at least one"),
    ]

    def infer(self, loss: TensorType, *xs: TensorType) -> tuple[TensorType, ...]:
        if loss.rank != 0 or not loss.dtype.floating:
            raise TypeFailure(f"the gradient is taken of a scalar, not of {loss}", inputs=(0,), hint="reduce it with sum(...) or mean(...)")
        if not xs:
            raise TypeFailure("the gradient needs at least one value to differentiate by")
        for position, x in enumerate(xs, 1):
            if not x.dtype.floating:
                raise TypeFailure(f"the gradient by {x} is not defined: only a floating-point tensor can vary", inputs=(position,))
        return xs
