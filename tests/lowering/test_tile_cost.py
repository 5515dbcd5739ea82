"""What is known of a tile's cost before it is counted never exceeds it: the plan is that of counting every tile."""

from __future__ import annotations

import pytest

from dslc.lowering.contraction import Axis, Contraction, order_reduction
from dslc.lowering.tile_cost import TileCosts
from dslc.lowering.tile_grid import _block
from dslc.lowering.tiling import _roles, _shapes, _tilings, plan

PRODUCT = Contraction((Axis("n", None, 256, 0, 500), Axis("o", 500, 0, 1, 1), Axis("k", 256, 1, 500, None)))
GRADIENT = Contraction((Axis("m", 90, 1, 0, 70), Axis("o", 70, 0, 1, 1), Axis("k", None, 90, 70, None)))
WINDOW = Contraction(
    (
        Axis("n", None, 6 * 196, 0, 1600),
        Axis("h", 10, 14, 0, 160),
        Axis("w", 10, 1, 0, 16),
        Axis("o", 16, 0, 1, 1),
        Axis("c", 6, 196, 400, None),
        Axis("kh", 5, 14, 80, None),
        Axis("kw", 5, 1, 16, None),
    )
)


@pytest.mark.parametrize("c", [PRODUCT, GRADIENT, WINDOW], ids=["product", "gradient", "window"])
@pytest.mark.parametrize("width", [16, 8, 4])
def test_bounds_hold(c: Contraction, width: int) -> None:
    cheapest = []
    for roles in _roles(c):
        reduction = order_reduction(c, roles.dot, roles.vector == "a")
        costs = TileCosts(c, roles, reduction, width)
        for shape in _shapes(c, roles, reduction, width):
            assert costs.at_least(*shape) <= costs.of(*shape) * (1 + 1e-9)
        cheapest += [t.cycles for t in _tilings(c, roles, reduction, width)]
    if width == 16:
        assert plan(c, width).cycles == min(cheapest)


def test_a_block_of_tiles_has_one_at_least_and_all_at_most() -> None:
    """Also where far more tiles would fit than there are."""
    for tiles in range(1, 40):
        assert all(1 <= _block(tiles, most) <= min(tiles, most) for most in range(1, 300))
        assert _block(tiles, 300) == tiles
