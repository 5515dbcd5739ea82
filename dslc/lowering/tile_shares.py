"""How the threads share a grid of tiles: equal parts, and places of an image rather than channels, where both are possible.

What a thread writes stays in its own second-level cache. The next step finds it there where it shares its work by the same places.
"""

from __future__ import annotations

from math import prod

import numpy as np

from dslc.lowering.contraction import Axis
from dslc.lowering.schedules import THREADS, GridLoop, Schedule

EVEN = 0.03  # of a thread's work that the other may have more
WORTHWHILE = 0.01
SMALL_BYTES = 32 << 10  # of a vector operand that is read again for every row of tiles, from the first-level cache


def shared_by_places(s: Schedule, loops: tuple[GridLoop, ...], places: list[Axis]) -> tuple[GridLoop, ...]:
    """The loops, with one over two halves of an axis of `places` outside where that is better.

    `places` are axes of the broadcast operand alone, the outermost first, as rows and columns of an image are. Halves of one come
    before panels of the vector operand (channels) where an example's places are more bytes than all panels, which every thread reads
    then; and before loops that the threads cannot share evenly: ten rows of tiles of which the last is short.
    """
    leading = next((n for n, g in enumerate(loops) if _known(s, g) > 1), len(loops))
    free = [a for a in places if a.extent is not None and len(_sizes(s, a.name)) > 1 and not any(g.axis == a.name and g.block for g in loops)]
    if leading == len(loops) or not free or any(s.contraction.axis(g.axis).extent is None for g in loops[leading:]):
        return loops  # where panels are read once for all examples, that stays so
    halved = [_halved(s, loops, leading, a) for a in free]
    if any(a.name == loops[leading].axis for a in places):
        least, best = min(((unevenness(s, order), order) for order in halved), key=lambda found: found[0])
        return best if unevenness(s, loops) - least > WORTHWHILE else loops
    panels = _bytes(s, s.vector)
    if _bytes(s, s.scalar) + _bytes(s, "c") <= panels:
        return loops
    if panels <= SMALL_BYTES:
        rows = next(g for g in loops if g.axis == free[0].name)
        return (*loops[:leading], rows, *(g for g in loops[leading:] if g != rows))
    return next((order for order in halved if unevenness(s, order) <= EVEN), loops)


def _halved(s: Schedule, loops: tuple[GridLoop, ...], leading: int, axis: Axis) -> tuple[GridLoop, ...]:
    half = GridLoop(axis.name, -(-len(_sizes(s, axis.name)) // THREADS))
    inner = GridLoop(axis.name, half.block, inner=True)
    return (*loops[:leading], half, *(inner if g.axis == axis.name else g for g in loops[leading:]))


def unevenness(s: Schedule, loops: tuple[GridLoop, ...]) -> float:
    """How much more than half of the elements the first or the second half of the tiles has, of one example."""
    known = [g for g in loops if _known(s, g) > 1]
    work = np.ones([1] * len(known))
    for name in dict.fromkeys(g.axis for g in known):
        sizes = list(_sizes(s, name))
        dims = [n for n, g in enumerate(known) if g.axis == name]
        block = next((g.block for g in known if g.axis == name and g.block), 0)
        counts = [-(-len(sizes) // block), block] if len(dims) == 2 else [len(sizes)]
        padded = np.array(sizes + [0] * (prod(counts) - len(sizes)), float).reshape(counts)
        shape = [1] * len(known)
        for n, count in zip(dims, counts, strict=True):
            shape[n] = count
        work = work * padded.reshape(shape)
    flat = work.reshape(-1)
    first = float(flat[: len(flat) // THREADS].sum() / flat.sum())
    return abs(THREADS * first - 1)


def _sizes(s: Schedule, name: str) -> tuple[int, ...]:
    """Elements of each tile of an axis, one example's."""
    tiled = (*s.rows, *s.columns, *((s.lanes,) if s.lanes else ()))
    found = next((t for t in tiled if t.axis.name == name), None)
    return found.tiles(1) if found is not None else (1,) * s.contraction.axis(name).size(1)


def _known(s: Schedule, g: GridLoop) -> int:
    """Iterations of a loop for one example."""
    return g.turns(len(_sizes(s, g.axis)))


def _bytes(s: Schedule, operand: str) -> int:
    """What an example has of an operand, taps left out, or all of one that examples share."""
    axes = [a for a in s.contraction.axes if not (operand == s.scalar and _is_tap(s, a))]
    return s.contraction.dtype.size * prod(a.size(1) for a in axes if ((a.c or 0) if operand == "c" else s.stride(a, operand)))


def _is_tap(s: Schedule, axis: Axis) -> bool:
    """Whether a reduction axis steps over elements of the broadcast operand that an output axis steps over too."""
    step = s.stride(axis, s.scalar)
    return axis.reduction and any(own and step % own == 0 for own in (abs(s.stride(a, s.scalar)) for a in s.contraction.outputs))
