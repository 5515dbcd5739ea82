"""Sums in any order, for measuring what a fixed one costs: nothing but a benchmark compiles like this.

A compiler that is free to reorder would cut sums where it likes, or not at all, and would give a tile with few accumulators several
sets of them, which are added at the end: a sum in one accumulator waits four cycles for every fma.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dslc.lowering.contraction import Contraction, Reduction
from dslc.lowering.schedules import BATCH_HINT, Schedule, product_of, stride_of
from dslc.lowering.tile_cost import L1_BYTES
from dslc.lowering.tile_grid import BUSY, footprint

UNCUT = 1 << 30  # steps: more than any batch has


def free_orders(c: Contraction, fixed: Reduction) -> Iterator[Reduction]:
    """The reduction with longer chunks, up to one for everything; never with more chunks, which would need memory for them."""
    if fixed.single or fixed.cut is None:
        return
    cut = fixed.cut
    most = cut.extent if cut.extent is not None else UNCUT
    block = fixed.block
    while block < min(most, 64 * fixed.block):
        block = min(most, block * 2)
        yield replace(fixed, block=block)
    if fixed.outside or cut.extent is None:
        yield replace(fixed, block=most)
    if all(a.extent is not None for a in (*fixed.outside, cut)):
        outermost, *others = (*fixed.outside, cut)
        yield Reduction((), outermost, outermost.extent or 1, (*others, *fixed.inside))


def fits_cache(c: Contraction, r: Reduction) -> bool:
    """Whether what a chunk reads of both operands stays in the first-level cache while all tiles use it."""
    chunk = [(a, a.size(BATCH_HINT)) for a in (*r.inside, *c.outputs)]
    if r.cut is not None:
        chunk.append((r.cut, min(r.block, r.cut.size(BATCH_HINT))))
    elements = sum(footprint([(extent, stride_of(a, operand)) for a, extent in chunk]) for operand in "ab")
    return elements * c.dtype.size <= L1_BYTES


def sums_of(s: Schedule) -> int:
    """Sets of accumulators for a broadcast tile: as many as the fma units can use, where they divide the innermost loop."""
    loop = s.reduction.inside[-1] if s.reduction.inside else s.reduction.cut
    if (
        s.dot is not None
        or s.paired
        or s.bounds is not None
        or s.taps is not None
        or loop is None
        or loop.extent is None
        or s.ahead is not None
    ):
        return 1
    steps = loop.extent if s.reduction.inside else s.reduction.block
    if not s.reduction.inside and loop.extent % steps:
        return 1
    vectors = -(-s.lanes.size // s.width) if s.lanes is not None else 1
    sums = vectors * product_of(s.rows) * product_of(s.columns)
    return next((n for n in (4, 2) if n * sums <= BUSY and steps % n == 0 and steps >= 4 * n), 1)
