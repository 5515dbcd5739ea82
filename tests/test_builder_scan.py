"""Loops built in Python, and loops as text, which parsed again give the same graph."""

from __future__ import annotations

import numpy as np
import pytest

import dslc
from dslc.api.text import model_text
from dslc.diagnostics import DiagnosticError
from dslc.frontend import elaborate
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Value
from dslc.ir.module import Module, Port, PortKind, Program
from dslc.ir.scan import build_scan
from dslc.ir.types import DType

RNG = np.random.default_rng(2)


def shape_of(graph: Graph, around: dict[Value, int] | None = None) -> list[object]:
    """A graph without the numbers of its values and its places."""
    numbers: dict[Value, int] = {}
    for value in graph.values():
        numbers[value] = len(numbers)
    ops = [
        (op.kind, [numbers[v] for v in op.inputs], repr(op.attrs), [str(v.type) for v in op.outputs], [shape_of(r) for r in op.regions])
        for op in graph.ops
    ]
    return [[str(v.type) for v in graph.inputs], ops, [numbers[v] for v in graph.outputs]]


PROGRAMS = (
    "x: f32[N, 4, 3]) -> f32[N, 4, 3] { return scan[axis = 1, reverse = true] v in x carry h = zeros[N, 3] { yield h  h = h + v * 2.0 } }",
    "x: f32[N, 4, 3]) -> (a: f32[4, N], b: f32[]) { a, b = scan i in 0..4 carry s = 0.0 { yield x[:, i, 0] * s  s = s + i  return s }  return a, b }",
    "x: f32[4, 3]) -> f32[4] { return scan[recompute = true] i, u, v in zip(0..4, x, x * 2.0) { yield sum(u * v) + i } }",
    "x: f32[4, 3]) -> f32[4] { return scan[axis = -1] u in transpose(x) { yield sum(u) } }",
    "x: f32[2, 4, 3]) -> f32[2, 4, 3] { param w: f32[3] = 1  return scan r in x { yield scan v in r carry h = w { h = tanh(h + v) * w  yield h } } }",
    """x: f32[4, 3]) -> f32[4, 3] {
      return scan v in x carry h = zeros[3] {
        y = scan i in 0..2 { yield random_normal[3] * v + i }
        h = h + random_uniform[3] + sum[axis = 0](y)
        yield h
      }
    }""",
    "x: f32[4, 3]) -> f32[3] { return scan v in x carry a = x[0], b = x[1] { a, b = b, v  return b } }",
)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_loop_as_text_is_the_same_loop(program: str) -> None:
    module = elaborate(f"dim N <= 8\nmodel M({program}").module
    text = model_text(module, module.programs["infer"])
    again = elaborate(text).module
    assert shape_of(again.programs["infer"].graph) == shape_of(module.programs["infer"].graph), text


def test_loops_along_several_axes_have_no_text() -> None:
    b = Builder()
    x = b.input(DType.F32, 4, 3)
    body = b.inner()
    body.input(DType.I64)
    element = body.input(DType.F32, 3)
    op = build_scan(b, body.graph(element), length=4, sequences=[x], yields=[1])
    ports = (Port(PortKind.INPUT, "x"),), (Port(PortKind.RESULT, "y"),)
    module = Module("M", {"infer": Program("infer", b.graph(op.output), *ports)}, {})
    with pytest.raises(DiagnosticError, match="several axes"):
        model_text(module, module.programs["infer"])


def network() -> tuple[dslc.Builder, dict[str, dslc.api.build.Tensor]]:
    b = dslc.Builder("Net", batch=8)
    x = b.input("x", "f32", ("N", 5, 3))
    w = b.parameter("w", "f32", (3, 4), "normal", std=0.5)
    start = b.zeros(shape=(x.shape[0], 4))

    def step(index: dslc.api.build.Tensor, v: dslc.api.build.Tensor, h: dslc.api.build.Tensor) -> tuple[list, list]:
        u = b.parameter("u", "f32", (4, 4), "orthogonal")
        h = b.tanh(v @ w + h @ u)
        return [h], [h * b.cast(index, dtype=DType.F32)]

    (last,), (every,) = b.scan(step, [x], [start], axis=1)
    return b, {"last": last, "every": every}


def test_a_loop_built_in_python_is_that_of_the_language() -> None:
    b, results = network()
    graph = b.module(**results).programs["infer"].graph
    x, w, u = RNG.normal(size=(2, 5, 3)), RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4))
    last, every = interpret(graph, [x, w, u], wide=True)
    h, expected = np.zeros((2, 4)), np.zeros((2, 5, 4))
    for t in range(5):
        h = np.tanh(x[:, t] @ w + h @ u)
        expected[:, t] = h * t
    np.testing.assert_allclose(every, expected, rtol=1e-12)
    np.testing.assert_allclose(last, h, rtol=1e-12)
    again = elaborate(b.to_dl(results)).module.programs["infer"].graph
    assert shape_of(again) == shape_of(graph)


def test_what_does_not_fit_is_refused() -> None:
    b = dslc.Builder("Net")
    x = b.input("x", "f32", (5, 3))
    for call, message in (
        (lambda: b.scan(lambda i, v: ([], [v]), [x], axis=2), "along axis 2"),
        (lambda: b.scan(lambda i, v: ([v], []), [x]), "takes 0 carries and gives 1"),
        (lambda: b.scan(lambda i, v, h: ([b.sum(h)], []), [x], [x]), r"f32\[5, 3\] before and f32\[\] after"),
        (lambda: b.scan(lambda i, v: ([], [v]), [x], length=4), "4 elements"),
    ):
        with pytest.raises(DiagnosticError, match=message):
            call()
