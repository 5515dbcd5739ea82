"""Losses of two tensors element by element, of distributions, and of distances between vectors. Each is a mean, a scalar."""

from __future__ import annotations

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.losses import bad_pairs, mean_of, same_type
from dslc.ops.shapes import Array, broadcast, broadcast_to, count, extent, normal_axis, require, same_dtype

F32, F64, I32, I64, BOOL = DType.F32, DType.F64, DType.I32, DType.I64, DType.BOOL
_SIDES = np.array([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]])
_FAR = (np.array([1e4, -1e30, 2.0, 0.5]), np.array([-1e4, 1e30, 2.0, 0.0]))


# ---- element by element -------------------------------------------------------------------------------------------


class Difference(Operator):
    """Base of the losses of a difference x - y."""

    family = "loss"
    inputs = ("x", "y")
    errors = bad_pairs()
    samples = [Sample(((3, 4), (3, 4))), Sample(((5,), (5,))), Sample(_FAR, gradient=False)]


@operator
class L1(Difference):
    """The mean of |x - y| over all elements, the mean absolute error. Where they are equal the gradient is 0."""

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        return same_type("l1", x, y)

    def expand(self, b: Builder, x: Value, y: Value) -> Value:
        return mean_of(b, b.abs(b.sub(x, y)))

    def reference(self, x: Array, y: Array) -> Array:
        return np.asarray(np.abs(x - y).mean(), x.dtype)


@operator
class Huber(Difference):
    """The mean of d^2 / 2 where |d| <= delta, else of delta * (|d| - delta / 2), for d = x - y. P. J. Huber, 1964."""

    attrs = {"delta": Attr("float", 1.0, "where the parabola becomes a line, more than 0")}
    samples = [*Difference.samples, Sample(((3, 4), (3, 4)), {"delta": 0.3})]
    errors = [*Difference.errors, BadSample((TensorType(F32, (3,)), TensorType(F32, (3,))), {"delta": 0.0}, "more than 0")]

    def infer(self, x: TensorType, y: TensorType, delta: float) -> TensorType:
        if not delta > 0:
            raise TypeFailure(f"huber needs a delta of more than 0, not {delta}")
        return same_type("huber", x, y)

    def expand(self, b: Builder, x: Value, y: Value, delta: float) -> Value:
        d = b.sub(x, y)
        c = b.clip(d, low=-delta, high=delta)  # both cases are c (d - c / 2)
        return mean_of(b, b.mul(c, b.sub(d, b.mul(c, b.scalar(0.5, x.type.dtype)))))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, z: Value, delta: float) -> tuple[Value, Value]:
        share = b.div(dy, extent(b, x.type.size, x.type.dtype))
        dx = b.mul(share, b.clip(b.sub(x, z), low=-delta, high=delta))
        return dx, b.neg(dx)

    def reference(self, x: Array, y: Array, delta: float) -> Array:
        size = np.abs(x - y)
        with np.errstate(over="ignore"):
            return np.asarray(np.where(size <= delta, size * size / 2, delta * (size - delta / 2)).mean(), x.dtype)


@operator
class SmoothL1(Difference):
    """The mean of d^2 / (2 beta) where |d| <= beta, else of |d| - beta / 2, for d = x - y: huber with delta = beta, over beta.

    R. Girshick, "Fast R-CNN", 2015.
    """

    attrs = {"beta": Attr("float", 1.0, "where the parabola becomes a line, more than 0")}
    samples = [*Difference.samples, Sample(((3, 4), (3, 4)), {"beta": 0.3})]
    errors = [*Difference.errors, BadSample((TensorType(F32, (3,)), TensorType(F32, (3,))), {"beta": 0.0}, "more than 0")]

    def infer(self, x: TensorType, y: TensorType, beta: float) -> TensorType:
        if not beta > 0:
            raise TypeFailure(f"smooth_l1 needs a beta of more than 0, not {beta}", hint="l1 is its limit")
        return same_type("smooth_l1", x, y)

    def expand(self, b: Builder, x: Value, y: Value, beta: float) -> Value:
        value: Value = b.mul(b.huber(x, y, delta=beta), b.scalar(1 / beta, x.type.dtype))
        return value

    def reference(self, x: Array, y: Array, beta: float) -> Array:
        size = np.abs(x - y)
        with np.errstate(over="ignore"):
            return np.asarray(np.where(size < beta, size * size / (2 * beta), size - beta / 2).mean(), x.dtype)


