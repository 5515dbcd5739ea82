"""A batch of one has a body of its own in a dense layer's kernel: it gives the bits that the same example has in any batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dslc
from dslc.lowering.contraction import Axis, Contraction
from dslc.lowering.tiling import alternatives, find_alternative, plan, tile_text

SOURCE = """
dim N <= 64
model Net(x: f32[N, 900]) -> f32[N, 130] { return x |> Dense[512, relu] |> Dense[260, relu] |> Dense[130] }
"""


@pytest.mark.parametrize("width", [16, 8])
def test_one_example_has_the_same_bits_alone(width: int) -> None:
    net = dslc.compile(SOURCE, width=width)
    x = np.random.default_rng(3).standard_normal((7, 900)).astype(np.float32)
    together = net(x=x)
    for n in range(7):
        assert net(x=x[n : n + 1]).tobytes() == together[n : n + 1].tobytes()


def test_one_example_takes_several_panels_at_once() -> None:
    """Two sums in a tile of one row would wait for each other; panels that come from memory are read one by one."""
    panels = (Axis("o", 16, 0, 784 * 32, 32), Axis("i", 32, 0, 1, 1), Axis("k", 784, 1, 32, None))
    (columns,) = plan(Contraction(panels), 16).columns
    assert (columns.axis.name, columns.size) == ("o", 4)
    assert plan(Contraction((replace(panels[0], extent=160), *panels[1:])), 16).columns == ()
    rows = plan(Contraction((Axis("n", 64, 784, 0, 512), *panels)), 16)
    assert rows.columns == () and rows.rows[0].size > 1


def test_tiles_over_several_panels_are_found_by_their_text() -> None:
    one = Contraction((Axis("o", 16, 0, 784 * 32, 32), Axis("i", 32, 0, 1, 1), Axis("k", 784, 1, 32, None)))
    made = alternatives(one, 16, 4)
    assert len({tile_text(s) for s in made}) == len(made) > 1 and made[0].columns
    assert all(find_alternative(one, 16, tile_text(s)) == s for s in made)
