"""Losses: means over all examples, as scalars."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, extent, f32, require

_LABELS = np.array([2, 0, 1], np.int64)
_MAPS = np.array([[[0, 1], [2, 2]], [[1, 1], [0, 2]]], np.int64)


def _i64(*shape: Dim) -> TensorType:
    return TensorType(DType.I64, shape)


def _over_classes(scores: str) -> list[BadSample]:
    """Refusals that the losses over classes share."""
    return [
        BadSample((f32(3, 4), f32(3)), {}, "whole numbers"),
        BadSample((f32(3, 4), _i64(4)), {}, "axis 0 of the labels is 4, not 3"),
        BadSample((f32(3, 4), _i64(3, 4)), {}, "needs labels [3]"),
        BadSample((f32(3), _i64(3)), {}, scores),
        BadSample((_i64(3, 4), _i64(3)), {}, "floating-point"),
    ]


class OverClasses(Operator):
    """Base of the losses that pick one class of an example's scores: scores [N, C, ...] and labels [N, ...]."""

    family = "loss"

    def infer(self, scores: TensorType, label: TensorType, *weight: TensorType, **attrs: Any) -> TensorType:
        name, first = self.name, self.inputs[0]
        require("floating", name, scores)
        if not label.dtype.integer:
            raise TypeFailure(
                f"{name} needs labels that are whole numbers, not {label}", inputs=(1,), hint="use i64 class numbers, from 0 to C - 1"
            )
        if scores.rank < 2:
            raise TypeFailure(f"{name} needs {first} [N, C, ...], not {scores}", inputs=(0,))
        expected = scores.shape[:1] + scores.shape[2:]
        if label.rank != len(expected):
            raise TypeFailure(f"{name} of {scores} needs labels [{', '.join(map(str, expected))}], not {label}", inputs=(0, 1))
        for axis, (got, wanted) in enumerate(zip(label.shape, expected, strict=True)):
            if got != wanted:
                raise TypeFailure(
                    f"{name} of {scores} and {label}: axis {axis} of the labels is {got}, not {wanted}",
                    inputs=(0, 1),
                    axes=(axis if axis == 0 else axis + 1, axis),
                )
        if len(weight) > 1:
            raise TypeFailure(f"{name} takes one tensor of class weights, not {len(weight)}", inputs=(3,))
        if weight and weight[0] != TensorType(scores.dtype, (scores.shape[1],)):
            wanted_type = TensorType(scores.dtype, (scores.shape[1],))
            raise TypeFailure(f"{name} of {scores} needs class weights {wanted_type}, not {weight[0]}", inputs=(0, 2))
        return TensorType(scores.dtype)


_IGNORE = Attr("int", None, "examples with this label count for nothing")


