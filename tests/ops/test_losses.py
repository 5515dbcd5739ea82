"""Losses at the ends of the range of their inputs, and what they leave out: ignored labels, classes without weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.types import DType
from dslc.transforms.autodiff import gradients
from dslc.transforms.expand import expand_composites
from tests.ops.test_operators import type_of

Array = np.ndarray[Any, Any]
LABELS = np.array([0, 1, 2, 0], np.int64)
LOGITS = np.array([[1e4, -1e4, 0], [1e4, -1e4, 0], [-3e38, 0, 0], [0, 0, 3e38]], np.float32)
SCORES = np.array([1e4, -1e4, 3e37, -3e37, 0, 110], np.float32)
SIDES = np.array([1, 1, 0, 0, 1, 1], np.float32)
WEIGHTS = np.array([0.5, 2, 1], np.float32)


def loss_and_gradient(kind: str, arrays: list[Array], **attrs: Any) -> list[Array]:
    """The loss, and its gradients by the floating inputs, from the operators it is made of."""
    b = Builder()
    inputs = [b.input(type_of(a).dtype, *type_of(a).shape) for a in arrays]
    loss = b.apply(kind, *inputs, **attrs)
    slopes = gradients(b, loss, [v for v in inputs if v.type.dtype.floating])
    return interpret(expand_composites(b.graph(loss, *slopes)), arrays)


@pytest.mark.parametrize(
    ("kind", "arrays", "attrs"),
    [
        ("cross_entropy", [LOGITS[:2], LABELS[:2]], {}),
        ("cross_entropy", [LOGITS[:2], LABELS[:2], WEIGHTS], {}),
        ("cross_entropy", [LOGITS[:2], LABELS[:2]], {"smoothing": 0.1}),
        ("cross_entropy", [LOGITS, LABELS], {"ignore_index": 1}),
        ("soft_cross_entropy", [LOGITS[:2], np.eye(3, dtype=np.float32)[:2]], {}),
        ("binary_cross_entropy_with_logits", [SCORES, SIDES], {}),
        ("focal", [SCORES, SIDES], {}),
        ("focal", [SCORES, SIDES], {"gamma": 0.5}),
        ("focal", [SCORES, SIDES], {"gamma": 0.0, "alpha": 0.25}),
        ("hinge", [SCORES, 2 * SIDES - 1], {}),
        ("huber", [SCORES, SIDES], {}),
        ("smooth_l1", [SCORES, SIDES], {"beta": 0.1}),
        ("l1", [SCORES, SIDES], {}),
    ],
)
def test_extreme_scores_give_finite_losses_and_gradients(kind: str, arrays: list[Array], attrs: dict[str, Any]) -> None:
    assert all(np.isfinite(a).all() for a in loss_and_gradient(kind, arrays, **attrs))


def test_an_ignored_example_counts_for_nothing() -> None:
    rng = np.random.default_rng(2)
    logits, label = rng.normal(size=(4, 3)), np.array([0, -100, 2, 1], np.int64)
    for kind in ("cross_entropy", "nll"):
        loss, slope = loss_and_gradient(kind, [logits, label], ignore_index=-100)
        shorter, its_slope = loss_and_gradient(kind, [logits[[0, 2, 3]], label[[0, 2, 3]]])
        np.testing.assert_allclose(loss, shorter, rtol=1e-14)
        np.testing.assert_allclose(slope[[0, 2, 3]], its_slope, rtol=1e-13)
        assert not slope[1].any()


def test_nothing_but_ignored_examples_has_no_mean() -> None:
    loss, _ = loss_and_gradient("cross_entropy", [np.zeros((2, 3)), np.array([7, 7], np.int64)], ignore_index=7)
    assert np.isnan(loss)


def test_weights_of_one_change_nothing_and_a_weight_of_two_is_an_example_twice() -> None:
    rng = np.random.default_rng(3)
    logits, label = rng.normal(size=(3, 3)), np.array([0, 1, 2], np.int64)
    plain, plain_slope = loss_and_gradient("cross_entropy", [logits, label])
    ones, ones_slope, _ = loss_and_gradient("cross_entropy", [logits, label, np.ones(3)])
    np.testing.assert_allclose([ones, *ones_slope.flat], [plain, *plain_slope.flat], rtol=1e-13)
    twice, _, _ = loss_and_gradient("cross_entropy", [logits, label, np.array([1.0, 2.0, 1.0])])
    again, _ = loss_and_gradient("cross_entropy", [logits[[0, 1, 1, 2]], label[[0, 1, 1, 2]]])
    np.testing.assert_allclose(twice, again, rtol=1e-14)


def test_full_smoothing_forgets_the_label() -> None:
    logits = np.random.default_rng(4).normal(size=(4, 3))
    first, _ = loss_and_gradient("cross_entropy", [logits, np.array([0, 1, 2, 0], np.int64)], smoothing=1.0)
    second, _ = loss_and_gradient("cross_entropy", [logits, np.array([2, 2, 1, 1], np.int64)], smoothing=1.0)
    np.testing.assert_allclose(first, second, rtol=1e-14)


def test_hard_targets_make_soft_cross_entropy_the_hard_one() -> None:
    logits = np.random.default_rng(5).normal(size=(4, 3))
    hard, hard_slope = loss_and_gradient("cross_entropy", [logits, LABELS])
    soft, soft_slope, _ = loss_and_gradient("soft_cross_entropy", [logits, np.eye(3)[LABELS]])
    np.testing.assert_allclose([soft, *soft_slope.flat], [hard, *hard_slope.flat], rtol=1e-12, atol=1e-16)


def test_a_type_of_its_own_for_each_loss() -> None:
    """f32 in, f32 out, and f64 likewise."""
    for dtype in (DType.F32, DType.F64):
        b = Builder()
        x, label = b.input(dtype, 4, 3), b.input(DType.I64, 4)
        assert b.cross_entropy(x, label, smoothing=0.1).type.dtype == dtype
