"""Draws from logits, what is left to draw from, and decoding: `std/sequences.dl` and the Gumbel operators against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dslc
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.types import DType
from dslc.transforms.autodiff import gradients
from dslc.transforms.expand import expand_composites

Array = np.ndarray[Any, Any]
F64, I64 = DType.F64, DType.I64
SOURCE = """
precision f64
dim N <= 2000
model Filters(x: f64[N, 9], tied: f64[N, 4]) -> (top: f64[N, 9], nucleus: f64[N, 9], least: f64[N, 9], all: f64[N, 9], ties: f64[N, 4]) {
  return top_k_logits[3](x), top_p_logits[0.6](x), min_p_logits[0.2](x), top_p_logits[1.0](x), top_k_logits[2](tied)
}
model Draws(x: f64[N, 9]) -> (plain: i64[N], cool: i64[N], few: i64[N], fewer: i64[N], greedy: i64[N]) {
  return sample(x), sample[temperature = 0.25](x), sample[k = 2](x), sample[temperature = 2.0, k = 5, p = 0.5](x), sample[temperature = 0.0](x)
}
model Decoded(x: f64[N, 8, 4], frames: i64[N]) -> (symbols: i64[N, 8], count: i64[N]) {
  return ctc_greedy(x, frames)
}
"""


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def nucleus(row: Array, p: float) -> Array:
    """One row, symbol by symbol from the likeliest on."""
    kept, reached = np.full(row.shape, -np.inf), 0.0
    for place in np.argsort(-row):
        if reached < p:
            kept[place] = row[place]
        reached += softmax(row)[place]
    return kept


def test_filters_keep_what_they_say() -> None:
    x = np.random.default_rng(1).normal(0, 2, (6, 9))
    tied = np.array([[1.0, 1.0, 1.0, 0.0]] * 6)
    made = dslc.compile(SOURCE, "Filters")(x=x, tied=tied)
    third = np.sort(x)[:, -3:-2]
    np.testing.assert_array_equal(made["top"], np.where(x >= third, x, -np.inf))
    np.testing.assert_array_equal(made["nucleus"], [nucleus(row, 0.6) for row in x])
    p = softmax(x)
    np.testing.assert_array_equal(made["least"], np.where(p >= 0.2 * p.max(1, keepdims=True), x, -np.inf))
    np.testing.assert_array_equal(made["all"], x)
    np.testing.assert_array_equal(made["ties"], [[1, 1, 1, -np.inf]] * 6)


def test_draws_have_the_probabilities_of_what_is_left() -> None:
    x = np.array([0.0, 1.0, 0.5, -3.0, 2.0, -1.0, 0.2, 0.1, 1.5])
    made = dslc.compile(SOURCE, "Draws")(x=np.tile(x, (2000, 1)), seed=3)
    kept = np.where(x >= 1.5, x, -np.inf)
    top5 = np.where(x >= np.sort(x)[-5], x, -np.inf) / 2
    wanted = {"plain": x, "cool": x / 0.25, "few": kept, "fewer": nucleus(top5, 0.5)}
    for name, logits in wanted.items():
        shares = np.bincount(made[name], minlength=9) / 2000
        np.testing.assert_allclose(shares, softmax(logits), atol=4.5 * 0.5 / np.sqrt(2000))
        assert not shares[np.isinf(logits)].any()
    assert set(made["greedy"]) == {4}


def test_greedy_decoding_joins_neighbours_and_drops_blanks() -> None:
    rng = np.random.default_rng(2)
    best, frames = rng.integers(0, 4, (40, 8)), rng.integers(0, 9, 40)
    made = dslc.compile(SOURCE, "Decoded")(x=np.eye(4)[best] + rng.uniform(0, 0.5, (40, 8, 4)), frames=frames)
    for n in range(40):
        said = [int(c) for t, c in enumerate(best[n, : frames[n]]) if c and (t == 0 or best[n, t - 1] != c)]
        assert made["count"][n] == len(said)
        assert made["symbols"][n].tolist() == said + [0] * (8 - len(said))


def gumbel_softmax(x: Array, **attrs: Any) -> tuple[Array, Array]:
    """The draw, and the gradient of sum(v * draw) for v = 1, 2, ..."""
    b = Builder()
    inputs = [b.input(F64, *x.shape), b.input(I64), b.input(I64)]
    y = b.gumbel_softmax(*inputs, stream=3, **attrs)
    v = b.constant(np.arange(1.0, x.size + 1).reshape(x.shape), F64)
    graph = expand_composites(b.graph(y, *gradients(b, b.sum(b.mul(v, y)), inputs[:1])))
    made, slope = interpret(graph, [x, np.int64(9), np.int64(2)])
    return made, slope


def test_a_hard_draw_is_one_hot_with_the_gradient_of_the_soft_one() -> None:
    x = np.random.default_rng(3).normal(size=(50, 4))
    (soft, soft_slope), (hard, hard_slope) = gumbel_softmax(x, tau=0.7), gumbel_softmax(x, tau=0.7, hard=True)
    np.testing.assert_array_equal(hard, np.eye(4)[soft.argmax(1)])
    np.testing.assert_array_equal(hard_slope, soft_slope)


@pytest.mark.parametrize("tau", [0.1, 5.0])
def test_its_largest_is_a_draw_by_softmax_whatever_the_temperature(tau: float) -> None:
    x = np.tile(np.log([0.1, 0.2, 0.7]), (20_000, 1))
    shares = np.bincount(gumbel_softmax(x, tau=tau)[0].argmax(1)) / len(x)
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.7], atol=0.015)
