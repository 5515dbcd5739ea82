"""Boxes [..., 4] as corners (x1, y1, x2, y2): conversion, how much two overlap, and suppression of those that others cover."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.routines import Routine
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Shape, broadcast, count, cut, require, reshaped, same_dtype

F32, F64, I32, I64 = DType.F32, DType.F64, DType.I32, DType.I64
Corners = tuple[Value, Value, Value, Value]


def _check_boxes(name: str, t: TensorType, position: int = 0) -> None:
    if not t.dtype.floating or not t.rank or t.shape[-1] != 4:
        raise TypeFailure(f"{name} needs floating-point boxes [..., 4], not {t}", inputs=(position,))


def _parts(b: Builder, boxes: Value) -> Corners:
    """The four numbers of each box."""
    last, shape = boxes.type.rank - 1, boxes.type.shape[:-1]
    one, two, three, four = (reshaped(b, cut(b, boxes, last, n, n + 1), shape) for n in range(4))
    return one, two, three, four


def _joined(b: Builder, *parts: Value) -> Value:
    columns = [reshaped(b, p, (*p.type.shape, 1)) for p in parts]
    result: Value = b.concat(*columns, axis=-1)
    return result


# ---- conversion -----------------------------------------------------------------------------------------------------

_BOX_SAMPLES = [Sample(((5, 4),)), Sample(((2, 3, 4),)), Sample(((4,),))]
_BOX_ERRORS = [
    BadSample((TensorType(F32, (3, 5)),), {}, "boxes [..., 4]"),
    BadSample((TensorType(I32, (3, 4)),), {}, "floating-point"),
]


class _Conversion(Operator):
    family = "detection"
    inputs = ("boxes",)
    samples = _BOX_SAMPLES
    errors = _BOX_ERRORS

    def infer(self, boxes: TensorType) -> TensorType:
        _check_boxes(self.name, boxes)
        return boxes


@operator
class XyxyToCxcywh(_Conversion):
    """Boxes (x1, y1, x2, y2) as (centre x, centre y, width, height)."""

    def expand(self, b: Builder, boxes: Value) -> Value:
        x1, y1, x2, y2 = _parts(b, boxes)
        half = b.scalar(0.5, boxes.type.dtype)
        return _joined(b, b.mul(b.add(x1, x2), half), b.mul(b.add(y1, y2), half), b.sub(x2, x1), b.sub(y2, y1))

    def reference(self, boxes: Array) -> Array:
        low, high = boxes[..., :2], boxes[..., 2:]
        return np.concatenate([(low + high) / 2, high - low], -1)


@operator
class CxcywhToXyxy(_Conversion):
    """Boxes (centre x, centre y, width, height) as (x1, y1, x2, y2)."""

    def expand(self, b: Builder, boxes: Value) -> Value:
        x, y, w, h = _parts(b, boxes)
        half = b.scalar(0.5, boxes.type.dtype)
        dx, dy = b.mul(w, half), b.mul(h, half)
        return _joined(b, b.sub(x, dx), b.sub(y, dy), b.add(x, dx), b.add(y, dy))

    def reference(self, boxes: Array) -> Array:
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        return np.concatenate([centre - half, centre + half], -1)


# ---- overlap --------------------------------------------------------------------------------------------------------

_A = np.array(
    [[0.03, 0.01, 2.07, 2.09], [1.03, 0.51, 3.03, 2.57], [-1.0, -1.1, 0.23, 0.77], [0.1, 0.22, 4.0, 3.15], [2.05, 2.15, 3.5, 3.05]]
)
_B = np.array([[0.5, 0.6, 2.5, 2.7], [1.2, 0.1, 2.0, 3.3], [0.4, 0.9, 1.4, 2.2], [-0.3, 0.7, 2.2, 1.9], [7.0, 7.5, 8.0, 9.0]])
_EMPTY = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 2.0]])
# Equal aspect ratios: there the weight of the ratio's term, which counts as constant, has no slope anyway.
_SQUARES_A = np.array([[0.0, 0.0, 2.0, 2.0], [1.0, 0.5, 3.0, 2.5]])
_SQUARES_B = np.array([[0.5, 0.6, 2.6, 2.7], [4.0, 4.0, 5.0, 5.0]])


class _Overlap(Operator):
    """Base of the measures of overlap."""

    family = "detection"
    inputs = ("x", "y")
    attrs = {"pairwise": Attr("bool", False, "each box of x [..., N, 4] with each of y [..., M, 4]: [..., N, M]")}
    samples = [
        Sample((_A, _B)),
        Sample((_A, _B[:3]), {"pairwise": True}),
        Sample((np.stack([_A, _B]), np.stack([_B[:2], _A[:2]])), {"pairwise": True}, gradient=False),
        Sample((_EMPTY, _EMPTY), gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 5)), TensorType(F32, (3, 4))), {}, "boxes [..., 4]"),
        BadSample((TensorType(F32, (3, 4)), TensorType(F32, (2, 4))), {}, "axis 0 is 3 and 2"),
        BadSample((TensorType(F32, (3, 4)), TensorType(F64, (3, 4))), {}, "element types"),
        BadSample((TensorType(F32, (4,)), TensorType(F32, (3, 4))), {"pairwise": True}, "[..., N, 4]"),
    ]

    def infer(self, x: TensorType, y: TensorType, pairwise: bool) -> TensorType:
        _check_boxes(self.name, x)
        _check_boxes(self.name, y, 1)
        same_dtype("compare", x, y)
        if not pairwise:
            return x.with_shape(broadcast("compare", x, y)[:-1])
        if min(x.rank, y.rank) < 2:
            raise TypeFailure(f"{self.name} of pairs needs boxes [..., N, 4], not {x} and {y}", inputs=(0, 1))
        first, second = x.with_shape((*x.shape[:-1], 1)), y.with_shape((*y.shape[:-2], 1, y.shape[-2]))
        return x.with_shape(broadcast("compare", first, second))

    def corners(self, b: Builder, x: Value, y: Value, pairwise: bool) -> tuple[Corners, Corners]:
        """Numbers of both boxes that broadcast against each other."""

        def apart(v: Value, before: Shape, after: Shape) -> Corners:
            shape = v.type.shape[:-1]
            one, two, three, four = (reshaped(b, p, (*shape[:-1], *before, shape[-1], *after)) for p in _parts(b, v))
            return one, two, three, four

        return (apart(x, (), (1,)), apart(y, (1,), ())) if pairwise else (_parts(b, x), _parts(b, y))

    def areas(self, b: Builder, x: Corners, y: Corners) -> tuple[Value, Value]:
        """Intersection and union."""
        zero = b.scalar(0.0, x[0].type.dtype)
        width = b.maximum(b.sub(b.minimum(x[2], y[2]), b.maximum(x[0], y[0])), zero)
        height = b.maximum(b.sub(b.minimum(x[3], y[3]), b.maximum(x[1], y[1])), zero)
        both = b.mul(width, height)
        one, other = (b.mul(b.sub(c[2], c[0]), b.sub(c[3], c[1])) for c in (x, y))
        return both, b.sub(b.add(one, other), both)


def _quotient(b: Builder, x: Value, y: Value) -> Value:
    """x / y, and x itself where y is 0, where x is 0 too."""
    zero, one = b.scalar(0.0, y.type.dtype), b.scalar(1.0, y.type.dtype)
    result: Value = b.div(x, b.where(b.eq(y, zero), one, y))
    return result


def _hull(b: Builder, x: Corners, y: Corners) -> tuple[Value, Value]:
    """Width and height of the smallest box around both."""
    width = b.sub(b.maximum(x[2], y[2]), b.minimum(x[0], y[0]))
    return width, b.sub(b.maximum(x[3], y[3]), b.minimum(x[1], y[1]))


@operator
class Iou(_Overlap):
    """Intersection over union of boxes (x1, y1, x2, y2): of aligned ones [..., 4], which broadcast, or of all pairs. 0 for two empty boxes."""

    def expand(self, b: Builder, x: Value, y: Value, pairwise: bool) -> Value:
        both, union = self.areas(b, *self.corners(b, x, y, pairwise))
        return _quotient(b, both, union)

    def reference(self, x: Array, y: Array, pairwise: bool) -> Array:
        return _reference_overlap(x, y, pairwise)[0]


@operator
class Giou(_Overlap):
    """IoU minus the part of the smallest box around both that neither covers. Rezatofighi et al., "Generalized intersection over union"
    (CVPR 2019)."""

    def expand(self, b: Builder, x: Value, y: Value, pairwise: bool) -> Value:
        one, other = self.corners(b, x, y, pairwise)
        both, union = self.areas(b, one, other)
        hull = b.mul(*_hull(b, one, other))
        result: Value = b.sub(_quotient(b, both, union), _quotient(b, b.sub(hull, union), hull))
        return result

    def reference(self, x: Array, y: Array, pairwise: bool) -> Array:
        iou, union, x, y = _reference_overlap(x, y, pairwise)
        hull = np.prod(np.maximum(x[..., 2:], y[..., 2:]) - np.minimum(x[..., :2], y[..., :2]), -1)
        return np.asarray(iou - np.where(hull == 0, 0, (hull - union) / np.where(hull == 0, 1, hull))).astype(x.dtype)


@operator
class Ciou(_Overlap):
    """IoU minus the squared distance of the centres over that of the corners of the smallest box around both, minus a term for the
    aspect ratios, v * v / (1 - IoU + v) with v = (2 / pi * (atan(w1 / h1) - atan(w2 / h2)))^2. Zheng et al., "Distance-IoU loss"
    (AAAI 2020), whose factor v / (1 - IoU + v) counts as constant in the gradient.
    """

    samples = [Sample((_SQUARES_A, _SQUARES_B)), *(Sample(s.inputs, s.attrs, gradient=False) for s in _Overlap.samples)]

    def expand(self, b: Builder, x: Value, y: Value, pairwise: bool) -> Value:
        dtype = x.type.dtype
        one, other = self.corners(b, x, y, pairwise)
        iou = _quotient(b, *self.areas(b, one, other))
        wide, high = _hull(b, one, other)
        quarter = b.scalar(0.25, dtype)  # twice the distance of the centres is simpler
        across = b.sub(b.add(one[0], one[2]), b.add(other[0], other[2]))
        down = b.sub(b.add(one[1], one[3]), b.add(other[1], other[3]))
        distance = b.mul(b.add(b.mul(across, across), b.mul(down, down)), quarter)
        apart = _quotient(b, distance, b.add(b.mul(wide, wide), b.mul(high, high)))
        first, second = (b.atan2(b.sub(c[2], c[0]), b.sub(c[3], c[1])) for c in (one, other))
        angle = b.mul(b.sub(first, second), b.scalar(2 / math.pi, dtype))
        v = b.mul(angle, angle)
        factor = b.stop_gradient(_quotient(b, v, b.add(b.sub(b.scalar(1.0, dtype), iou), v)))
        result: Value = b.sub(b.sub(iou, apart), b.mul(factor, v))
        return result

    def reference(self, x: Array, y: Array, pairwise: bool) -> Array:
        dtype = x.dtype
        iou, _, x, y = _reference_overlap(x.astype(np.float64), y.astype(np.float64), pairwise)
        corner = np.maximum(x[..., 2:], y[..., 2:]) - np.minimum(x[..., :2], y[..., :2])
        diagonal = (corner**2).sum(-1)
        distance = (((x[..., :2] + x[..., 2:]) - (y[..., :2] + y[..., 2:])) ** 2).sum(-1) / 4
        angles = [np.arctan2(c[..., 2] - c[..., 0], c[..., 3] - c[..., 1]) for c in (x, y)]
        v = (2 / np.pi * (angles[0] - angles[1])) ** 2
        below = 1 - iou + v
        ciou = iou - distance / np.where(diagonal == 0, 1, diagonal) - v * v / np.where(below == 0, 1, below)
        return np.asarray(ciou).astype(dtype)


def _reference_overlap(x: Array, y: Array, pairwise: bool) -> tuple[Array, Array, Array, Array]:
    """IoU, union, and both boxes as they broadcast."""
    if pairwise:
        x, y = x[..., :, None, :], y[..., None, :, :]
    sides = np.maximum(np.minimum(x[..., 2:], y[..., 2:]) - np.maximum(x[..., :2], y[..., :2]), 0)
    both = sides[..., 0] * sides[..., 1]
    areas = [np.prod(c[..., 2:] - c[..., :2], -1) for c in (x, y)]
    union = areas[0] + areas[1] - both
    return np.asarray(both / np.where(union == 0, 1, union)), union, x, y


# ---- suppression ----------------------------------------------------------------------------------------------------

_CLUSTERS = np.array(
    [
        [[0, 0, 2, 2], [0.1, 0, 2.1, 2], [0, 0.2, 2, 2.2], [5, 5, 7, 8], [5, 5.5, 7, 8], [9, 9, 9, 9]],
        [[1, 1, 2, 2], [1, 1, 2, 2], [3, 1, 4, 2], [3, 1, 4, 2], [3, 1, 4.1, 2], [0, 0, 9, 9]],
    ],
    np.float64,
)
_SCORES = np.array([[0.3, 0.9, 0.5, 0.2, 0.8, 0.1], [0.5, 0.5, 0.25, 0.75, np.nan, 0.05]])
_THRESHOLDS = {
    "iou_threshold": Attr("float", 0.5, "a box goes where it overlaps a better one by more than this"),
    "score_threshold": Attr("float", None, "the least score of a box that stays"),
}


def _grid(side: int) -> Array:
    """Boxes of which neighbours overlap."""
    corner = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2) * 0.75
    return np.concatenate([corner, corner + 1], -1)


def _suppressed(boxes: Array, scores: Array, bound: int, overlap: float, least: float | None) -> Array:
    """Positions of the boxes of one image that stay, by the definition."""
    threshold = boxes.dtype.type(overlap)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for at in np.argsort(-scores, kind="stable"):
        if not scores[at] >= (boxes.dtype.type(-np.inf if least is None else least)):
            continue
        sides = np.maximum(np.minimum(boxes[at, 2:], boxes[kept, 2:]) - np.maximum(boxes[at, :2], boxes[kept, :2]), 0)
        both = sides[:, 0] * sides[:, 1]
        if len(kept) < bound and not np.any(both / (areas[at] + areas[kept] - both) > threshold):
            kept.append(int(at))
    return np.array(kept + [-1] * (bound - len(kept)))


@operator
class Suppress(Operator):
    """The positions, in the order of their scores, of the boxes that no better one covers: i64[..., bound], -1 behind them."""

    family = "detection"
    internal = True
    differentiable = False
    inputs = ("boxes", "scores", "order")
    attrs = {"bound": Attr("int", doc="the number of results"), **_THRESHOLDS}
    samples = [
        Sample((_CLUSTERS, _SCORES, np.argsort(-_SCORES, -1, kind="stable")), {"bound": 4}),
        Sample((_CLUSTERS, _SCORES, np.argsort(-_SCORES, -1, kind="stable")), {"bound": 2, "score_threshold": 0.5, "iou_threshold": 0.3}),
        Sample((_grid(10), np.arange(100) * 37 % 101 / 101, np.argsort(-(np.arange(100) * 37 % 101))), {"bound": 60, "iou_threshold": 0.1}),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 5)), TensorType(F32, (3,)), TensorType(I64, (3,))), {"bound": 2}, "boxes [..., 4]"),
        BadSample((TensorType(F32, (3, 4)), TensorType(F32, (3,)), TensorType(F32, (3,))), {"bound": 2}, "an order i64[3]"),
    ]

    def infer(
        self, boxes: TensorType, scores: TensorType, order: TensorType, bound: int, iou_threshold: float, score_threshold: float | None
    ) -> TensorType:
        _check_suppression(boxes, scores, bound)
        if order != TensorType(I64, scores.shape):
            raise TypeFailure(f"suppress needs an order {TensorType(I64, scores.shape)}, not {order}", inputs=(2,))
        return order.with_shape((*order.shape[:-1], bound))

    def routine(
        self, boxes: TensorType, scores: TensorType, order: TensorType, bound: int, iou_threshold: float, score_threshold: float | None
    ) -> Routine:
        rows = count(scores, tuple(range(scores.rank - 1)))
        room = -(-bound // 16) * 16
        sizes = (("rows", rows), ("count", scores.shape[-1]), ("bound", bound), ("room", room))
        least = -math.inf if score_threshold is None else float(score_threshold)
        settings = (("overlap", float(iou_threshold)), ("least", least))
        return Routine("suppress", sizes, settings, (boxes.with_shape((rows * (5 * room),)),))

    def reference(
        self, boxes: Array, scores: Array, order: Array, bound: int, iou_threshold: float, score_threshold: float | None
    ) -> Array:
        rows = zip(boxes.reshape(-1, *boxes.shape[-2:]), scores.reshape(-1, scores.shape[-1]), strict=True)
        kept = [_suppressed(*row, bound, iou_threshold, score_threshold) for row in rows]
        return np.array(kept).reshape(*scores.shape[:-1], bound)


def _check_suppression(boxes: TensorType, scores: TensorType, bound: int) -> None:
    _check_boxes("non_max_suppression", boxes)
    require("floating", "non_max_suppression", scores)
    if boxes.rank < 2 or scores != boxes.with_shape(boxes.shape[:-1]):
        wanted = boxes.with_shape(boxes.shape[:-1]) if boxes.rank > 1 else "one score a box"
        raise TypeFailure(f"non_max_suppression of boxes {boxes} needs scores {wanted}, not {scores}", inputs=(0, 1))
    if bound < 1:
        raise TypeFailure(f"the bound of non_max_suppression is at least 1, not {bound}")


@operator
class NonMaxSuppression(Operator):
    """The boxes that no better one covers, best first: boxes [..., N, 4] as corners and scores [..., N] to positions i64[..., bound] and
    their number i64[...]. Positions behind the last are -1.

    Boxes are taken in the order of their scores, equal ones in theirs; one stays where its intersection over union with each that stays
    is at most `iou_threshold`. A score of NaN never stays. To treat classes apart, move the boxes of each class to a place of its own.
    """

    onnx = "NonMaxSuppression"
    family = "detection"
    differentiable = False
    inputs = ("boxes", "scores")
    attrs = Suppress.attrs
    samples = [
        Sample((_CLUSTERS, _SCORES), {"bound": 4}),
        Sample((_CLUSTERS[0], _SCORES[0]), {"bound": 3, "iou_threshold": 0.9, "score_threshold": 0.2}),
        Sample((_grid(5), np.ones(25)), {"bound": 20, "iou_threshold": 0.1}),
        Sample((_CLUSTERS[:, :5], _SCORES[:, :5]), {"bound": 9}),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 5)), TensorType(F32, (3,))), {"bound": 2}, "boxes [..., 4]"),
        BadSample((TensorType(F32, (3, 4)), TensorType(F32, (2,))), {"bound": 2}, "needs scores f32[3]"),
        BadSample((TensorType(F32, (3, 4)), TensorType(F32, (3,))), {"bound": 0}, "at least 1"),
    ]

    def infer(
        self, boxes: TensorType, scores: TensorType, bound: int, iou_threshold: float, score_threshold: float | None
    ) -> tuple[TensorType, TensorType]:
        _check_suppression(boxes, scores, bound)
        return TensorType(I64, (*scores.shape[:-1], bound)), TensorType(I64, scores.shape[:-1])

    def expand(
        self, b: Builder, boxes: Value, scores: Value, bound: int, iou_threshold: float, score_threshold: float | None
    ) -> tuple[Value, Value]:
        order = b.argsort(scores, descending=True)
        kept = b.suppress(boxes, scores, order, bound=bound, iou_threshold=iou_threshold, score_threshold=score_threshold)
        return kept, b.sum(b.cast(b.ge(kept, b.scalar(0, I64)), dtype=I64), axis=-1)

    def reference(
        self, boxes: Array, scores: Array, bound: int, iou_threshold: float, score_threshold: float | None
    ) -> tuple[Array, Array]:
        kept = _SUPPRESS.reference(boxes, scores, None, bound, iou_threshold, score_threshold)
        return kept, np.asarray((kept >= 0).sum(-1))


_SUPPRESS: Any = Suppress()
