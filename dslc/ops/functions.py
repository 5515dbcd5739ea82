"""Exponentials and logarithms of other bases, hyperbolic and trigonometric functions and their inverses, element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import BadSample, Sample, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.elementwise import Binary, Pointwise, Unary
from dslc.ops.shapes import Array, Index, number, read, unbroadcast

_POSITIVE = np.array([0.1, 0.5, 1.0, 2.0, 7.0])
_INSIDE = np.array([-0.9, -0.3, 0.1, 0.5, 0.8])  # of -1 .. 1
_WIDE = np.array([0.0, -0.0, 1.0, -1.0, 1e-30, -30.0, 30.0, 1e30, np.inf, -np.inf, np.nan])
_POWERS = np.array([1e-40, 0.001, 0.125, 1.0, 8.0, 1000.0, 0.0, -1.0, np.inf, np.nan])
_TINY = np.array([1e-12, -1e-12, 1e-40, -0.5, 3.0])


def _constant(b: Builder, value: float, like: Value) -> Value:
    return b.scalar(value, like.type.dtype)


# ---- powers -------------------------------------------------------------------------------------------------------


@operator
class Square(Pointwise):
    """x times x. Integers wrap around."""

    kind = "number"
    samples = [*Pointwise.samples, Sample((np.array([3, -4], np.int32),), gradient=False)]
    errors = [BadSample((TensorType(DType.BOOL, (2,)),), {}, "not bool[2]")]

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        return loops.binary("mul", a, a)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.add(x, x)),)

    def reference(self, x: Array) -> Any:
        return np.square(x)


@operator
class Reciprocal(Pointwise):
    """1 / x: an infinity at 0, with its sign."""

    onnx = "Reciprocal"
    samples = [Sample((np.array([[-2.0, -0.7, 0.3, 1.5]] * 5),)), Sample((np.array(0.7),)), Sample((_WIDE,), gradient=False)]

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        return loops.binary("div", number(1, a), a)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.neg(b.mul(dy, b.mul(y, y))),)

    def reference(self, x: Array) -> Any:
        return np.reciprocal(x)


@operator
class Fmod(Binary):
    """The exact remainder of x / y with the sign of x, as C's fmod: x - y * trunc(x / y). NaN where y is 0 or x is infinite.

    `%` differs: its remainder has the sign of y, and it is rounded.
    """

    onnx = "Mod"
    verb = "divide"
    kind = "floating"
    samples = [
        Sample((np.array([[7.5, -7.5, 6.1, -0.2]] * 5), np.array([2.0, 2.0, -4.25, 3.0]))),
        Sample((_WIDE[:, None], np.array([0.1, -0.7, 3.0, 1e-30, 0.0, np.inf, np.nan])), gradient=False),
    ]
    errors = [*Binary.errors[:2], BadSample((TensorType(DType.I32, (2,)), TensorType(DType.I32, (2,))), {}, "floating-point")]

    def vjp(self, b: Builder, dz: Value, z: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return unbroadcast(b, dz, x.type), b.neg(unbroadcast(b, b.mul(dz, b.trunc(b.div(x, y))), y.type))

    def reference(self, x: Array, y: Array) -> Any:
        return np.fmod(x, y)


# ---- exponentials and logarithms ----------------------------------------------------------------------------------


@operator
class Exp2(Unary):
    """2 to the power x; exact for whole x."""

    samples = [*Unary.samples, Sample((np.array([-1074.0, -149.0, -3.0, 0.0, 10.0, 2000.0, np.inf, -np.inf, np.nan]),), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.mul(y, _constant(b, math.log(2), y))),)

    def reference(self, x: Array) -> Any:
        return np.exp2(x)


@operator
class Expm1(Unary):
    """exp(x) - 1, to full precision for x near 0."""

    samples = [*Unary.samples, Sample((_TINY,)), Sample((_WIDE,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.exp(x)),)

    def reference(self, x: Array) -> Any:
        return np.expm1(x)


@operator
class Log1p(Unary):
    """log(1 + x), to full precision for x near 0: -inf at -1, NaN below."""

    samples = [Sample((_POSITIVE,)), Sample((np.array(3.0),)), Sample((_TINY,)), Sample((_WIDE,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.div(dy, b.add(x, _constant(b, 1.0, x))),)

    def reference(self, x: Array) -> Any:
        return np.log1p(x)


@operator
class Log2(Unary):
    """The logarithm to base 2, exact for powers of 2: -inf at 0, NaN below."""

    samples = [Sample((_POSITIVE,)), Sample((np.array(3.0),)), Sample((_POWERS,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.div(dy, b.mul(x, _constant(b, math.log(2), x))),)

    def reference(self, x: Array) -> Any:
        return np.log2(x)


@operator
class Log10(Unary):
    """The logarithm to base 10: -inf at 0, NaN below."""

    samples = [Sample((_POSITIVE,)), Sample((np.array(3.0),)), Sample((_POWERS,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.div(dy, b.mul(x, _constant(b, math.log(10), x))),)

    def reference(self, x: Array) -> Any:
        return np.log10(x)


# ---- hyperbolic functions -----------------------------------------------------------------------------------------


@operator
class Sinh(Unary):
    """The hyperbolic sine."""

    onnx = "Sinh"
    samples = [*Unary.samples, Sample((_WIDE,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.cosh(x)),)

    def reference(self, x: Array) -> Any:
        return np.sinh(x)


@operator
class Cosh(Unary):
    """The hyperbolic cosine."""

    onnx = "Cosh"
    samples = [*Unary.samples, Sample((_WIDE,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.sinh(x)),)

    def reference(self, x: Array) -> Any:
        return np.cosh(x)


@operator
class Asinh(Unary):
    """The inverse hyperbolic sine."""

    onnx = "Asinh"
    samples = [*Unary.samples, Sample((_WIDE,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.rsqrt(b.add(b.mul(x, x), _constant(b, 1.0, x)))),)

    def reference(self, x: Array) -> Any:
        return np.arcsinh(x)


@operator
class Acosh(Unary):
    """The inverse hyperbolic cosine, at least 0; NaN below 1."""

    onnx = "Acosh"
    samples = [Sample((np.array([1.1, 1.5, 2.0, 7.0, 100.0]),)), Sample((np.array(3.0),)), Sample((_WIDE,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        one = _constant(b, 1.0, x)
        return (b.mul(dy, b.mul(b.rsqrt(b.sub(x, one)), b.rsqrt(b.add(x, one)))),)

    def reference(self, x: Array) -> Any:
        return np.arccosh(x)


@operator
class Atanh(Unary):
    """The inverse hyperbolic tangent: infinite at -1 and 1, NaN beyond."""

    onnx = "Atanh"
    samples = [Sample((_INSIDE,)), Sample((np.array(0.3),)), Sample((_WIDE,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        one = _constant(b, 1.0, x)
        return (b.div(dy, b.mul(b.sub(one, x), b.add(one, x))),)

    def reference(self, x: Array) -> Any:
        return np.arctanh(x)


# ---- trigonometric functions --------------------------------------------------------------------------------------


@operator
class Tan(Unary):
    """The tangent of x in radians."""

    onnx = "Tan"
    samples = [Sample((_INSIDE,)), Sample((np.array(0.3),)), Sample((_WIDE[:-3],), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.add(b.mul(y, y), _constant(b, 1.0, y))),)

    def reference(self, x: Array) -> Any:
        return np.tan(x)


@operator
class Asin(Unary):
    """The angle in -pi/2 .. pi/2 whose sine is x; NaN beyond -1 and 1."""

    onnx = "Asin"
    samples = [Sample((_INSIDE,)), Sample((np.array(0.3),)), Sample((_WIDE,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, _slope_of_asin(b, x)),)

    def reference(self, x: Array) -> Any:
        return np.arcsin(x)


@operator
class Acos(Unary):
    """The angle in 0 .. pi whose cosine is x; NaN beyond -1 and 1."""

    onnx = "Acos"
    samples = [Sample((_INSIDE,)), Sample((np.array(0.3),)), Sample((_WIDE,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.neg(b.mul(dy, _slope_of_asin(b, x))),)

    def reference(self, x: Array) -> Any:
        return np.arccos(x)


def _slope_of_asin(b: Builder, x: Value) -> Value:
    """1 / sqrt(1 - x * x), without cancellation near the ends."""
    one = _constant(b, 1.0, x)
    slope: Value = b.rsqrt(b.mul(b.sub(one, x), b.add(one, x)))
    return slope


@operator
class Atan(Unary):
    """The angle in -pi/2 .. pi/2 whose tangent is x."""

    onnx = "Atan"
    samples = [*Unary.samples, Sample((_WIDE,), gradient=False)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.div(dy, b.add(b.mul(x, x), _constant(b, 1.0, x))),)

    def reference(self, x: Array) -> Any:
        return np.arctan(x)


@operator
class Atan2(Binary):
    """The angle in -pi .. pi of the point (x, y), y first: atan(y / x), in the quarter where the point lies.

    Signs of zeros count, and infinities are directions, as in C.
    """

    family = "math"
    inputs = ("y", "x")
    verb = "take the angle of"
    kind = "floating"
    samples = [
        Sample(((5, 4), (5, 4))),
        Sample(((5, 3, 4), (3, 1))),
        Sample((np.array(0.5), np.array([[-2.0, -0.7, 0.3, 1.5]]))),
        Sample((_WIDE[:, None], _WIDE), gradient=False),
    ]
    errors = [*Binary.errors[:2], BadSample((TensorType(DType.I32, (2,)), TensorType(DType.I32, (2,))), {}, "floating-point")]

    def vjp(self, b: Builder, dz: Value, z: Value, y: Value, x: Value) -> tuple[Value, Value]:
        share = b.div(dz, b.add(b.mul(x, x), b.mul(y, y)))
        return unbroadcast(b, b.mul(share, x), y.type), b.neg(unbroadcast(b, b.mul(share, y), x.type))

    def reference(self, y: Array, x: Array) -> Any:
        return np.arctan2(y, x)
