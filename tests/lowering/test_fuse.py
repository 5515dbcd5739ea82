"""Which values get memory: an expensive one is computed once a nest, and stored where several nests or several indices need it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Value
from dslc.ir.types import DType
from dslc.lowering.fuse import materialised
from dslc.ops import register_operators

Make = Callable[[Builder, Value, Value], tuple[Value, ...]]


def stored(make: Make) -> list[str]:
    """The operators whose results are in memory."""
    register_operators()
    b = Builder()
    x, w = b.input(DType.F32, 64, 32), b.input(DType.F32, 32, 32)
    graph: Graph = b.graph(*make(b, x, w))
    keep, _ = materialised(graph)
    return [op.kind for op in graph.ops if op.outputs[0] in keep]


def read_twice_at_one_index(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
    s = b.sigmoid(x)
    return (b.mul(s, b.sub(x, s)),)


def read_twice_behind_a_product(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
    s = b.sigmoid(x)
    return (b.mul(b.dot_general(x, w, contract=((1,), (0,))), b.mul(s, b.sub(x, s))),)


def read_by_two_results(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
    s = b.sigmoid(x)
    return b.mul(s, x), b.add(s, x)


def read_forwards_and_backwards(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
    s = b.sigmoid(x)
    return (b.mul(s, b.flip(s, axis=0)),)


def read_backwards_twice_by_one(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
    s = b.sigmoid(x)
    return (b.flip(b.mul(s, b.sub(x, s)), axis=0),)


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (read_twice_at_one_index, ["mul"]),
        (read_twice_behind_a_product, ["mul"]),
        (read_by_two_results, ["sigmoid", "mul", "add"]),
        (read_forwards_and_backwards, ["sigmoid", "mul"]),
        (read_backwards_twice_by_one, ["flip"]),
    ],
)
def test_values_in_memory(make: Make, kinds: list[str]) -> None:
    assert stored(make) == kinds
