"""Losses: means over all examples, as scalars."""

from __future__ import annotations

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.operator import BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, extent, require

_LABELS = np.array([2, 0, 1], np.int64)
_MAPS = np.array([[[0, 1], [2, 2]], [[1, 1], [0, 2]]], np.int64)


def _f32(*shape: Dim) -> TensorType:
    return TensorType(DType.F32, shape)


def _i64(*shape: Dim) -> TensorType:
    return TensorType(DType.I64, shape)


@operator
class CrossEntropy(Operator):
    """The mean over examples of -log softmax(logits)[label]: logits [N, C, ...] and labels [N, ...] from 0 to C - 1.

    Labels are not checked here: data sets check them when they are read.
    """

    family = "loss"
    onnx = "SoftmaxCrossEntropyLoss"
    inputs = ("logits", "label")

    def infer(self, logits: TensorType, label: TensorType) -> TensorType:
        require("floating", "cross_entropy", logits)
        if not label.dtype.integer:
            raise TypeFailure(
                f"cross_entropy needs labels that are whole numbers, not {label}",
                inputs=(1,),
                hint="use i64 class numbers, from 0 to C - 1",
            )
        if logits.rank < 2:
            raise TypeFailure(f"cross_entropy needs logits [N, C, ...], not {logits}", inputs=(0,))
        expected = logits.shape[:1] + logits.shape[2:]
        if label.rank != len(expected):
            raise TypeFailure(f"cross_entropy of {logits} needs labels [{', '.join(map(str, expected))}], not {label}", inputs=(0, 1))
        for axis, (got, wanted) in enumerate(zip(label.shape, expected, strict=True)):
            if got != wanted:
                raise TypeFailure(
                    f"cross_entropy of {logits} and {label}: axis {axis} of the labels is {got}, not {wanted}",
                    inputs=(0, 1),
                    axes=(axis if axis == 0 else axis + 1, axis),
                )
        return TensorType(logits.dtype)

    def expand(self, b: Builder, logits: Value, label: Value) -> Value:
        logarithms = b.log_softmax(logits, axis=1)
        taken = b.where(_is_label(b, logits.type, label), logarithms, b.scalar(0.0, logits.type.dtype))
        total = b.neg(b.sum(taken, axis=None))
        value: Value = b.div(total, extent(b, label.type.size, logits.type.dtype))
        return value

    def vjp(self, b: Builder, dy: Value, y: Value, logits: Value, label: Value) -> tuple[Value, None]:
        dtype = logits.type.dtype
        hot = _is_label(b, logits.type, label)
        probability = b.softmax(logits, axis=1)
        difference = b.where(hot, b.sub(probability, b.scalar(1.0, dtype)), probability)
        return b.mul(difference, b.div(dy, extent(b, label.type.size, dtype))), None

    def reference(self, logits: Array, label: Array) -> Array:
        with np.errstate(invalid="ignore"):
            z = logits - logits.max(1, keepdims=True)
            logarithms = z - np.log(np.exp(z).sum(1, keepdims=True))
        taken = np.take_along_axis(logarithms, label[:, None].astype(np.int64), 1)
        return np.asarray(-taken.sum() / taken.size, logits.dtype)

    samples = [
        Sample(((3, 4), _LABELS)),
        Sample(((2, 3, 2, 2), _MAPS)),
        Sample((np.array([[500.0, -500.0, 0.0]] * 3), _LABELS), gradient=False),
    ]
    errors = [
        BadSample((_f32(3, 4), _f32(3)), {}, "whole numbers"),
        BadSample((_f32(3, 4), _i64(4)), {}, "axis 0 of the labels is 4, not 3"),
        BadSample((_f32(3, 4), _i64(3, 4)), {}, "needs labels [3]"),
        BadSample((_f32(3), _i64(3)), {}, "[N, C, ...]"),
        BadSample((_i64(3, 4), _i64(3)), {}, "floating-point"),
    ]


def _is_label(b: Builder, logits: TensorType, label: Value) -> Value:
    """bool, broadcasting to the logits: whether the class is the example's label."""
    classes = logits.shape[1]
    label = b.cast(label, dtype=DType.I64) if label.type.dtype != DType.I64 else label
    label = b.reshape(label, shape=(logits.shape[0], 1, *logits.shape[2:]))
    number = b.reshape(b.iota(size=classes, dtype=DType.I64), shape=(classes, *(1 for _ in logits.shape[2:])))
    value: Value = b.eq(label, number)
    return value


