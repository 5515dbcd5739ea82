"""Arithmetic and mathematical functions, element by element."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index, broadcast, number, read, require, same_dtype, unbroadcast

F32, F64, I32, I64, BOOL = DType.F32, DType.F64, DType.I32, DType.I64, DType.BOOL
_POSITIVE = np.array([0.1, 0.5, 1.0, 2.0, 7.0])
_NONZERO = np.array([[-2.0, -0.7, 0.3, 1.5], [1.0, 2.5, -3.0, 0.9]])
_INTEGERS = (np.array([7, -7, 6, -1, 0], np.int32), np.array([3, 3, -4, -1, 5], np.int32))


class Binary(Operator):
    """Base of the operators of two broadcast operands of one element type."""

    family = "arithmetic"
    inputs = ("x", "y")
    elementwise = True
    verb: ClassVar[str]
    kind: ClassVar[str] = "number"
    samples = [
        Sample(((5, 4), (5, 4))),
        Sample(((5, 3, 4), (3, 1))),
        Sample(((), (5, 2))),
        Sample(((5, 1, 2), (1, 3, 1))),
        Sample(_INTEGERS, gradient=False),
        Sample((np.array([250, 3], np.uint8), np.array([7, 200], np.uint8)), gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)), TensorType(F32, (2, 4))), {}, "axis 1 is 3 and 4"),
        BadSample((TensorType(F32, (2, 3)), TensorType(F64, (2, 3))), {}, "element types differ"),
        BadSample((TensorType(BOOL, (2,)), TensorType(BOOL, (2,))), {}, "not bool[2]"),
    ]

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        require(self.kind, self.name, x, y)
        return TensorType(same_dtype(self.verb, x, y), broadcast(self.verb, x, y))

    def body(self, index: Index, x: Reader, y: Reader) -> Expr:
        return loops.binary(self.name, read(x, index), read(y, index))


class Pointwise(Operator):
    """Base of the operators of one operand, whatever their settings."""

    family = "math"
    elementwise = True
    kind: ClassVar[str] = "floating"
    samples = [Sample(((5, 4),)), Sample(((),)), Sample(((5, 1, 3),))]
    errors = [BadSample((TensorType(I32, (2,)),), {}, "floating-point")]

    def infer(self, x: TensorType, **attrs: Any) -> TensorType:
        require(self.kind, self.name, x)
        return x


class Unary(Pointwise):
    """Base of the operators that are one function of the loop language, of the same name."""

    def body(self, index: Index, x: Reader) -> Expr:
        return loops.unary(self.name, read(x, index))


# ---- arithmetic ---------------------------------------------------------------------------------------------------


@operator
class Add(Binary):
    """The sum x + y. Integers wrap around."""

    onnx = "Add"
    verb = "add"

    def vjp(self, b: Builder, dz: Value, z: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return unbroadcast(b, dz, x.type), unbroadcast(b, dz, y.type)

    def reference(self, x: Array, y: Array) -> Any:
        return x + y


@operator
class Sub(Binary):
    """The difference x - y. Integers wrap around."""

    onnx = "Sub"
    verb = "subtract"

    def vjp(self, b: Builder, dz: Value, z: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return unbroadcast(b, dz, x.type), b.neg(unbroadcast(b, dz, y.type))

    def reference(self, x: Array, y: Array) -> Any:
        return x - y


@operator
class Mul(Binary):
    """The product x * y. Integers wrap around."""

    onnx = "Mul"
    verb = "multiply"

    def vjp(self, b: Builder, dz: Value, z: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return unbroadcast(b, b.mul(dz, y), x.type), unbroadcast(b, b.mul(dz, x), y.type)

    def reference(self, x: Array, y: Array) -> Any:
        return x * y


@operator
class Div(Binary):
    """The quotient x / y of floating-point numbers. Division by zero gives an infinity, 0 / 0 gives NaN."""

    onnx = "Div"
    verb = "divide"
    kind = "floating"
    samples = [Sample(((5, 2, 4), _NONZERO)), Sample(((5, 4), np.array(0.7)))]
    errors = [
        *Binary.errors[:2],
        BadSample((TensorType(I32, (2,)), TensorType(I32, (2,))), {}, "floating-point"),
    ]

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        if x.dtype.integer and y.dtype.integer:
            raise TypeFailure(
                f"div needs floating-point tensors, not {x}", inputs=(0, 1), hint="use // for whole numbers, or cast[f32](...)"
            )
        return super().infer(x, y)

    def vjp(self, b: Builder, dz: Value, z: Value, x: Value, y: Value) -> tuple[Value, Value]:
        dx = b.div(dz, y)
        return unbroadcast(b, dx, x.type), b.neg(unbroadcast(b, b.mul(dx, z), y.type))

    def reference(self, x: Array, y: Array) -> Any:
        return x / y


@operator
class Floordiv(Binary):
    """The quotient rounded to minus infinity: floor(x / y). An integer divided by zero is 0. Its gradient is zero."""

    verb = "divide"
    samples = [
        Sample((np.array([[7.5, -7.5, 6.0, -0.2]] * 5), np.array([2.0, 2.0, -4.0, 3.0]))),
        Sample(_INTEGERS, gradient=False),
        Sample((np.array([5, -5], np.int64), np.array([0, 2], np.int64)), gradient=False),
    ]
    differentiable = False

    def body(self, index: Index, x: Reader, y: Reader) -> Expr:
        a, c = read(x, index), read(y, index)
        if a.dtype.floating:
            return loops.unary("floor", loops.binary("div", a, c))
        return loops.binary("floordiv", a, c)

    def reference(self, x: Array, y: Array) -> Any:
        if x.dtype.kind == "f":
            return np.floor(x / y)
        return np.where(y == 0, 0, x // np.where(y == 0, 1, y))


@operator
class Mod(Binary):
    """The remainder of `//`: x - y * (x // y), with the sign of y. An integer modulo zero is 0."""

    verb = "divide"
    samples = [
        Sample((np.array([[7.5, -7.5, 6.0, -0.2]] * 5), np.array([2.0, 2.0, -4.25, 3.0]))),
        Sample(_INTEGERS, gradient=False),
        Sample((np.array([5, -5], np.int64), np.array([0, 2], np.int64)), gradient=False),
    ]

    def body(self, index: Index, x: Reader, y: Reader) -> Expr:
        a, c = read(x, index), read(y, index)
        if a.dtype.floating:
            return loops.binary("sub", a, loops.binary("mul", c, loops.unary("floor", loops.binary("div", a, c))))
        return loops.binary("mod", a, c)

    def vjp(self, b: Builder, dz: Value, z: Value, x: Value, y: Value) -> tuple[Value, Value]:
        return unbroadcast(b, dz, x.type), b.neg(unbroadcast(b, b.mul(dz, b.floordiv(x, y)), y.type))

    def reference(self, x: Array, y: Array) -> Any:
        if x.dtype.kind == "f":
            return x - y * np.floor(x / y)
        return np.where(y == 0, 0, x % np.where(y == 0, 1, y))


@operator
class Neg(Unary):
    """The negative -x. Integers wrap around."""

    onnx = "Neg"
    family = "arithmetic"
    kind = "number"
    samples = [*Unary.samples, Sample((np.array([3, -4], np.int32),), gradient=False)]
    errors = [BadSample((TensorType(BOOL, (2,)),), {}, "not bool[2]")]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.neg(dy),)

    def reference(self, x: Array) -> Any:
        return -x


