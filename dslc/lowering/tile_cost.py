"""What a register tile costs: cycles counted for a core with two fma units and two load ports, corrected by measurements."""

from __future__ import annotations

from math import inf, prod

from dslc.ir.types import DType
from dslc.lowering.contraction import Contraction, Reduction, useful_share
from dslc.lowering.schedules import BATCH_HINT, LANES, THREADS, Roles, Tiled, product_of, stride_of, unroll_of, windows_of

L1_BYTES = 32 << 10  # of 32 to 48 KiB
FMA_LATENCY = 4
LINE_BYTES = 64
CACHE_WAYS = 8  # lines in one set of the first-level cache beside the other operands'
DENSE = 32.0  # bytes a cycle from the second-level cache, line after line
FAR_ROWS = 1.08  # where every step reads lines away from the last one's: nothing fetches them ahead
MEMORY_BYTES = 512 << 10  # an operand of this size is not all in the second-level cache
TILE_CYCLES = 20.0  # calling a tile and starting its loops


def registers(width: int, dtype: DType) -> tuple[int, int]:
    """(registers a vector takes, registers there are): 32 with AVX-512, 16 below."""
    each = max(1, width * dtype.size // (64 if width == 16 else 4 * width))
    return each, 32 if width == 16 else 16


class TileCosts:
    """What tiles of one choice of axes and one order of the reduction cost: all that does not depend on their sizes, counted once."""

    def __init__(self, c: Contraction, roles: Roles, reduction: Reduction, width: int):
        self.c, self.roles, self.reduction, self.width = c, roles, reduction, width
        self.each, _ = registers(width, c.dtype)
        self.size = c.dtype.size
        tiled = {a.name for a in (*roles.rows, *roles.columns)} | ({roles.lanes.name} if roles.lanes else set())
        self.around, self.steps = 1.0, 1
        for axis in c.axes:
            extent = axis.size(BATCH_HINT)
            if axis.reduction:
                self.steps *= -(-extent // LANES) * (LANES // width) if axis is roles.dot else extent
            elif axis.name not in tiled:
                self.around *= extent
        self.split = _split_loads(c, roles, width, roles.vector)
        self.alone = _split_loads(c, roles, width, roles.scalar) if roles.paired else 1.0
        self.windows = windows_of(c, roles, reduction)
        self.share = prod(useful_share(c, w) for w in self.windows if w is not None)
        self.reuse = (c.axis(self.windows[1].tap).extent or 1) if self.windows[1] is not None else 1
        self.sliding = unroll_of(c, roles, reduction)
        self.stored = 1.0 if roles.lanes is None or roles.lanes.c == 1 else float(min(width, roles.lanes.extent or 1))
        self.chunks = max(1.0, self.steps / reduction.steps)

    def at_least(self, lanes: Tiled | None, rows: tuple[Tiled, ...], columns: tuple[Tiled, ...]) -> float:
        """Cycles that `of` cannot stay below: those of the multiplications or of the loads, and of the ends of tiles."""
        vectors = [(-(-size // self.width), count) for size, count in lanes.runs()] if lanes else [(1, 1)]
        wide, high = _total(columns) * sum(v * count for v, count in vectors) * self.each, _total(rows)
        tiles_wide, tiles_high = _tiles(columns) * sum(count for _, count in vectors), _tiles(rows)
        busy: float = wide * high
        if not self.roles.paired:
            shared = self.sliding if self.sliding > 1 else self.reuse  # how many steps or rows a load of a row serves at most
            busy = max(busy, tiles_high * wide * self.split + tiles_wide * high / shared)
        largest = max(v for v, _ in vectors) * product_of(columns) * product_of(rows) * self.each
        if largest < 2 * FMA_LATENCY:
            busy = max(busy, 2 * FMA_LATENCY * tiles_wide * tiles_high)
        least = (0.95 if self.roles.dot is None else 1.25) * (1 + 0.0075 * max(0, 24 - largest))
        return self.around * (least * self.share * self.steps * busy / 2 + self.chunks * TILE_CYCLES * tiles_wide * tiles_high)

    def of(self, lanes: Tiled | None, rows: tuple[Tiled, ...], columns: tuple[Tiled, ...]) -> float:
        """Cycles on one core of the whole contraction at the batch hint, plus a little for every variant of the tile to compile."""
        c, roles, reduction, width, each, steps = self.c, self.roles, self.reduction, self.width, self.each, self.steps
        panel = steps * (lanes.size if lanes else width) * product_of(columns) * self.size
        from_l2 = _bytes_a_cycle(c, roles, lanes, panel, steps)
        far = FAR_ROWS if from_l2 < DENSE or _strides_through_memory(c, roles, lanes) else 1.0
        slides = 0.95 if _slides(c, roles, rows) else 1.0
        total = 0.0
        variants = set()
        row_sizes, column_sizes = _sizes(rows), _sizes(columns)
        crowding = {row: _crowding(c, roles, reduction, rows, row) for row in row_sizes}
        vector_sizes = [(-(-s // width), 1) for s in lanes.tiles()] if lanes else [(1, 1)]
        for vectors, _ in set(vector_sizes):
            v_count = sum(1 for v, _ in vector_sizes if v == vectors)
            for row, r_count in row_sizes.items():
                for column, c_count in column_sizes.items():
                    wide = vectors * column * each
                    count = row * wide
                    shared = self.sliding * row / (row + self.sliding - 1) if self.sliding > 1 else self.reuse
                    loads = wide * self.split + row * (each * self.split if roles.dot is not None else 1) / shared
                    if roles.paired:
                        loads = wide * self.split + row * vectors * each * self.alone * _distinct(c, roles, reduction, rows)
                    step = max(count / 2, loads / 2, FMA_LATENCY if count < 2 * FMA_LATENCY else 0)
                    step *= crowding[row] * (slides * (1 + 0.1 * loads / count) if roles.dot is None else 1.25)
                    step *= 1 + 0.0075 * max(0, 24 - count) + (0.08 if wide >= row else 0)  # fewer independent sums hide less latency
                    step = max(step, wide * width * self.size / each / from_l2)
                    step *= far
                    if roles.paired:  # what lies side by side arrives together: tiles of few cache lines are slow. Measured
                        step *= 1 + 4 / max(1.0, vectors * width * self.size / LINE_BYTES) ** 2
                    end = count * (2.0 + self.stored) if roles.dot is None else 4.0 * row * column + 10
                    total += v_count * r_count * c_count * (self.share * steps * step + self.chunks * (end + TILE_CYCLES))
                    variants |= {(vectors, row, column, n) for n in range(r_count if self.windows[1] is not None else 1)}
        tiles = self.around * len(vector_sizes) * sum(row_sizes.values()) * sum(column_sizes.values())
        idle = -(-tiles // THREADS) * THREADS / tiles  # tiles that do not divide among the threads
        idle *= _uneven(c, roles, rows, len(vector_sizes))
        across = any(t.axis.extent is None and t.size > 1 for t in rows)  # tiles of several examples: fewer examples leave them part empty
        return self.around * total * idle * (1.03 if across else 1.0) * (1 + 0.01 * len(variants))


def _total(tiled: tuple[Tiled, ...]) -> int:
    """Elements of all tiles along these axes."""
    return prod(t.axis.size(BATCH_HINT) for t in tiled)


def _tiles(tiled: tuple[Tiled, ...]) -> int:
    return prod(sum(count for _, count in t.runs()) for t in tiled)


def _bytes_a_cycle(c: Contraction, roles: Roles, lanes: Tiled | None, panel: int, steps: int) -> float:
    """How fast the vector operand arrives. A panel that is dense in memory comes from the first-level cache if it fits, else
    from the second. Where each step of the reduction is a row further, rows a power of two apart fall into few cache sets.
    Measured."""
    innermost = min((abs(stride_of(a, roles.vector)) for a in c.reductions if a is not roles.dot and stride_of(a, roles.vector)), default=0)
    distance = innermost * c.dtype.size
    if lanes is None or innermost <= lanes.size or distance < 1024 or steps <= 32:
        return inf if panel <= L1_BYTES else DENSE
    rate = 4.0 if distance % 4096 == 0 else 10.0 if distance % 2048 == 0 else 14.0
    return rate * min(2.0, max(1.0, lanes.size * c.dtype.size / 128))  # lines side by side come together


def _strides_through_memory(c: Contraction, roles: Roles, lanes: Tiled | None) -> bool:
    """Whether a large vector operand is read with gaps: by tiles narrower than its panels."""
    if lanes is None:
        return False
    bytes_ = c.dtype.size * prod(a.size(BATCH_HINT) for a in c.axes if stride_of(a, roles.vector))
    steps = [abs(stride_of(a, roles.vector)) for a in c.reductions if stride_of(a, roles.vector)]
    return bytes_ > MEMORY_BYTES and bool(steps) and min(steps) > lanes.size


def _crowding(c: Contraction, roles: Roles, reduction: Reduction, rows: tuple[Tiled, ...], row: int) -> float:
    """What it costs that lines of the scalar operand fall into the same sets of the first-level cache. Measured.

    A line is used in one go where the operand is dense along the innermost loop; but then every tap of a window fetches its lines
    again. Else the lines of all taps inside the dense loop have to stay meanwhile.
    """
    size = c.dtype.size
    offsets = [0]
    for t in rows:
        stride = stride_of(t.axis, roles.scalar) * size
        offsets = [o + n * stride for o in offsets for n in range(t.size)]
    offsets = offsets[:row]
    order = [*reduction.outside, *((reduction.cut,) if reduction.cut else ()), *reduction.inside]
    dense = next((n for n, a in enumerate(order) if abs(stride_of(a, roles.scalar)) == 1), len(order))
    taps = [a for a in order[dense + 1 :] if stride_of(a, roles.scalar) and a.extent is not None]
    for a in taps:
        offsets = [o + n * stride_of(a, roles.scalar) * size for o in offsets for n in range(a.extent or 1)]
    sets = [line % 64 for line in {o // 64 for o in offsets}]
    shared = max(sets.count(s) for s in set(sets))
    if taps:
        nearest = min((abs(stride_of(a, roles.scalar)) for a in c.outputs if stride_of(a, roles.scalar)), default=0)
        if all(abs(stride_of(t.axis, roles.scalar)) == nearest for t in rows if t.size > 1):
            return 1 + 0.008 * (shared - 1)  # positions side by side
        return 1 + 0.015 * (shared - 1) + 0.08 * max(0, shared - 12)
    again = 1.08 if any(stride_of(a, roles.scalar) and (a.extent or 1) > 1 for a in order[:dense]) and roles.dot is None else 1.0
    each = 0.04 if row > CACHE_WAYS else 0.02
    return again * (1 + each * (shared - 1)) * (1.15 if shared > CACHE_WAYS else 1.0)


def _slides(c: Contraction, roles: Roles, rows: tuple[Tiled, ...]) -> bool:
    """Whether tiles that follow each other read overlapping windows of the scalar operand: the next tile finds most of its rows
    in the first-level cache."""
    free = [a for a in c.outputs if stride_of(a, roles.scalar) and all(t.axis is not a or t.size == 1 for t in rows)]
    if not free or len(rows) == 0:
        return False
    following = min(free, key=lambda a: (a.extent is None, abs(stride_of(a, roles.scalar))))
    within = min((abs(stride_of(t.axis, roles.scalar)) for t in rows if t.size > 1), default=0)
    step = abs(stride_of(following, roles.scalar))
    return step < within and any(a.reduction and abs(stride_of(a, roles.scalar)) == step and a.extent != 1 for a in c.reductions)


def _uneven(c: Contraction, roles: Roles, rows: tuple[Tiled, ...], panels: int) -> float:
    """How much longer the busiest thread takes than the mean, where threads share the tiles of an axis whose last ones are smaller."""
    runs = rows[0].runs() if rows else ()
    if len({size for size, _ in runs}) <= 1:
        return 1.0
    stride = abs(stride_of(rows[0].axis, roles.scalar))
    others = [a for a in c.outputs if a is not roles.lanes and all(a is not t.axis for t in rows)]
    around = [a for a in others if abs(stride_of(a, roles.scalar)) > stride or not stride_of(a, roles.scalar)]
    if panels * prod(a.size(BATCH_HINT) for a in around) % THREADS == 0:
        return 1.0
    number = sum(count for _, count in runs)
    half = -(-number // THREADS)
    shares = [_elements(runs, first, first + half) for first in range(0, number, half)]
    return max(shares) * THREADS / sum(shares)


def _elements(runs: tuple[tuple[int, int], ...], first: int, stop: int) -> int:
    """What the tiles with these numbers have together."""
    total = at = 0
    for size, count in runs:
        total += size * max(0, min(at + count, stop) - max(at, first))
        at += count
    return total


def _sizes(tiled: tuple[Tiled, ...]) -> dict[int, int]:
    """How many tiles of each size (the product over the axes)."""
    result = {1: 1}
    for t in tiled:
        counts: dict[int, int] = {}
        for size, count in t.runs():
            counts[size] = counts.get(size, 0) + count
        result = {p * s: n * counts[s] for p, n in result.items() for s in set(counts)}
    return result


def _distinct(c: Contraction, roles: Roles, reduction: Reduction, rows: tuple[Tiled, ...]) -> float:
    """The share of the scalar operand's loads that are left where unrolled steps read what other rows have read."""
    inner = reduction.inside[-1] if reduction.inside else None
    offsets = [n * stride_of(inner, roles.scalar) if inner is not None else 0 for n in range(unroll_of(c, roles, reduction))]
    for t in rows:
        offsets = [o + n * stride_of(t.axis, roles.scalar) for o in offsets for n in range(t.size)]
    return len(set(offsets)) / len(offsets)


def _split_loads(c: Contraction, roles: Roles, width: int, operand: str) -> float:
    """Load slots that a vector of an operand takes: nearly two where it straddles cache lines."""
    if roles.dot is not None:
        return 1.0 if (roles.dot.extent or 0) % LANES == 0 else 1.8
    assert roles.lanes is not None
    if stride_of(roles.lanes, operand) != 1:
        return 1.0 if stride_of(roles.lanes, operand) == 0 else float(width)
    aligned = all(stride_of(a, operand) % width == 0 for a in c.axes if a.name != roles.lanes.name)
    return 1.0 if aligned else 1.0 + 0.9 * min(1.0, width * c.dtype.size / 64)
