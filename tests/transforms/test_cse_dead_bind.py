"""The small passes: common subexpressions, dead code, and sizes in the place of names."""

from __future__ import annotations

import time

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.diagnostics import DiagnosticError, Span
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.dims import name
from dslc.ir.graph import Graph
from dslc.ir.types import DType
from dslc.transforms.bind import bind
from dslc.transforms.cse import cse
from dslc.transforms.dead_code import dead_code

F32, F64 = DType.F32, DType.F64
N, H = name("N"), name("H")


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def test_cse_merges_repeated_operations_and_what_follows_from_them() -> None:
    b = Builder()
    x = b.input(F64, 3)
    left, right = b.exp(b.mul(x, x)), b.exp(b.mul(x, x))
    graph = b.graph(b.add(left, right), right)
    small = cse(graph)
    assert kinds(small) == ["mul", "exp", "add"]
    array = np.array([0.5, -1.0, 2.0])
    for before, after in zip(interpret(graph, [array]), interpret(small, [array]), strict=True):
        np.testing.assert_array_equal(before, after)


def test_cse_tells_apart_zeros_and_kinds_of_numbers() -> None:
    b = Builder()
    values = (b.scalar(0.0, F32), b.scalar(-0.0, F32), b.scalar(float("nan"), F32), b.scalar(float("nan"), F32), b.scalar(1.0, F32))
    other = b.scalar(1.0, F64)
    small = cse(b.graph(*values, other))
    assert len(small.ops) == 5
    assert small.outputs[2] == small.outputs[3]
    assert np.signbit(interpret(small, [])[1]) and not np.signbit(interpret(small, [])[0])


def test_cse_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        b = Builder()
        value = b.input(F64, 3)
        for _ in range(count):
            value = b.add(value, b.mul(value, value))
            b.mul(value, value)
        graph = b.graph(value)
        best = 1e9
        for _ in range(3):
            start = time.perf_counter()
            assert len(cse(graph).ops) == 2 * count + 1
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(8000) < 30 * seconds(1000)  # eight times the work; quadratic time would be 64 times


def test_dead_code_keeps_what_outputs_need() -> None:
    b = Builder()
    x, unused = b.input(F64, 3), b.input(F64, 2)
    kept = b.exp(x)
    b.log(b.add(kept, x))
    mean, variance = b.moments(x)
    b.exp(variance)
    small = dead_code(b.graph(kept, mean))
    assert kinds(small) == ["exp", "moments"]
    assert small.inputs == (x, unused)


def test_bind_substitutes_names_and_leaves_the_batch() -> None:
    b = Builder()
    x, w = b.input(F32, N, 3, H, H), b.input(F32, 4, 3, 3, 3)
    y = b.conv2d(x, w, stride=2, padding=1)
    flat = b.reshape(y, shape=(N, 4 * y.type.shape[2] * y.type.shape[3]))
    small = bind(b.graph(flat), {"H": 28})
    assert str(small.outputs[0].type) == "f32[N, 784]"
    assert small.ops[-1].attr("shape") == (N, 784)
    assert str(bind(small, {"N": 2}).outputs[0].type) == "f32[2, 784]"


def test_bind_refuses_sizes_that_do_not_fit_at_their_line() -> None:
    b = Builder()
    x, w = b.input(F32, N, 3, H, H), b.input(F32, 4, 3, 5, 5)
    b.span = Span("net.dl", 7, 3, 7, 20)
    graph = b.graph(b.conv2d(x, w))
    with pytest.raises(DiagnosticError) as caught:
        bind(graph, {"H": 4})
    (diagnostic,) = caught.value.diagnostics
    assert "does not fit" in diagnostic.message and "H = 4" in diagnostic.message
    assert diagnostic.span == Span("net.dl", 7, 3, 7, 20)