@operator
class Abs(Unary):
    """The absolute value. Its gradient at 0 is 0."""

    onnx = "Abs"
    kind = "number"
    samples = [*Unary.samples, Sample((np.array([3, -4], np.int32),), gradient=False)]
    errors = [BadSample((TensorType(BOOL, (2,)),), {}, "not bool[2]")]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.sign(x)),)

    def reference(self, x: Array) -> Any:
        return np.abs(x)


@operator
class Sign(Unary):
    """-1, 0 or 1 by the sign of x; NaN stays. Its gradient is zero."""

    onnx = "Sign"
    kind = "number"
    samples = [*Unary.samples, Sample((np.array([3, 0, -4], np.int32),), gradient=False)]
    errors = [BadSample((TensorType(BOOL, (2,)),), {}, "not bool[2]")]
    differentiable = False

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        negative = loops.select(loops.binary("lt", a, number(0, a)), number(-1, a), a)
        return loops.select(loops.binary("gt", a, number(0, a)), number(1, a), negative)

    def reference(self, x: Array) -> Any:
        return np.where(x == 0, x, np.sign(x))


class Extremum(Binary):
    """Base of maximum and minimum: NaN where either operand is; equal operands share the gradient half and half."""

    family = "math"
    strictly: ClassVar[str]

    def vjp(self, b: Builder, dz: Value, z: Value, x: Value, y: Value) -> tuple[Value, Value]:
        half = b.mul(dz, b.scalar(0.5, dz.type.dtype))
        zero = b.scalar(0.0, dz.type.dtype)
        won = b.where(b.eq(x, y), half, dz)
        dx = b.where(b.apply(self.strictly, y, x), zero, won)
        dy = b.where(b.apply(self.strictly, x, y), zero, won)
        return unbroadcast(b, dx, x.type), unbroadcast(b, dy, y.type)


@operator
class Maximum(Extremum):
    """The larger of x and y; NaN where either is NaN. Where they are equal each gets half of the gradient."""

    onnx = "Max"
    verb = "take the maximum of"
    strictly = "gt"

    def body(self, index: Index, x: Reader, y: Reader) -> Expr:
        return loops.binary("max", read(x, index), read(y, index))

    def reference(self, x: Array, y: Array) -> Any:
        return np.maximum(x, y)