@operator
class CrossEntropy(OverClasses):
    """The mean over examples of -log softmax(logits)[label]: logits [N, C, ...] and labels [N, ...] from 0 to C - 1.

    A third tensor, a weight [C] for each class, is optional: the mean is then weighted by those of the labels. With `smoothing` s, the
    target is 1 - s + s / C for the label and s / C for the other classes. The mean of nothing, where every label is ignored, is NaN.
    All as in PyTorch. Labels are not checked here: data sets check them when they are read.
    """

    onnx = "SoftmaxCrossEntropyLoss"
    inputs = ("logits", "label", "*weight")
    attrs = {"smoothing": Attr("float", 0.0, "the share of the target that is spread evenly over all classes"), "ignore_index": _IGNORE}

    def infer(self, scores: TensorType, label: TensorType, *weight: TensorType, **attrs: Any) -> TensorType:
        if not 0 <= attrs["smoothing"] <= 1:
            raise TypeFailure(f"cross_entropy needs a smoothing from 0 to 1, not {attrs['smoothing']}")
        return super().infer(scores, label, *weight, **attrs)

    def expand(self, b: Builder, logits: Value, label: Value, *weight: Value, smoothing: float, ignore_index: int | None) -> Value:
        logarithms = b.log_softmax(logits, axis=1)
        if smoothing:
            even = _weighted(b, logarithms, weight)
            if ignore_index is not None:
                even = b.where(_counted(b, logits.type, label, ignore_index), even, b.scalar(0.0, logits.type.dtype))
            even_total = b.mul(b.sum(even, axis=None), _even_share(b, smoothing, logits.type))
        taken = _taken(b, logarithms, label, weight, ignore_index)
        total = b.sum(taken, axis=None)
        if smoothing:
            total = b.add(b.mul(total, b.scalar(1 - smoothing, logits.type.dtype)), even_total)
        value: Value = b.div(b.neg(total), _total_weight(b, logits, label, weight, ignore_index))
        return value

    def vjp(
        self, b: Builder, dy: Value, y: Value, logits: Value, label: Value, *weight: Value, smoothing: float, ignore_index: int | None
    ) -> tuple[Value | None, ...]:
        dtype = logits.type.dtype
        probability = b.softmax(logits, axis=1)
        if not (weight or smoothing or ignore_index is not None):
            difference = b.where(_is_label(b, logits.type, label), b.sub(probability, b.scalar(1.0, dtype)), probability)
            return b.mul(difference, b.div(dy, extent(b, label.type.size, dtype))), None
        share = b.div(dy, _total_weight(b, logits, label, weight, ignore_index))
        zero = low = b.scalar(0.0, dtype)
        high = b.scalar(1.0, dtype)
        if smoothing:
            low = _even_share(b, smoothing, logits.type)
            high = b.add(b.scalar(1 - smoothing, dtype), low)
        hot = _is_label(b, logits.type, label)
        target = b.where(hot, high, low)
        if ignore_index is not None:
            target = b.where(_counted(b, logits.type, label, ignore_index), target, zero)
        aim = _weighted(b, target, weight)
        dlogits = b.mul(share, b.sub(b.mul(probability, b.sum(aim, axis=1, keep=True)), aim))
        if not weight:
            return dlogits, None
        logarithms = b.log_softmax(logits, axis=1)
        lost = b.where(b.eq(target, zero), zero, b.neg(b.mul(target, logarithms)))
        one = b.where(_picked(b, logits.type, label, ignore_index), y, zero)
        others = tuple(axis for axis in range(logits.type.rank) if axis != 1)
        return dlogits, None, b.mul(share, b.sum(b.sub(lost, one), axis=others))

    def reference(self, logits: Array, label: Array, *weight: Array, smoothing: float, ignore_index: int | None) -> Array:
        with np.errstate(invalid="ignore"):
            z = logits - logits.max(1, keepdims=True)
            logarithms = z - np.log(np.exp(z).sum(1, keepdims=True))
        rows, classes, shares = _rows(logarithms, label, weight, ignore_index)
        total = (rows[np.arange(len(rows)), classes] * shares).sum()
        if smoothing:
            total = (1 - smoothing) * total + smoothing * (rows * (weight[0] if weight else 1)).sum() / logits.shape[1]
        return np.asarray(-total / shares.sum(), logits.dtype)

    samples = [
        Sample(((3, 4), _LABELS)),
        Sample(((2, 3, 2, 2), _MAPS)),
        Sample((np.array([[500.0, -500.0, 0.0]] * 3), _LABELS), gradient=False),
        Sample(((3, 4), _LABELS, np.array([0.5, 2.0, 0.3, 1.0]))),
        Sample(((2, 3, 2, 2), _MAPS, np.array([0.5, 2.0, 0.3])), {"smoothing": 0.2, "ignore_index": 1}),
        Sample(((3, 4), _LABELS), {"smoothing": 0.1}),
        Sample(((5, 4), np.array([-100, 3, 0, -100, 2])), {"ignore_index": -100}),
        Sample((np.array([[500.0, -500.0, 0.0]] * 3), _LABELS), {"smoothing": 0.1}, gradient=False),
        Sample(((2, 3), np.array([7, 7])), {"ignore_index": 7}, gradient=False),
    ]
    errors = [
        *_over_classes("[N, C, ...]"),
        BadSample((f32(3, 4), _i64(3), f32(3)), {}, "needs class weights f32[4]"),
        BadSample((f32(3, 4), _i64(3), TensorType(DType.F64, (4,))), {}, "needs class weights f32[4]"),
        BadSample((f32(3, 4), _i64(3), f32(4), f32(4)), {}, "one tensor of class weights"),
        BadSample((f32(3, 4), _i64(3)), {"smoothing": 1.5}, "from 0 to 1"),
    ]


