"""The schedule of a contraction: register tile, loops around it, cache blocks.

`plan(contraction, width)` enumerates a few hundred register tiles, counts for each the cycles that a core with two fma units
and two load ports would need, and keeps the cheapest. Which axis the lanes run along is decided at 16 lanes whatever the
width, because the order of a sum depends on it; rows and vectors of the tile then fit the width's registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd, inf, prod

from dslc.ir.types import DType
from dslc.lowering.contraction import Axis, Contraction, Reduction, coefficient, normalise, order_reduction

LANES = 16
BATCH_HINT = 32  # the batch that a schedule is chosen for where the axis is run-time sized; any batch runs correctly
L1_BYTES = 32 << 10  # of 32 to 48 KiB
AHEAD_BYTES = 256 << 10  # a vector operand of this size is not expected in the second-level cache when a panel is first read
L2_BYTES = 512 << 10  # of 1 to 2 MiB: what a block of the broadcast operand may take
FMA_LATENCY = 4
CACHE_WAYS = 8  # lines at one distance of 4 KiB that the first-level cache holds
LONG_SUM = 64  # steps from which the end of a tile costs little
THREADS = 2  # that tiles should divide among; any number runs correctly
TILE_CYCLES = 20.0  # calling a tile and starting its loops


@dataclass(frozen=True, slots=True)
class Segment:
    """`count` tiles of `size` along a tiled axis, from `start`. `count` None: the run-time extent's full tiles, `size` each;
    what is left is covered by tiles of 4 and 1."""

    start: int
    size: int
    count: int | None


@dataclass(frozen=True, slots=True)
class Tiled:
    """An output axis inside the register tile, cut into segments. For the vector axis sizes are elements.

    `overlap`: the last tile moves back by so many elements to end with the axis, and does not store those again.
    """

    axis: Axis
    segments: tuple[Segment, ...]
    overlap: int = 0

    @property
    def size(self) -> int:
        """The largest tile."""
        return max(s.size for s in self.segments)

    @property
    def runtime(self) -> bool:
        return self.segments[0].count is None

    @property
    def remainders(self) -> tuple[int, ...]:
        """Sizes that cover what full tiles of a run-time extent leave, each as often as it fits."""
        if not self.runtime:
            return ()
        unit = gcd(self.axis.per_batch, self.size)  # what is left is a multiple of it
        if unit == self.size:
            return ()
        sizes = [p for p in (4, 1) if p < self.size and p >= unit and p % unit == 0]
        return tuple(sizes) if sizes and sizes[-1] == unit else (*sizes, unit)

    def tiles(self, batch: int = BATCH_HINT) -> tuple[int, ...]:
        """The sizes of all tiles in order."""
        if not self.runtime:
            return tuple(s.size for s in self.segments for _ in range(s.count or 0))
        sizes, left = [], self.axis.size(batch)
        for size in (self.size, *self.remainders):
            sizes += [size] * (left // size)
            left %= size
        return tuple(sizes)


@dataclass(frozen=True, slots=True)
class GridLoop:
    """A loop over tiles or over an axis outside the tile. `block` > 0 cuts a tiled axis's loop in two: this is the outer one
    (`inner` False), over blocks of so many tiles, or the inner one."""

    axis: str
    block: int = 0
    inner: bool = False


@dataclass(frozen=True, slots=True)
class Ahead:
    """Prefetching of the next panel of the vector operand while this one is used.

    The next panel begins `distance` elements further. Each of the tiles that share a panel (the grid's last `loops` loops) asks
    for an equal part of it, `step` elements in every step of the reduction.
    """

    distance: int
    step: int
    loops: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a contraction runs; everything the printer needs.

    `scalar` and `vector` name the operands ("a" or "b") that are broadcast and loaded in vectors. `rows` are tiled axes of the
    scalar operand, `columns` of the vector operand (without the lanes' own), `lanes` the tiled vector axis, None in dot form.
    """

    contraction: Contraction
    width: int
    scalar: str
    vector: str
    dot: Axis | None
    lanes: Tiled | None
    rows: tuple[Tiled, ...]
    columns: tuple[Tiled, ...]
    reduction: Reduction
    chunks_outside: bool
    grid: tuple[GridLoop, ...]
    cycles: float
    ahead: Ahead | None = None

    def stride(self, axis: Axis, operand: str) -> int:
        return axis.a if operand == "a" else axis.b


@dataclass(frozen=True, slots=True)
class _Roles:
    """A choice of operands and axes, before tile sizes."""

    scalar: str
    vector: str
    dot: Axis | None
    lanes: Axis | None
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]


