"""Activation functions made of straight lines. NaN stays NaN."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.activations import Activation
from dslc.ops.shapes import Array, Index, number, read, require

F32, F64, I32 = DType.F32, DType.F64, DType.I32
_ENDS = np.array([-7.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 7.0])
_AROUND = np.array([[-7.1, -2.9, -1.4, -0.6, -0.2, 0.3, 0.7, 1.2, 2.4, 5.5, 6.3]] * 5)


def _inside(b: Builder, x: Value, low: float, high: float) -> Value:
    """low < x < high."""
    dtype = x.type.dtype
    value: Value = b.apply("and", b.gt(x, b.scalar(low, dtype)), b.lt(x, b.scalar(high, dtype)))
    return value


def _clamped(a: Expr, low: float, high: float) -> Expr:
    above = loops.select(loops.binary("lt", a, number(low, a)), number(low, a), a)
    return loops.select(loops.binary("gt", above, number(high, a)), number(high, a), above)


class Clamp(Activation):
    """Base of the functions that limit x; the gradient passes strictly inside the limits."""

    samples = [Sample((_AROUND,)), Sample((_ENDS,), gradient=False)]


@operator
class Relu6(Clamp):
    """x limited to 0 .. 6. Its gradient at both ends is 0."""

    def body(self, index: Index, x: Reader) -> Expr:
        return _clamped(read(x, index), 0.0, 6.0)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.where(_inside(b, x, 0.0, 6.0), dy, b.scalar(0.0, dy.type.dtype)),)

    def reference(self, x: Array) -> Any:
        return np.clip(x, 0, 6)


@operator
class HardTanh(Clamp):
    """x limited to low .. high. Its gradient at both ends is 0."""

    attrs = {"low": Attr("float", -1.0, "the lower limit"), "high": Attr("float", 1.0, "the upper limit")}
    samples = [*Clamp.samples, Sample((_AROUND,), {"low": -0.25, "high": 2.0})]
    errors = [*Clamp.errors, BadSample((TensorType(F32, (2,)),), {"low": 1.0, "high": 0.0}, "at least the lower")]

    def infer(self, x: TensorType, **attrs: Any) -> TensorType:
        if not attrs["low"] <= attrs["high"]:
            raise TypeFailure(f"hard_tanh needs an upper limit that is at least the lower, not {attrs['low']} and {attrs['high']}")
        return super().infer(x, **attrs)

    def body(self, index: Index, x: Reader, low: float, high: float) -> Expr:
        return _clamped(read(x, index), low, high)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, low: float, high: float) -> tuple[Value]:
        return (b.where(_inside(b, x, low, high), dy, b.scalar(0.0, dy.type.dtype)),)

    def reference(self, x: Array, low: float, high: float) -> Any:
        return np.clip(x, x.dtype.type(low), x.dtype.type(high))


@operator
class HardSigmoid(Clamp):
    """(x + 3) / 6 limited to 0 .. 1. Its gradient at both ends is 0. A. Howard et al., "Searching for MobileNetV3", 2019."""

    onnx = "HardSigmoid"

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        return _share(a)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        share = b.mul(dy, b.scalar(1 / 6, dy.type.dtype))
        return (b.where(_inside(b, x, -3.0, 3.0), share, b.scalar(0.0, dy.type.dtype)),)

    def reference(self, x: Array) -> Any:
        return np.clip(x + 3, 0, 6) / 6


def _share(a: Expr) -> Expr:
    return loops.binary("mul", _clamped(loops.binary("add", a, number(3, a)), 0.0, 6.0), number(1 / 6, a))


@operator
class HardSwish(Clamp):
    """x * hard_sigmoid(x). Its gradient at -3 is 0, and 1 at 3. A. Howard et al., "Searching for MobileNetV3", 2019."""

    onnx = "HardSwish"

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        return loops.binary("mul", a, _share(a))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        dtype = x.type.dtype
        slope = b.add(b.mul(x, b.scalar(1 / 3, dtype)), b.scalar(0.5, dtype))
        right = b.where(b.lt(x, b.scalar(3.0, dtype)), b.mul(dy, slope), dy)
        return (b.where(b.le(x, b.scalar(-3.0, dtype)), b.scalar(0.0, dtype), right),)

    def reference(self, x: Array) -> Any:
        return x * (np.clip(x + 3, 0, 6) / 6)


class Shrink(Activation):
    """Base of the functions that are 0 near 0."""

    attrs = {"threshold": Attr("float", 0.5, "up to this magnitude the result is 0; at least 0")}
    samples = [Sample((_AROUND,)), Sample((_AROUND,), {"threshold": 1.0}), Sample((_ENDS,), gradient=False)]
    errors = [*Activation.errors, BadSample((TensorType(F32, (2,)),), {"threshold": -1.0}, "at least 0")]
    soft: ClassVar[bool]

    def infer(self, x: TensorType, **attrs: Any) -> TensorType:
        if not attrs["threshold"] >= 0:
            raise TypeFailure(f"{self.name} needs a threshold of at least 0, not {attrs['threshold']}")
        return super().infer(x, **attrs)

    def body(self, index: Index, x: Reader, threshold: float) -> Expr:
        a = read(x, index)
        t = number(threshold, a)
        rest = a
        if self.soft:
            rest = loops.select(loops.binary("gt", a, number(0, a)), loops.binary("sub", a, t), loops.binary("add", a, t))
        return loops.select(loops.binary("le", loops.unary("abs", a), t), number(0, a), rest)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, threshold: float) -> tuple[Value]:
        dtype = x.type.dtype
        return (b.where(b.le(b.abs(x), b.scalar(threshold, dtype)), b.scalar(0.0, dtype), dy),)


@operator
class HardShrink(Shrink):
    """x where |x| is more than the threshold, else 0."""

    onnx = "Shrink"
    soft = False

    def reference(self, x: Array, threshold: float) -> Any:
        return np.where(np.abs(x) <= x.dtype.type(threshold), np.zeros_like(x), x)


@operator
class SoftShrink(Shrink):
    """x moved towards 0 by the threshold, but not beyond: sign(x) * max(|x| - threshold, 0)."""

    onnx = "Shrink"
    soft = True

    def reference(self, x: Array, threshold: float) -> Any:
        t = x.dtype.type(threshold)
        return np.where(np.abs(x) <= t, np.zeros_like(x), x - np.copysign(t, x))


@operator
class Prelu(Operator):
    """x where x > 0, else slope * x: a leaky relu whose slope is learned, one number or one for each channel (axis 1) of x.

    K. He et al., "Delving deep into rectifiers", 2015. At 0 the gradient by x is the slope.
    """

    family = "activation"
    onnx = "PRelu"
    inputs = ("x", "slope")
    samples = [
        Sample(((5, 4), (4,))),
        Sample(((5, 2, 3, 2), (2,))),
        Sample(((5, 3), np.array(0.25))),
        Sample(((5, 3), np.array([0.25]))),
        Sample((np.array([[0.0, -0.0, np.inf, -np.inf, np.nan]]), np.array(0.25)), gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)), TensorType(F32, (2,))), {}, "one slope, or one a channel"),
        BadSample((TensorType(F32, (2, 3)), TensorType(F32, (2, 3))), {}, "one slope, or one a channel"),
        BadSample((TensorType(F32, (3,)), TensorType(F32, (3,))), {}, "one slope, or one a channel"),
        BadSample((TensorType(F32, (2, 3)), TensorType(F64, (3,))), {}, "element types differ"),
        BadSample((TensorType(I32, (2, 3)), TensorType(I32, (3,))), {}, "floating-point"),
    ]

    def infer(self, x: TensorType, slope: TensorType) -> TensorType:
        require("floating", self.name, x, slope)
        if x.dtype != slope.dtype:
            raise TypeFailure(f"prelu of {x} and {slope}: the element types differ", inputs=(0, 1))
        if slope.shape not in ((), (1,)) and not (x.rank >= 2 and slope.shape == (x.shape[1],)):
            raise TypeFailure(f"prelu of {x} needs one slope, or one a channel, not {slope}", inputs=(0, 1))
        return x

    def expand(self, b: Builder, x: Value, slope: Value) -> Value:
        if slope.type.shape == (1,):
            slope = b.reshape(slope, shape=())
        elif slope.type.rank == 1:
            slope = b.reshape(slope, shape=(x.type.shape[1], *(1 for _ in x.type.shape[2:])))
        result: Value = b.where(b.gt(x, b.scalar(0.0, x.type.dtype)), x, b.mul(x, slope))
        return result

    def reference(self, x: Array, slope: Array) -> Any:
        return np.where(x > 0, x, x * (slope.reshape(-1, *[1] * (x.ndim - 2)) if slope.size > 1 else slope.reshape(())))
