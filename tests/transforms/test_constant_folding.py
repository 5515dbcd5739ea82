"""Operations on constants are computed now if the result is small, and never if they draw."""

from __future__ import annotations

import numpy as np

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.dims import name
from dslc.ir.graph import Graph
from dslc.ir.types import DType, TensorType
from dslc.ir.verify import verify
from dslc.transforms.constant_folding import constant_folding
from dslc.transforms.dead_code import dead_code

F32, I64 = DType.F32, DType.I64


def folded(graph: Graph, limit: int = 4096) -> Graph:
    return verify(dead_code(constant_folding(graph, limit)))


def test_constants_are_computed_with_the_same_result() -> None:
    b = Builder()
    x = b.input(F32, 3)
    table = b.constant(np.array([0.5, 1.0, -2.0]), F32)
    factor = b.mul(b.exp(table), b.cast(b.iota(size=3, dtype=I64), dtype=F32))
    mean, variance = b.moments(factor)
    graph = b.graph(b.add(b.mul(x, factor), b.add(mean, variance)))
    small = folded(graph)
    assert sorted(op.kind for op in small.ops) == ["add", "constant", "full", "mul"]
    array = np.array([1.0, 2.0, 3.0], np.float32)
    np.testing.assert_array_equal(interpret(graph, [array])[0], interpret(small, [array])[0])


def test_equal_elements_become_a_number() -> None:
    b = Builder()
    value = b.mul(b.like(2.0, TensorType(F32, (2, 2))), b.scalar(-0.0, F32))
    (op,) = folded(b.graph(value)).ops
    assert op.kind == "full" and repr(op.attr("value")) == "-0.0" and op.attr("shape") == (2, 2)


def test_zeros_of_both_signs_are_not_one_number() -> None:
    b = Builder()
    value = b.mul(b.constant(np.array([1.0, -1.0]), F32), b.scalar(0.0, F32))
    (op,) = folded(b.graph(value)).ops
    assert op.kind == "constant"


def test_large_results_and_symbolic_sizes_stay() -> None:
    b = Builder()
    large = b.expand(b.constant(np.arange(10.0), F32), shape=(200, 10))
    symbolic = b.expand(b.exp(b.scalar(1.0, F32)), shape=(name("N"),))
    small = folded(b.graph(large, symbolic))
    assert [op.kind for op in small.ops] == ["constant", "expand", "full", "expand"]
    assert "constant" in [op.kind for op in folded(b.graph(large), limit=8000).ops]


def test_draws_stay() -> None:
    b = Builder()
    seed, counter = b.scalar(1, I64), b.scalar(0, I64)
    draw = b.random_uniform(seed, counter, shape=(3,), stream=0)
    assert "random_uniform" in [op.kind for op in folded(b.graph(b.exp(draw))).ops]
