"""What each of two threads does of a grid of tiles."""

from __future__ import annotations

import pytest

from dslc.backends.cpu.sharing import splits_inside
from dslc.ir import dims
from dslc.ir.loops import For
from dslc.ir.types import DType
from dslc.lowering.contraction import Axis, Contraction
from dslc.lowering.layout import Layout
from dslc.lowering.operands import border
from dslc.lowering.schedules import GridLoop, Schedule
from dslc.lowering.tile_shares import EVEN, unevenness
from dslc.lowering.tiling import plan


def convolution(size: int, channels: int, panels: int, lanes: int, k: int = 3) -> Schedule:
    """An image of size x size places to panels of channels, a border around both."""
    pitch, out = size + 2, panels * lanes
    axes = (
        Axis("n", None, pitch * pitch * channels, 0, pitch * pitch * out),
        Axis("panel", panels, 0, channels * k * k * lanes, lanes),
        Axis("lane", lanes, 0, 1, 1),
        Axis("y", size, pitch * channels, 0, pitch * out),
        Axis("x", size, channels, 0, out),
        Axis("c", channels, 1, k * k * lanes, None),
        Axis("ky", k, pitch * channels, k * lanes, None),
        Axis("kx", k, channels, lanes, None),
    )
    return plan(Contraction(axes), 16)


def outermost(s: Schedule) -> str:
    """The first loop that has more than one iteration for an example."""
    return next(g.axis for g in s.grid if len(tiles(s, g.axis)) > 1)


def tiles(s: Schedule, name: str) -> tuple[int, ...]:
    tiled = {t.axis.name: t.tiles(1) for t in (*s.rows, *s.columns, *((s.lanes,) if s.lanes else ()))}
    return tiled.get(name, (1,) * s.contraction.axis(name).size(1))


@pytest.mark.parametrize(("size", "channels", "lanes"), [(56, 64, 64), (128, 32, 32), (64, 64, 64)])
def test_columns_are_shared_where_rows_cannot_be_halved(size: int, channels: int, lanes: int) -> None:
    made = convolution(size, channels, 1, lanes)
    rows = tiles(made, "y")
    assert abs(2 * sum(rows[: len(rows) // 2]) / size - 1) > 0.01
    assert outermost(made) == "x" and unevenness(made, made.grid) <= EVEN


@pytest.mark.parametrize(
    ("size", "channels", "panels", "lanes", "shared"),
    [(56, 24, 3, 48, "place"), (28, 32, 4, 48, "place"), (14, 64, 12, 32, "place"), (14, 512, 16, 32, "panel"), (7, 160, 20, 48, "panel")],
)
def test_places_are_shared_where_they_are_more_than_weights(size: int, channels: int, panels: int, lanes: int, shared: str) -> None:
    """So that a thread finds in its own cache what it wrote; large weights are read by one thread each."""
    found = outermost(convolution(size, channels, panels, lanes, k=1))
    assert found == "panel" if shared == "panel" else found in "yx"


def test_unevenness_counts_elements_not_tiles() -> None:
    made = convolution(56, 64, 1, 64)
    rows = tiles(made, "y")
    assert len(rows) % 2 == 0 and rows[-1] < rows[0]
    assert unevenness(made, (GridLoop("y"),)) == pytest.approx(2 * sum(rows[: len(rows) // 2]) / 56 - 1)
    assert unevenness(made, (GridLoop("x"), GridLoop("y"))) == 0


def test_threads_share_the_border_of_a_single_image() -> None:
    layout = Layout((0, 2, 3, 1), (dims.name("N"), 32, 6, 7), (0, 0, 1, 1), (0, 0, 1, 1))
    (examples,) = border(layout, DType.F32, "N").body
    assert isinstance(examples, For) and examples.kind == "parallel" and splits_inside(examples)
