"""The loops around register tiles: who reads what again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dslc.backends.cpu.contract import emit
from dslc.ir.dims import name
from dslc.ir.loops import Acc, Binary, Load
from dslc.ir.types import DType
from dslc.lowering.contraction import Axis, Contraction
from dslc.lowering.schedules import BATCH_HINT
from dslc.lowering.tile_grid import WRITES_AHEAD_BYTES, reads_ahead_of, writes_ahead_of
from dslc.lowering.tiling import plan

PRODUCT = Contraction((Axis("n", None, 256, 0, 512), Axis("o", 8, 0, 256 * 64, 64), Axis("i", 64, 0, 1, 1), Axis("k", 256, 1, 64, None)))
"""x [batch, 256] times w [256, 512] in panels of 64."""


def test_threads_of_a_loop_keep_to_their_examples() -> None:
    once, again = plan(PRODUCT, 16), plan(replace(PRODUCT, again=True), 16)
    assert [g.axis for g in once.grid][-1] == "n" and once.grid[0].axis != "n"
    first, *_, last = again.grid
    assert (first.axis, last.axis, last.inner) == ("n", "n", True)
    assert first.block == last.block == len(again.rows[0].tiles()) // 2
    assert sum(again.rows[0].tiles(BATCH_HINT)) == BATCH_HINT
    assert (again.rows, again.lanes, again.reduction) == (once.rows, once.lanes, once.reduction), "sums have the same order"


def test_weights_that_no_thread_can_hold_are_shared() -> None:
    wide = replace(PRODUCT, axes=tuple(replace(a, extent=64) if a.name == "o" else a for a in PRODUCT.axes), again=True)
    assert plan(wide, 16).grid == plan(replace(wide, again=False), 16).grid


@pytest.mark.parametrize(("pitch", "examples", "fetched"), [(528, 64, True), (528, 1, False), (65, 64, False)])
def test_rows_far_apart_are_fetched_ahead(pitch: int, examples: int, fetched: bool) -> None:
    """Not what lies near each other, nor what a cache holds."""
    gradient = Contraction((Axis("m", 512, 1, 0, 256), Axis("n", 256, 0, 1, 1), Axis("k", None, pitch, 256, None, per_batch=examples)))
    assert (plan(gradient, 16).rows_ahead > 0) == fetched


def test_steps_far_apart_are_fetched_ahead() -> None:
    loose = Contraction((Axis("n", None, 784, 0, 512), Axis("o", 512, 0, 1, 1), Axis("k", 784, 1, 512, None)))
    assert plan(loose, 16).steps_ahead > 0
    assert plan(PRODUCT, 16).steps_ahead == 0, "panels are dense"


def test_large_results_of_few_examples_are_written_row_by_row() -> None:
    gradient = Contraction((Axis("m", 4096, 1, 0, 1024), Axis("n", 1024, 0, 1, 1), Axis("k", None, 4096, 1024, None)))
    small = replace(gradient, axes=tuple(replace(a, extent=256) if a.name == "m" else a for a in gradient.axes))
    assert [g.axis for g in plan(gradient, 16).grid] == ["m", "n"]
    assert [g.axis for g in plan(small, 16).grid][-1] == "m"


@pytest.mark.parametrize(("inputs", "outputs", "by_rows"), [(64, 1024, True), (512, 1024, False), (64, 256, False)])
def test_projections_of_a_sequence_are_written_row_by_row(inputs: int, outputs: int, by_rows: bool) -> None:
    """Where a row is a page and little is to compute for it."""
    axes = (
        Axis("n", None, inputs, 0, outputs, per_batch=256),
        Axis("o", outputs // 64, 0, inputs * 64, 64),
        Axis("i", 64, 0, 1, 1),
        Axis("k", inputs, 1, 64, None),
    )
    assert ([g.axis for g in plan(Contraction(axes), 16).grid] == ["n", "o", "i"]) == by_rows


@pytest.mark.parametrize(("inputs", "sizes"), [(4096, (4, 2, 1)), (256, (4, 1))])
def test_two_examples_read_large_weights_once(inputs: int, sizes: tuple[int, ...]) -> None:
    product = Contraction((Axis("n", None, inputs, 0, 1024), Axis("o", 1024, 0, 1, 1), Axis("k", inputs, 1, 1024, None)))
    (rows,) = plan(product, 16).rows
    assert rows.size == 8 and rows.remainders == sizes


@pytest.mark.parametrize(("examples", "size", "fetched"), [(None, 56, True), (1, 56, False), (None, 7, False)])
def test_lines_of_large_results_are_asked_for_before_they_are_written(examples: int | None, size: int, fetched: bool) -> None:
    """Of a depthwise convolution: whole tiles ahead, so that no line is asked for twice."""
    c, pitch = 144, size + 2
    axes = (
        Axis("n", examples, pitch * pitch * c, 0, size * size * c),
        Axis("h", size, pitch * c, 0, size * c),
        Axis("w", size, c, 0, c),
        Axis("c", c, 1, 1, 1),
        Axis("kh", 3, pitch * c, 3 * c, None),
        Axis("kw", 3, c, c, None),
    )
    made = plan(Contraction(axes), 16)
    ahead = writes_ahead_of(made)
    assert made.paired and (ahead > 0) == fetched
    if fetched:
        assert ahead % (made.rows[0].size * (made.rows[0].axis.c or 0)) == 0 and 4 * ahead >= WRITES_AHEAD_BYTES
        assert writes_ahead_of(plan(PRODUCT, 16)) == 0, "that has more to do than to write"


@pytest.mark.parametrize(("pitch", "asked"), [(64 * 512, True), (512, False)])
def test_rows_that_the_epilogue_reads_far_apart_are_asked_for_before_the_sum(pitch: int, asked: bool) -> None:
    """One time step of projections [batch, 64, 512] lies in a page for each example; with a step alone rows are near each other."""
    projection = Load(3, name("n") * pitch + name("o") * 64 + name("i"), DType.F32)
    step = replace(PRODUCT, epilogue=Binary("add", Acc(DType.F32), projection, DType.F32))
    made = plan(step, 16)
    rows, (lanes, lines) = made.rows[0].size, (made.lanes.size if made.lanes else 0, (made.lanes.size if made.lanes else 0) // 16)
    text = emit(made).text
    tile = text[text.index(f"def tile_{rows}x{lanes}(") :]
    tile = tile[: tile.index("for k0")]
    assert reads_ahead_of(made) == ((0,) if asked else ())
    assert tile.count("prefetch(X0, ") == (rows * lines if asked else 0)
    assert (f"prefetch(X0, {(rows - 1) * pitch + (lines - 1) * 16})" in tile) == asked
    if asked:
        assert "if last != 0:" in tile, "once, where there are several chunks"


def test_plans_do_not_depend_on_what_was_planned_before() -> None:
    """An equal contraction, whose axes are other objects, gets the equal plan."""
    product = replace(PRODUCT, axes=tuple(replace(a, a=a.a + 1) if a.name == "n" else a for a in PRODUCT.axes), again=True)
    first = plan(product, 16)
    plan.cache_clear()
    other = replace(product, axes=tuple(replace(a) for a in product.axes))
    assert all(a is not b for a, b in zip(product.axes, other.axes, strict=True))
    assert plan(other, 16) == first and any(g.block for g in first.grid)


@pytest.mark.parametrize(("size", "channels", "together"), [(7, 512, True), (56, 64, False), (7, 32, False)])
def test_tiles_of_few_pixels_share_a_chunk_of_a_large_panel(size: int, channels: int, together: bool) -> None:
    """The tiles of a panel run chunk by chunk, and ask for the next chunk: not where they are many, nor for one chunk."""
    pitch = size + 2
    made = plan(
        Contraction(
            (
                Axis("n", None, pitch * pitch * channels, 0, size * size * 512),
                Axis("panel", 16, 0, channels * 9 * 32, 32),
                Axis("lane", 32, 0, 1, 1),
                Axis("y", size, pitch * channels, 0, size * 512),
                Axis("x", size, channels, 0, 512),
                Axis("c", channels, 1, 9 * 32, None),
                Axis("ky", 3, pitch * channels, 3 * 32, None),
                Axis("kx", 3, channels, 32, None),
            )
        ),
        16,
    )
    assert made.ahead is not None and made.ahead.chunks == together
    if together:
        assert made.ahead.distance == made.reduction.steps * 32
        assert [g.axis for g in made.grid if g.axis in ("n", "panel", "y")] == ["n", "panel", "y"]


def test_how_much_of_the_next_panel_to_ask_for_follows_from_the_batch() -> None:
    """Few examples of many rows make few tiles, each of which then asks for more of it, but for no more than a line a step."""
    axes = {a.name: a for a in PRODUCT.axes} | {"o": replace(PRODUCT.axis("o"), extent=32)}
    dense = plan(replace(PRODUCT, axes=tuple(axes.values())), 16)
    rows = plan(replace(PRODUCT, axes=tuple((axes | {"n": replace(axes["n"], per_batch=49)}).values())), 16)
    assert dense.ahead is not None and dense.ahead.step > 0
    assert rows.ahead is not None and rows.ahead.step == 0
    text = emit(rows).text
    assert "far = (64 + sharing - 1) // sharing" in text and "far = far if far < 16 else 16" in text
    assert "prefetch(NEXT, (k0 * 2 + k1) * far)" in text


def test_lines_are_asked_for_once() -> None:
    """Outside of the innermost loop, which LLVM unrolls then: as many lines as its steps ask for."""
    dense = plan(replace(PRODUCT, axes=tuple(replace(a, extent=32) if a.name == "o" else a for a in PRODUCT.axes)), 16)
    assert dense.ahead is not None
    text = emit(replace(dense, ahead=replace(dense.ahead, step=11))).text
    lines = text[text.index("def tile_") :].splitlines()
    first = next(n for n, line in enumerate(lines) if "for k0" in line)
    assert [line.strip() for line in lines[first : first + 4]] == [
        "for k0 in range(64):",
        "prefetch(NEXT, k0 * 22)",
        "prefetch(NEXT, 16 + k0 * 22)",
        "for k1 in range(2):",
    ]
