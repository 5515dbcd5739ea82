"""Activation functions. Each is stable for every finite input and keeps NaN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dslc.ir import dims, loops
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.elementwise import Pointwise, erf
from dslc.ops.shapes import Array, Index, cut, normal_axes, normal_axis, number, read, require

F32, I32 = DType.F32, DType.I32
_TANH_SCALE = math.sqrt(2 / math.pi)  # of the tanh form of gelu, as is the cubic coefficient
_TANH_CUBIC = 0.044715
_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717


class Activation(Pointwise):
    """Base of the activation functions."""

    family = "activation"


@operator
class Relu(Activation):
    """max(x, 0). Its gradient at 0 is 0."""

    onnx = "Relu"

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        return loops.select(loops.binary("lt", a, number(0, a)), number(0, a), a)  # not max: NaN stays without a second test

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        zero = b.scalar(0.0, y.type.dtype)
        return (b.where(b.le(y, zero), zero, dy),)  # NaN passes the gradient on, as in PyTorch

    def reference(self, x: Array) -> Any:
        return np.where(x < 0, np.zeros_like(x), x)


@operator
class LeakyRelu(Activation):
    """x where x > 0, else slope * x. Its gradient at 0 is the slope."""

    onnx = "LeakyRelu"
    attrs = {"slope": Attr("float", 0.01, "the slope below 0")}
    samples = [Sample(((5, 4),), {"slope": 0.2}), Sample(((5,),))]

    def body(self, index: Index, x: Reader, slope: float) -> Expr:
        a = read(x, index)
        return loops.select(loops.binary("gt", a, number(0, a)), a, loops.binary("mul", a, number(slope, a)))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, slope: float) -> tuple[Value]:
        zero = b.scalar(0.0, x.type.dtype)
        return (b.where(b.gt(x, zero), dy, b.mul(dy, b.scalar(slope, x.type.dtype))),)

    def reference(self, x: Array, slope: float) -> Any:
        return np.where(x > 0, x, x * x.dtype.type(slope))


@operator
class Elu(Activation):
    """x where x > 0, else alpha * (exp(x) - 1). Clevert, Unterthiner, Hochreiter: ELUs (ICLR 2016)."""

    onnx = "Elu"
    attrs = {"alpha": Attr("float", 1.0, "minus the limit at minus infinity")}
    samples = [Sample(((5, 4),)), Sample(((5,),), {"alpha": 0.5}), Sample((np.array([-1e-9, -50.0, 2.0]),), gradient=False)]

    def body(self, index: Index, x: Reader, alpha: float) -> Expr:
        a = read(x, index)
        return loops.select(loops.binary("gt", a, number(0, a)), a, loops.binary("mul", loops.unary("expm1", a), number(alpha, a)))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, alpha: float) -> tuple[Value]:
        zero = b.scalar(0.0, x.type.dtype)
        slope = b.mul(b.scalar(alpha, x.type.dtype), b.exp(b.minimum(x, zero)))
        return (b.where(b.gt(x, zero), dy, b.mul(dy, slope)),)

    def reference(self, x: Array, alpha: float) -> Any:
        return np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(x))


@operator
class Gelu(Activation):
    """x times the normal distribution function of x. Hendrycks, Gimpel: Gaussian Error Linear Units (2016).

    With `approximate` its tanh form, 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), which GPT-2 uses; else the exact one by erf.
    """

    onnx = "Gelu"
    attrs = {"approximate": Attr("bool", True, "the tanh form")}
    samples = [Sample(((5, 4),)), Sample(((5, 4),), {"approximate": False})]

    def body(self, index: Index, x: Reader, approximate: bool) -> Expr:
        a = read(x, index)
        if approximate:  # 0.5 (1 + tanh u) = sigmoid(2 u) does not cancel where tanh is near -1
            cubic = loops.binary("mul", number(_TANH_CUBIC, a), loops.binary("mul", a, a))
            u = loops.binary("mul", loops.binary("mul", number(2 * _TANH_SCALE, a), a), loops.binary("add", number(1, a), cubic))
            return loops.binary("mul", a, loops.unary("sigmoid", u))
        tail = loops.unary("erf", loops.binary("mul", a, number(math.sqrt(0.5), a)))
        return loops.binary("mul", loops.binary("mul", number(0.5, a), a), loops.binary("add", number(1, a), tail))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, approximate: bool) -> tuple[Value]:
        def c(value: float) -> Value:
            return b.scalar(value, x.type.dtype)

        square = b.mul(x, x)
        if approximate:
            share = b.sigmoid(b.mul(b.mul(c(2 * _TANH_SCALE), x), b.add(c(1.0), b.mul(c(_TANH_CUBIC), square))))
            steepness = b.mul(c(2 * _TANH_SCALE), b.add(c(1.0), b.mul(c(3 * _TANH_CUBIC), square)))
            slope = b.add(share, b.mul(b.mul(x, steepness), b.mul(share, b.sub(c(1.0), share))))
        else:
            share = b.mul(c(0.5), b.add(c(1.0), b.erf(b.mul(x, c(math.sqrt(0.5))))))
            density = b.mul(c(1 / math.sqrt(2 * math.pi)), b.exp(b.mul(c(-0.5), square)))
            slope = b.add(share, b.mul(x, density))
        return (b.mul(dy, slope),)

    def reference(self, x: Array, approximate: bool) -> Any:
        wide = x.astype(np.float64)
        if approximate:
            return (0.5 * wide * (1 + np.tanh(_TANH_SCALE * (wide + _TANH_CUBIC * wide**3)))).astype(x.dtype)
        return (0.5 * wide * (1 + erf(wide / math.sqrt(2)))).astype(x.dtype)


@operator
class Silu(Activation):
    """x * sigmoid(x), also called swish. Elfwing, Uchibe, Doya (2018)."""

    onnx = "Swish"

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        return loops.binary("mul", a, loops.unary("sigmoid", a))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        one = b.scalar(1.0, x.type.dtype)
        s = b.sigmoid(x)
        return (b.mul(dy, b.mul(s, b.add(one, b.mul(x, b.sub(one, s))))),)

    def reference(self, x: Array) -> Any:
        e = np.exp(-np.abs(x))
        return x * np.where(x >= 0, 1 / (1 + e), e / (1 + e))


@operator
class Softplus(Activation):
    """log(1 + exp(x)), without overflow for large x and with full relative precision for very negative x."""

    onnx = "Softplus"
    samples = [*Activation.samples, Sample((np.array([-40.0, 800.0, -800.0]),), gradient=False)]

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        e = loops.unary("exp", loops.unary("neg", loops.unary("abs", a)))
        u = loops.binary("add", number(1, a), e)
        # log(1 + e) = log(u) e / (u - 1) makes up for the rounding of u = 1 + e (Goldberg 1991, theorem 4)
        exact = loops.binary("div", loops.binary("mul", loops.unary("log", u), e), loops.binary("sub", u, number(1, a)))
        tail = loops.select(loops.binary("eq", u, number(1, a)), e, exact)
        return loops.binary("add", loops.binary("max", a, number(0, a)), tail)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.sigmoid(x)),)

    def reference(self, x: Array) -> Any:
        return np.logaddexp(x, x.dtype.type(0))


@operator
class Selu(Activation):
    """1.0507 times x where x > 0, else 1.0507 * 1.6733 * (exp(x) - 1), which keeps mean 0 and variance 1 from layer to layer.

    G. Klambauer et al., "Self-normalizing neural networks", 2017, where both constants stand with more digits.
    """

    onnx = "Selu"
    samples = [*Activation.samples, Sample((np.array([-1e-9, -50.0, 2.0]),), gradient=False)]

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        below = loops.binary("mul", loops.unary("expm1", a), number(_SELU_SCALE * _SELU_ALPHA, a))
        return loops.select(loops.binary("gt", a, number(0, a)), loops.binary("mul", a, number(_SELU_SCALE, a)), below)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        zero, scale = b.scalar(0.0, x.type.dtype), b.scalar(_SELU_SCALE, x.type.dtype)
        below = b.mul(b.scalar(_SELU_SCALE * _SELU_ALPHA, x.type.dtype), b.exp(b.minimum(x, zero)))
        return (b.mul(dy, b.where(b.gt(x, zero), scale, below)),)

    def reference(self, x: Array) -> Any:
        return (_SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(x))).astype(x.dtype)


@operator
class Celu(Activation):
    """x where x > 0, else alpha * (exp(x / alpha) - 1), whose slope is continuous for every alpha. J. T. Barron (2017)."""

    onnx = "Celu"
    attrs = {"alpha": Attr("float", 1.0, "minus the limit at minus infinity, not 0")}
    samples = [Sample(((5, 4),)), Sample(((5,),), {"alpha": 0.5}), Sample((np.array([-1e-9, -50.0, 2.0]),), gradient=False)]
    errors = [*Activation.errors, BadSample((TensorType(F32, (2,)),), {"alpha": 0.0}, "alpha")]

    def infer(self, x: TensorType, **attrs: Any) -> TensorType:
        if attrs["alpha"] == 0:
            raise TypeFailure("celu divides by alpha, which must not be 0")
        return super().infer(x, **attrs)

    def body(self, index: Index, x: Reader, alpha: float) -> Expr:
        a = read(x, index)
        below = loops.binary("mul", loops.unary("expm1", loops.binary("mul", a, number(1 / alpha, a))), number(alpha, a))
        return loops.select(loops.binary("gt", a, number(0, a)), a, below)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, alpha: float) -> tuple[Value]:
        zero = b.scalar(0.0, x.type.dtype)
        slope = b.exp(b.mul(b.minimum(x, zero), b.scalar(1 / alpha, x.type.dtype)))
        return (b.where(b.gt(x, zero), dy, b.mul(dy, slope)),)

    def reference(self, x: Array, alpha: float) -> Any:
        return np.where(x > 0, x, alpha * np.expm1(x / x.dtype.type(alpha))).astype(x.dtype)


@operator
class Mish(Activation):
    """x * tanh(softplus(x)). D. Misra, "Mish: a self regularized non-monotonic activation function" (2020)."""

    onnx = "Mish"
    samples = [*Activation.samples, Sample((np.array([-40.0, 25.0, 800.0, -800.0]),), gradient=False)]

    # With e = exp(x), tanh(log(1 + e)) = n / (n + 2) where n = e (e + 2); from 20 on it is 1 to the last bit, and n does not overflow.

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        e = loops.unary("exp", loops.select(loops.binary("gt", a, number(20, a)), number(20, a), a))
        n = loops.binary("mul", e, loops.binary("add", e, number(2, a)))
        return loops.binary("mul", a, loops.binary("div", n, loops.binary("add", n, number(2, a))))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        def c(value: float) -> Value:
            return b.scalar(value, x.type.dtype)

        e = b.exp(b.minimum(x, c(20.0)))
        n = b.mul(e, b.add(e, c(2.0)))
        below = b.add(n, c(2.0))
        rest = b.div(b.mul(c(4.0), b.add(n, c(1.0))), b.mul(below, below))  # 1 - tanh ** 2
        return (b.mul(dy, b.add(b.div(n, below), b.mul(x, b.mul(b.sigmoid(x), rest)))),)

    def reference(self, x: Array) -> Any:
        return x * np.tanh(np.logaddexp(x, x.dtype.type(0)))


@operator
class LogSigmoid(Activation):
    """log(sigmoid(x)), without overflow, and with full relative precision where x is large."""

    samples = [*Activation.samples, Sample((np.array([40.0, 800.0, -800.0]),), gradient=False)]

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        rest = loops.unary("log1p", loops.unary("exp", loops.unary("neg", loops.unary("abs", a))))
        return loops.unary("neg", loops.binary("add", loops.binary("max", loops.unary("neg", a), number(0, a)), rest))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        return (b.mul(dy, b.sigmoid(b.neg(x))),)

    def reference(self, x: Array) -> Any:
        return -np.logaddexp(-x, x.dtype.type(0))


@operator
class Softsign(Activation):
    """x / (1 + |x|)."""

    onnx = "Softsign"

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        return loops.binary("div", a, loops.binary("add", number(1, a), loops.unary("abs", a)))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        below = b.add(b.scalar(1.0, x.type.dtype), b.abs(x))
        return (b.div(dy, b.mul(below, below)),)

    def reference(self, x: Array) -> Any:
        return x / (1 + np.abs(x))


@operator
class Glu(Operator):
    """The first half of x along an axis times the sigmoid of the second. Y. Dauphin et al., "Gated convolutional networks", 2016."""

    family = "activation"
    attrs = {"axis": Attr("axis", -1, "the axis that is cut in half; its size is even")}
    samples = [Sample(((5, 4),)), Sample(((5, 6, 2),), {"axis": 1}), Sample((np.array([1.0, -2.0, 800.0, -800.0]),), gradient=False)]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {}, "half"),
        BadSample((TensorType(F32, (2, 4)),), {"axis": 2}, "no axis 2"),
        BadSample((TensorType(I32, (2, 4)),), {}, "floating-point"),
    ]

    def infer(self, x: TensorType, axis: int) -> TensorType:
        require("floating", self.name, x)
        along = normal_axis(axis, x)
        size = x.shape[along]
        if not dims.is_known_multiple(size, 2):
            raise TypeFailure(f"cannot cut {x} in half: axis {along} is {size}", inputs=(0,), axes=(along,))
        return x.with_shape((*x.shape[:along], size // 2, *x.shape[along + 1 :]))

    def expand(self, b: Builder, x: Value, axis: int) -> Value:
        along = normal_axis(axis, x.type)
        size = x.type.shape[along]
        result: Value = b.mul(cut(b, x, along, 0, size // 2), b.sigmoid(cut(b, x, along, size // 2, size)))
        return result

    def reference(self, x: Array, axis: int) -> Any:
        left, right = np.split(x, 2, axis)
        return left * 0.5 * (1 + np.tanh(right / 2))


@operator
class Normalize(Operator):
    """x / max(norm(x), eps) along axes: vectors of length 1."""

    family = "norm"
    attrs = {
        "axis": Attr("axes", -1, "the axes of each vector"),
        "eps": Attr("float", 1e-12, "the least length that is divided by"),
    }
    samples = [Sample(((5, 4),)), Sample(((5, 3, 2),), {"axis": (1, 2)}), Sample(((4,),), {"eps": 1e-6})]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"axis": 2}, "no axis 2"),
        BadSample((TensorType(I32, (2, 3)),), {}, "floating-point"),
    ]

    def infer(self, x: TensorType, axis: int | tuple[int, ...] | None, eps: float) -> TensorType:
        require("floating", self.name, x)
        normal_axes(axis, x)
        return x

    def expand(self, b: Builder, x: Value, axis: int | tuple[int, ...] | None, eps: float) -> Value:
        length = b.norm(x, axis=normal_axes(axis, x.type), keep=True)
        result: Value = b.div(x, b.maximum(length, b.scalar(eps, x.type.dtype)))
        return result

    def reference(self, x: Array, axis: int | tuple[int, ...] | None, eps: float) -> Any:
        return x / np.maximum(np.sqrt(np.sum(x * x, axis=axis, keepdims=True)), x.dtype.type(eps))
