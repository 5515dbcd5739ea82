"""Gradients of whole graphs: against finite differences, nested, through composites, of intermediate values."""

from __future__ import annotations

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.diagnostics import Span
from dslc.interpret import InterpreterError, interpret
from dslc.ir.builder import Builder
from dslc.ir.dims import name
from dslc.ir.graph import Graph
from dslc.ir.operator import TypeFailure
from dslc.ir.types import DType
from dslc.transforms.autodiff import differentiate, gradients
from dslc.transforms.expand import expand_composites, is_composite

F32, F64, I32 = DType.F32, DType.F64, DType.I32


def central(graph: Graph, arrays: list[np.ndarray], which: int) -> np.ndarray:
    """Central differences of the first output, a scalar, by one input."""
    result = np.zeros_like(arrays[which])
    for index in np.ndindex(result.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = [a.copy() for a in arrays]
            moved[which][index] += step
            ends.append(float(interpret(graph, moved)[0]))
        result[index] = (ends[0] - ends[1]) / 2e-6
    return result


def network() -> tuple[Builder, list, object]:
    b = Builder()
    x, w, v = b.input(F64, 5, 4), b.input(F64, 4), b.input(F64, 5)
    hidden = b.tanh(b.mul(x, w))
    score = b.sub(b.mean(hidden, axis=1), v)
    loss = b.sum(b.mul(score, score))
    return b, [x, w, v], loss


def arrays_of(values: list) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal(v.type.shape) for v in values]


def test_gradients_match_central_differences() -> None:
    b, inputs, loss = network()
    plain = b.graph(loss)
    arrays = arrays_of(inputs)
    found = gradients(b, loss, inputs)
    for which, got in enumerate(interpret(b.graph(*found), arrays)):
        np.testing.assert_allclose(got, central(plain, arrays, which), rtol=1e-7, atol=1e-8)


def test_grad_of_grad_penalises_a_slope() -> None:
    """sum((d loss / d x) ** 2) differentiated by w: the inner gradient is one operation among the others."""
    b, inputs, loss = network()
    x, w, _ = inputs
    slope = b.apply("grad", loss, x)
    penalty = b.add(b.sum(b.mul(slope, slope)), loss)
    outer = b.apply("grad", penalty, w)
    graph = differentiate(b.graph(penalty, outer))
    assert all(op.kind != "grad" for op in graph.ops)
    arrays = arrays_of(inputs)
    penalties = differentiate(b.graph(penalty))
    np.testing.assert_allclose(interpret(graph, arrays)[1], central(penalties, arrays, 1), rtol=1e-6, atol=1e-7)


def test_third_derivative() -> None:
    b = Builder()
    x = b.input(F64)
    y = b.mul(x, b.mul(x, b.mul(x, x)))
    for _ in range(3):
        y = b.apply("grad", y, x)
    assert interpret(differentiate(b.graph(y)), [np.array(2.0)])[0] == 48.0


def test_intermediate_value_is_its_own_variable() -> None:
    b = Builder()
    x = b.input(F64, 3)
    y = b.mul(x, x)
    loss = b.sum(b.mul(y, y))
    dx, dy = b.apply("grad", loss, x, y)
    at = np.array([1.0, 2.0, -3.0])
    got = interpret(differentiate(b.graph(dx, dy)), [at])
    np.testing.assert_array_equal(got[0], 4 * at**3)
    np.testing.assert_array_equal(got[1], 2 * at**2)


def test_value_used_often_sums_its_cotangents_in_a_fixed_order() -> None:
    def build() -> Graph:
        b = Builder()
        x = b.input(F64, 2)
        loss = b.sum(b.add(b.mul(x, b.exp(x)), b.add(b.sin(x), x)))
        return differentiate(b.graph(b.apply("grad", loss, x)))

    at = np.array([0.3, -1.2])
    np.testing.assert_allclose(interpret(build(), [at])[0], np.exp(at) * (1 + at) + np.cos(at) + 1, rtol=1e-15)
    assert build() == build()


def test_gradient_of_what_the_loss_does_not_need_is_zero() -> None:
    b = Builder()
    x, y, z = b.input(F64, 2), b.input(F64, 3), b.input(F64, 2)
    loss = b.sum(b.mul(x, b.stop_gradient(z)))
    got = interpret(b.graph(*gradients(b, loss, (x, y, z))), [np.ones(2), np.ones(3), np.full(2, 5.0)])
    np.testing.assert_array_equal(got[0], [5.0, 5.0])
    np.testing.assert_array_equal(got[1], np.zeros(3))
    np.testing.assert_array_equal(got[2], np.zeros(2))


