"""Transposed reads in blocks: the same numbers, and lines that are read across serve several rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from small_programs import small

from dslc.backends.cpu.build import Workers
from dslc.ir.dims import name
from dslc.ir.loops import Binary, Const, Load, Store
from dslc.ir.types import DType
from dslc.lowering.blocks import LEAST, blocked

F32 = DType.F32


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as pool:
        yield pool


@pytest.mark.parametrize("width", [16, 8, 4])
@pytest.mark.parametrize("shape", [(512, 160), (272, 512), (3, 256, 96), (512, 200)], ids=str)
def test_sum_with_a_transposed_operand(shape: tuple[int, ...], width: int, workers: Workers) -> None:
    order = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    turned = tuple(shape[n] for n in order)
    program = small([(F32, shape), (F32, turned)], lambda b, x, y: b.add(y, b.transpose(x, axes=order)))
    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal(s).astype(np.float32) for s in (shape, turned))
    for threads in (1, 3):
        got: Any = program.run(workers, [x, y], width=width, threads=threads)["y0"]
        np.testing.assert_array_equal(got, y + x.transpose(order))


def test_what_is_cut() -> None:
    """[512, 160] read across is cut to 16 rows and the largest width that divides; small nests and such along memory are not."""
    i, j = name("i"), name("j")

    def nest(rows: int, columns: int, across: bool) -> tuple[tuple[Store, ...], tuple[tuple[str, int], ...]]:
        source = Load(0, j * rows + i if across else i * columns + j, F32)
        return (Store(1, i * columns + j, Binary("mul", source, Const(2.0, F32), F32)),), (("i", rows), ("j", columns))

    stores, axes = blocked(*nest(512, 320, True), "j")
    assert axes == (("io", 32), ("jo", 2), ("it", 16), ("jt", 160))
    assert stores[0].address == (name("io") * 16 + name("it")) * 320 + name("jo") * 160 + name("jt")
    for untouched in (nest(512, 320, False), nest(16, LEAST // 32, True), nest(513, 320, True), nest(512, 37 * 16 + 1, True)):
        assert blocked(*untouched, "j") == untouched