@operator
class Hinge(Operator):
    """The mean of max(0, margin - t * x) for scores x and targets t of -1 and 1. Where the maximum is 0 so is the gradient."""

    family = "loss"
    inputs = ("x", "t")
    attrs = {"margin": Attr("float", 1.0, "the score from which on an example costs nothing")}
    errors = bad_pairs()
    samples = [Sample(((2, 3), _SIDES)), Sample(((2, 3), _SIDES), {"margin": 0.2})]

    def infer(self, x: TensorType, t: TensorType, margin: float) -> TensorType:
        return same_type("hinge", x, t)

    def expand(self, b: Builder, x: Value, t: Value, margin: float) -> Value:
        return mean_of(b, b.relu(b.sub(b.scalar(margin, x.type.dtype), b.mul(t, x))))

    def reference(self, x: Array, t: Array, margin: float) -> Array:
        return np.asarray(np.maximum(0, margin - t * x).mean(), x.dtype)


@operator
class Focal(Operator):
    """The mean of -(1 - q)^gamma log q for logits x and targets t in [0, 1], where q is the probability given to the target.

    q = sigmoid(x) where t is 1 and 1 - sigmoid(x) where it is 0. With `alpha` positive examples are weighed by it, negative ones by
    1 - alpha. T.-Y. Lin et al., "Focal loss for dense object detection", 2017, whose best detector has gamma 2 and alpha 0.25.
    """

    family = "loss"
    inputs = ("x", "t")
    attrs = {
        "gamma": Attr("float", 2.0, "how much less easy examples count, at least 0"),
        "alpha": Attr(
            "float", None, "the weight of positive examples, from 0 to 1, 1 - alpha that of negative ones; all count alike unless told"
        ),
    }
    samples = [
        Sample(((2, 3), np.array([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]))),
        Sample(((2, 3), np.array([[0.0, 0.9, 1.0], [0.2, 1.0, 0.0]])), {"gamma": 0.5}),
        Sample(((2, 3), np.array([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])), {"gamma": 0.0, "alpha": 0.25}),
        Sample(((2, 3), np.array([[0.0, 0.9, 1.0], [0.2, 1.0, 0.0]])), {"alpha": 0.25}),
        Sample((np.array([800.0, -800.0, 0.0, 800.0]), np.array([1.0, 0.0, 1.0, 0.0])), gradient=False),
    ]
    errors = [
        *bad_pairs(),
        BadSample((TensorType(F32, (3,)), TensorType(F32, (3,))), {"gamma": -1.0}, "at least 0"),
        BadSample((TensorType(F32, (3,)), TensorType(F32, (3,))), {"alpha": 2.0}, "from 0 to 1"),
    ]

    def infer(self, x: TensorType, t: TensorType, gamma: float, alpha: float | None) -> TensorType:
        if not gamma >= 0:
            raise TypeFailure(f"focal needs a gamma of at least 0, not {gamma}")
        if alpha is not None and not 0 <= alpha <= 1:
            raise TypeFailure(f"focal needs an alpha from 0 to 1, not {alpha}")
        return same_type("focal", x, t)

    def expand(self, b: Builder, x: Value, t: Value, gamma: float, alpha: float | None) -> Value:
        def c(value: float) -> Value:
            return b.scalar(value, x.type.dtype)

        other = b.sub(c(1.0), t)
        loss = b.add(b.mul(t, b.softplus(b.neg(x))), b.mul(other, b.softplus(x)))
        if gamma:
            missed = b.add(b.mul(t, b.sigmoid(b.neg(x))), b.mul(other, b.sigmoid(x)))
            if gamma != round(gamma):  # a slope that is infinite at 0, where the loss is 0: 0 * inf would be NaN
                missed = b.maximum(missed, c(1e-37))
            loss = b.mul(b.pow(missed, c(gamma)), loss)
        if alpha is not None:
            loss = b.mul(b.add(b.mul(c(alpha), t), b.mul(c(1 - alpha), other)), loss)
        return mean_of(b, loss)

    def reference(self, x: Array, t: Array, gamma: float, alpha: float | None) -> Array:
        p, other = np.exp(-np.logaddexp(0, -x)), np.exp(-np.logaddexp(0, x))
        loss = (t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)) * (other * t + p * (1 - t)) ** gamma
        return np.asarray((loss if alpha is None else loss * (alpha * t + (1 - alpha) * (1 - t))).mean(), x.dtype)


