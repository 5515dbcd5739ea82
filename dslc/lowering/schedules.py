"""The schedule of a contraction as data: register tile, loops around it, what is prefetched and what is left out."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod

from dslc.lowering.contraction import Axis, Contraction, Reduction, Window, useful_share

LANES = 16
BATCH_HINT = 32  # the batch that a schedule is chosen for where the axis is run-time sized; any batch runs correctly
THREADS = 2  # among which tiles and examples should divide; any number runs correctly
MOST_UNROLLED = 7
GROUP_STEPS = 1152  # that a tile runs in a row where chunks run outside of the tiles. Measured: 400 take 4% longer, one chunk 8%
WORTH_SKIPPING = 0.9  # the share of products outside the halo below which the others are left out


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

    `overlap`: the last tile moves back by so many elements to end with the axis, and does not store those again. `smaller`: sizes that
    tiles may have which cover what is left of a run-time extent.
    """

    axis: Axis
    segments: tuple[Segment, ...]
    overlap: int = 0
    smaller: tuple[int, ...] = (4, 1)

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
        sizes = [p for p in self.smaller if p < self.size and p >= unit and p % unit == 0]
        return tuple(sizes) if sizes and sizes[-1] == unit else (*sizes, unit)

    def runs(self, batch: int = BATCH_HINT) -> tuple[tuple[int, int], ...]:
        """The sizes of all tiles in order, each with how many of it follow each other."""
        if not self.runtime:
            return tuple((s.size, s.count) for s in self.segments if s.count)
        runs, left = [], self.axis.size(batch)
        for size in (self.size, *self.remainders):
            runs.append((size, left // size))
            left %= size
        return tuple(run for run in runs if run[1])

    def tiles(self, batch: int = BATCH_HINT) -> tuple[int, ...]:
        """The sizes of all tiles in order."""
        return tuple(size for size, count in self.runs(batch) for _ in range(count))


@dataclass(frozen=True, slots=True)
class GridLoop:
    """A loop over tiles or over an axis outside the tile. `block` > 0 cuts a tiled axis's loop in two: this is the outer one
    (`inner` False), over blocks of so many tiles, or the inner one."""

    axis: str
    block: int = 0
    inner: bool = False

    def turns(self, tiles: int) -> int:
        """How often it runs where its axis has so many tiles."""
        return tiles if not self.block else min(tiles, self.block) if self.inner else -(-tiles // self.block)


@dataclass(frozen=True, slots=True)
class Ahead:
    """Prefetching of the next panel of the vector operand while this one is used.

    The next panel begins `distance` elements further. Each of the tiles that share a panel (the grid's last `loops` loops) asks
    for an equal part of it, `step` elements in every step of the reduction: 0 where examples have many rows each, so that the number
    of tiles follows from the batch. With `chunks` these tiles run for a chunk of the sum before the next one, so that the first-level
    cache holds what they share of the panel; then it is the next chunk that they ask for.
    """

    distance: int
    step: int
    loops: int
    chunks: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a contraction runs; everything the printer needs.

    `scalar` and `vector` name the operands ("a" or "b") that are broadcast and loaded in vectors. `rows` are tiled axes of the
    scalar operand, `columns` of the vector operand (without the lanes' own), `lanes` the tiled vector axis, None in dot form.
    In paired form the lanes run along an axis of both operands, and the scalar operand is loaded in vectors too.
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
    rows_ahead: int = 0  # elements of the scalar operand to prefetch in front of each step's, where every step takes new lines
    steps_ahead: int = 0  # steps by which to prefetch the vector operand, where it is not dense
    bounds: Window | None = None  # limits the loop over its tap, the cut axis of the reduction, for each tile
    unroll: int = 1  # steps of the innermost loop printed in a row, so that rows which slide over the operand share its vectors
    taps: Window | None = None  # the loop over its tap is unrolled without the products that read the halo
    sums: int = 1  # sets of accumulators that share the steps of the innermost loop; more than one where sums have no fixed order

    def stride(self, axis: Axis, operand: str) -> int:
        return axis.a if operand == "a" else axis.b

    @property
    def chunk_group(self) -> int:
        """Chunks that a tile runs one after the other, while C is in the nearest cache, where chunks run outside of the tiles."""
        r = self.reduction
        known = r.cut is not None and all(a.extent is not None for a in (*r.outside, r.cut))
        return max(1, GROUP_STEPS // r.steps) if self.chunks_outside and known else 1

    @property
    def paired(self) -> bool:
        return self.lanes is not None and self.stride(self.lanes.axis, self.scalar) != 0


@dataclass(frozen=True, slots=True)
class Roles:
    """A choice of operands and axes, before tile sizes."""

    scalar: str
    vector: str
    dot: Axis | None
    lanes: Axis | None
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]

    @property
    def paired(self) -> bool:
        """Whether the lanes run along an axis of both operands."""
        return self.lanes is not None and stride_of(self.lanes, self.scalar) != 0


def stride_of(axis: Axis, operand: str) -> int:
    """The axis's stride in operand "a" or "b"."""
    return axis.a if operand == "a" else axis.b


def product_of(tiled: tuple[Tiled, ...]) -> int:
    """The largest tile's elements along all of these axes."""
    return prod(t.size for t in tiled)


def windows_of(c: Contraction, roles: Roles, reduction: Reduction) -> tuple[Window | None, Window | None]:
    """(bounds, taps) of a schedule, where a window saves enough: in dot form of one step, with A the scalar operand."""
    if roles.dot is None or roles.dot.extent != LANES or roles.scalar != "a" or not reduction.single or len(roles.rows) > 1:
        return None, None
    tiled = {a.name for a in (*roles.rows, *roles.columns)}
    loops = [a.name for a in reduction.inside if a is not roles.dot]
    worth = [w for w in c.windows if useful_share(c, w) < WORTH_SKIPPING]
    cut = reduction.cut.name if reduction.cut else None
    bounds = next((w for w in worth if w.output not in tiled and w.tap == (cut or (loops[0] if loops else ""))), None)
    taps = next((w for w in worth if roles.rows and w.output == roles.rows[0].name and loops and w.tap == loops[-1]), None)
    return bounds, taps


def unroll_of(c: Contraction, roles: Roles, reduction: Reduction) -> int:
    """Steps of the innermost loop to unroll: where a row's vector is the next row's one step later. In dot form and in paired form."""
    if roles.paired:
        steps = (reduction.inside[-1].extent or 1) if reduction.inside else 1
        return max(n for n in range(1, MOST_UNROLLED + 1) if steps % n == 0)
    loops = [a for a in reduction.inside if a is not roles.dot]
    if roles.dot is None or (roles.dot.extent or 0) >= 2 * LANES or not loops:
        return 1
    inner = loops[-1]
    if windows_of(c, roles, reduction) != (None, None) or len(reduction.inside) < 2:
        return 1
    if len(roles.rows) != 1 or stride_of(roles.rows[0], roles.scalar) != stride_of(inner, roles.scalar):
        return 1
    return max(n for n in range(1, MOST_UNROLLED + 1) if (inner.extent or 1) % n == 0)
