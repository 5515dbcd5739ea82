"""Draws of classes that stay differentiable: Gumbel noise and the Gumbel softmax. (Plain draws are `categorical`; what filters logits is in `std/sequences.dl`.)"""

from __future__ import annotations

import math

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader, binary, cast, const, unary
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.random import KEY, KEY_TYPES, STREAM, check_key, draw, linear, positions, reference_draw
from dslc.ops.shapes import Array, Index, Shape, check_shape, ints, normal_axis, require

F32, F64, I64 = DType.F32, DType.F64, DType.I64
LEAST = 2.0**-25  # in place of a uniform number of 0, as in categorical


@operator
class RandomGumbel(Operator):
    """Numbers drawn from the standard Gumbel distribution, -log(-log u): the largest of logits plus these is a class drawn by softmax.

    From -2.9 to 16.7, as u is from 2^-25 to 1 - 2^-24. The numbers of a stream are those that `categorical` adds.
    """

    family = "random"
    inputs = ("seed", "counter")
    draw = True
    differentiable = False
    attrs = {
        "shape": Attr("shape", (), "the shape; a scalar unless told"),
        "dtype": Attr("dtype", F32, "the element type"),
        "stream": STREAM,
    }
    samples = [
        Sample(KEY, {"shape": (5, 3), "stream": 1}, gradient=False),
        Sample(KEY, {"shape": (40,), "dtype": F64, "stream": 2}, gradient=False),
    ]
    errors = [
        BadSample(KEY_TYPES, {"shape": (3,), "dtype": I64, "stream": 0}, "floating-point"),
        BadSample(KEY_TYPES, {"shape": (-3,), "stream": 0}, "at least 0"),
        BadSample((TensorType(F32), TensorType(I64)), {"shape": (3,), "stream": 0}, "the seed of a draw is i64[]"),
    ]

    def infer(self, seed: TensorType, counter: TensorType, shape: Shape, dtype: DType, stream: int) -> TensorType:
        check_key(seed, counter)
        if not dtype.floating:
            raise TypeFailure(f"random_gumbel draws floating-point numbers, not {dtype.value}")
        return TensorType(dtype, check_shape(shape))

    def body(self, index: Index, seed: Reader, counter: Reader, shape: Shape, dtype: DType, stream: int) -> Expr:
        u = binary("max", cast(draw(seed, counter, stream, linear(index, shape)), dtype), const(LEAST, dtype))
        return unary("neg", unary("log", unary("neg", unary("log", u))))

    def reference(self, seed: Array, counter: Array, shape: Shape, dtype: DType, stream: int) -> Array:
        u = reference_draw(seed, counter, stream, positions(ints(shape))).astype(dtype.numpy)
        return np.asarray(-np.log(-np.log(np.maximum(u, dtype.numpy.type(LEAST)))))


@operator
class GumbelSoftmax(Operator):
    """softmax((logits + Gumbel noise) / tau) along an axis: a draw of a class as a vector that nears a one-hot one as tau goes to 0.

    With `hard` the result is one-hot, 1 at the largest, and the gradient is that of the soft vector (straight-through).
    E. Jang, S. Gu, B. Poole, "Categorical reparameterization with Gumbel-softmax", 2017.
    """

    family = "random"
    inputs = ("logits", "seed", "counter")
    draw = True
    attrs = {
        "tau": Attr("float", 1.0, "the temperature, more than 0"),
        "hard": Attr("bool", False, "one-hot, with the gradient of the soft vector"),
        "axis": Attr("axis", -1, "the axis of the classes"),
        "stream": STREAM,
    }
    samples = [
        Sample(((5, 4), *KEY), {"stream": 1}),
        Sample(((2, 3, 4), *KEY), {"tau": 0.5, "axis": 1, "stream": 2}),
        Sample(((5, 4), *KEY), {"hard": True, "stream": 3}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 4)), *KEY_TYPES), {"tau": 0.0, "stream": 0}, "more than 0"),
        BadSample((TensorType(F32, (3, 4)), *KEY_TYPES), {"axis": 2, "stream": 0}, "no axis 2"),
        BadSample((TensorType(I64, (3, 4)), *KEY_TYPES), {"stream": 0}, "floating-point"),
    ]

    def infer(
        self, logits: TensorType, seed: TensorType, counter: TensorType, tau: float, hard: bool, axis: int, stream: int
    ) -> TensorType:
        check_key(seed, counter)
        require("floating", "gumbel_softmax", logits)
        normal_axis(axis, logits)
        if not (math.isfinite(tau) and tau > 0):
            raise TypeFailure(f"gumbel_softmax needs a temperature of more than 0, not {tau}")
        return logits

    def expand(self, b: Builder, logits: Value, seed: Value, counter: Value, tau: float, hard: bool, axis: int, stream: int) -> Value:
        t = logits.type
        noisy = b.add(logits, b.random_gumbel(seed, counter, shape=t.shape, dtype=t.dtype, stream=stream))
        at = normal_axis(axis, t)
        if not hard:
            soft: Value = b.softmax(b.div(noisy, b.scalar(tau, t.dtype)), axis=at)
            return soft
        place = b.reshape(b.iota(size=t.shape[at], dtype=I64), shape=(t.shape[at], *(1 for _ in t.shape[at + 1 :])))
        chosen: Value = b.cast(b.eq(b.argmax(noisy, axis=at, keep=True), place), dtype=t.dtype)
        return chosen

    def vjp(
        self, b: Builder, dy: Value, y: Value, logits: Value, seed: Value, counter: Value, tau: float, hard: bool, axis: int, stream: int
    ) -> tuple[Value, None, None]:
        soft = b.gumbel_softmax(logits, seed, counter, tau=tau, axis=axis, stream=stream) if hard else y
        inner = b.sub(dy, b.sum(b.mul(dy, soft), axis=normal_axis(axis, logits.type), keep=True))
        return b.div(b.mul(soft, inner), b.scalar(tau, logits.type.dtype)), None, None

    def reference(self, logits: Array, seed: Array, counter: Array, tau: float, hard: bool, axis: int, stream: int) -> Array:
        u = reference_draw(seed, counter, stream, positions(logits.shape)).astype(logits.dtype)
        noisy = logits - np.log(-np.log(np.maximum(u, logits.dtype.type(LEAST))))
        if hard:
            return np.asarray(noisy == noisy.max(axis, keepdims=True), logits.dtype)
        e = np.exp((noisy - noisy.max(axis, keepdims=True)) / logits.dtype.type(tau))
        return np.asarray(e / e.sum(axis, keepdims=True))
