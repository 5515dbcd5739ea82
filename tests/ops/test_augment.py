"""Augmentations: each example by its own draw, within its bounds, targets with their examples."""

from __future__ import annotations

from typing import Any

import numpy as np

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.types import DType
from dslc.transforms.expand import expand_composites

F64, I64 = DType.F64, DType.I64


def run(kind: str, *arrays: np.ndarray, seed: int = 1, **attrs: Any) -> list[np.ndarray]:
    b = Builder()
    inputs = [b.input(F64, *a.shape) for a in arrays]
    made = b.apply(kind, *inputs, b.input(I64), b.input(I64), stream=4, **attrs)
    graph = expand_composites(b.graph(*(made if isinstance(made, tuple) else (made,))))
    return list(interpret(graph, [*arrays, np.int64(seed), np.int64(0)]))


def mixup_weights(alpha: float, size: int) -> np.ndarray:
    b = Builder()
    value = b.mixup_weights(b.input(I64), b.input(I64), size=size, alpha=alpha, dtype=F64, stream=3)
    return interpret(b.graph(value), [np.int64(1), np.int64(0)])[0]


def test_weights_of_mixup_have_the_moments_of_the_beta_distribution() -> None:
    for alpha in (0.1, 0.5, 1.0, 4.0):
        w = mixup_weights(alpha, 50_000)
        assert w.min() >= 0 and w.max() <= 1
        variance = 1 / (4 * (2 * alpha + 1))
        fourth = 3 * variance**2 * (2 * alpha + 1) / (2 * alpha + 3)  # of the symmetric beta distribution
        assert abs(w.mean() - 0.5) < 4 * np.sqrt(variance / len(w))
        assert abs(w.var() - variance) < 4 * np.sqrt((fourth - variance**2) / len(w)) + 1e-5


def test_weights_of_mixup_with_alpha_one_are_even() -> None:
    counts = np.histogram(mixup_weights(1.0, 40_000), 10, (0, 1))[0]
    assert ((counts - 4000) ** 2 / 4000).sum() < 27.9  # chi squared with 9 degrees of freedom at 0.001


def test_mixup_mixes_targets_as_their_examples_and_every_example_by_its_own_weight() -> None:
    n = 12
    x, target = np.random.default_rng(0).standard_normal((n, 3)), np.eye(n)
    mixed, labels = run("mixup", x, target, alpha=1.0)
    np.testing.assert_allclose(mixed, labels @ x)
    np.testing.assert_allclose(labels.sum(1), 1)
    partners = (np.where(np.eye(n) == 1, 0, labels)).argmax(1)
    assert len(set((partners - np.arange(n)) % n)) == 1 and sorted(partners) == list(range(n))
    assert len(set(np.diag(labels).round(6))) == n
    assert not np.array_equal(run("mixup", x, target, alpha=1.0, seed=2)[1], labels)


def test_crops_are_parts_of_their_images() -> None:
    x = np.arange(1.0, 1 + 30 * 2 * 5 * 6).reshape(30, 2, 5, 6)
    (y,) = run("random_crop", x, size=(4, 3), padding=1)
    seen = set()
    for n, image in enumerate(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))):
        found = [(r, c) for r in range(4) for c in range(6) if np.array_equal(image[:, r : r + 4, c : c + 3], y[n])]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 8


def test_rotations_keep_what_is_round_and_turn_both_ways() -> None:
    h, w = np.mgrid[-10:11, -10:11]
    disc = np.exp(-(h**2 + w**2) / 20.0)
    bar = np.exp(-((h - w / 3) ** 2)) * (np.hypot(h, w) < 8)
    x = np.stack([disc, bar])[None].repeat(16, 0)
    (y,) = run("random_rotate", x, degrees=40.0)
    np.testing.assert_allclose(y[:, 0], x[:, 0], atol=0.03)
    turned = 0.5 * np.arctan2(2 * (y[:, 1] * h * w).sum((1, 2)), (y[:, 1] * (w**2 - h**2)).sum((1, 2)))
    start = 0.5 * np.arctan2(2 * (bar * h * w).sum(), (bar * (w**2 - h**2)).sum())
    angles = np.degrees(turned - start)
    assert np.all(np.abs(angles) < 43) and angles.min() < -10 and angles.max() > 10


def test_scales_change_areas_by_their_square() -> None:
    x = np.zeros((16, 1, 41, 41))
    x[:, :, 15:26, 15:26] = 1
    (y,) = run("random_scale", x, low=0.5, high=1.5)
    sides = np.sqrt(y.sum((1, 2, 3))) / 11
    assert np.all((sides > 0.45) & (sides < 1.55)) and sides.max() - sides.min() > 0.4


def test_colours_change_by_their_own_factor() -> None:
    x = np.random.default_rng(0).random((20, 3, 4, 4))
    (bright,) = run("color_jitter", x, brightness=0.5)
    factors = (bright / x).reshape(20, -1)
    np.testing.assert_allclose(factors, factors[:, :1].repeat(48, 1))
    assert np.all((factors > 0.5) & (factors < 1.5)) and len(set(factors[:, 0].round(6))) == 20
    luma = np.array([0.2989, 0.587, 0.114])
    grey = np.einsum("c,nchw->nhw", luma, x)
    (other,) = run("color_jitter", x, saturation=1.0)
    ratios = ((other - grey[:, None]) / (x - grey[:, None])).reshape(20, -1)
    np.testing.assert_allclose(ratios, ratios[:, :1].repeat(48, 1), rtol=1e-6)
    assert np.all((ratios > 0) & (ratios < 2)) and ratios[:, 0].std() > 0.3


def test_cutout_covers_one_square() -> None:
    (y,) = run("cutout", np.ones((40, 2, 7, 9)), size=3)
    holes = y == 0
    assert np.array_equal(holes[:, 0], holes[:, 1])
    areas = holes[:, 0].sum((1, 2))
    assert areas.max() == 9 and areas.min() >= 4 and len({h.tobytes() for h in holes}) > 15


def test_noise_has_its_deviation() -> None:
    (y,) = run("random_noise", np.zeros((100, 300)), std=0.3)
    assert abs(y.std() - 0.3) < 0.01 and abs(y.mean()) < 0.01
