"""Running sums, order, scattering and boxes: what generated tests cannot see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.types import DType
from dslc.transforms.autodiff import gradients

Array = np.ndarray[Any, Any]
F64, I64 = DType.F64, DType.I64


def test_running_sums_meet_their_definition() -> None:
    b = Builder()
    x = b.input(I64, 4)
    made = [b.cumsum(x, reverse=r, exclusive=e) for r in (False, True) for e in (False, True)]
    got = interpret(b.graph(*made, b.cumprod(x), b.cumprod(x, reverse=True, exclusive=True)), [np.array([1, 2, 3, 4])])
    assert [list(g) for g in got] == [[1, 3, 6, 10], [0, 1, 3, 6], [10, 9, 7, 4], [9, 7, 4, 0], [1, 2, 6, 24], [24, 12, 4, 1]]


def test_gradient_of_a_product_with_zeros() -> None:
    b = Builder()
    x = b.input(F64, 3, 3)
    got = interpret(b.graph(*gradients(b, b.sum(b.prod(x, axis=1)), (x,))), [np.array([[2.0, 3, 4], [2, 0, 4], [0, 0, 4]])])
    assert got[0].tolist() == [[12, 8, 6], [0, 8, 0], [0, 0, 0]]


def test_order_of_nan_zeros_and_equal_elements() -> None:
    b = Builder()
    x = b.input(F64, 7)
    up, down = b.argsort(x), b.argsort(x, descending=True)
    values, best = b.top_k(x, k=2)
    got = interpret(b.graph(up, down, values, best), [np.array([math.nan, 0.0, 1.0, -0.0, math.nan, 1.0, -math.inf])])
    assert got[0].tolist() == [6, 1, 3, 2, 5, 0, 4]
    assert got[1].tolist() == [2, 5, 1, 3, 6, 0, 4]
    assert got[2].tolist() == [1.0, 1.0] and got[3].tolist() == [2, 5]


def test_of_two_updates_of_one_place_the_last_wins_and_has_the_gradient() -> None:
    b = Builder()
    x, u = b.input(F64, 3), b.input(F64, 4)
    y = b.scatter(x, b.constant(np.array([2, 0, 2, 9]), I64), u)
    weights = b.constant(np.array([1.0, 10, 100]), F64)
    arrays = [np.array([1.0, 2, 3]), np.array([5.0, 6, 7, 8])]
    made, dx, du = interpret(b.graph(y, *gradients(b, b.sum(b.mul(y, weights)), (x, u))), arrays)
    assert made.tolist() == [6, 2, 8] and dx.tolist() == [0, 10, 0] and du.tolist() == [0, 1, 0, 100]


def test_nonzero_tells_of_more_than_it_holds() -> None:
    b = Builder()
    rows, number = b.nonzero(b.input(I64, 2, 3), bound=2)
    got = interpret(b.graph(rows, number), [np.array([[0, 4, 5], [6, 0, 7]])])
    assert got[0].tolist() == [[0, 1], [0, 2]] and got[1] == 4


def test_a_slice_that_would_leave_is_moved_inside() -> None:
    b = Builder()
    x, start = b.input(I64, 5), b.input(I64)
    graph = b.graph(b.dynamic_slice(x, start, size=2), b.dynamic_update_slice(x, b.constant(np.array([8, 9]), I64), start))
    for at, part, whole in ((-3, [0, 1], [8, 9, 2, 3, 4]), (1, [1, 2], [0, 8, 9, 3, 4]), (7, [3, 4], [0, 1, 2, 8, 9])):
        got = interpret(graph, [np.arange(5), np.array(at)])
        assert got[0].tolist() == part and got[1].tolist() == whole


def test_overlap_of_boxes_by_hand() -> None:
    b = Builder()
    x, y = b.input(F64, 3, 4), b.input(F64, 3, 4)
    boxes = [np.array([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 2, 2]]), np.array([[1.0, 1, 3, 3], [0, 0, 1, 1], [2, 0, 4, 2]])]
    iou, giou, ciou = interpret(b.graph(b.iou(x, y), b.giou(x, y), b.ciou(x, y)), boxes)
    np.testing.assert_allclose(iou, [1 / 7, 1, 0])
    np.testing.assert_allclose(giou, [1 / 7 - 2 / 9, 1, 0])
    np.testing.assert_allclose(ciou, [1 / 7 - 2 / 18, 1, -4 / 20])


def test_gradient_of_ciou_holds_the_ratios_factor() -> None:
    """With alpha as a number: d (alpha * v) = alpha dv, as published."""
    b = Builder()
    x, y = b.input(F64, 4), b.input(F64, 4)
    (dx,) = gradients(b, b.ciou(x, y), (x,))
    boxes = [np.array([0.0, 0.1, 2.0, 1.1]), np.array([0.5, 0.3, 2.7, 2.9])]
    (got,) = interpret(b.graph(dx), boxes)

    def ciou(box: Array, alpha: float | None) -> tuple[float, float]:
        c = Builder()
        iou = float(interpret(c.graph(c.iou(c.input(F64, 4), c.input(F64, 4))), [box, boxes[1]])[0])
        other = boxes[1]
        hull = np.maximum(box[2:], other[2:]) - np.minimum(box[:2], other[:2])
        apart = ((box[:2] + box[2:] - other[:2] - other[2:]) ** 2).sum() / 4 / (hull**2).sum()
        angles = [math.atan((o[2] - o[0]) / (o[3] - o[1])) for o in (box, other)]
        v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
        alpha = v / (1 - iou + v) if alpha is None else alpha
        return iou - apart - alpha * v, alpha

    _, alpha = ciou(boxes[0], None)
    for n in range(4):
        step = np.eye(4)[n] * 1e-6
        slope = (ciou(boxes[0] + step, alpha)[0] - ciou(boxes[0] - step, alpha)[0]) / 2e-6
        np.testing.assert_allclose(got[n], slope, rtol=1e-6)


def test_suppression_takes_equal_scores_in_their_order() -> None:
    b = Builder()
    kept, number = b.non_max_suppression(b.input(F64, 4, 4), b.input(F64, 4), bound=3, score_threshold=0.1)
    boxes = np.array([[0.0, 0, 2, 2], [0, 0, 2, 2.1], [4, 4, 5, 5], [8, 8, 9, 9]])
    got = interpret(b.graph(kept, number), [boxes, np.array([0.5, 0.5, 0.7, 0.05])])
    assert got[0].tolist() == [2, 0, -1] and got[1] == 2
