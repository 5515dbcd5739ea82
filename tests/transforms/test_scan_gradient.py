"""Gradients of loops: against central differences, of every kind of operand, nested, to the second order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Value
from dslc.ir.scan import build_scan, is_scan, parts
from dslc.ir.types import DType
from dslc.ir.verify import Stage, verify
from dslc.transforms.autodiff import differentiate, gradients
from tests.transforms.test_autodiff import arrays_of, central

F64, I64 = DType.F64, DType.I64
DIFFERENTIATED = Stage(differentiated=True)

Made = tuple[Builder, list[Value], Value]


def cell(reverse: bool = False, recompute: bool = False) -> Made:
    """h = tanh([x, h] @ w + b), yielded along axis 1; the loss reads the yields and the last carry."""
    b = Builder()
    x, h0, w, bias = b.input(F64, 2, 4, 3), b.input(F64, 2, 5), b.input(F64, 8, 5), b.input(F64, 5)
    body = b.inner()
    index = body.input(I64)
    element, h, v, c = body.input(F64, 2, 3), body.input(F64, 2, 5), body.input(F64, 8, 5), body.input(F64, 5)
    z = body.add(body.matmul(body.concat(element, h, axis=-1), v), c)
    after = body.tanh(z)
    y = body.mul(after, body.add(body.cast(index, dtype=F64), body.scalar(1.0, F64)))
    op = build_scan(
        b,
        body.graph(after, y),
        length=4,
        sequences=[x],
        elements=[1],
        initial=[h0],
        captures=[w, bias],
        yields=[1],
        reverse=reverse,
        recompute=recompute,
    )
    last, ys = op.outputs
    loss = b.add(b.sum(b.mul(ys, ys)), b.sum(b.exp(last)))
    return b, [x, h0, w, bias], loss


def check(made: Made, *, rtol: float = 1e-6) -> Graph:
    """Compares every gradient with central differences; the graph of the gradients."""
    b, inputs, loss = made
    plain, arrays = differentiate(b.graph(loss)), arrays_of(inputs)
    graph = verify(differentiate(gradient_graph(made)), DIFFERENTIATED)
    for which, got in enumerate(interpret(graph, arrays)):
        np.testing.assert_allclose(got, central(plain, arrays, which), rtol=rtol, atol=1e-7)
    return graph


def gradient_graph(made: Made) -> Graph:
    b, inputs, loss = made
    found = b.apply("grad", loss, *inputs)
    return b.graph(*(found if len(inputs) > 1 else [found]))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_recurrent_cell(reverse: bool, recompute: bool) -> None:
    graph = check(cell(reverse, recompute))
    forward, backward = (op for op in graph.ops if is_scan(op))
    assert parts(backward).reverse != reverse
    assert len(parts(forward).yields) == (2 if recompute else 3)  # the carry before, and tanh unless it is computed again


@pytest.mark.parametrize("recompute", [False, True])
def test_the_gradient_of_a_gradient(recompute: bool) -> None:
    b, inputs, loss = cell(recompute=recompute)
    slopes = b.apply("grad", loss, *inputs)
    for slope in slopes:
        loss = b.add(loss, b.sum(b.mul(slope, slope)))
    check((b, inputs, loss), rtol=1e-5)


def test_a_map_has_the_gradient_of_all_iterations_at_once() -> None:
    b = Builder()
    x, w = b.input(F64, 3, 4), b.input(F64, 4)
    body = b.inner()
    body.input(I64)
    element, v = body.input(F64, 4), body.input(F64, 4)
    op = build_scan(b, body.graph(body.sin(body.mul(element, v))), length=3, sequences=[x], captures=[w])
    graph = check((b, [x, w], b.sum(b.exp(op.output))))
    assert len(parts(graph.ops[-1]).carries) == 1  # the sum over iterations of what w gets


def nested() -> Made:
    """An outer loop whose inner one walks over what the outer one carries, and reads a value of both bodies and of the program."""
    b = Builder()
    x, h0, w = b.input(F64, 3, 4), b.input(F64, 4), b.input(F64)
    outer = b.inner()
    outer.input(I64)
    row, h, v = outer.input(F64, 4), outer.input(F64, 4), outer.input(F64)
    inner = outer.inner()
    inner.input(I64)
    a, s, r, u = inner.input(F64), inner.input(F64), inner.input(F64, 4), inner.input(F64)
    after = inner.tanh(inner.add(inner.mul(s, u), inner.mul(a, inner.sum(r))))
    start = outer.sum(h)
    last, every = build_scan(
        outer, inner.graph(after, after), length=4, sequences=[h], initial=[start], captures=[row, v], reverse=True
    ).outputs
    op = build_scan(b, outer.graph(outer.mul(every, outer.add(row, v)), last), length=3, sequences=[x], initial=[h0], captures=[w])
    return b, [x, h0, w], b.add(b.sum(b.mul(*[op.outputs[0]] * 2)), b.sum(b.sin(op.outputs[1])))


def test_a_loop_in_a_loop() -> None:
    check(nested())


def test_a_gradient_in_the_body_is_differentiated_through() -> None:
    """a = a + w * d/da (sum sin(a) * x): steps of ascent, by w and by the first a."""
    b = Builder()
    x, a0, w = b.input(F64, 3), b.input(F64, 3), b.input(F64)
    body = b.inner()
    body.input(I64)
    a, y, v = body.input(F64, 3), body.input(F64, 3), body.input(F64)
    slope = body.apply("grad", body.sum(body.mul(body.sin(a), y)), a)
    op = build_scan(b, body.graph(body.add(a, body.mul(v, slope))), length=5, initial=[a0], captures=[x, w])
    check((b, [x, a0, w], b.sum(b.mul(op.output, op.output))))


def test_carries_that_change_places_counters_and_what_is_cut() -> None:
    """Two carries that are exchanged, one that is never read, an integer, and a running mean without a gradient."""
    b = Builder()
    x, p0, q0 = b.input(F64, 4, 3), b.input(F64, 3), b.input(F64, 3)
    zero, none = b.scalar(0, I64), b.like(0.0, p0.type)
    body = b.inner()
    body.input(I64)
    e, p, q, n, m = body.input(F64, 3), body.input(F64, 3), body.input(F64, 3), body.input(I64), body.input(F64, 3)
    body.input(F64, 3)
    grown = body.mul(q, body.add(e, body.cast(n, dtype=F64)))
    mean = body.stop_gradient(body.mul(body.add(m, e), body.scalar(0.5, F64)))
    outputs = (body.add(grown, mean), p, body.add(n, body.scalar(1, I64)), mean, body.exp(e), body.mul(grown, m))
    op = build_scan(b, body.graph(*outputs), length=4, sequences=[x], initial=[p0, q0, zero, none, none])
    p_last, q_last, n_last, _, unread, ys = op.outputs
    loss = b.add(b.sum(b.mul(p_last, b.cast(n_last, dtype=F64))), b.add(b.sum(b.mul(ys, ys)), b.sum(b.mul(q_last, unread))))
    found = gradients(b, loss, [x, p0, q0])
    arrays = arrays_of([x, p0, q0])

    def frozen(arrays: list[np.ndarray]) -> float:
        """The same with the running mean as a constant."""
        xs, p, q = arrays
        total = 0.0
        for n in range(4):
            grown = q * (xs[n] + n)
            total += float(((grown * means[n]) ** 2).sum())
            p, q = grown + means[n + 1], p
        return total + float((p * 4).sum() + (q * np.exp(xs[3])).sum())

    means = [np.zeros(3)]
    for e in arrays[0]:
        means.append((means[-1] + e) / 2)
    for which, got in enumerate(interpret(b.graph(*found), arrays)):
        expected = np.zeros_like(arrays[which])
        for at in np.ndindex(expected.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [a.copy() for a in arrays]
                moved[which][at] += step
                ends.append(frozen(moved))
            expected[at] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_what_does_not_vary_has_no_part_in_the_reverse_loop() -> None:
    b, inputs, loss = cell()
    _, h0, *_ = inputs
    (found,) = gradients(b, loss, [h0])
    backward = parts(next(op for op in reversed(b.ops) if is_scan(op)))
    assert (len(backward.carries), len(backward.yields)) == (1, 0)
    assert found.type == h0.type


@pytest.mark.parametrize("build", [cell, nested])
def test_two_gradients_of_one_loop(build: Callable[[], Made]) -> None:
    b, inputs, loss = build()
    together, arrays = gradients(b, loss, inputs), arrays_of(inputs)
    alone = [gradients(b, loss, [x])[0] for x in inputs]
    results = interpret(verify(b.graph(*together, *alone)), arrays)
    for one, other in zip(results[: len(inputs)], results[len(inputs) :], strict=True):
        np.testing.assert_array_equal(one, other)