# ---- distributions ------------------------------------------------------------------------------------------------

_SHARES = np.array([[0.1, 0.5, 0.4], [0.25, 0.7, 0.05]])


@operator
class KlDivergence(Operator):
    """The mean over examples of the sum of p (log p - log_q): logarithms log_q and probabilities p, both [N, ...].

    Where p is 0 the term is 0, and so is its gradient. This is PyTorch's kl_div with "batchmean".
    """

    family = "loss"
    inputs = ("log_q", "p")
    errors = [*bad_pairs(), BadSample((TensorType(F32), TensorType(F32)), {}, "[N, ...]")]
    samples = [
        Sample((np.log(_SHARES[::-1]), _SHARES)),
        Sample((np.array([[-np.inf, 0.0, -1.0], [-800.0, 0.0, -1.0]]), np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])), gradient=False),
    ]

    def infer(self, log_q: TensorType, p: TensorType) -> TensorType:
        result = same_type("kl_divergence", log_q, p)
        if log_q.rank == 0:
            raise TypeFailure(f"kl_divergence needs distributions [N, ...], not {log_q}", inputs=(0,))
        return result

    def expand(self, b: Builder, log_q: Value, p: Value) -> Value:
        zero, one = b.scalar(0.0, p.type.dtype), b.scalar(1.0, p.type.dtype)
        there = b.gt(p, zero)
        term = b.where(there, b.mul(p, b.sub(b.log(b.where(there, p, one)), log_q)), zero)
        value: Value = b.div(b.sum(term, axis=None), extent(b, p.type.shape[0], p.type.dtype))
        return value

    def vjp(self, b: Builder, dy: Value, y: Value, log_q: Value, p: Value) -> tuple[Value, Value]:
        zero, one = b.scalar(0.0, p.type.dtype), b.scalar(1.0, p.type.dtype)
        there = b.gt(p, zero)
        share = b.div(dy, extent(b, p.type.shape[0], p.type.dtype))
        slope = b.add(b.sub(b.log(b.where(there, p, one)), log_q), one)
        return b.neg(b.mul(share, b.where(there, p, zero))), b.where(there, b.mul(share, slope), zero)

    def reference(self, log_q: Array, p: Array) -> Array:
        total = np.zeros((), p.dtype)
        for q, share in zip(log_q[p > 0], p[p > 0], strict=True):
            total = total + share * (np.log(share) - q)
        return np.asarray(total / len(p), p.dtype)


@operator
class SoftCrossEntropy(Operator):
    """The mean over examples of the sum over classes of -t log softmax(logits): logits and probabilities t, both [N, C, ...].

    The targets of mixed images and of a teacher network. Where t is 0 the term is 0.
    """

    family = "loss"
    inputs = ("logits", "t")
    errors = [*bad_pairs(), BadSample((TensorType(F32, (3,)), TensorType(F32, (3,))), {}, "[N, C, ...]")]
    samples = [
        Sample(((2, 3), _SHARES)),
        Sample(((5, 3, 2), (5, 3, 2))),
        Sample((np.array([[900.0, -900.0, 0.0], [-np.inf, 0.0, 0.0]]), np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])), gradient=False),
    ]

    def infer(self, logits: TensorType, t: TensorType) -> TensorType:
        result = same_type("soft_cross_entropy", logits, t)
        if logits.rank < 2:
            raise TypeFailure(f"soft_cross_entropy needs logits [N, C, ...], not {logits}", inputs=(0,))
        return result

    def expand(self, b: Builder, logits: Value, t: Value) -> Value:
        zero = b.scalar(0.0, t.type.dtype)
        term = b.where(b.eq(t, zero), zero, b.mul(t, b.log_softmax(logits, axis=1)))
        value: Value = b.div(b.neg(b.sum(term, axis=None)), self._examples(b, t))
        return value

    @staticmethod
    def _examples(b: Builder, t: Value) -> Value:
        return extent(b, count(t.type, tuple(axis for axis in range(t.type.rank) if axis != 1)), t.type.dtype)

    def vjp(self, b: Builder, dy: Value, y: Value, logits: Value, t: Value) -> tuple[Value, Value]:
        share = b.div(dy, self._examples(b, t))
        aim = b.mul(b.softmax(logits, axis=1), b.sum(t, axis=1, keep=True))
        return b.mul(share, b.sub(aim, t)), b.neg(b.mul(share, b.log_softmax(logits, axis=1)))

    def reference(self, logits: Array, t: Array) -> Array:
        logarithms = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        return np.asarray(-(t * np.where(t == 0, 0, logarithms)).sum() / (t.size / t.shape[1]), t.dtype)