def _same(what: str, x: TensorType, y: TensorType) -> TensorType:
    require("floating", what, x, y)
    if x != y:
        raise TypeFailure(f"{what} needs two tensors of one type, not {x} and {y}", inputs=(0, 1))
    return TensorType(x.dtype)


def _mean(b: Builder, x: Value) -> Value:
    value: Value = b.mean(x, axis=None)
    return value


_PAIRS = [
    BadSample((_f32(3, 4), _f32(3, 1)), {}, "of one type"),
    BadSample((_f32(3), TensorType(DType.F64, (3,))), {}, "of one type"),
    BadSample((_i64(3), _i64(3)), {}, "floating-point"),
]


@operator
class Mse(Operator):
    """The mean of (x - y)^2 over all elements."""

    family = "loss"
    inputs = ("x", "y")
    errors = _PAIRS
    samples = [Sample(((3, 4), (3, 4))), Sample(((5,), (5,)))]

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        return _same("mse", x, y)

    def expand(self, b: Builder, x: Value, y: Value) -> Value:
        difference = b.sub(x, y)
        return _mean(b, b.mul(difference, difference))

    def reference(self, x: Array, y: Array) -> Array:
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(((x - y) ** 2).mean(), x.dtype)


_PROBABILITIES = np.array([[0.1, 0.5, 0.9], [0.3, 0.99, 0.02]])
_TARGETS = np.array([[0.0, 1.0, 1.0], [0.2, 0.7, 0.4]])


@operator
class BinaryCrossEntropy(Operator):
    """The mean of -(t log p + (1 - t) log(1 - p)) for probabilities p and targets t in [0, 1].

    Each logarithm is at least -100, and p (1 - p) in the gradient at least 1e-12, as in PyTorch: 0 and 1 give finite numbers.
    """

    family = "loss"
    inputs = ("p", "t")
    errors = _PAIRS
    samples = [
        Sample((_PROBABILITIES, _TARGETS)),
        Sample((np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0])), gradient=False),
    ]

    def infer(self, p: TensorType, t: TensorType) -> TensorType:
        return _same("binary_cross_entropy", p, t)

    def expand(self, b: Builder, p: Value, t: Value) -> Value:
        one = b.scalar(1.0, p.type.dtype)
        term = b.add(b.mul(t, self._log(b, p)), b.mul(b.sub(one, t), self._log(b, b.sub(one, p))))
        return _mean(b, b.neg(term))

    @staticmethod
    def _log(b: Builder, x: Value) -> Value:
        value: Value = b.maximum(b.log(x), b.scalar(-100.0, x.type.dtype))
        return value

    def vjp(self, b: Builder, dy: Value, y: Value, p: Value, t: Value) -> tuple[Value, Value]:
        dtype = p.type.dtype
        one = b.scalar(1.0, dtype)
        share = b.div(dy, extent(b, p.type.size, dtype))
        variance = b.maximum(b.mul(p, b.sub(one, p)), b.scalar(1e-12, dtype))
        dp = b.mul(share, b.div(b.sub(p, t), variance))
        dt = b.mul(share, b.sub(self._log(b, b.sub(one, p)), self._log(b, p)))
        return dp, dt

    def reference(self, p: Array, t: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            positive, negative = np.maximum(np.log(p), -100), np.maximum(np.log(1 - p), -100)
        return np.asarray(-(t * positive + (1 - t) * negative).mean(), p.dtype)


@operator
class BinaryCrossEntropyWithLogits(Operator):
    """The mean of -(t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))), as max(x, 0) - x t + log(1 + exp(-|x|))."""

    family = "loss"
    inputs = ("x", "t")
    errors = _PAIRS
    samples = [
        Sample(((2, 3), _TARGETS)),
        Sample((np.array([800.0, -800.0, 0.0]), np.array([1.0, 0.0, 1.0])), gradient=False),
    ]

    def infer(self, x: TensorType, t: TensorType) -> TensorType:
        return _same("binary_cross_entropy_with_logits", x, t)

    def expand(self, b: Builder, x: Value, t: Value) -> Value:
        zero, one = b.scalar(0.0, x.type.dtype), b.scalar(1.0, x.type.dtype)
        rest = b.log(b.add(one, b.exp(b.neg(b.abs(x)))))
        return _mean(b, b.add(b.sub(b.maximum(x, zero), b.mul(x, t)), rest))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, t: Value) -> tuple[Value, Value]:
        share = b.div(dy, extent(b, x.type.size, x.type.dtype))
        return b.mul(share, b.sub(b.sigmoid(x), t)), b.neg(b.mul(share, x))

    def reference(self, x: Array, t: Array) -> Array:
        return np.asarray((np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))).mean(), x.dtype)
