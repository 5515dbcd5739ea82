"""Lanes that lie outside of an axis, and two stores that fill each other's gaps: nothing else is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lane_kernels import WIDTHS, load, name_of

from dslc.backends.cpu.emit import emit
from dslc.ir.dims import name
from dslc.ir.loops import Binary, ClampedLoad, Const, For, IndexValue, Load, LoopProgram, Select, Store
from dslc.ir.types import DType
from tests.backends.guarded import guarded

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.bool_], ids=name_of)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_lanes_outside_are_zero_and_not_touched(dtype: Any, width: int, stride: int) -> None:
    e = name_of(dtype)
    call = (
        f"vload_between_{e}(p, batch, thread, threads)" if stride == 1 else f"vload_stride_between_{e}(p, batch, {stride}, thread, threads)"
    )
    run = load(
        f"""
def kernel(row, thread, threads, batch):
    p = ptr_{e}(arg(row, 0))
    vstore_{e}(ptr_{e}(arg(row, 1)), 0, {call})
""",
        width,
    )
    size = 5
    for at_end in (False, True):
        source = guarded((np.arange(size) % 2 + 1).astype(dtype), at_end)
        for start in range(-2 * width, size + 2):  # lane l is element start + stride * l
            lanes = start + stride * np.arange(width)
            out = np.ones(width, dtype)
            run([source, out], thread=-(start // stride), threads=-((start - size) // stride), batch=start)
            want = np.array([source[i] if 0 <= i < size else 0 for i in lanes], dtype)
            assert np.array_equal(out, want)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.bool_], ids=name_of)
def test_pairs_of_stores_alternate(dtype: Any, width: int) -> None:
    e = name_of(dtype)
    run = load(
        f"""
def kernel(row, thread, threads, batch):
    v = vload_{e}(ptr_{e}(arg(row, 0)), 0)
    w = vload_{e}(ptr_{e}(arg(row, 0)), W)
    vstore_pair_{e}(ptr_{e}(arg(row, 1)), 0, v, w)
    vstore_pair_part_{e}(ptr_{e}(arg(row, 2)), 0, v, w, batch)
""",
        width,
    )
    source = (np.random.default_rng(width).integers(0, 2, 2 * width) if dtype == np.bool_ else np.arange(2 * width)).astype(dtype)
    mixed = source.reshape(2, width).T.ravel()
    for n in range(1, width + 1):
        whole, part = (guarded(np.zeros(size, dtype), True) for size in (2 * width, 2 * n))
        run([source, whole, part], batch=n)
        assert np.array_equal(whole, mixed) and np.array_equal(part, mixed[: 2 * n])


def test_two_halves_of_a_row_become_one_store_where_nothing_depends_on_their_order() -> None:
    i = name("i")
    first, second = Store(1, 2 * i, Load(0, i, F32)), Store(1, 2 * i + 1, Load(0, i + 1, F32))
    assert "vstore_pair_f32(p1" in emit(LoopProgram((F32, F32), (For("i", 32, "vector", (first, second)),), False), 16)
    dependent = Store(1, 2 * i + 1, Load(1, 2 * i, F32))
    assert "vstore_pair" not in emit(LoopProgram((F32, F32), (For("i", 32, "vector", (first, dependent)),), False), 16)


def test_rows_that_are_written_side_by_side_are_asked_for_ahead() -> None:
    """Lines of both; not behind the one row that hardware follows, nor where a tail ends the row."""
    i = name("i")
    first, second = Store(1, i, Load(0, i, F32)), Store(1, i + 4096, Load(0, i, F32))
    both = emit(LoopProgram((F32, F32), (For("i", 64, "vector", (first, second)),), False), 16)
    assert both.count("prefetch_write(p1") == 2 and f"i + {512 + 4096})" in both
    for extent, stores in ((64, (first,)), (9, (first, second))):
        assert "prefetch" not in emit(LoopProgram((F32, F32), (For("i", extent, "vector", stores),), False), 16)


def test_a_clamp_that_lanes_share_is_computed_where_its_load_is() -> None:
    """A row index that leaves its axis, read once outside of the lanes and once in them."""
    i, j = name("i"), name("j")
    inside = Binary("ge", IndexValue(i - 1), Const(0, I64), BOOL)
    row = ClampedLoad(0, 0, ((i - 1, 4, 8),), F32)
    element = ClampedLoad(0, j, ((i - 1, 4, 8),), F32)
    value = Binary("add", Select(inside, row, Const(0.0, F32), F32), Select(inside, element, Const(0.0, F32), F32), F32)
    program = LoopProgram((F32, F32), (For("i", 5, "serial", (For("j", 8, "vector", (Store(1, 8 * i + j, value),)),)),), False)
    x = np.arange(32, dtype=np.float32)
    for width in WIDTHS:
        out = np.zeros(40, np.float32)
        load(emit(program, width), width)([x, out])
        rows = np.concatenate([np.zeros((1, 8), np.float32), x.reshape(4, 8)])
        np.testing.assert_array_equal(out.reshape(5, 8), rows + rows[:, :1])
