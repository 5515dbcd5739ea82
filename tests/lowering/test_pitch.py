"""Rows that lie a large power of two apart are padded where products sum over them, and what is computed stays the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from dslc.backends.cpu.build import Workers
from dslc.compiler import transform
from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.types import DType
from dslc.lowering.pitch import padded_rows
from dslc.transforms.autodiff import gradients
from tests.backends.small_programs import small

N = dims.name("N")
CROWDED, LOOSE = 512, 500  # elements of a row: 2 KiB, and not


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as pool:
        yield pool


def layers(b: Builder, x: Value, first: Value, second: Value) -> tuple[Value, ...]:
    hidden = b.tanh(b.matmul(x, first))
    y = b.matmul(hidden, second)
    return y, *gradients(b, b.sum(b.mul(y, y)), (first, second))


@pytest.mark.parametrize(("width", "padded"), [(CROWDED, True), (LOOSE, False)])
def test_what_gradients_of_weights_sum_over_is_padded(width: int, padded: bool) -> None:
    made = small([(DType.F32, (N, 24)), (DType.F32, (24, width)), (DType.F32, (width, 8))], layers, batch=True)
    graph = transform(made.program, {})[0].graph
    pitches = {layout.pitch for op in graph.ops for v in op.outputs if (layout := padded_rows(graph, graph.uses(), v)) is not None}
    assert pitches == ({width + 16} if padded else set())


def test_what_leaves_the_program_is_dense() -> None:
    made = small([(DType.F32, (N, 24)), (DType.F32, (24, CROWDED))], lambda b, x, w: (b.tanh(b.matmul(x, w)),), batch=True)
    graph = transform(made.program, {})[0].graph
    assert all(padded_rows(graph, graph.uses(), v) is None for op in graph.ops for v in op.outputs)


def test_gradients_through_padded_rows(workers: Workers) -> None:
    made = small([(DType.F32, (N, 24)), (DType.F32, (24, CROWDED)), (DType.F32, (CROWDED, 8))], layers, batch=True)
    rng = np.random.default_rng(1)
    for batch in (1, 5, 8):
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((batch, 24), (24, CROWDED), (CROWDED, 8))]
        got, want = made.run(workers, arrays), made.interpreted(arrays)
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, rtol=3e-5, atol=3e-5 * abs(array).max())