@lru_cache(maxsize=1024)
def plan(contraction: Contraction, width: int) -> Schedule:
    """The schedule for vectors of `width` lanes (16, 8 or 4)."""
    c = normalise(contraction)
    if not any(True for _ in _roles(c)):  # no axis for the lanes: vectors with one valid lane
        c = replace(c, axes=(*c.axes, Axis("one", 1, 0, 0, 0)))
    if not c.reductions:
        c = replace(c, axes=(*c.axes, Axis("k", 1, 0, 0, None)))
    best: tuple[float, int, _Roles] | None = None
    for number, roles in enumerate(_roles(c)):
        reduction = order_reduction(c, roles.dot, roles.vector == "a")
        cost = min((cycles for cycles, *_ in _tilings(c, roles, reduction, LANES)), default=inf)
        if best is None or (cost, number) < best[:2]:
            best = cost, number, roles
    assert best is not None
    roles = best[2]
    reduction = order_reduction(c, roles.dot, roles.vector == "a")
    cycles, lanes, rows, columns = min(_tilings(c, roles, reduction, width), key=lambda t: t[0])
    outside = not reduction.single and _chunks_outside(c, roles, reduction, lanes, rows, columns)
    draft = Schedule(c, width, roles.scalar, roles.vector, roles.dot, lanes, rows, columns, reduction, outside, (), cycles)
    draft = replace(draft, grid=_grid(draft))
    return replace(draft, ahead=_ahead(draft))


# ---- roles ----------------------------------------------------------------------------------------------------------


def _stride(axis: Axis, operand: str) -> int:
    return axis.a if operand == "a" else axis.b


def _roles(c: Contraction) -> Iterator[_Roles]:
    """Every sensible assignment of axes: lanes along an output axis (broadcast form) or a reduction axis (dot form)."""
    for vector, scalar in (("b", "a"), ("a", "b")):
        only_scalar = [a for a in c.outputs if _stride(a, scalar) and not _stride(a, vector)]
        only_vector = [a for a in c.outputs if _stride(a, vector) and not _stride(a, scalar)]
        for lanes in c.outputs:
            if lanes.extent is not None and not _stride(lanes, scalar):
                others = [a for a in only_vector if a is not lanes and _window(c, a, vector)]
                for rows in _subsets(only_scalar):
                    for columns in [(), *((a,) for a in others)]:
                        yield _Roles(scalar, vector, None, lanes, rows, columns)
        if vector == "a":
            continue
        for dot in c.reductions:
            if dot.a == dot.b == 1 and dot.extent is not None:
                for rows in _subsets(only_scalar):
                    for columns in _subsets(only_vector):
                        yield _Roles(scalar, vector, dot, None, rows, columns)


def _window(c: Contraction, axis: Axis, vector: str) -> bool:
    """Whether neighbours along the axis read overlapping parts of the vector operand; else they are streams of their own."""
    return any(a.reduction and abs(_stride(a, vector)) >= abs(_stride(axis, vector)) for a in c.reductions)


def _subsets(axes: list[Axis]) -> list[tuple[Axis, ...]]:
    """No axis, one, or two (the second must be short and static, it is tiled without remainder)."""
    pairs = [(p, q) for p in axes for q in axes if p is not q and q.extent is not None]
    return [(), *((a,) for a in axes), *pairs]


# ---- tile sizes -----------------------------------------------------------------------------------------------------


