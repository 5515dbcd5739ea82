"""Local response normalisation: each channel divided by a power of its neighbours' mean square."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, cut, require

F32 = DType.F32


def _neighbours(b: Builder, x: Value, before: int, after: int) -> Value:
    """For each channel, axis 1, the sum over itself and so many channels before and after it; zeros stand beyond the ends."""
    rest = (0,) * (x.type.rank - 2)
    wide = b.pad(x, low=(before, *rest), high=(after, *rest))
    total = cut(b, wide, 1, 0, x.type.shape[1])
    for n in range(1, before + after + 1):
        total = b.add(total, cut(b, wide, 1, n, n + x.type.shape[1]))
    return total


def _power(b: Builder, d: Value, exponent: float) -> Value:
    """d ** -exponent, by roots where they do it."""
    power: Value
    if exponent == 1:
        power = b.div(b.scalar(1.0, d.type.dtype), d)
    elif exponent == 0.5:
        power = b.rsqrt(d)
    elif exponent == 0.75:
        root = b.rsqrt(d)
        power = b.mul(root, b.sqrt(root))
    else:
        power = b.pow(d, b.scalar(-exponent, d.type.dtype))
    return power


@operator
class LocalResponseNorm(Operator):
    """x / (k + alpha / size * s) ** beta for x[N, C, ...], where s is the sum of squares over `size` neighbouring channels.

    The window of channel c starts size // 2 before it; channels that do not exist count as 0. PyTorch's formula; the paper's
    alpha is alpha / size. A. Krizhevsky, I. Sutskever, G. E. Hinton, "ImageNet classification with deep convolutional neural
    networks", 2012.
    """

    onnx = "LRN"
    family = "norm"
    attrs = {
        "size": Attr("int", 5, "how many channels"),
        "alpha": Attr("float", 1e-4, "the weight of the mean square"),
        "beta": Attr("float", 0.75, "the exponent"),
        "k": Attr("float", 1.0, "what is added to the mean square"),
    }
    samples = [
        Sample(((5, 7, 2),), {"alpha": 0.5}),
        Sample(((2, 3, 2, 3),), {"size": 4, "alpha": 1.0, "beta": 0.6, "k": 2.0}),
        Sample(((2, 4, 2),), {"size": 3, "alpha": 0.7, "beta": 0.5}),
        Sample(((2, 4),), {"size": 1, "alpha": 0.7, "beta": 1.0}),
    ]
    errors = [
        BadSample((TensorType(F32, (3,)),), {}, "[N, C, ...]"),
        BadSample((TensorType(F32, (2, 3)),), {"size": 0}, "at least 1"),
        BadSample((TensorType(DType.I32, (2, 3)),), {}, "floating-point"),
    ]

    def infer(self, x: TensorType, size: int, alpha: float, beta: float, k: float) -> TensorType:
        require("floating", "local_response_norm", x)
        if x.rank < 2:
            raise TypeFailure(f"local_response_norm needs [N, C, ...], not {x}", inputs=(0,))
        if size < 1:
            raise TypeFailure(f"local_response_norm: size must be at least 1, not {size}")
        return x

    def _scale(self, b: Builder, x: Value, size: int, alpha: float, k: float) -> Value:
        squares = _neighbours(b, b.mul(x, x), size // 2, (size - 1) // 2)
        dtype = x.type.dtype
        value: Value = b.add(b.mul(squares, b.scalar(alpha / size, dtype)), b.scalar(k, dtype))
        return value

    def expand(self, b: Builder, x: Value, size: int, alpha: float, beta: float, k: float) -> Value:
        value: Value = b.mul(x, _power(b, self._scale(b, x, size, alpha, k), beta))
        return value

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, size: int, alpha: float, beta: float, k: float) -> tuple[Value]:
        dtype = x.type.dtype
        scale = self._scale(b, x, size, alpha, k)
        power = _power(b, scale, beta)
        # The squares that hold channel c are those of the channels whose windows do: the same window, turned round.
        spread = _neighbours(b, b.div(b.mul(b.mul(dy, x), power), scale), (size - 1) // 2, size // 2)
        return (b.sub(b.mul(dy, power), b.mul(b.mul(x, spread), b.scalar(2 * alpha * beta / size, dtype))),)

    def reference(self, x: Array, size: int, alpha: float, beta: float, k: float) -> Any:
        total = np.zeros_like(x)
        for c in range(x.shape[1]):
            window = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
            total[:, c] = np.square(window).sum(1)
        return np.asarray(x / (k + alpha / size * total) ** beta, x.dtype)
