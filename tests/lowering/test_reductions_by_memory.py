"""Sums over several axes walk memory, whatever its layout, and have the same bits at every width and number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from dslc.backends.cpu.build import Workers
from dslc.compiler import transform
from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.dims import name
from dslc.ir.graph import Value
from dslc.ir.loops import For, Load, LoopProgram, Reduce, Stmt, Store
from dslc.ir.types import DType
from dslc.lowering.indices import coefficient, walk
from dslc.lowering.lower import lower
from dslc.lowering.reduction_order import LONGEST
from dslc.runtime.executable import Executable
from tests.backends.small_programs import Small, small

N = name("N")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as pool:
        yield pool


def reductions(made: Small) -> list[Reduce]:
    """The sums of a program's kernels, as they are after lowering."""

    def of(stmts: tuple[Stmt, ...]) -> Iterator[Reduce]:
        for stmt in stmts:
            if isinstance(stmt, For):
                yield from of(stmt.body)
            elif isinstance(stmt, Store):
                yield from (n for n in walk(stmt.value) if isinstance(n, Reduce))

    steps = lower(transform(made.program, {})[0]).steps
    return [r for s in steps if isinstance(s.program, LoopProgram) for r in of(s.program.body)]


def steps_of(e: Reduce) -> list[tuple[dims.Dim | None, ...]]:
    """For each variable its steps in all loads."""
    loads = [n for n in walk(e.body) if isinstance(n, Load)]
    return [tuple(coefficient(n.address, v) for n in loads) for v, _ in e.variables]


def image(channels: int, rows: int, columns: int, loss: str) -> Small:
    """A reduction of a convolution's result, which has its channels innermost."""

    def make(b: Builder, x: Value, w: Value, t: Value) -> tuple[Value, ...]:
        d = b.conv2d(x, w, padding=1)
        if loss == "flat":
            d = b.reshape(d, shape=(N, channels * rows * columns))
            return (b.sum(b.mul(d, d), axis=1),)
        if loss == "port":
            gap = b.sub(d, t)
            return b.sum(b.mul(gap, gap), axis=(1, 2, 3)), b.max(d, axis=(1, 2, 3))
        if loss == "max":
            return (b.max(d, axis=(1, 2, 3)),)
        if loss == "leading":
            return (b.sum(b.mul(d, d), axis=(2, 3)),)
        return (b.mean(b.mul(d, d)) if loss == "mean" else b.sum(b.mul(d, d), axis=(1, 2, 3)),)

    shape = (N, channels, rows, columns)
    return small([(DType.F32, shape), (DType.F32, (channels, channels, 3, 3)), (DType.F32, shape)], make, batch=True)


@pytest.mark.parametrize(("loss", "rows", "row"), [("sum", 7, 12288), ("mean", 7, 12288), ("max", 7, 12288), ("flat", 6, 14336)])
def test_the_innermost_loop_walks_memory_in_steps_of_one(loss: str, rows: int, row: int) -> None:
    long = next(r for r in reductions(image(32, 56, 48, loss)) if len(r.variables) > 1)
    assert long.vector
    assert [extent for _, extent in long.variables] == [rows, row]
    assert [set(steps) for steps in steps_of(long)] == [{row}, {1}]


def test_a_small_image_is_one_loop_and_a_long_row_is_cut() -> None:
    (whole,) = reductions(image(9, 7, 5, "sum"))
    assert [extent for _, extent in whole.variables] == [9 * 7 * 5]
    (cut,) = reductions(image(32, 4, LONGEST // 16, "sum"))
    assert [extent for _, extent in cut.variables] == [4, 2, LONGEST]


def test_what_lies_in_two_orders_is_walked_row_by_row() -> None:
    """Both the channels of one and the columns of the other come last, so that a row of the image stays in the cache."""
    both = next(r for r in reductions(image(32, 56, 48, "port")) if len(steps_of(r)[0]) > 1)
    assert [extent for _, extent in both.variables] == [56, 32, 48]


def test_lanes_over_what_is_kept() -> None:
    """Sums over rows and columns alone: the channels, which stay, lie side by side."""
    (pooled,) = reductions(image(32, 56, 48, "leading"))
    assert not pooled.vector and [extent for _, extent in pooled.variables] == [56, 48]


def losses(b: Builder, x: Value, w: Value, t: Value) -> tuple[Value, ...]:
    """Reductions of a value with a halo, of one without, of several with a row-major one, and of flattened ones."""
    d = b.conv2d(x, w, padding=1)
    e = b.conv2d(d, w, padding=1)
    gap = b.sub(e, t)
    flat = b.reshape(e, shape=(N, 9 * 7 * 5))
    return (
        b.sum(b.mul(d, d), axis=(1, 2, 3)),
        b.max(d, axis=(1, 2, 3)),
        b.mean(b.mul(e, e)),
        b.logsumexp(e, axis=(1, 2, 3)),
        b.sum(b.mul(gap, gap), axis=(1, 2, 3)),
        b.sum(b.mul(flat, b.tanh(flat)), axis=1),
        b.argmax(flat, axis=1),
        b.sum(e, axis=(1, 3)),
    )


@pytest.mark.parametrize("dtype", [DType.F32, pytest.param(DType.F64, marks=pytest.mark.slow)])
def test_the_same_bits_at_every_width_and_number_of_threads(dtype: DType, workers: Workers) -> None:
    shape = (9, 7, 5)
    made = small([(dtype, (N, *shape)), (dtype, (9, 9, 3, 3)), (dtype, (N, *shape))], losses, batch=True)
    wide = small([(DType.F64, (N, *shape)), (DType.F64, (9, 9, 3, 3)), (DType.F64, (N, *shape))], losses, batch=True)
    plans = [made.compiled(workers, width) for width in (16, 8, 4)]
    rng = np.random.default_rng(3)
    tolerance = 1e-12 if dtype == DType.F64 else 2e-6
    for batch in (1, 3, 8):
        sizes = ((batch, *shape), 1.0), ((9, 9, 3, 3), 0.2), ((batch, *shape), 1.0)
        arrays = [(rng.standard_normal(size) * scale).astype(dtype.numpy) for size, scale in sizes]
        inputs = {f"x{n}": a for n, a in enumerate(arrays)}
        results = [Executable(p.plan, p.objects, {}, threads=threads).call("p", inputs) for p, threads in zip(plans, (2, 1, 3), strict=True)]
        for key, want in wide.interpreted([a.astype(np.float64) for a in arrays]).items():
            assert all(r[key].tobytes() == results[0][key].tobytes() for r in results), f"{key}: other bits"
            np.testing.assert_allclose(results[0][key], want, rtol=tolerance, atol=tolerance * abs(want).max(), err_msg=key)