def registers(width: int, dtype: DType) -> tuple[int, int]:
    """(registers a vector takes, registers there are): 32 with AVX-512, 16 below."""
    each = max(1, width * dtype.size // (64 if width == 16 else 4 * width))
    return each, 32 if width == 16 else 16


def _tilings(
    c: Contraction, roles: _Roles, reduction: Reduction, width: int
) -> Iterator[tuple[float, Tiled | None, tuple[Tiled, ...], tuple[Tiled, ...]]]:
    """(cycles, lanes, rows, columns) of every register tile that fits."""
    each, available = registers(width, c.dtype)
    if roles.dot is not None:
        each *= LANES // width
    for vectors in _vector_counts(roles, width):
        lanes = _vector_segments(c, roles.lanes, vectors, width) if roles.lanes is not None else None
        for columns in _tile_pairs(roles.columns, available):
            wide = vectors * _product(columns)
            if each * wide >= available:
                continue
            for rows in _tile_pairs(roles.rows, available):
                count = _product(rows) * wide
                spare = each if roles.dot is not None or wide > 1 else 0
                if (count + wide) * each + spare > available and (count > 1 or wide > 1):
                    continue
                yield _cycles(c, roles, reduction, width, lanes, rows, columns), lanes, rows, columns


def _product(tiled: tuple[Tiled, ...]) -> int:
    total = 1
    for t in tiled:
        total *= t.size
    return total


def _vector_counts(roles: _Roles, width: int) -> list[int]:
    if roles.lanes is None or roles.lanes.extent is None:
        return [1]
    return list(range(1, min(8, -(-roles.lanes.extent // width)) + 1))


def _vector_segments(c: Contraction, axis: Axis, vectors: int, width: int) -> Tiled:
    extent, size = axis.extent or 1, vectors * width
    full, left = divmod(extent, size)
    dense = axis.c == 1 and all(coefficient(store.address, axis.name) == 1 for store in c.also)
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
    if axis.extent is None:
        for size in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14):
            if size <= limit:
                yield Tiled(axis, (Segment(0, size, None),))
        return
    for size in range(1, min(limit, axis.extent, 15) + 1):
        for count in range(axis.extent // size, max(0, axis.extent // size - 4), -1):
            left = axis.extent - count * size
            first = Segment(0, size, count)
            if not left:
                yield Tiled(axis, (first,))
                continue
            for other in range(min(size - 1, left), 0, -1):
                if left % other == 0 and left // other <= 3:
                    yield Tiled(axis, (first, Segment(count * size, other, left // other)))
                    break


# ---- cost -----------------------------------------------------------------------------------------------------------


def _cycles(
    c: Contraction,
    roles: _Roles,
    reduction: Reduction,
    width: int,
    lanes: Tiled | None,
    rows: tuple[Tiled, ...],
    columns: tuple[Tiled, ...],
) -> float:
    """Cycles on one core of the whole contraction at the batch hint, plus a little for every variant of the tile to compile."""
    each, _ = registers(width, c.dtype)
    tiled = {t.axis.name for t in (*rows, *columns)} | ({lanes.axis.name} if lanes else set())
    around, steps = 1.0, 1
    for axis in c.axes:
        size = axis.size(BATCH_HINT)
        if axis.reduction:
            steps *= -(-size // LANES) * (LANES // width) if axis is roles.dot else size
        elif axis.name not in tiled:
            around *= size
    split = _split_loads(c, roles, lanes, width)
    stored = 1.0 if lanes is None or lanes.axis.c == 1 else float(min(width, lanes.axis.extent or 1))
    panel = steps * (lanes.size if lanes else width) * _product(columns) * c.dtype.size
    from_l2 = _bytes_a_cycle(c, roles, lanes, panel, steps)
    chunks = max(1.0, steps / reduction.steps)
    crowded = roles.dot is None and any(_stride(t.axis, roles.scalar) * c.dtype.size % 4096 == 0 for t in rows)
    total = 0.0
    variants = set()
    row_sizes, column_sizes = _sizes(rows), _sizes(columns)
    vector_sizes = [(-(-s // width), 1) for s in lanes.tiles()] if lanes else [(1, 1)]
    for vectors, _ in set(vector_sizes):
        v_count = sum(1 for v, _ in vector_sizes if v == vectors)
        for row, r_count in row_sizes.items():
            for column, c_count in column_sizes.items():
                wide = vectors * column * each
                count = row * wide
                loads = wide * split + (row * (each * split if roles.dot is not None else 1))
                step = max(count / 2, loads / 2, FMA_LATENCY if count < 2 * FMA_LATENCY else 0)
                step *= 1.15 if row > CACHE_WAYS and crowded else 1.0
                step *= 1 + 0.0075 * max(0, 24 - count) + (0.08 if wide >= row else 0)  # fewer independent sums hide less latency
                step = max(step, wide * width * c.dtype.size / each / from_l2)
                end = count * (2.0 + stored) if roles.dot is None else 4.0 * row * column + 10
                total += v_count * r_count * c_count * (steps * step + chunks * (end + TILE_CYCLES))
                variants.add((vectors, row, column))
    tiles = around * len(vector_sizes) * sum(row_sizes.values()) * sum(column_sizes.values())
    idle = -(-tiles // THREADS) * THREADS / tiles  # tiles that do not divide among the threads
    return around * total * idle * (1 + 0.01 * len(variants))


def _bytes_a_cycle(c: Contraction, roles: _Roles, lanes: Tiled | None, panel: int, steps: int) -> float:
    """How fast the vector operand arrives. A panel that is dense in memory comes from the first-level cache if it fits, else
    from the second. Where each step of the reduction is a row further, rows a power of two apart fall into few cache sets.
    Measured."""
    innermost = min((abs(_stride(a, roles.vector)) for a in c.reductions if a is not roles.dot and _stride(a, roles.vector)), default=0)
    distance = innermost * c.dtype.size
    if lanes is None or innermost <= lanes.size or distance < 1024 or steps <= 32:
        return inf if panel <= L1_BYTES else 32.0
    return 4.0 if distance % 4096 == 0 else 10.0 if distance % 2048 == 0 else 14.0


def _sizes(tiled: tuple[Tiled, ...]) -> dict[int, int]:
    """How many tiles of each size (the product over the axes)."""
    result = {1: 1}
    for t in tiled:
        sizes = t.tiles()
        result = {p * s: n * sizes.count(s) for p, n in result.items() for s in set(sizes)}
    return result


def _split_loads(c: Contraction, roles: _Roles, lanes: Tiled | None, width: int) -> float:
    """Load slots that a vector takes: nearly two where it straddles cache lines."""
    if roles.dot is not None:
        return 1.0 if (roles.dot.extent or 0) % LANES == 0 else 1.8
    assert lanes is not None
    if _stride(lanes.axis, roles.vector) != 1:
        return 1.0 if _stride(lanes.axis, roles.vector) == 0 else float(width)
    aligned = all(_stride(a, roles.vector) % width == 0 for a in c.axes if a.name != lanes.axis.name)
    return 1.0 if aligned else 1.0 + 0.9 * min(1.0, width * c.dtype.size / 64)


# ---- loops around the tile ------------------------------------------------------------------------------------------


def _span(axes: list[tuple[int, int]]) -> int:
    """Elements between the first and the last that loops of (extent, stride) touch."""
    return 1 + sum((e - 1) * abs(s) for e, s in axes)


def _chunks_outside(
    c: Contraction, roles: _Roles, reduction: Reduction, lanes: Tiled | None, rows: tuple[Tiled, ...], columns: tuple[Tiled, ...]
) -> bool:
    """Whether to run all tiles for a chunk before the next chunk: where the panels of the whole reduction outgrow the cache."""
    steps = 1
    for axis in c.reductions:
        steps *= axis.size(BATCH_HINT)
    wide = (lanes.size if lanes else 1) * _product(columns)
    row_tiles = 1
    for t in rows:
        row_tiles *= len(t.tiles())
    for axis in c.outputs:
        if _stride(axis, roles.scalar) and not _stride(axis, roles.vector) and all(t.axis is not axis for t in rows):
            row_tiles *= axis.size(BATCH_HINT)
    return row_tiles > 1 and (steps * wide * c.dtype.size > L2_BYTES or any(a.extent is None for a in c.reductions))


def _grid(s: Schedule) -> tuple[GridLoop, ...]:
    """Loops around the tile, outermost first.

    Axes of both operands stand outside. Then a block of the broadcast operand that stays in the second-level cache meets every
    panel of the vector operand; inside a panel the tiles of the block follow each other, so that the panel is read once a block.
    """
    c = s.contraction
    tiled = {t.axis.name: t for t in (*s.rows, *s.columns, *((s.lanes,) if s.lanes else ()))}

    def in_scalar(a: Axis) -> bool:
        return bool(s.stride(a, s.scalar)) or any(t.axis is a for t in s.rows)

    def in_vector(a: Axis) -> bool:
        return bool(s.stride(a, s.vector)) or any(t.axis is a for t in s.columns) or (s.lanes is not None and s.lanes.axis is a)

    both = [a for a in c.outputs if in_scalar(a) == in_vector(a)]
    scalar = [a for a in c.outputs if in_scalar(a) and not in_vector(a)]
    vector = [a for a in c.outputs if in_vector(a) and not in_scalar(a)]
    both.sort(key=lambda a: (a.extent is None, abs(a.c or 0)), reverse=True)
    scalar.sort(key=lambda a: (a.extent is None, abs(s.stride(a, s.scalar))), reverse=True)
    vector.sort(key=lambda a: (a.extent is None, a is not (s.lanes.axis if s.lanes else None), abs(s.stride(a, s.vector))), reverse=True)

    def tiles(a: Axis) -> int:
        return len(tiled[a.name].tiles()) if a.name in tiled else a.size(BATCH_HINT)

    chunk = [(a.size(BATCH_HINT), s.stride(a, s.scalar)) for a in s.reduction.inside]
    if s.reduction.cut is not None:
        chunk.append((s.reduction.block, s.stride(s.reduction.cut, s.scalar)))
    if not s.chunks_outside:
        chunk = [(a.size(BATCH_HINT), s.stride(a, s.scalar)) for a in c.reductions]
    inside: list[Axis] = []
    budget = L2_BYTES // c.dtype.size
    block: GridLoop | None = None
    spans = list(chunk)
    for a in reversed(scalar):
        extent = a.size(BATCH_HINT)
        if _footprint([*spans, (extent, s.stride(a, s.scalar))]) <= budget:
            spans.append((extent, s.stride(a, s.scalar)))
            inside.insert(0, a)
            continue
        if tiles(a) > 1 and vector and (a.extent is not None or a.name in tiled):
            per_tile = extent / tiles(a)
            fit = max(1, int(budget / max(1, _footprint([*spans, (max(1, round(per_tile)), s.stride(a, s.scalar))]))))
            count = -(-tiles(a) // -(-tiles(a) // fit))
            if 1 < count < tiles(a):
                block = GridLoop(a.name, count)
        break
    outside = scalar[: len(scalar) - len(inside)]
    loops = [GridLoop(a.name) for a in both]
    if block is not None:
        loops += [GridLoop(a.name) for a in outside[:-1]] + [block]
        loops += [GridLoop(a.name) for a in vector] + [replace(block, inner=True)]
    else:
        loops += [GridLoop(a.name) for a in outside] + [GridLoop(a.name) for a in vector]
    return tuple(loops + [GridLoop(a.name) for a in inside])


def _footprint(loops: list[tuple[int, int]]) -> int:
    """Elements that loops of (extent, stride) touch, at most: overlapping windows count once, gaps do not count."""
    total = 1
    for e, stride in loops:
        if stride:
            total *= e
    return min(total, _span(loops))


def _ahead(s: Schedule) -> Ahead | None:
    """Prefetching where the vector operand is dense panels, large, and each panel is read by several tiles."""
    c, lanes = s.contraction, s.lanes
    if lanes is None:
        return None
    panel = lanes.size
    inner = sorted((a for a in c.reductions if s.stride(a, s.vector)), key=lambda a: s.stride(a, s.vector))
    for axis in inner:  # the panel is dense in the order of the reduction
        if s.stride(axis, s.vector) != panel or axis.extent is None:
            return None
        panel *= axis.extent
    total = c.dtype.size
    for axis in c.axes:
        if s.stride(axis, s.vector):
            total *= axis.size(BATCH_HINT)
    tiled = {t.axis.name: t for t in (*s.rows, *s.columns, lanes)}
    sharing = loops = 0
    distance = 0
    for g in reversed(s.grid):
        axis = c.axis(g.axis)
        step = s.stride(axis, s.vector) * (tiled[g.axis].size if g.axis in tiled else 1)
        count = len(tiled[g.axis].tiles()) if g.axis in tiled else axis.size(BATCH_HINT)
        if step and count > 1:
            distance = step
            break
        count = min(count, g.block) if g.block and g.inner else -(-count // g.block) if g.block else count
        sharing, loops = max(1, sharing) * count, loops + 1
    if total < AHEAD_BYTES or sharing < 2 or not distance or s.columns:
        return None
    return Ahead(distance, max(1, -(-lanes.size // sharing)), loops)
