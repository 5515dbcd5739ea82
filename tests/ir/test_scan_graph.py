"""The loop of the graph: what it computes, what the verifier refuses, its text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.dims import name
from dslc.ir.graph import Graph, Op
from dslc.ir.operator import TypeFailure
from dslc.ir.scan import build_scan, parts
from dslc.ir.text import parse_graph, print_graph
from dslc.ir.types import DType, TensorType
from dslc.ir.verify import VerificationError, verify

F64, I64 = DType.F64, DType.I64
N = name("N")


def decaying_sum(reverse: bool = False) -> Graph:
    """h = h * w + x[:, t]: the carries, stacked along axis 1, and the indices."""
    b = Builder()
    x, h0, w = b.input(F64, N, 3), b.input(F64, N), b.input(F64)
    body = Builder()
    index, element, h, factor = body.input(I64), body.input(F64, N), body.input(F64, N), body.input(F64)
    after = body.add(body.mul(h, factor), element)
    op = build_scan(
        b,
        body.graph(after, after, index),
        length=3,
        sequences=[x],
        elements=[1],
        initial=[h0],
        captures=[w],
        yields=[1, 0],
        reverse=reverse,
    )
    return b.graph(*op.outputs)


@pytest.mark.parametrize("reverse", [False, True])
def test_carries_pass_on_and_yields_stand_at_the_index_of_their_element(reverse: bool) -> None:
    graph = verify(decaying_sum(reverse))
    assert [v.type for v in graph.outputs] == [TensorType(F64, (N,)), TensorType(F64, (N, 3)), TensorType(I64, (3,))]
    x = np.array([[1.0, 10.0, 100.0], [2.0, 0.0, 0.0]])
    last, every, indices = interpret(graph, [x, np.array([0.0, 8.0]), np.array(0.5)])
    if reverse:
        expected = [[1 + (10 + 100 / 2) / 2, 10 + 100 / 2, 100], [2 + 8 / 8, 8 / 4, 8 / 2]]
    else:
        expected = [[1, 10 + 1 / 2, 100 + 10.5 / 2], [2 + 8 / 2, 6 / 2, 6 / 4]]
    np.testing.assert_array_equal(every, expected)
    np.testing.assert_array_equal(last, every[:, 0 if reverse else 2])
    np.testing.assert_array_equal(indices, [0, 1, 2])


def test_the_text_is_read_back() -> None:
    graph = decaying_sum(True)
    assert parse_graph(print_graph(graph)) == graph


def changed(**attrs: object) -> Callable[[Op], Op]:
    return lambda op: replace(op, attrs=tuple(sorted({**dict(op.attrs), **attrs}.items())))


def with_body(change: Callable[[Graph], Graph]) -> Callable[[Op], Op]:
    return lambda op: replace(op, regions=(change(op.regions[0]),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(length=4), r"a scan of 4 elements walks along axis 1 of f64\[N, 3\]"),
        (changed(elements=(2,)), "axis 2 of"),
        (changed(carries=2), "2 carries and 2 yields has a body with 3 results"),
        (changed(yields=(3, 0)), "stacked along axis 3"),
        (changed(yields=(0, 0)), r"the result is f64\[N\], f64\[3, N\]"),
        (with_body(lambda g: replace(g, inputs=g.inputs[:-1])), "not defined before its use"),
        (with_body(lambda g: replace(g, outputs=g.outputs[::-1])), r"a carry is f64\[N\] before and i64\[\] after"),
        (with_body(lambda g: replace(g, ops=g.ops[1:])), "not defined before its use"),
        (lambda op: replace(op, inputs=op.inputs[:-1]), "the body of a scan with 2 operands takes 4 values, not 3"),
        (lambda op: replace(op, inputs=(op.inputs[0], op.inputs[2], op.inputs[1])), "takes f64"),
        (lambda op: replace(op, regions=()), "1 regions, not 0"),
    ],
)
def test_each_broken_rule_is_named(change: Callable[[Op], Op], message: str) -> None:
    graph = decaying_sum()
    with pytest.raises(VerificationError, match=message):
        verify(replace(graph, ops=(*graph.ops[:-1], change(graph.ops[-1]))))


def test_the_builder_refuses_a_body_that_does_not_fit() -> None:
    b = Builder()
    x = b.input(F64, 3)
    body = Builder()
    body.input(I64)
    with pytest.raises(TypeFailure, match="takes 1 values, not 2"):
        build_scan(b, body.graph(), length=3, sequences=[x])


def test_parts_name_everything() -> None:
    graph = decaying_sum()
    op = graph.ops[-1]
    scan = parts(op)
    assert (*scan.sequences, *scan.initial, *scan.captures) == op.inputs
    assert (scan.index, *scan.slices, *scan.carries, *scan.captured) == scan.body.inputs
    assert (*scan.after, *scan.yields) == scan.body.outputs
    assert (*scan.final, *scan.stacked) == op.outputs