# ---- distances ----------------------------------------------------------------------------------------------------


@operator
class CosineSimilarity(Operator):
    """The cosine of the angle between x and y along an axis, which the result lacks; they broadcast.

    The sum of x * y over max(|x|, eps) * max(|y|, eps), so that a vector of zeros has the similarity 0 to all.
    """

    family = "norm"
    inputs = ("x", "y")
    attrs = {
        "axis": Attr("axis", -1, "the axis of each vector, in the broadcast shape"),
        "eps": Attr("float", 1e-8, "the least length that is divided by"),
    }
    samples = [
        Sample(((5, 4), (5, 4))),
        Sample(((5, 3, 2), (3, 2)), {"axis": 1}),
        Sample(((5, 1, 4), (3, 4))),
        Sample((np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])), gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)), TensorType(F32, (2, 4))), {}, "axis 1 is 3 and 4"),
        BadSample((TensorType(F32, (2, 3)), TensorType(F64, (2, 3))), {}, "element types differ"),
        BadSample((TensorType(F32, (2, 3)), TensorType(F32, (2, 3))), {"axis": 2}, "no axis 2"),
        BadSample((TensorType(I32, (2, 3)), TensorType(I32, (2, 3))), {}, "floating-point"),
    ]

    def infer(self, x: TensorType, y: TensorType, axis: int, eps: float) -> TensorType:
        require("floating", self.name, x, y)
        both = TensorType(same_dtype("compare", x, y), broadcast("compare", x, y))
        along = normal_axis(axis, both)
        return both.with_shape(both.shape[:along] + both.shape[along + 1 :])

    def expand(self, b: Builder, x: Value, y: Value, axis: int, eps: float) -> Value:
        shape = broadcast("compare", x.type, y.type)
        x, y = broadcast_to(b, x, shape), broadcast_to(b, y, shape)
        least = b.scalar(eps, x.type.dtype)
        lengths = b.mul(b.maximum(b.norm(x, axis=axis), least), b.maximum(b.norm(y, axis=axis), least))
        value: Value = b.div(b.sum(b.mul(x, y), axis=axis), lengths)
        return value

    def reference(self, x: Array, y: Array, axis: int, eps: float) -> Array:
        x, y = np.broadcast_arrays(x, y)
        left, right = (np.maximum(np.linalg.norm(v, axis=axis), eps) for v in (x, y))
        return np.asarray((x * y).sum(axis) / (left * right), x.dtype)


