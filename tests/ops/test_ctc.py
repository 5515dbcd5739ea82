"""CTC against the sum over all alignments, against PyTorch in f64, and at the ends: nothing possible, nothing to say, long sequences.

`stored/ctc.npz` holds PyTorch 2.13's `ctc_loss` of `log_softmax(scores)` for random scores, in f64: losses named `loss_REDUCTION_ZERO`, and
the gradients by the scores, `grad_REDUCTION`, with `zero_infinity`. The last example has no alignment.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dslc
import dslc.ops
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.types import DType
from dslc.transforms.autodiff import gradients
from dslc.transforms.expand import expand_composites
from tests.ops.test_operators import type_of

Array = np.ndarray[Any, Any]


def loss_and_gradient(scores: Array, *others: Array, **attrs: Any) -> list[Array]:
    """The loss of log_softmax(scores), and its gradient by the scores."""
    b = Builder()
    arrays = [scores, *others]
    inputs = [b.input(type_of(a).dtype, *type_of(a).shape) for a in arrays]
    loss = b.ctc_loss(b.log_softmax(inputs[0], axis=2), *inputs[1:], **attrs)
    return interpret(expand_composites(b.graph(loss, *gradients(b, b.sum(loss, axis=None), inputs[:1]))), arrays)


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(c for i, c in enumerate(path) if c and (i == 0 or path[i - 1] != c))


def test_the_loss_is_the_sum_over_all_alignments() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 2, (4, 5, 3))
    target, frames, symbols = np.array([[1, 2], [1, 1], [2, 2], [0, 0]]), np.array([5, 4, 3, 5]), np.array([2, 2, 1, 0])
    losses, _ = loss_and_gradient(scores, target, frames, symbols, reduction="none")
    for n in range(4):
        p = np.exp(scores[n]) / np.exp(scores[n]).sum(1, keepdims=True)
        wanted = tuple(target[n, : symbols[n]])
        paths = (path for path in product(range(3), repeat=int(frames[n])) if collapsed(path) == wanted)
        total = sum(np.prod([p[t, c] for t, c in enumerate(path)]) for path in paths)
        np.testing.assert_allclose(losses[n], -np.log(total), rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_and_gradients_are_those_of_pytorch(reduction: str) -> None:
    with np.load(Path(__file__).parent / "stored" / "ctc.npz") as file:
        stored = dict(file)
    given = [stored[name] for name in ("scores", "target", "frames", "symbols")]
    for zero in (False, True):
        loss, slope = loss_and_gradient(*given, reduction=reduction, zero_infinity=zero)
        np.testing.assert_allclose(loss, stored[f"loss_{reduction}_{int(zero)}"], rtol=1e-12)
        np.testing.assert_allclose(slope, stored[f"grad_{reduction}"], rtol=1e-9, atol=1e-13)
    assert not slope[5].any()  # no alignment: no gradient, with zero_infinity or without


def test_padding_counts_for_nothing_whatever_it_is() -> None:
    rng = np.random.default_rng(2)
    scores, target = rng.normal(size=(1, 6, 4)), np.array([[3, 1, 1]])
    short = loss_and_gradient(scores[:, :4], target[:, :2], np.array([4]), np.array([2]))
    b = Builder()
    log_p = np.array(interpret(b.graph(b.log_softmax(b.input(DType.F64, 1, 6, 4), axis=2)), [scores])[0])
    log_p[:, 4:] = np.nan
    b = Builder()
    inputs = [b.input(type_of(a).dtype, *a.shape) for a in (log_p, target, np.array([4]), np.array([2]))]
    loss = b.ctc_loss(*inputs)
    graph = expand_composites(b.graph(loss, *gradients(b, loss, inputs[:1])))
    padded = interpret(graph, [log_p, np.array([[3, 1, -7]]), np.array([4]), np.array([2])])
    np.testing.assert_allclose(padded[0], short[0], rtol=1e-14)
    assert np.isfinite(padded[1]).all() and not padded[1][:, 4:].any()


def test_no_frames_say_no_symbols() -> None:
    for frames, symbols, want in ((0, 0, 0.0), (0, 1, np.inf), (1, 0, np.log(3)), (2, 2, 2 * np.log(3))):
        loss, slope = loss_and_gradient(np.zeros((1, 2, 3)), np.array([[1, 2]]), np.array([frames]), np.array([symbols]), reduction="sum")
        np.testing.assert_allclose(loss, want)
        assert np.isfinite(slope).all()


SOURCE = """
dim N <= 4
model Loss(x: f32[N, 400, 6], target: i64[N, 60], frames: i64[N], symbols: i64[N]) -> (f32[N], f32[N, 400, 6]) {
  loss = ctc_loss[reduction = "none"](log_softmax(x), target, frames, symbols)
  return loss, grad[x](sum(loss))
}
"""


def test_long_sequences_keep_their_precision_in_f32() -> None:
    """Losses of hundreds: the gradient's rows, occupancies of the states, sum to 0 within rounding, and are those of f64."""
    rng = np.random.default_rng(4)
    given = {
        "x": rng.normal(0, 3, (2, 400, 6)).astype(np.float32),
        "target": rng.integers(1, 6, (2, 60)),
        "frames": np.array([400, 333]),
        "symbols": np.array([60, 41]),
    }
    single = dslc.compile(SOURCE, "Loss")(**given)
    wide = dslc.compile(SOURCE, "Loss", precision="f64")(**given)
    (loss, slope), (exact, exact_slope) = (list(found.values()) for found in (single, wide))
    np.testing.assert_allclose(loss, exact, rtol=1e-5)
    np.testing.assert_allclose(slope, exact_slope, atol=1e-4)
    assert np.abs(slope.sum(-1)).max() < 1e-5
