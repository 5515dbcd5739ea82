"""Loops over lanes that do several vectors a step: which ones, that every element is computed once, and the same bits at every width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dslc.backends.cpu.build import Workers
from dslc.backends.cpu.chains import WITHOUT_BRANCHES
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


@pytest.mark.parametrize("size", [1, 15, 16, 31, 32, 33, 47, 48, 64, 100, 147, 275])
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


@pytest.mark.parametrize(("width", "size", "count"), [(16, 100, 2), (16, 80, 4), (16, 300, 4), (8, 300, 2), (4, 300, 2)])
def test_lines_of_several_vectors_in_turns(width: int, size: int, count: int) -> None:
    lines = [line.strip() for line in source(gates_of(size), width).splitlines()]
    step, end = count * width, size // (count * width) * count * width
    begin = lines.index(f"for i1 in range(0, {end}, {step}):") + 1
    shifts = [f" + {n * width}" if n else "" for n in range(count)]
    assert [line.split(" = ")[1] for line in lines[begin : begin + count]] == [
        f"vload_f32(p0, {2 * size}*i0 + i1 + {size + n * width})" for n in range(count)
    ]
    loads = [line.split(" = ")[0] for line in lines[begin : begin + count]]
    beside = f"beside({', '.join(loads)})" if count == 2 else "beside(beside({}, {}), beside({}, {}))".format(*loads)
    assert sum(f"= vsigmoid({beside})" in line for line in lines) == 1, "one function of all"
    assert sum(line.startswith("vstore_f32") and f"i1{shifts[-1]}," in line for line in lines) == 2
    left = size // width - end // width
    assert (f"for i1 in range({end}, {end + left * width}, {width}):" in lines) == (left > 0)


@pytest.mark.parametrize("operator", WITHOUT_BRANCHES.split("|"))
@pytest.mark.parametrize("dtype", [F32, DType.F64])
def test_functions_of_several_vectors_have_the_bits_of_one(operator: str, dtype: DType, workers: Workers) -> None:
    """Where a loop computes one function it does a vector a step."""
    draw, kind = np.random.default_rng(2), np.float64 if dtype == DType.F64 else np.float32
    x, y = (np.concatenate([10 * draw.random(148), np.roll([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e4], n)]).astype(kind) for n in range(2))
    both = small([(dtype, (155,)), (dtype, (155,))], lambda b, x, y: b.sub(getattr(b, operator)(x), getattr(b, operator)(y)))
    one = small([(dtype, (155,))], lambda b, x: getattr(b, operator)(x))
    for width in (16, 8, 4):
        assert f"v{operator}(beside(" in source(both, width) and "beside" not in source(one, width)
        (got,) = both.run(workers, [x, y], width=width).values()
        alone = [array for given in (x, y) for array in one.run(workers, [given], width=width).values()]
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(got, alone[0] - alone[1])


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
