"""The schedule of a contraction: register tile, loops around it, cache blocks.

`plan(contraction, width)` enumerates a few hundred register tiles, counts for each the cycles that a core with two fma units
and two load ports would need, and keeps the cheapest. Which axis the lanes run along is decided at 16 lanes whatever the
width, because the order of a sum depends on it; rows and vectors of the tile then fit the width's registers.

`alternatives` are the schedules that may take the planned one's place when tiles are measured: their sums have the same order.
With `order="free"`, which nothing but a benchmark asks for, sums may run in any order: it says what the same bits cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, prod

from dslc.lowering.contraction import Axis, Contraction, Reduction, normalise, order_reduction
from dslc.lowering.free_order import fits_cache, free_orders, sums_of
from dslc.lowering.schedules import LANES, Roles, Schedule, Segment, Tiled, product_of, stride_of, unroll_of, windows_of
from dslc.lowering.tile_cost import TileCosts, registers
from dslc.lowering.tile_grid import ahead_of, chunks_outside, finer_rows, grid_of, rows_ahead_of, several_panels, steps_ahead_of

LONG_SUM = 64  # steps from which the end of a tile costs little
SURELY = 1 + 1e-9  # bounds are rounded


@dataclass(frozen=True, slots=True)
class Tiling:
    """A register tile for a choice of axes and an order of the reduction, and the cycles it is expected to take."""

    cycles: float
    roles: Roles
    reduction: Reduction
    lanes: Tiled | None
    rows: tuple[Tiled, ...]
    columns: tuple[Tiled, ...]


@lru_cache(maxsize=1024)
def plan(contraction: Contraction, width: int, order: str = "fixed") -> Schedule:
    """The schedule for vectors of `width` lanes (16, 8 or 4)."""
    c = _complete(contraction)
    found: Tiling | None = None
    for roles in _roles(c):
        reduction = order_reduction(c, roles.dot, roles.vector == "a")
        found = _cheapest(c, roles, reduction, LANES, found)
    assert found is not None
    roles, reduction = found.roles, found.reduction
    if width != LANES:
        found = _cheapest(c, roles, reduction, width, None)
        assert found is not None
    outside = chunks_outside(c, roles, reduction, found.lanes, found.rows, found.columns)
    if order == "fixed":
        return _schedule(c, found, width, outside)
    for loose in free_orders(c, reduction):
        if not outside or fits_cache(c, loose):  # chunks outside of the tiles are blocks for the cache, which any compiler makes
            found = _cheapest(c, roles, loose, width, found) or found
    made = _schedule(c, found, width, outside)
    return replace(made, sums=sums_of(made))


def alternatives(contraction: Contraction, width: int, count: int, order: str = "fixed") -> tuple[Schedule, ...]:
    """The planned schedule, then the most promising others that give the same bits, `count` in all.

    They differ in the tile, in which operand is read in vectors, and in whether chunks run inside or outside of the tiles. Form,
    order and chunks of the reduction are the planned ones, and the same products with a halo are left out.
    """
    planned = plan(contraction, width, order)
    own = tile_text(planned)
    made = {_shape_of(planned.lanes, planned.rows, _own_columns(planned), planned.vector, planned.reduction, planned.chunks_outside): planned}
    for tiling, outside in _others(planned, order):
        if outside != planned.chunks_outside and _tile_text(tiling, planned.chunks_outside) != own:
            continue  # chunks elsewhere are tried with the planned tile alone
        shape = _shape_of(tiling.lanes, tiling.rows, tiling.columns, tiling.roles.vector, tiling.reduction, outside)
        if shape in made:
            continue
        if len(made) == count:
            break
        made[shape] = _schedule(planned.contraction, tiling, width, outside)
        if order == "free":
            made[shape] = replace(made[shape], sums=sums_of(made[shape]))
    return tuple(made.values())


def _shape_of(
    lanes: Tiled | None, rows: tuple[Tiled, ...], columns: tuple[Tiled, ...], vector: str, reduction: Reduction, outside: bool
) -> tuple[object, ...]:
    """What makes alternatives differ: tiles of one element along an axis, and the order of the axes, do not."""
    tiled = (*rows, *columns, *((lanes,) if lanes is not None else ()))
    return frozenset((t.axis.name, t.size) for t in tiled if t.size > 1), vector, reduction, outside


def find_alternative(contraction: Contraction, width: int, text: str) -> Schedule | None:
    """The alternative that `tile_text` describes so, or None where there is none."""
    planned = plan(contraction, width)
    if tile_text(planned) == text:
        return planned
    found = next((o for o in _others(planned, "fixed") if _tile_text(*o) == text), None)
    return None if found is None else _schedule(planned.contraction, found[0], width, found[1])


def tile_text(s: Schedule) -> str:
    """The tile in a line: the largest along each axis, the operand that is read in vectors, where chunks run."""
    roles = Roles(s.scalar, s.vector, s.dot, s.lanes.axis if s.lanes is not None else None, (), ())
    return _tile_text(Tiling(s.cycles, roles, s.reduction, s.lanes, s.rows, _own_columns(s)), s.chunks_outside)


def _own_columns(s: Schedule) -> tuple[Tiled, ...]:
    """The columns of the tile that was chosen: without those that follow from it."""
    return () if s.columns == several_panels(replace(s, columns=())) else s.columns


def _tile_text(t: Tiling, outside: bool) -> str:
    tiled = (*t.rows, *t.columns, *((t.lanes,) if t.lanes is not None else ()))
    tile = " x ".join(f"{part.axis.name} {part.size}" for part in tiled) or "one"
    lanes = f", lanes along {t.roles.dot.name}" if t.roles.dot is not None else f", vectors of {t.roles.vector}"
    return f"{tile}{lanes}, chunks of {t.reduction.steps}{' outside' if outside else ''}"


def _others(planned: Schedule, order: str) -> Iterator[tuple[Tiling, bool]]:
    """Tilings with sums in the order of the planned schedule, or in any, and whether chunks run outside; the most promising first."""
    c, width = planned.contraction, planned.width
    found: list[Tiling] = []
    for roles in _roles(c):
        reduction = order_reduction(c, roles.dot, roles.vector == "a")
        if order == "free":
            for loose in (reduction, *free_orders(c, reduction)):
                found += _tilings(c, roles, loose, width)
            continue
        same = roles.dot == planned.dot and reduction == planned.reduction
        if same and windows_of(c, roles, reduction) == (planned.bounds, planned.taps):
            found += _tilings(c, roles, reduction, width)
    for tiling in sorted(found, key=lambda t: t.cycles):
        for outside in (False,) if tiling.reduction.single else (planned.chunks_outside, not planned.chunks_outside):
            yield tiling, outside


def _complete(contraction: Contraction) -> Contraction:
    c = normalise(contraction)
    if not any(True for _ in _roles(c)):  # no axis for the lanes: vectors with one valid lane
        c = replace(c, axes=(*c.axes, Axis("one", 1, 0, 0, 0)))
    if not c.reductions:
        c = replace(c, axes=(*c.axes, Axis("k", 1, 0, 0, None)))
    return c


def _schedule(c: Contraction, t: Tiling, width: int, outside: bool) -> Schedule:
    roles, reduction = t.roles, t.reduction
    bounds, taps = windows_of(c, roles, reduction)
    draft = Schedule(
        c,
        width,
        roles.scalar,
        roles.vector,
        roles.dot,
        t.lanes,
        t.rows,
        t.columns,
        reduction,
        outside and not reduction.single,
        (),
        t.cycles,
        bounds=bounds,
        taps=taps,
        unroll=unroll_of(c, roles, reduction),
    )
    draft = replace(draft, rows=finer_rows(draft), columns=several_panels(draft))
    draft = replace(draft, grid=grid_of(draft))
    return replace(draft, ahead=ahead_of(draft), rows_ahead=rows_ahead_of(draft), steps_ahead=steps_ahead_of(draft))


# ---- roles ----------------------------------------------------------------------------------------------------------


def _roles(c: Contraction) -> Iterator[Roles]:
    """Every sensible assignment of axes: lanes along an output axis of one operand (broadcast form) or of both (paired form), or
    along a reduction axis (dot form)."""
    for vector, scalar in (("b", "a"), ("a", "b")):
        only_scalar = [a for a in c.outputs if stride_of(a, scalar) and not stride_of(a, vector)]
        only_vector = [a for a in c.outputs if stride_of(a, vector) and not stride_of(a, scalar)]
        for lanes in c.outputs:
            if lanes.extent is not None and not stride_of(lanes, scalar):
                others = [a for a in only_vector if a is not lanes and _window(c, a, vector)]
                for rows in _subsets(only_scalar):
                    for columns in [(), *((a,) for a in others)]:
                        yield Roles(scalar, vector, None, lanes, rows, columns)
        if vector == "a":
            continue
        for lanes in c.outputs:
            if lanes.extent is not None and lanes.a == 1 and lanes.b:
                for rows in _subsets(only_scalar):
                    yield Roles(scalar, vector, None, lanes, rows, ())
        for dot in c.reductions:
            if dot.a == dot.b == 1 and dot.extent is not None:
                for rows in _subsets(only_scalar):
                    for columns in _subsets(only_vector):
                        yield Roles(scalar, vector, dot, None, rows, columns)


def _window(c: Contraction, axis: Axis, vector: str) -> bool:
    """Whether neighbours along the axis read overlapping parts of the vector operand; else they are streams of their own."""
    return any(a.reduction and abs(stride_of(a, vector)) >= abs(stride_of(axis, vector)) for a in c.reductions)


def _subsets(axes: list[Axis]) -> list[tuple[Axis, ...]]:
    """No axis, one, or two (the second must be short and static, it is tiled without remainder)."""
    pairs = [(p, q) for p in axes for q in axes if p is not q and q.extent is not None]
    return [(), *((a,) for a in axes), *pairs]


# ---- tile sizes -----------------------------------------------------------------------------------------------------


Shape = tuple[Tiled | None, tuple[Tiled, ...], tuple[Tiled, ...]]
"""Lanes, rows and columns of a register tile."""


def _cheapest(c: Contraction, roles: Roles, reduction: Reduction, width: int, other: Tiling | None) -> Tiling | None:
    """The first of the cheapest tilings, or the other one where none is cheaper. Few are counted: most cannot be the cheapest."""
    costs = TileCosts(c, roles, reduction, width)
    bounded = sorted(((costs.at_least(*shape), n, shape) for n, shape in enumerate(_shapes(c, roles, reduction, width))), key=lambda b: b[:2])
    best: tuple[float, int, Shape] | None = None
    for bound, n, shape in bounded:
        if bound > SURELY * min(best[0] if best else inf, other.cycles if other else inf):
            break
        cycles = costs.of(*shape)
        if best is None or (cycles, n) < best[:2]:
            best = cycles, n, shape
    if best is None or (other is not None and other.cycles <= best[0]):
        return other
    return Tiling(best[0], roles, reduction, *best[2])


def _tilings(c: Contraction, roles: Roles, reduction: Reduction, width: int) -> Iterator[Tiling]:
    """Every register tile that fits, with its cost."""
    costs = TileCosts(c, roles, reduction, width)
    for lanes, rows, columns in _shapes(c, roles, reduction, width):
        yield Tiling(costs.of(lanes, rows, columns), roles, reduction, lanes, rows, columns)


def _shapes(c: Contraction, roles: Roles, reduction: Reduction, width: int) -> Iterator[Shape]:
    """Every register tile that fits."""
    each, available = registers(width, c.dtype)
    if roles.dot is not None:
        each *= LANES // width
    _, taps = windows_of(c, roles, reduction)
    sliding = unroll_of(c, roles, reduction) > 1
    for vectors in _vector_counts(roles, width):
        lanes = _vector_segments(c, roles.lanes, vectors, width) if roles.lanes is not None else None
        for columns in _tile_pairs(roles.columns, available):
            wide = vectors * product_of(columns)
            if each * wide >= available:
                continue
            for rows in _tile_pairs(roles.rows, available):
                count = product_of(rows) * wide
                spare = each if roles.dot is not None or wide > 1 else 0
                if taps is not None:  # the rows' vectors stay in registers from tap to tap
                    if len(rows[0].segments) > 1 or rows[0].runtime:
                        continue
                    spare = each * rows[0].size
                    rows = (_one_by_one(rows[0]),)
                if roles.paired:  # rows that slide keep theirs
                    spare = each * vectors * (product_of(rows) + 2)
                elif sliding:  # and so do those of rows that slide
                    spare = each * rows[0].size * -(-(roles.dot.extent or 1) // LANES) if roles.dot and width == LANES else each
                if (count + wide) * each + spare > available and (count > 1 or wide > 1):
                    continue
                yield lanes, rows, columns


def _one_by_one(t: Tiled) -> Tiled:
    """The same tiles, a segment each: every one is a variant of its own."""
    return Tiled(t.axis, tuple(Segment(n * t.size, t.size, 1) for n in range((t.axis.extent or 1) // t.size)))


def _vector_counts(roles: Roles, width: int) -> list[int]:
    if roles.lanes is None or roles.lanes.extent is None:
        return [1]
    return list(range(1, min(8, -(-roles.lanes.extent // width)) + 1))


def _vector_segments(c: Contraction, axis: Axis, vectors: int, width: int) -> Tiled:
    extent, size = axis.extent or 1, vectors * width
    full, left = divmod(extent, size)
    dense = axis.c == 1
    overlap = size - left if left else 0
    long = sum(1 for a in c.reductions if a.extent is None) or prod(a.extent or 1 for a in c.reductions) >= LONG_SUM
    if full and left and dense and long and (overlap < width or (overlap == width and full >= 8)):
        return Tiled(axis, (Segment(0, size, full + 1),), overlap)  # no second variant of the tile
    segments = [Segment(0, size, full)] if full else []
    if left:
        segments.append(Segment(full * size, left, 1))
    return Tiled(axis, tuple(segments))


def _tile_pairs(axes: tuple[Axis, ...], limit: int) -> Iterator[tuple[Tiled, ...]]:
    if not axes:
        yield ()
        return
    second = [1] if len(axes) == 1 else [d for d in range(1, limit) if (axes[1].extent or 1) % d == 0]
    for inner in second:
        for tiled in _segmentations(axes[0], limit // inner):
            if len(axes) == 1:
                yield (tiled,)
            else:
                yield tiled, Tiled(axes[1], (Segment(0, inner, (axes[1].extent or 1) // inner),))


def _segmentations(axis: Axis, limit: int) -> Iterator[Tiled]:
    """Tiles of one size, or of two sizes where that covers the extent: 128 = 8 * 14 + 2 * 8."""
    return (Tiled(axis, segments) for segments in _divisions(axis.extent, limit))


@lru_cache(maxsize=256)
def _divisions(extent: int | None, limit: int) -> tuple[tuple[Segment, ...], ...]:
    if extent is None:
        return tuple((Segment(0, size, None),) for size in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14) if size <= limit)
    found: list[tuple[Segment, ...]] = []
    for size in range(1, min(limit, extent, 15) + 1):
        for count in range(extent // size, max(0, extent // size - 4), -1):
            left = extent - count * size
            first = Segment(0, size, count)
            if not left:
                found.append((first,))
                continue
            for other in range(min(size - 1, left), 0, -1):
                if left % other == 0 and left // other <= 3:
                    found.append((first, Segment(count * size, other, left // other)))
                    break
    return tuple(found)
