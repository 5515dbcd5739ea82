"""The text form of graphs reads back to an equal graph, and what is no graph is refused with a place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.diagnostics import Span
from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.graph import ConstantData, Graph, Op, Value
from dslc.ir.text import TextError, parse_graph, print_attr, print_graph
from dslc.ir.types import DType, TensorType

EXAMPLE = """\
graph(%0: f32[N, 4], %1: f32[4, 3]) {
  %2: f32[N, 3] = dot_general[batch = ((), ()), contract = ((1,), (0,))](%0, %1)  @"net.dl":3:7-3:12
  %3: f32[] = full[dtype = f32, shape = (), value = 0.5]()
  %4: f32[N, 3] = mul(%2, %3)
  %5: f32[3 * N] = reshape[shape = (<3 * N>,)](%4)
  return %5, %2
}
"""


def test_example_reads_back_and_prints_the_same() -> None:
    graph = parse_graph(EXAMPLE)
    assert print_graph(graph) == EXAMPLE
    b = Builder()
    x, w = b.input(DType.F32, dims.name("N"), 4), b.input(DType.F32, 4, 3)
    b.span = Span("net.dl", 3, 7, 3, 12)
    y = b.dot_general(x, w, contract=((1,), (0,)))
    b.span = None
    z = b.reshape(b.mul(y, b.scalar(0.5, DType.F32)), shape=(3 * dims.name("N"),))
    assert b.graph(z, y) == graph


sizes = st.one_of(
    st.integers(0, 9), st.sampled_from([dims.name("N"), dims.name("H") // 2 + 1, 4 * dims.name("N") - 3, dims.name("H'2") * dims.name("N")])
)
types = st.builds(TensorType, st.sampled_from(list(DType)), st.lists(sizes, max_size=3).map(tuple))
constants = st.builds(ConstantData, types, st.binary(max_size=20))
attributes = st.recursive(
    st.one_of(
        st.integers(),
        st.booleans(),
        st.none(),
        st.floats(allow_nan=False),
        st.text(),
        st.sampled_from(list(DType)),
        types,
        constants,
        sizes,
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
spans = st.builds(Span, st.text(), *(st.integers(0, 10**6) for _ in range(4)))


@st.composite
def graphs(draw: st.DrawFn, depth: int = 2) -> Graph:
    count = 0

    def fresh() -> Value:
        nonlocal count
        count += draw(st.integers(1, 3))
        return Value(count, draw(types))

    inputs = tuple(fresh() for _ in range(draw(st.integers(0, 3))))
    known, ops = list(inputs), []
    for _ in range(draw(st.integers(0, 4))):
        operands = tuple(draw(st.lists(st.sampled_from(known), max_size=3))) if known else ()
        attrs = tuple(sorted(draw(st.dictionaries(names, attributes, max_size=3)).items()))
        outputs = tuple(fresh() for _ in range(draw(st.integers(0, 2))))
        regions = tuple(draw(graphs(depth - 1)) for _ in range(draw(st.integers(0, 2 if depth else 0))))
        kind = draw(names.filter(lambda n: n not in ("return", "graph", "data")))
        ops.append(Op(kind, operands, attrs, outputs, regions, draw(st.none() | spans)))
        known += outputs
    return Graph(inputs, tuple(ops), tuple(draw(st.lists(st.sampled_from(known), max_size=2))) if known else ())


@given(graphs())
@settings(max_examples=80, deadline=None)
def test_every_graph_reads_back(graph: Graph) -> None:
    assert parse_graph(print_graph(graph)) == graph


def test_numbers_keep_their_kind_and_sign() -> None:
    def read(value: object) -> object:
        op = Op("full", (), (("value", value),), ())
        return parse_graph(print_graph(Graph((), (op,), ()))).ops[0].attr("value")

    for value in (0.0, -0.0, 1.0, 1, True, 1e300, 5e-324, 1e16, -math.inf, math.inf):
        back = read(value)
        assert type(back) is type(value) and repr(back) == repr(value)
    assert math.isnan(read(math.nan))


def test_constants_keep_their_bytes() -> None:
    b = Builder()
    array = np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32)
    graph = b.graph(b.constant(array, DType.F32))
    back = parse_graph(print_graph(graph))
    assert back == graph and back.ops[0].attr("data").data == array.tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not the text of a graph"),
        ("graph() { return %1 }", "%1 is used before"),
        ("graph(%0: f32[2], %0: f32[2]) { return %0 }", "%0 is defined twice"),
        ("graph(%0: f32[2 +]) { return %0 }", "not a dimension"),
        ("graph() { %0: f32[] = full[value = seven]() return %0 }", "seven is no value"),
        ("graph() { %0: f32[] = full[value = -nan]() return %0 }", "no value"),
        ('graph() { %0: f32[] = full[value = "\\q"]() return %0 }', "escape"),
        ("graph() { %0: f32[] = constant[data = data f32[] #A]() return %0 }", "bytes of a constant"),
        ("graph() {\n  %0: f128[] = full()\n return %0 }", "line 2"),
    ],
)
def test_what_is_no_graph_is_refused(text: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        parse_graph(text)


def test_spans_can_be_left_out() -> None:
    assert "@" not in print_graph(parse_graph(EXAMPLE), spans=False)


def test_an_attribute_of_another_class_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="cannot be"):
        print_attr(object())
