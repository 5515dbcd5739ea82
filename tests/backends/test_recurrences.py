"""Recurrences and routines in programs: a batch of any size, buffers updated in place, layouts that are not row-major, fusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dslc.backends.cpu.build import Workers
from dslc.backends.cpu.emit import emit
from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import LoopProgram
from dslc.ir.routines import Routine
from dslc.ir.types import DType
from dslc.lowering.lower import lower
from dslc.lowering.text import loops_text
from tests.backends.small_programs import Array, Small, small

F32, I64 = DType.F32, DType.I64
N = dims.name("N")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as pool:
        yield pool


def agree(made: Small, workers: Workers, arrays: list[Array], state: dict[str, Array] | None = None, **how: int) -> dict[str, Array]:
    got, want = made.run(workers, arrays, state, **how), made.interpreted(arrays, state)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=2e-5, atol=2e-5, err_msg=name)
    return got


BATCHED: dict[str, Callable[[Builder, Value, Value], Any]] = {
    "along the batch": lambda b, x, i: b.cumsum(x, axis=0, reverse=True),
    "beside the batch": lambda b, x, i: b.cumprod(x, axis=1, exclusive=True),
    "sorted rows": lambda b, x, i: b.sort(x),
    "sorted batch": lambda b, x, i: b.sort(x, axis=0, descending=True),
    "best of rows": lambda b, x, i: b.top_k(x, k=3),
    "updates by the batch": lambda b, x, i: b.gather_grad(b.mul(x, x), b.max(i, axis=1), axis=0, size=7),
    "elements of rows": lambda b, x, i: b.take_along_grad(b.take_along(x, i), i, axis=1, size=20),
    "sorted on the way": lambda b, x, i: b.sort(b.exp(x)),
}


@pytest.mark.parametrize("what", sorted(BATCHED))
def test_any_batch(what: str, workers: Workers) -> None:
    made = small([(F32, (N, 20)), (I64, (N, 20))], BATCHED[what], batch=True)
    rng = np.random.default_rng(3)
    for batch in (1, 5, 8):
        agree(made, workers, [rng.standard_normal((batch, 20)).astype(np.float32), rng.integers(-2, 22, (batch, 20))])


def test_states_are_updated_in_place_where_only_their_own_element_is_read(workers: Workers) -> None:
    """The running sum reads the element that it overwrites before it does; a shifted one goes through a copy."""
    own = small([], lambda b, s: b.cumsum(s, axis=1, exclusive=True), {"s": (F32, (3, 40))})
    shifted = small([], lambda b, s: b.cumsum(b.slice(s, starts=(0, None), stops=(3, None), steps=(1, -1)), axis=1), {"s": (F32, (3, 40))})
    state = {"s": np.random.default_rng(1).standard_normal((3, 40)).astype(np.float32)}
    agree(own, workers, [], state)
    agree(shifted, workers, [], state)
    assert len(lower(own.program).steps) == 1
    assert len(lower(shifted.program).steps) == 2


def test_routines_never_write_what_they_read(workers: Workers) -> None:
    made = small([(I64, (4,)), (F32, (4, 40))], lambda b, i, u, s: (b.sum(s), b.scatter_add(s, i, u)), {"s": (F32, (5, 40))})
    rng = np.random.default_rng(1)
    state = {"s": rng.standard_normal((5, 40)).astype(np.float32)}
    agree(made, workers, [np.array([0, 3, 3, 9]), rng.standard_normal((4, 40)).astype(np.float32)], state)


def test_part_of_a_state_is_replaced(workers: Workers) -> None:
    made = small(
        [(F32, (2, 1, 8)), (I64, ())],
        lambda b, u, at, s: b.dynamic_update_slice(s, u, at, axis=1),
        {"s": (F32, (2, 6, 8))},
    )
    state = {"s": np.zeros((2, 6, 8), np.float32)}
    agree(made, workers, [np.ones((2, 1, 8), np.float32), np.array(4)], state)
    assert len(lower(made.program).steps) == 1  # in place


def test_operands_with_channels_innermost_or_a_border(workers: Workers) -> None:
    """Routines want row-major memory; what stands before and after them lies otherwise."""

    def program(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
        y = b.conv2d(x, w, padding=1)
        s, _ = b.sort(b.relu(y))
        return b.conv2d(s, w, padding=1), b.cumsum(y, axis=2), b.conv2d(b.cumsum(y, axis=1), w, padding=1)

    made = small([(F32, (2, 16, 6, 5)), (F32, (16, 16, 3, 3))], program)
    rng = np.random.default_rng(2)
    agree(
        made, workers, [rng.standard_normal((2, 16, 6, 5)).astype(np.float32), rng.standard_normal((16, 16, 3, 3)).astype(np.float32) / 12]
    )


def test_what_a_recurrence_reads_is_computed_in_its_loop() -> None:
    made = small([(F32, (4, 300)), (F32, (4, 300))], lambda b, x, y: b.cumsum(b.add(b.mul(x, y), y), axis=0))
    (step,) = lower(made.program).steps
    assert isinstance(step.program, LoopProgram)
    text = loops_text(step.program)
    assert "vector" in text and "in order" in text
    for width in (16, 8, 4):
        source = emit(step.program, width)
        assert "vload_f32(p0" in source and "vload_f32(p1" in source and "vgather" not in source


def test_costly_factors_of_a_recurrence_are_computed_where_they_are_used() -> None:
    made = small([(F32, (4, 300))], lambda b, x: b.linear_recurrence(b.sigmoid(x), x, axis=0))
    assert len(lower(made.program).steps) == 1


def test_lanes_run_over_rows_where_the_axis_is_innermost() -> None:
    made = small([(F32, (64, 100))], lambda b, x: b.cumsum(x, axis=1))
    (step,) = lower(made.program).steps
    assert isinstance(step.program, LoopProgram)
    assert "vload_stride_f32(p0" in emit(step.program, 16)


@pytest.mark.parametrize(("rows", "columns"), [(1000, 1), (1000, 3), (50, 17), (9, 64), (3, 1000)])
def test_gradients_of_tables_have_the_same_bits_for_any_threads(rows: int, columns: int, workers: Workers) -> None:
    """Threads own rows, or columns where there are many; each adds its updates in order."""
    made = small([(F32, (500, columns)), (I64, (500,))], lambda b, dy, i: b.gather_grad(dy, i, axis=0, size=rows))
    rng = np.random.default_rng(7)
    arrays: list[Array] = [rng.standard_normal((500, columns)).astype(np.float32), rng.integers(-3, rows + 3, 500) // 2]
    want = np.zeros((rows, columns), np.float32)
    for at, row in zip(np.clip(arrays[1], 0, rows - 1), arrays[0], strict=True):
        want[at] += row
    for width, threads in ((16, 1), (16, 2), (8, 3), (4, 5)):
        got = made.run(workers, arrays, width=width, threads=threads)["y0"]
        assert got.tobytes() == want.tobytes(), (width, threads)


def test_the_cost_of_a_table_s_gradient_is_not_a_product() -> None:
    """One pass over the updates inside the kernel: no loop over rows of the table holds another over the updates."""
    made = small([(F32, (4096, 64)), (I64, (4096,))], lambda b, dy, i: b.gather_grad(dy, i, axis=0, size=50_000))
    (step,) = lower(made.program).steps
    assert isinstance(step.program, Routine) and dict(step.program.sizes) == {"outer": 1, "count": 4096, "size": 50_000, "inner": 64}


def test_sorted_rows_of_many_lengths(workers: Workers) -> None:
    rng = np.random.default_rng(9)
    for length in (1, 7, 8, 9, 16, 17, 100, 1000):
        x = rng.integers(0, 20, (3, length)).astype(np.float32)
        x[0, ::3] = np.nan
        made = small([(F32, x.shape)], lambda b, x: (b.argsort(x), b.argsort(x, descending=True)))
        agree(made, workers, [x])
