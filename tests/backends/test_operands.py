"""Products of what a view shows: from where the run-time batch ends, or backwards along an axis of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dslc.backends.cpu.build import Workers
from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.types import DType
from tests.backends.small_programs import small

F32 = DType.F32
N = dims.name("N")

PRODUCTS: dict[str, Callable[[Builder, Value, Value], Value]] = {
    "batch backwards": lambda b, x, w: b.matmul(b.flip(x, axis=0), w),
    "columns backwards": lambda b, x, w: b.matmul(b.flip(x, axis=1), w),
    "examples against the last first": lambda b, x, w: b.matmul(b.transpose(x), b.flip(x, axis=0)),
    "product backwards": lambda b, x, w: b.flip(b.matmul(x, w), axis=0),
}


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as pool:
        yield pool


@pytest.mark.parametrize("what", sorted(PRODUCTS))
def test_products_of_views(what: str, workers: Workers) -> None:
    made = small([(F32, (N, 20)), (F32, (20, 6))], PRODUCTS[what], batch=True)
    rng = np.random.default_rng(3)
    for batch in (1, 5):
        arrays = [rng.standard_normal((batch, 20)).astype(np.float32), rng.standard_normal((20, 6)).astype(np.float32)]
        got, want = made.run(workers, arrays), made.interpreted(arrays)
        np.testing.assert_allclose(got["y0"], want["y0"], rtol=2e-5, atol=2e-5)