@operator
class Nll(OverClasses):
    """The mean over examples of -log_p[label], the negative log-likelihood: logarithms of probabilities [N, C, ...], labels [N, ...].

    A third tensor, a weight [C] for each class, is optional: the mean is then weighted by those of the labels.
    `nll(log_softmax[axis = 1](x), label)` is `cross_entropy(x, label)`.
    """

    onnx = "NegativeLogLikelihoodLoss"
    inputs = ("log_p", "label", "*weight")
    attrs = {"ignore_index": _IGNORE}

    def expand(self, b: Builder, log_p: Value, label: Value, *weight: Value, ignore_index: int | None) -> Value:
        total = b.sum(_taken(b, log_p, label, weight, ignore_index), axis=None)
        value: Value = b.div(b.neg(total), _total_weight(b, log_p, label, weight, ignore_index))
        return value

    def reference(self, log_p: Array, label: Array, *weight: Array, ignore_index: int | None) -> Array:
        rows, classes, shares = _rows(log_p, label, weight, ignore_index)
        return np.asarray(-(rows[np.arange(len(rows)), classes] * shares).sum() / shares.sum(), log_p.dtype)

    samples = [
        Sample(((3, 4), _LABELS)),
        Sample(((2, 3, 2, 2), _MAPS, np.array([0.5, 2.0, 0.3])), {"ignore_index": 1}),
        Sample((np.array([[-np.inf, 0.0, -1.0]] * 3), _LABELS), gradient=False),
    ]
    errors = [*_over_classes("[N, C, ...]"), BadSample((f32(3, 4), _i64(3), f32(3)), {}, "needs class weights f32[4]")]


def _even_share(b: Builder, smoothing: float, scores: TensorType) -> Value:
    """What smoothing gives to each class."""
    value: Value = b.div(b.scalar(smoothing, scores.dtype), extent(b, scores.shape[1], scores.dtype))
    return value


def _is_label(b: Builder, scores: TensorType, label: Value) -> Value:
    """bool, broadcasting to the scores: whether the class is the example's label."""
    classes = scores.shape[1]
    number = b.reshape(b.iota(size=classes, dtype=DType.I64), shape=(classes, *(1 for _ in scores.shape[2:])))
    value: Value = b.eq(_laid_out(b, scores, label), number)
    return value


def _laid_out(b: Builder, scores: TensorType, label: Value) -> Value:
    """The labels as i64 [N, 1, ...]."""
    label = b.cast(label, dtype=DType.I64) if label.type.dtype != DType.I64 else label
    value: Value = b.reshape(label, shape=(scores.shape[0], 1, *scores.shape[2:]))
    return value


def _counted(b: Builder, scores: TensorType, label: Value, ignored: int) -> Value:
    """bool [N, 1, ...]: whether the example is not ignored."""
    value: Value = b.ne(_laid_out(b, scores, label), b.scalar(ignored, DType.I64))
    return value


def _picked(b: Builder, scores: TensorType, label: Value, ignored: int | None) -> Value:
    """bool, broadcasting to the scores: whether the class is the label of an example that is not ignored."""
    hot = _is_label(b, scores, label)
    if ignored is None:
        return hot
    value: Value = b.apply("and", hot, _counted(b, scores, label, ignored))
    return value


def _weighted(b: Builder, scores: Value, weight: tuple[Value, ...]) -> Value:
    """Scores times the weights of their classes."""
    if not weight:
        return scores
    shape = (scores.type.shape[1], *(1 for _ in scores.type.shape[2:]))
    value: Value = b.mul(scores, b.reshape(weight[0], shape=shape))
    return value


def _taken(b: Builder, logarithms: Value, label: Value, weight: tuple[Value, ...], ignored: int | None) -> Value:
    """The labels' logarithms, weighted, and 0 for all other classes."""
    taken = b.where(_picked(b, logarithms.type, label, ignored), logarithms, b.scalar(0.0, logarithms.type.dtype))
    return _weighted(b, taken, weight)


