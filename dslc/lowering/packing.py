"""Packing: an operand copied once to the order in which a contraction reads it.

A packed operand is [panels][reduction][lanes]: each panel is as wide as a few register tiles' vectors and is read from its
first byte to its last. The copy is a kernel of its own, run once for weights that do not change, or in every step that
changes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.loops import For, Load, LoopProgram, Stmt, Store
from dslc.ir.types import DType
from dslc.lowering.contraction import Axis, Contraction, change_addresses, normalise
from dslc.lowering.tiling import plan

PANELS = (64, 48, 32)  # elements; each is a whole number of vectors of 16 and of tiles of 1, 2, 3 or 4 vectors
WIDEST_PANEL = 64  # an axis up to here stays whole: tiles of half of 128 channels skip every other line. Measured


@dataclass(frozen=True, slots=True)
class Pack:
    """Copies element `start + sum of index * source stride` to `sum of index * target stride`, for loops from the outermost in.

    `axes` are (extent, source stride, target stride); the last has target stride 1. `size` is the target's length in elements.
    """

    axes: tuple[tuple[int, int, int], ...]
    start: int
    dtype: DType
    size: int

    def program(self) -> LoopProgram:
        """The copy as a loop program over buffers (source, target)."""
        source: Dim = self.start
        target: Dim = 0
        for n, (_, at, to) in enumerate(self.axes):
            source, target = source + dims.name(f"i{n}") * at, target + dims.name(f"i{n}") * to
        body: Stmt = Store(1, target, Load(0, source, self.dtype))
        for n in reversed(range(len(self.axes))):
            kind = "vector" if n == len(self.axes) - 1 else "parallel" if n == 0 else "serial"
            body = For(f"i{n}", self.axes[n][0], kind, (body,))
        return LoopProgram((self.dtype, self.dtype), (body,), len(self.axes) == 1)


@dataclass(frozen=True, slots=True)
class Packed:
    """A contraction over a packed operand ("a" or "b"), and the copy that makes it. Cycles are estimates on one core."""

    operand: str
    pack: Pack
    contraction: Contraction
    cycles: float
    unpacked_cycles: float


@lru_cache(maxsize=512)
def packed(contraction: Contraction, operand: str) -> Packed | None:
    """The fastest packing of an operand, or None where its axes overlap in memory, change with the batch, or nothing is gained."""
    c = normalise(contraction)
    members = [a for a in c.axes if _stride(a, operand)]
    if not members or any(a.extent is None for a in members) or not _injective(members, operand):
        return None
    now = plan(c, 16).cycles
    best: Packed | None = None
    for candidate in _candidates(c, operand, members):
        cycles = plan(candidate[1], 16).cycles
        if best is None or cycles < best.cycles:
            best = Packed(operand, candidate[0], candidate[1], cycles, now)
    return best if best is not None and best.cycles < now else None


def _stride(axis: Axis, operand: str) -> int:
    return axis.a if operand == "a" else axis.b


def _injective(axes: list[Axis], operand: str) -> bool:
    """Whether different indices are different elements."""
    reach = 0
    for axis in sorted(axes, key=lambda a: abs(_stride(a, operand))):
        if abs(_stride(axis, operand)) <= reach:
            return False
        reach += ((axis.extent or 1) - 1) * abs(_stride(axis, operand))
    return True


def _candidates(c: Contraction, operand: str, members: list[Axis]) -> Iterator[tuple[Pack, Contraction]]:
    other = "b" if operand == "a" else "a"
    # the order of this operand's memory, and that of the other's: there a line that it reads is used up before the next one
    sums = [a for a in members if a.reduction]
    own, others = _outer_first(sums, operand), _outer_first(sums, other)
    orders = [own] if own == others else [own, others]
    for lanes in members:
        if lanes.reduction and _stride(lanes, other) == 1:  # lanes along the reduction: both operands are read in vectors
            outer = [a.name for a in own if a is not lanes] + [a.name for a in members if not a.reduction]
            yield _relaid(c, operand, [*outer, lanes.name])
            continue
        if not lanes.reduction and operand == "b" and lanes.a == 1:  # lanes along an axis of both
            yield _relaid(c, operand, [a.name for a in members if not a.reduction and a is not lanes] + [a.name for a in own] + [lanes.name])
            continue
        if lanes.reduction or _stride(lanes, other):
            continue
        around = [a for a in members if not a.reduction and a is not lanes]
        extent = lanes.extent or 1
        widths = [w for w in PANELS if extent % w == 0 and extent > w] if extent > WIDEST_PANEL else []
        for width in [*widths, extent]:
            split = split_axis(c, lanes.name, width) if width != extent else c
            names = [a.name for a in around]
            names += [f"{lanes.name}.o"] if width != extent else []
            for order in orders:
                inner = [a.name for a in order] + [f"{lanes.name}.i" if width != extent else lanes.name]
                yield _relaid(split, operand, names + inner)


def _outer_first(axes: list[Axis], operand: str) -> list[Axis]:
    return sorted(axes, key=lambda a: abs(_stride(a, operand)), reverse=True)


def split_axis(c: Contraction, name: str, inner: int) -> Contraction:
    """The axis in two, `name.o` and `name.i`, the inner one of extent `inner`, which divides the axis."""
    axis = c.axis(name)
    assert axis.extent is not None and axis.extent % inner == 0
    outer_axis = Axis(f"{name}.o", axis.extent // inner, axis.a * inner, axis.b * inner, None if axis.c is None else axis.c * inner)
    inner_axis = replace(axis, name=f"{name}.i", extent=inner)
    axes = tuple(part for a in c.axes for part in ((outer_axis, inner_axis) if a.name == name else (a,)))
    index = dims.name(outer_axis.name) * inner + dims.name(inner_axis.name)
    windows = tuple(w for w in c.windows if name not in (w.output, w.tap))
    return change_addresses(replace(c, axes=axes, windows=windows), lambda d: dims.substitute(d, {name: index}))


def _relaid(c: Contraction, operand: str, names: list[str]) -> tuple[Pack, Contraction]:
    """The operand's axes dense in the order of `names`, the last innermost."""
    strides, step = {}, 1
    for name in reversed(names):
        strides[name] = step
        step *= c.axis(name).extent or 1
    pack = Pack(
        tuple((c.axis(n).extent or 1, _stride(c.axis(n), operand), strides[n]) for n in names),
        c.a0 if operand == "a" else c.b0,
        c.dtype,
        step,
    )
    if operand == "a":
        axes = tuple(replace(a, a=strides.get(a.name, 0)) for a in c.axes)
        return pack, replace(c, axes=axes, a0=0)
    axes = tuple(replace(a, b=strides.get(a.name, 0)) for a in c.axes)
    return pack, replace(c, axes=axes, b0=0)
