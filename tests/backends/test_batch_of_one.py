"""A batch of one has a body of its own in a dense layer's kernel: it gives the bits that the same example has in any batch."""

from __future__ import annotations

import numpy as np
import pytest

import dslc

SOURCE = """
dim N <= 64
model Net(x: f32[N, 900]) -> f32[N, 130] { return x |> Dense[260, relu] |> Dense[130] }
"""


@pytest.mark.parametrize("width", [16, 8])
def test_one_example_has_the_same_bits_alone(width: int) -> None:
    net = dslc.compile(SOURCE, width=width)
    x = np.random.default_rng(3).standard_normal((7, 900)).astype(np.float32)
    together = net(x=x)
    for n in range(7):
        assert net(x=x[n : n + 1]).tobytes() == together[n : n + 1].tobytes()