def _total_weight(b: Builder, scores: Value, label: Value, weight: tuple[Value, ...], ignored: int | None) -> Value:
    """The sum of the weights of all labels that are not ignored, a scalar."""
    dtype = scores.type.dtype
    if not weight and ignored is None:
        return extent(b, label.type.size, dtype)
    if not weight:
        assert ignored is not None
        value: Value = b.sum(b.cast(_counted(b, scores.type, label, ignored), dtype=dtype), axis=None)
        return value
    ones = b.where(_picked(b, scores.type, label, ignored), b.scalar(1.0, dtype), b.scalar(0.0, dtype))
    total: Value = b.sum(_weighted(b, ones, weight), axis=None)
    return total


def _rows(logarithms: Array, label: Array, weight: tuple[Array, ...], ignored: int | None) -> tuple[Array, Array, Array]:
    """For references: scores [examples, C], labels and weights of the examples that are not ignored."""
    kept = label.ravel() != ignored if ignored is not None else np.full(label.size, True)
    classes = label.ravel()[kept].astype(np.int64)
    shares = weight[0][classes] if weight else np.ones(len(classes), logarithms.dtype)
    return np.moveaxis(logarithms, 1, -1).reshape(-1, logarithms.shape[1])[kept], classes, shares


def same_type(what: str, x: TensorType, y: TensorType) -> TensorType:
    require("floating", what, x, y)
    if x != y:
        raise TypeFailure(f"{what} needs two tensors of one type, not {x} and {y}", inputs=(0, 1))
    return TensorType(x.dtype)


def mean_of(b: Builder, x: Value) -> Value:
    value: Value = b.mean(x, axis=None)
    return value


def bad_pairs() -> list[BadSample]:
    """Refusals that the losses of two tensors of one type share."""
    return [
        BadSample((f32(3, 4), f32(3, 1)), {}, "of one type"),
        BadSample((f32(3), TensorType(DType.F64, (3,))), {}, "of one type"),
        BadSample((_i64(3), _i64(3)), {}, "floating-point"),
    ]


@operator
class Mse(Operator):
    """The mean of (x - y)^2 over all elements."""

    family = "loss"
    inputs = ("x", "y")
    errors = bad_pairs()
    samples = [Sample(((3, 4), (3, 4))), Sample(((5,), (5,)))]

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        return same_type("mse", x, y)

    def expand(self, b: Builder, x: Value, y: Value) -> Value:
        difference = b.sub(x, y)
        return mean_of(b, b.mul(difference, difference))

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
    errors = bad_pairs()
    samples = [
        Sample((_PROBABILITIES, _TARGETS)),
        Sample((np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0])), gradient=False),
    ]

    def infer(self, p: TensorType, t: TensorType) -> TensorType:
        return same_type("binary_cross_entropy", p, t)

    def expand(self, b: Builder, p: Value, t: Value) -> Value:
        one = b.scalar(1.0, p.type.dtype)
        term = b.add(b.mul(t, self._log(b, p)), b.mul(b.sub(one, t), self._log(b, b.sub(one, p))))
        return mean_of(b, b.neg(term))

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
    errors = bad_pairs()
    samples = [
        Sample(((2, 3), _TARGETS)),
        Sample((np.array([800.0, -800.0, 0.0]), np.array([1.0, 0.0, 1.0])), gradient=False),
    ]

    def infer(self, x: TensorType, t: TensorType) -> TensorType:
        return same_type("binary_cross_entropy_with_logits", x, t)

    def expand(self, b: Builder, x: Value, t: Value) -> Value:
        zero = b.scalar(0.0, x.type.dtype)
        rest = b.log1p(b.exp(b.neg(b.abs(x))))
        return mean_of(b, b.add(b.sub(b.maximum(x, zero), b.mul(x, t)), rest))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, t: Value) -> tuple[Value, Value]:
        share = b.div(dy, extent(b, x.type.size, x.type.dtype))
        return b.mul(share, b.sub(b.sigmoid(x), t)), b.neg(b.mul(share, x))

    def reference(self, x: Array, t: Array) -> Array:
        return np.asarray((np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))).mean(), x.dtype)
