"""Loops over lanes that do two vectors a step: which ones, that every element is computed once, and the same bits at every width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dslc.backends.cpu.build import Workers
from dslc.backends.cpu.emit import emit
from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import LoopProgram
from dslc.ir.types import DType
from dslc.lowering.lower import lower
from tests.backends.small_programs import Small, small

F32 = DType.F32
N = dims.name("N")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as pool:
        yield pool


def gates(b: Builder, x: Value, c: Value) -> Any:
    """Two results of which the second reads the first."""
    kept = b.add(b.mul(b.sigmoid(x), c), b.tanh(x))
    return kept, b.mul(b.sigmoid(c), b.tanh(kept))


def gates_of(size: int) -> Small:
    """Gates from the second half of rows, which therefore stay rows."""
    half = {"starts": (0, size), "stops": (None, 2 * size)}
    return small([(F32, (N, 2 * size)), (F32, (N, size))], lambda b, x, c: gates(b, b.slice(x, **half, steps=(1, 1)), c), batch=True)


def source(made: Small, width: int) -> str:
    (step,) = lower(made.program).steps
    assert isinstance(step.program, LoopProgram)
    return emit(step.program, width)


@pytest.mark.parametrize("size", [1, 15, 16, 31, 32, 33, 47, 48, 64, 100])
def test_rows_of_any_length(size: int, workers: Workers) -> None:
    made = gates_of(size)
    draw = np.random.default_rng(size)
    arrays = [(4 * draw.standard_normal((5, n * size))).astype(np.float32) for n in (2, 1)]
    want = made.interpreted(arrays)
    bits = None
    for width in (16, 8, 4):
        got = made.run(workers, arrays, width=width, threads=3)
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)
        bits = bits or {name: array.tobytes() for name, array in got.items()}
        assert bits == {name: array.tobytes() for name, array in got.items()}


def test_lines_of_two_vectors_in_turns() -> None:
    lines = source(gates_of(100), 16).splitlines()
    begins = [n for n, line in enumerate(lines) if "range(0, 96, 32)" in line]
    assert len(begins) == 1
    assert [line.split("=")[1] for line in lines[begins[0] + 1 : begins[0] + 3]] == [
        " vload_f32(p0, 200*i0 + i1 + 100)",
        " vload_f32(p0, 200*i0 + i1 + 116)",
    ]
    assert any("range(96, 100, 16)" in line for line in lines)


def test_one_function_a_step_needs_no_other() -> None:
    text = source(small([(F32, (7, 96))], lambda b, x: b.add(b.sigmoid(x), x)), 16)
    assert ", 16):" in text and ", 32):" not in text


def test_a_whole_array_shared_by_threads(workers: Workers) -> None:
    """Shares end at multiples of 16, so that a share may hold one vector more than pairs of them."""
    made = small([(F32, (7, 113)), (F32, (7, 113))], gates)
    draw = np.random.default_rng(1)
    arrays = [draw.standard_normal((7, 113)).astype(np.float32) for _ in range(2)]
    want = made.interpreted(arrays)
    for threads in (1, 2, 3, 7):
        got = made.run(workers, arrays, threads=threads)
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)
