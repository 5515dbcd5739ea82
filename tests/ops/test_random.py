"""The draws: right distributions, streams of their own, one mask at every precision, gradients that draw it again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.types import DType
from dslc.transforms.autodiff import gradients
from dslc.transforms.cse import cse
from dslc.transforms.expand import expand_composites

F32, F64, I64 = DType.F32, DType.F64, DType.I64


def draw(kind: str, seed: int = 1, counter: int = 0, **attrs: Any) -> np.ndarray:
    b = Builder()
    value = b.apply(kind, b.input(I64), b.input(I64), **{"stream": 5, **attrs})
    return interpret(b.graph(value), [np.int64(seed), np.int64(counter)])[0]


def test_uniform_numbers_fill_their_range_evenly() -> None:
    numbers = draw("random_uniform", shape=(100_000,), low=-1.0, high=3.0)
    assert numbers.dtype == np.float32 and numbers.min() >= -1 and numbers.max() <= 3
    counts = np.histogram(numbers, 20, (-1, 3))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 44  # chi squared with 19 degrees of freedom: 43.8 at 0.001


def test_normal_numbers_have_the_moments_of_the_normal_distribution() -> None:
    numbers = draw("random_normal", shape=(100_000,), mean=2.0, std=3.0, dtype=F64)
    z = (numbers - 2) / 3
    moments = [z.mean(), (z**2).mean() - 1, (z**3).mean(), (z**4).mean() - 3]
    deviations = np.sqrt(np.array([1, 2, 15, 96]) / len(z))
    assert np.all(np.abs(moments) < 4 * deviations)
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 4 / np.sqrt(len(z))


def test_whole_numbers_are_equally_likely() -> None:
    counts = np.bincount(draw("random_int", shape=(60_000,), low=-3, high=3) + 3, minlength=6)
    assert len(counts) == 6 and ((counts - 10_000) ** 2 / 10_000).sum() < 20.5  # 5 degrees of freedom at 0.001


def test_bernoulli_has_its_probability() -> None:
    assert abs(draw("bernoulli", shape=(100_000,), p=0.3).mean() - 0.3) < 4 * np.sqrt(0.21 / 100_000)


def test_classes_are_drawn_with_their_probabilities() -> None:
    b = Builder()
    logits = np.log(np.array([0.1, 0.2, 0.0, 0.7]) + 1e-300)
    value = b.categorical(b.input(F64, 50_000, 4), b.input(I64), b.input(I64), stream=2)
    classes = interpret(b.graph(value), [np.tile(logits, (50_000, 1)), np.int64(1), np.int64(0)])[0]
    counts = np.bincount(classes, minlength=4)
    assert counts[2] == 0
    np.testing.assert_allclose(counts / 50_000, [0.1, 0.2, 0, 0.7], atol=0.01)


@pytest.mark.parametrize("changed", [{"seed": 2}, {"counter": 1}, {"stream": 6}, {"seed": 1 + 2**32}])
def test_seed_counter_and_stream_each_change_the_numbers(changed: dict[str, int]) -> None:
    same = draw("random_uniform", shape=(1000,)) == draw("random_uniform", shape=(1000,), **changed)
    assert same.sum() <= 2


def test_the_same_key_draws_the_same_numbers_whatever_the_shape() -> None:
    np.testing.assert_array_equal(draw("random_normal", shape=(6, 4)).ravel()[:8], draw("random_normal", shape=(8,)))


def test_numbers_and_masks_are_the_same_at_both_precisions() -> None:
    np.testing.assert_array_equal(draw("random_uniform", shape=(999,)), draw("random_uniform", shape=(999,), dtype=F64))
    masks = []
    for dtype in (F32, F64):
        b = Builder()
        value = b.dropout(b.input(dtype, 100, 7), b.input(I64), b.input(I64), rate=0.3, stream=4)
        masks.append(interpret(b.graph(value), [np.ones((100, 7)), np.int64(1), np.int64(0)])[0] == 0)
    np.testing.assert_array_equal(*masks)
    assert abs(masks[0].mean() - 0.3) < 0.07


def linear(apply: str, x: np.ndarray, **attrs: Any) -> tuple[np.ndarray, np.ndarray]:
    """y = f(x), and the gradient of sum(v * y) by x for v = 1, 2, 3, ..."""
    b = Builder()
    inputs: list[Value] = [b.input(F64, *x.shape), b.input(I64), b.input(I64)]
    y = b.apply(apply, *inputs, stream=3, **attrs)
    v = b.constant(np.arange(1.0, x.size + 1).reshape(x.shape), F64)
    (dx,) = gradients(b, b.sum(b.mul(v, y)), [inputs[0]])
    graph = expand_composites(b.graph(y, dx))
    made, gradient = interpret(graph, [x, np.int64(9), np.int64(2)])
    return made, gradient


def test_the_gradient_of_dropout_draws_the_mask_again() -> None:
    y, dx = linear("dropout", np.ones((6, 5)), rate=0.4)
    np.testing.assert_allclose(dx, y * np.arange(1.0, 31).reshape(6, 5))
    assert 0 < (y == 0).sum() < 30
    np.testing.assert_allclose(y[y != 0], 1 / 0.6)


def test_dropout_of_a_dropped_nan_is_zero() -> None:
    b = Builder()
    y = b.dropout(b.input(F32, 50), b.input(I64), b.input(I64), rate=0.5, stream=1)
    made = interpret(b.graph(y), [np.full(50, np.nan), np.int64(1), np.int64(0)])[0]
    assert set(np.isnan(made)) == {False, True} and np.all(np.isnan(made) | (made == 0))


def test_shifts_move_whole_images_and_their_gradients_move_back() -> None:
    x = np.arange(1.0, 1 + 40 * 2 * 5 * 6).reshape(40, 2, 5, 6)
    y, dx = linear("random_shift", x, pixels=2)
    v = np.arange(1.0, x.size + 1).reshape(x.shape)
    seen = set()
    for n in range(40):
        found = [
            (r, c)
            for r in range(-2, 3)
            for c in range(-2, 3)
            if np.array_equal(y[n], np.pad(x[n], ((0, 0), (2, 2), (2, 2)))[:, 2 + r : 7 + r, 2 + c : 8 + c])
        ]
        assert len(found) == 1
        (r, c) = found[0]
        np.testing.assert_array_equal(dx[n], np.pad(v[n], ((0, 0), (2, 2), (2, 2)))[:, 2 - r : 7 - r, 2 - c : 8 - c])
        seen.add(found[0])
    assert len(seen) > 10


def test_about_half_of_the_images_are_mirrored() -> None:
    x = np.arange(200.0 * 3).reshape(200, 3)
    y, _ = linear("random_flip", x, axis=-1)
    mirrored = (y == x[:, ::-1]).all(1)
    assert np.all(mirrored | (y == x).all(1)) and 70 < mirrored.sum() < 130


def test_common_subexpressions_never_merge_two_streams() -> None:
    b = Builder()
    seed, counter = b.input(I64), b.input(I64)
    streams = [b.random_uniform(seed, counter, shape=(3,), stream=n) for n in (0, 1, 0)]
    small = cse(b.graph(*streams))
    assert len(small.ops) == 2 and small.outputs[0] == small.outputs[2] != small.outputs[1]