def test_only_what_leads_to_the_asked_inputs_is_built() -> None:
    """With w alone asked for, nothing of x's shape but the forward pass and the product with x is computed."""
    b = Builder()
    x, w = b.input(F64, 5, 4), b.input(F64, 4)
    loss = b.sum(b.mul(b.exp(x), w))
    before = len(b.ops)
    gradients(b, loss, (w,))
    assert [op.kind for op in b.ops[before:]] == ["full", "reshape", "expand", "mul", "sum"]
    assert not any(op.kind == "mul" and w in op.inputs for op in b.ops[before:])


def test_composites_are_expanded_on_the_way_only() -> None:
    b = Builder()
    x, y = b.input(F64, 5, 3), b.input(F64, 5, 3)
    near = b.apply("normalize", x)
    apart = b.apply("normalize", y)
    loss = b.sum(b.mul(near, b.add(apart, x)))
    plain = b.graph(loss)
    graph = differentiate(b.graph(loss, b.apply("grad", loss, x)))
    assert sum(op.kind == "normalize" for op in graph.ops) == 1
    arrays = arrays_of([x, y])
    np.testing.assert_allclose(interpret(graph, arrays)[1], central(plain, arrays, 0), rtol=1e-6, atol=1e-7)


def test_expand_composites_keeps_results_and_their_ids() -> None:
    b = Builder()
    x = b.input(F64, 5, 3)
    y = b.apply("normalize", b.apply("flatten", x))
    graph = b.graph(y, b.apply("logsumexp", y, axis=1))
    plain = expand_composites(graph)
    assert plain.outputs == graph.outputs and not any(is_composite(op.kind) for op in plain.ops)
    kept = expand_composites(graph, keep=frozenset({"normalize"}))
    assert [op.kind for op in kept.ops if is_composite(op.kind)] == ["normalize"]
    arrays = arrays_of([x])
    for got, expected in zip(interpret(plain, arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_spans_of_gradients_are_those_of_the_forward_operations() -> None:
    b = Builder()
    x = b.input(F64, 2)
    b.span = Span("a.dl", 3, 1, 3, 9)
    y = b.exp(x)
    b.span = Span("a.dl", 4, 1, 4, 9)
    loss = b.sum(y)
    b.span = None
    before = len(b.ops)
    gradients(b, loss, (x,))
    spans = {op.kind: op.span for op in b.ops[before:]}
    assert spans["mul"] == Span("a.dl", 3, 1, 3, 9) and spans["expand"] == Span("a.dl", 4, 1, 4, 9)
    assert b.span is None


def test_symbolic_batch() -> None:
    b = Builder()
    x, w = b.input(F64, name("N"), 4), b.input(F64, 4)
    loss = b.mean(b.mul(x, w))
    graph = b.graph(*gradients(b, loss, (x, w)))
    at = np.arange(12.0).reshape(3, 4)
    dx, dw = interpret(graph, [at, np.array([1.0, 2.0, 3.0, 4.0])])
    np.testing.assert_allclose(dx, np.tile([1.0, 2.0, 3.0, 4.0], (3, 1)) / 12)
    np.testing.assert_allclose(dw, at.sum(0) / 12)


def test_integers_and_comparisons_carry_no_gradient() -> None:
    b = Builder()
    x = b.input(F64, 4)
    mask = b.cast(b.gt(x, b.scalar(0.0, F64)), dtype=F64)
    loss = b.sum(b.mul(mask, b.mul(x, x)))
    at = np.array([1.0, -2.0, 3.0, -4.0])
    np.testing.assert_array_equal(interpret(b.graph(*gradients(b, loss, (x,))), [at])[0], [2.0, 0.0, 6.0, 0.0])


def test_grad_refuses_what_has_no_gradient() -> None:
    b = Builder()
    x, n = b.input(F64, 4), b.input(I32, 4)
    with pytest.raises(TypeFailure, match="a scalar"):
        b.apply("grad", x, x)
    with pytest.raises(TypeFailure, match="floating-point"):
        b.apply("grad", b.sum(x), n)


def test_interpreter_says_what_does_not_fit() -> None:
    b = Builder()
    x = b.input(F64, 4)
    loss = b.sum(x)
    with pytest.raises(InterpreterError, match="has 1 inputs, not 0"):
        interpret(b.graph(loss), [])
    with pytest.raises(InterpreterError, match=r"should have the shape \[4\], not \[5\]"):
        interpret(b.graph(loss), [np.zeros(5)])
    with pytest.raises(InterpreterError, match="replaced by a transform"):
        interpret(b.graph(b.apply("grad", loss, x)), [np.zeros(4)])


def test_wide_interpretation_has_the_errors_of_f64() -> None:
    b = Builder()
    x = b.input(F32, 3)
    y = b.div(b.exp(x), b.scalar(3.0, F32))
    at = np.array([0.1, 0.2, 0.3], np.float32)
    narrow, wide = interpret(b.graph(y), [at])[0], interpret(b.graph(y), [at], wide=True)[0]
    assert narrow.dtype == np.float32 and wide.dtype == np.float64
    np.testing.assert_array_equal(wide, np.exp(at.astype(np.float64)) / 3)