@operator
class Minimum(Extremum):
    """The smaller of x and y; NaN where either is NaN. Where they are equal each gets half of the gradient."""

    onnx = "Min"
    verb = "take the minimum of"
    strictly = "lt"

    def body(self, index: Index, x: Reader, y: Reader) -> Expr:
        return loops.binary("min", read(x, index), read(y, index))

    def reference(self, x: Array, y: Array) -> Any:
        return np.minimum(x, y)


@operator
class Pow(Binary):
    """x to the power y of floating-point numbers; NaN for a negative x and a y that is not whole."""

    onnx = "Pow"
    family = "math"
    verb = "raise to a power"
    kind = "floating"
    samples = [
        Sample((_POSITIVE, np.array([2.0, -1.5, 3.0, 0.5, -2.0]))),
        Sample(((5, 4), np.array(2.0)), gradient=False),
        Sample((np.array([[-2.0], [0.0], [3.0]]), np.array([0.0, 1.0, 2.0, 3.0])), gradient=False),
    ]
    errors = [*Binary.errors[:2], BadSample((TensorType(I32, (2,)), TensorType(I32, (2,))), {}, "floating-point")]

    def vjp(self, b: Builder, dz: Value, z: Value, x: Value, y: Value) -> tuple[Value, Value]:
        zero = b.scalar(0.0, dz.type.dtype)
        one = b.scalar(1.0, dz.type.dtype)
        constant = b.eq(y, zero)  # x ** 0 = 1 for every x, so its slope is 0 at x = 0 too
        slope = b.mul(y, b.pow(x, b.sub(y, one)))
        dx = b.where(constant, zero, b.mul(dz, slope))
        grown = b.mul(z, b.log(b.where(b.eq(x, zero), one, x)))  # 0 ** y stays 0 for y > 0: slope 0, not 0 * -inf
        return unbroadcast(b, dx, x.type), unbroadcast(b, b.mul(dz, grown), y.type)

    def reference(self, x: Array, y: Array) -> Any:
        return np.power(x, y)


# ---- functions of one number --------------------------------------------------------------------------------------


@operator
class Exp(Unary):
    """The exponential function."""

    onnx = "Exp"

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, y),)

    def reference(self, x: Array) -> Any:
        return np.exp(x)


@operator
class Log(Unary):
    """The natural logarithm: -inf at 0, NaN below."""

    onnx = "Log"
    samples = [Sample((_POSITIVE,)), Sample((np.array(3.0),))]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.div(dy, x),)

    def reference(self, x: Array) -> Any:
        return np.log(x)


@operator
class Sqrt(Unary):
    """The square root; NaN below 0."""

    onnx = "Sqrt"
    samples = [Sample((_POSITIVE,)), Sample((np.array(3.0),))]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.div(b.mul(dy, b.scalar(0.5, y.type.dtype)), y),)

    def reference(self, x: Array) -> Any:
        return np.sqrt(x)


@operator
class Rsqrt(Unary):
    """The reciprocal square root 1 / sqrt(x): infinite at 0, NaN below."""

    samples = [Sample((_POSITIVE,)), Sample((np.array(3.0),))]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        slope = b.mul(b.scalar(-0.5, y.type.dtype), b.mul(y, b.mul(y, y)))
        return (b.mul(dy, slope),)

    def reference(self, x: Array) -> Any:
        return 1 / np.sqrt(x)


@operator
class Tanh(Unary):
    """The hyperbolic tangent."""

    onnx = "Tanh"

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.sub(b.scalar(1.0, y.type.dtype), b.mul(y, y))),)

    def reference(self, x: Array) -> Any:
        return np.tanh(x)


@operator
class Sigmoid(Unary):
    """The logistic function 1 / (1 + exp(-x)), without overflow on either side."""

    onnx = "Sigmoid"

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.mul(y, b.sub(b.scalar(1.0, y.type.dtype), y))),)

    def reference(self, x: Array) -> Any:
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


@operator
class Erf(Unary):
    """The error function 2 / sqrt(pi) times the integral of exp(-t * t) from 0 to x."""

    onnx = "Erf"

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        bell = b.mul(b.scalar(2 / math.sqrt(math.pi), y.type.dtype), b.exp(b.neg(b.mul(x, x))))
        return (b.mul(dy, bell),)

    def reference(self, x: Array) -> Any:
        return erf(x)


@operator
class Sin(Unary):
    """The sine of x in radians."""

    onnx = "Sin"

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.cos(x)),)

    def reference(self, x: Array) -> Any:
        return np.sin(x)


@operator
class Cos(Unary):
    """The cosine of x in radians."""

    onnx = "Cos"

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.neg(b.mul(dy, b.sin(x))),)

    def reference(self, x: Array) -> Any:
        return np.cos(x)


def erf(x: Array) -> Array:
    """The C library's error function, for references: NumPy has none."""
    wide: Array = np.asarray(np.frompyfunc(math.erf, 1, 1)(np.asarray(x, np.float64)), np.float64)
    return wide.astype(x.dtype)
