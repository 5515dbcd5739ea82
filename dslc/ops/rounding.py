"""Rounding to whole numbers, and tests for NaN and infinities."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir import loops
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import BadSample, Sample, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.elementwise import Pointwise, Unary
from dslc.ops.shapes import Array, Index, number, read, require

BOOL = DType.BOOL
_HALVES = np.array([-2.5, -1.5, -0.5, -0.2, -0.0, 0.0, 0.4, 0.5, 1.5, 2.5, 1e30, -np.inf, np.nan])


class Rounding(Unary):
    """Base of the functions that round. Their results are whole numbers of the operand's type; their gradients are zero."""

    differentiable = False
    samples = [*Unary.samples, Sample((_HALVES,))]


@operator
class Floor(Rounding):
    """The largest whole number that is at most x. Its gradient is zero."""

    onnx = "Floor"

    def reference(self, x: Array) -> Any:
        return np.floor(x)


@operator
class Ceil(Rounding):
    """The smallest whole number that is at least x. Its gradient is zero."""

    onnx = "Ceil"

    def reference(self, x: Array) -> Any:
        return np.ceil(x)


@operator
class Round(Rounding):
    """The nearest whole number, the even one of two that are equally near. Its gradient is zero."""

    onnx = "Round"

    def reference(self, x: Array) -> Any:
        return np.rint(x)


@operator
class Trunc(Rounding):
    """x without its fraction: rounded to zero. Its gradient is zero."""

    def reference(self, x: Array) -> Any:
        return np.trunc(x)


class Predicate(Pointwise):
    """Base of the tests of one floating-point number."""

    family = "logic"
    differentiable = False
    samples = [*Pointwise.samples, Sample((np.array([0.0, np.nan, np.inf, -np.inf, 1e-40, -1e30]),))]
    errors = [BadSample((TensorType(DType.I32, (2,)),), {}, "floating-point")]

    def infer(self, x: TensorType, **attrs: Any) -> TensorType:
        require("floating", self.name, x)
        return TensorType(BOOL, x.shape)


@operator
class Isnan(Predicate):
    """True where x is no number."""

    onnx = "IsNaN"

    def body(self, index: Index, x: Reader) -> Expr:
        return loops.unary("isnan", read(x, index))

    def reference(self, x: Array) -> Any:
        return np.isnan(x)


@operator
class Isinf(Predicate):
    """True where x is infinite, of either sign."""

    onnx = "IsInf"

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        return loops.binary("eq", loops.unary("abs", a), number(float("inf"), a))

    def reference(self, x: Array) -> Any:
        return np.isinf(x)


@operator
class Isfinite(Predicate):
    """True where x is neither infinite nor NaN."""

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        return loops.binary("lt", loops.unary("abs", a), number(float("inf"), a))

    def reference(self, x: Array) -> Any:
        return np.isfinite(x)
