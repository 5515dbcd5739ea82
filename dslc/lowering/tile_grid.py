"""The loops around a register tile: their order, cache blocks, where chunks run, and prefetching."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from dslc.lowering.contraction import Axis, Contraction, Reduction, coefficient
from dslc.lowering.schedules import BATCH_HINT, THREADS, Ahead, GridLoop, Roles, Schedule, Segment, Tiled, product_of, stride_of
from dslc.lowering.tile_shares import shared_by_places

AHEAD_BYTES = 256 << 10  # an operand of this size is not expected in the second-level cache when it is first read
L1_BYTES = 32 << 10
FAR_BYTES = 1024  # from which hardware takes the next line of a row for none that it should fetch
PAGE_BYTES = 4 << 10  # hardware prefetchers stop where a page ends
TILES_AHEAD, STEPS_AHEAD = 4, 16
WRITES_AHEAD_BYTES = 3 << 10
L2_BYTES = 512 << 10  # of 1 to 2 MiB: what a block of the broadcast operand may take
CHUNK_BYTES = 96 << 10  # what tiles that share a panel may take of the scalar operand for a chunk. Measured: with more nothing is won
RESIDENT_BYTES = 1 << 20  # the same of a vector operand that is read again and again
FAR_LARGER_BYTES = 8 << 20  # than any second-level cache
FEW_STEPS = 128  # in which a tile does not hide the stores of the one before, where each begins another page
BUSY = 8  # sums that keep two fma units with a latency of four cycles busy


def chunks_outside(
    c: Contraction, roles: Roles, reduction: Reduction, lanes: Tiled | None, rows: tuple[Tiled, ...], columns: tuple[Tiled, ...]
) -> bool:
    """Whether to run all tiles for a chunk before the next chunk: where the panels of the whole reduction outgrow the cache,
    or no operand is dense along the reduction (weight gradients), so that each step takes new lines of both."""
    steps = 1
    for axis in c.reductions:
        steps *= axis.size(BATCH_HINT)
    wide = (lanes.size if lanes else 1) * product_of(columns)
    row_tiles = 1
    for t in rows:
        row_tiles *= len(t.tiles())
    for axis in c.outputs:
        if stride_of(axis, roles.scalar) and not stride_of(axis, roles.vector) and all(t.axis is not axis for t in rows):
            row_tiles *= axis.size(BATCH_HINT)
    if roles.paired and lanes is not None:
        row_tiles *= len(lanes.tiles())
    sparse = all(abs(stride_of(a, operand)) > 1 for a in c.reductions for operand in "ab" if stride_of(a, operand))
    panel = steps * wide * c.dtype.size
    large = panel > L2_BYTES and (panel > 2 * L2_BYTES or _chunk_bytes(c, roles, reduction) <= L1_BYTES // 2)
    return row_tiles > 1 and (sparse or large or any(a.extent is None for a in c.reductions))


def _chunk_bytes(c: Contraction, roles: Roles, reduction: Reduction) -> int:
    """What a chunk takes of the scalar operand for all tiles: the taps of a window meet the same elements."""
    places = {abs(stride_of(a, roles.scalar)): a.size(BATCH_HINT) for a in c.outputs if stride_of(a, roles.scalar)}
    chunk = [(stride_of(a, roles.scalar), a.size(BATCH_HINT)) for a in reduction.inside]
    if reduction.cut is not None:
        chunk.append((stride_of(reduction.cut, roles.scalar), reduction.block))
    return c.dtype.size * prod(places.values()) * prod(n for step, n in chunk if step and abs(step) not in places)


def grid_of(s: Schedule) -> tuple[GridLoop, ...]:
    """Loops around the tile, outermost first.

    Axes of both operands stand outside. Then a block of the broadcast operand that stays in the second-level cache meets every
    panel of the vector operand; inside a panel the tiles of the block follow each other, so that the panel is read once a block.
    """
    c = s.contraction
    tiled = {t.axis.name: t for t in (*s.rows, *s.columns, *((s.lanes,) if s.lanes else ()))}

    if s.paired:  # what lies side by side in memory is read side by side: vectors of channels inside, then pixels
        assert s.lanes is not None
        along = s.lanes.axis
        walked = sorted(c.outputs, key=lambda a: (a is not along, a.extent is None, abs(s.stride(a, s.scalar))), reverse=True)
        return tuple(GridLoop(a.name) for a in walked)

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
    if c.again and (rows := _shared_rows(s, scalar, vector)) is not None:
        inner = replace(rows, inner=True)
        return (*(GridLoop(a.name) for a in both), rows, *(GridLoop(a.name) for a in vector), inner)
    if _writes_most(s):  # rows of the result are written from end to end
        return tuple(GridLoop(a.name) for a in (*both, *scalar, *vector))
    inside: list[Axis] = []
    budget = L2_BYTES // c.dtype.size
    block: GridLoop | None = None
    spans = list(chunk)
    for a in reversed(scalar):
        extent = a.size(BATCH_HINT)
        if footprint([*spans, (extent, s.stride(a, s.scalar))]) <= budget:
            spans.append((extent, s.stride(a, s.scalar)))
            inside.insert(0, a)
            continue
        if tiles(a) > 1 and vector and (a.extent is not None or a.name in tiled):
            per_tile = extent / tiles(a)
            fit = max(1, int(budget / max(1, footprint([*spans, (max(1, round(per_tile)), s.stride(a, s.scalar))]))))
            count = _block(tiles(a), fit)
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
    made = tuple(loops + [GridLoop(a.name) for a in inside])
    return made if s.chunks_outside else shared_by_places(s, made, scalar)


def _shared_rows(s: Schedule, scalar: list[Axis], vector: list[Axis]) -> GridLoop | None:
    """The outermost loop of a product that runs again and again: over a thread's share of the examples, where every thread can hold
    the whole vector operand. Then what it makes of an example is read by the thread that made it, and does not change caches."""
    if len(scalar) != 1 or scalar[0].extent is not None or not s.rows or s.rows[0].axis is not scalar[0]:
        return None
    share = len(s.rows[0].tiles()) // THREADS
    return GridLoop(scalar[0].name, share) if vector and share > 1 and _bytes(s, s.vector) <= RESIDENT_BYTES else None


def finer_rows(s: Schedule) -> tuple[Tiled, ...]:
    """Rows with more sizes of tiles for few examples, where each tile reads weights from memory: two examples should read them once."""
    if _bytes(s, s.vector) < FAR_LARGER_BYTES:
        return s.rows
    return tuple(replace(t, smaller=(4, 2, 1)) if t.runtime else t for t in s.rows)


def several_panels(s: Schedule) -> tuple[Tiled, ...]:
    """Columns over several panels of the vector operand for a tile of one row, whose few sums would wait for each other's fma. What comes
    from memory is read panel by panel."""
    if s.lanes is None or s.columns or s.paired or product_of(s.rows) > 1 or any(t.runtime for t in s.rows):
        return s.columns
    if _bytes(s, s.vector) >= FAR_LARGER_BYTES:
        return ()
    vectors = -(-s.lanes.size // s.width)
    for axis in s.contraction.outputs:
        if axis is s.lanes.axis or axis.extent is None or not s.stride(axis, s.vector) or s.stride(axis, s.scalar):
            continue
        for size in (4, 2):
            if vectors * size <= BUSY and axis.extent % (size * THREADS) == 0:
                return (Tiled(axis, (Segment(0, size, axis.extent // size),)),)
    return ()


def _writes_most(s: Schedule) -> bool:
    """Whether short sums make a result that no cache holds: over few examples, as in the gradient of the weights of a large dense
    layer, or over few inputs where its rows are pages, as in the projections of a sequence."""
    c = s.contraction
    over_batch = any(a.extent is None for a in c.reductions)
    few = s.dot is None and prod(a.size(BATCH_HINT) for a in c.reductions) <= FEW_STEPS
    pages = bool(s.rows) and abs(s.rows[0].axis.c or 0) * c.dtype.size >= PAGE_BYTES
    return (over_batch or (few and pages)) and _result_bytes(s) >= FAR_LARGER_BYTES and _bytes(s, s.vector) <= L2_BYTES


def _block(tiles: int, most: int) -> int:
    """Tiles in a block: at most so many, few places left empty in the last block (they would idle a thread), else large."""
    most = min(most, tiles)
    sizes = range(max(1, most // 3), most + 1)
    return min(sizes, key=lambda n: (-(-tiles // n) * n - tiles, -n))


def rows_ahead_of(s: Schedule) -> int:
    """How far to prefetch where each step reads the rows' neighbours far from the last step's: the tiles to come lie behind them.

    No hardware prefetcher follows such steps. Four tiles: measured.
    """
    if not s.rows or s.stride(s.rows[0].axis, s.scalar) != 1 or not _steps_far(s, s.scalar):
        return 0
    return (TILES_AHEAD + 1) * s.rows[0].size - 1


def steps_ahead_of(s: Schedule) -> int:
    """How many steps ahead to prefetch lines of a vector operand that lie far from each other. Chunks outside of tiles find them in a cache."""
    if s.chunks_outside or s.columns or s.lanes is None or s.stride(s.lanes.axis, s.vector) != 1 or not _steps_far(s, s.vector):
        return 0
    return STEPS_AHEAD


def writes_ahead_of(s: Schedule) -> int:
    """How far in front of its own results a tile of a paired contraction prefetches lines of the output, in elements; 0 for not.

    It has little to do for what it writes, and the lines of a tile lie apart: stores of a large output would wait for their lines.
    Whole runs of tiles along the rows, so that each line is asked for once. Measured.
    """
    c = s.contraction
    if not s.paired or s.lanes is None or s.lanes.axis.c != 1 or not s.rows:
        return 0
    size = c.dtype.size
    if _result_bytes(s) < 2 * RESIDENT_BYTES:
        return 0
    step = s.rows[0].size * abs(s.rows[0].axis.c or 0)
    return step * -(-WRITES_AHEAD_BYTES // (step * size)) if step else 0


def reads_ahead_of(s: Schedule) -> tuple[int, ...]:
    """The accesses of the epilogue, by number, whose lines a tile asks for before its last chunk: vectors of rows that lie a page or more
    apart, as one time step of a sequence does for each example. No hardware prefetcher follows them, and all would be waited for. Measured.
    """
    if s.dot is not None or s.paired or s.lanes is None:
        return ()
    c, lanes, dtypes = s.contraction, s.lanes.axis.name, dict(s.contraction.buffers)
    rows = [t.axis.name for t in s.rows if t.size > 1]
    return tuple(
        n
        for n, (buffer, address) in enumerate(c.addresses)
        if coefficient(address, lanes) == 1
        and min((abs(coefficient(address, axis)) for axis in rows), default=0) * dtypes[buffer].size >= PAGE_BYTES
    )


def _steps_far(s: Schedule, operand: str) -> bool:
    """Whether steps read an operand too far apart for a hardware prefetcher, from beyond the second-level cache."""
    inner = s.reduction.inside[-1] if s.reduction.inside else s.reduction.cut
    if inner is None or s.dot is not None or s.paired:
        return False
    return abs(s.stride(inner, operand)) * s.contraction.dtype.size >= FAR_BYTES and _bytes(s, operand) >= AHEAD_BYTES


def _result_bytes(s: Schedule) -> int:
    c = s.contraction
    return prod(a.size(BATCH_HINT) for a in c.outputs) * c.dtype.size


def _bytes(s: Schedule, operand: str) -> int:
    """How large an operand is."""
    return prod(a.size(BATCH_HINT) for a in s.contraction.axes if s.stride(a, operand)) * s.contraction.dtype.size


def footprint(loops: list[tuple[int, int]]) -> int:
    """Elements that loops of (extent, stride) touch, at most: overlapping windows count once, gaps do not count."""
    total = 1
    for e, stride in loops:
        if stride:
            total *= e
    return min(total, 1 + sum((e - 1) * abs(stride) for e, stride in loops))


def ahead_of(s: Schedule) -> Ahead | None:
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
    tiled = {t.axis.name: t for t in (*s.rows, *s.columns, lanes)}
    sharing, loops, known = 0, 0, True
    distance = 0
    for g in reversed(s.grid):
        axis = c.axis(g.axis)
        step = s.stride(axis, s.vector) * (tiled[g.axis].size if g.axis in tiled else 1)
        count = len(tiled[g.axis].tiles()) if g.axis in tiled else axis.size(BATCH_HINT)
        if step and count > 1:
            distance = step
            break
        count = g.turns(count)
        known = known and (axis.extent is not None or axis.per_batch == 1)
        sharing, loops = max(1, sharing) * count, loops + 1
    if _bytes(s, s.vector) < AHEAD_BYTES or sharing < 2 or not distance or s.columns:
        return None
    ahead = Ahead(distance, max(1, -(-lanes.size // sharing)) if known else 0, loops)
    chunk = s.reduction.steps * lanes.size
    return replace(ahead, distance=chunk, chunks=True) if _chunks_follow(s, chunk) and _chunk_stays(s, loops) else ahead


def _chunk_stays(s: Schedule, loops: int) -> bool:
    """Whether what a chunk takes of the scalar operand, for all tiles of the grid's last `loops` loops, stays in the first caches."""
    inside = {g.axis for g in s.grid[len(s.grid) - loops :]} | {t.axis.name for t in s.rows}
    axes = [a for a in s.contraction.outputs if a.name in inside] + list(s.reduction.inside)
    spans = [(a.size(BATCH_HINT), s.stride(a, s.scalar)) for a in axes]
    if s.reduction.cut is not None:
        spans.append((s.reduction.block, s.stride(s.reduction.cut, s.scalar)))
    return footprint(spans) * s.contraction.dtype.size <= CHUNK_BYTES


def _chunks_follow(s: Schedule, chunk: int) -> bool:
    """Whether a panel is read in chunks of so many elements that follow each other."""
    r = s.reduction
    if r.single or s.chunks_outside or s.bounds is not None:
        return False
    step = r.block * s.stride(r.cut, s.vector) if r.cut is not None else s.stride(r.outside[-1], s.vector)
    return step == chunk