@operator
class CosineLoss(Operator):
    """The mean of 1 - c for pairs that belong together and of max(0, c - margin) for others; c is cosine_similarity(x, y).

    Vectors [..., D]; a label [...] of more than 0, as 1, says that a pair belongs together, and -1 that it does not.
    """

    family = "loss"
    inputs = ("x", "y", "label")
    attrs = {"margin": Attr("float", 0.0, "up to this similarity a pair that does not belong together costs nothing")}
    samples = [
        Sample(((3, 4), (3, 4), np.array([1, -1, 1], np.int64))),
        Sample(((3, 4), (3, 4), np.array([-1, -1, 1], np.int32)), {"margin": 0.1}),
        Sample((np.zeros((2, 3)), np.ones((2, 3)), np.array([1, -1], np.int64)), gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 4)), TensorType(F32, (3, 1)), TensorType(I64, (3,))), {}, "of one type"),
        BadSample((TensorType(F32, (3, 4)), TensorType(F32, (3, 4)), TensorType(I64, (3, 4))), {}, "labels [3]"),
        BadSample((TensorType(F32, (3, 4)), TensorType(F32, (3, 4)), TensorType(F32, (3,))), {}, "whole numbers"),
        BadSample((TensorType(F32), TensorType(F32), TensorType(I64)), {}, "vectors"),
        BadSample((TensorType(I32, (3, 4)), TensorType(I32, (3, 4)), TensorType(I64, (3,))), {}, "floating-point"),
    ]

    def infer(self, x: TensorType, y: TensorType, label: TensorType, margin: float) -> TensorType:
        result = same_type("cosine_loss", x, y)
        if x.rank == 0:
            raise TypeFailure(f"cosine_loss needs vectors, not {x}", inputs=(0,))
        if not label.dtype.integer:
            raise TypeFailure(f"cosine_loss needs labels that are whole numbers, 1 or -1, not {label}", inputs=(2,))
        if label.shape != x.shape[:-1]:
            wanted = ", ".join(map(str, x.shape[:-1]))
            raise TypeFailure(f"cosine_loss of {x} needs labels [{wanted}], not {label}", inputs=(0, 2))
        return result

    def expand(self, b: Builder, x: Value, y: Value, label: Value, margin: float) -> Value:
        c = b.cosine_similarity(x, y)
        dtype = x.type.dtype
        apart = b.relu(b.sub(c, b.scalar(margin, dtype)))
        return mean_of(b, b.where(b.gt(label, b.scalar(0, label.type.dtype)), b.sub(b.scalar(1.0, dtype), c), apart))

    def reference(self, x: Array, y: Array, label: Array, margin: float) -> Array:
        lengths = np.maximum(np.linalg.norm(x, axis=-1), 1e-8) * np.maximum(np.linalg.norm(y, axis=-1), 1e-8)
        c = (x * y).sum(-1) / lengths
        return np.asarray(np.where(label > 0, 1 - c, np.maximum(0, c - margin)).mean(), x.dtype)


@operator
class Triplet(Operator):
    """The mean of max(0, |a - p| - |a - n| + margin) over vectors [..., D]: an anchor, one that is like it, one that is not.

    F. Schroff et al., "FaceNet", 2015. To each difference eps is added, as in PyTorch, so that equal vectors have a gradient.
    """

    family = "loss"
    inputs = ("anchor", "positive", "negative")
    attrs = {"margin": Attr("float", 1.0, "how much farther the third must be"), "eps": Attr("float", 1e-6, "added to each difference")}
    samples = [
        Sample(((3, 4), (3, 4), (3, 4))),
        Sample(((2, 3, 4), (2, 3, 4), (2, 3, 4)), {"margin": 0.2}),
        Sample((np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3))), {"margin": 0.3}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 4)), TensorType(F32, (3, 4)), TensorType(F32, (3, 1))), {}, "of one type"),
        BadSample((TensorType(F32, (3, 4)), TensorType(F64, (3, 4)), TensorType(F32, (3, 4))), {}, "of one type"),
        BadSample((TensorType(F32), TensorType(F32), TensorType(F32)), {}, "vectors"),
        BadSample((TensorType(I32, (3,)), TensorType(I32, (3,)), TensorType(I32, (3,))), {}, "floating-point"),
    ]

    def infer(self, anchor: TensorType, positive: TensorType, negative: TensorType, margin: float, eps: float) -> TensorType:
        same_type("triplet", anchor, positive)
        if anchor.rank == 0:
            raise TypeFailure(f"triplet needs vectors, not {anchor}", inputs=(0,))
        if negative != anchor:
            raise TypeFailure(f"triplet needs tensors of one type, not {anchor} and {negative}", inputs=(0, 2))
        return TensorType(anchor.dtype)

    def expand(self, b: Builder, anchor: Value, positive: Value, negative: Value, margin: float, eps: float) -> Value:
        dtype = anchor.type.dtype
        near, far = (b.norm(b.add(b.sub(anchor, other), b.scalar(eps, dtype)), axis=-1) for other in (positive, negative))
        return mean_of(b, b.relu(b.add(b.sub(near, far), b.scalar(margin, dtype))))

    def reference(self, anchor: Array, positive: Array, negative: Array, margin: float, eps: float) -> Array:
        near, far = (np.linalg.norm(anchor - other + anchor.dtype.type(eps), axis=-1) for other in (positive, negative))
        return np.asarray(np.maximum(0, near - far + margin).mean(), anchor.dtype)
