"""Loops that meet a border: the few iterations at its ends are loops of their own, so that those between need no conditions.

A window over an image with padding asks for each of its elements whether it lies inside. Away from the border all of them do,
the conditions are known, clamped loads are loads, and what is left of a small window is written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.loops import Binary, ClampedLoad, Const, Expr, IndexValue, Load, Reduce, Store
from dslc.lowering.fuse import unroll_small
from dslc.lowering.indices import Ranges, bounds, decided, rewrite, substitute, walk

WIDEST_BORDER = 4  # iterations
LARGEST = 240  # nodes of an expression that is printed several times


def segments(stores: tuple[Store, ...], name: str, extent: int, ranges: Ranges) -> list[tuple[int, int]]:
    """(start, count) of the loops that `name` becomes: the border before, the middle where conditions are known, and after."""
    if extent < 3 or sum(1 for s in stores for _ in walk(s.value)) > LARGEST:
        return [(0, extent)]
    middle, low, high = extent // 2, 0, extent
    for gap, op in conditions(stores):
        if name not in dims.names(gap) or not _known(gap, op, ranges, name, middle, middle):
            continue
        first = next((n for n in range(min(WIDEST_BORDER, middle) + 1) if _known(gap, op, ranges, name, n, middle)), None)
        last = next(
            (n for n in range(min(WIDEST_BORDER, extent - 1 - middle) + 1) if _known(gap, op, ranges, name, middle, extent - 1 - n)), None
        )
        if first is not None and last is not None:
            low, high = max(low, first), min(high, extent - last)
    return [(start, stop - start) for start, stop in ((0, low), (low, high), (high, extent)) if stop > start]


def conditions(stores: tuple[Store, ...]) -> Iterator[tuple[Dim, str]]:
    """(x, op) of every condition `x op 0` on indices; clamped loads ask for both sides of their axis."""
    for store in stores:
        for node in walk(store.value):
            match node:
                case Binary(op="eq" | "lt" | "ge" as op, x=IndexValue(index=index), y=Const(value=value)):
                    yield index - int(value), op
                case Binary(op="eq" | "lt" | "ge" as op, x=IndexValue(index=index), y=IndexValue(index=other)):
                    yield index - other, op
                case ClampedLoad(clamped=clamped):
                    for index, extent, _ in clamped:
                        yield index, "ge"
                        yield index - extent, "lt"


def _known(gap: Dim, op: str, ranges: Ranges, name: str, low: int, high: int) -> bool:
    found = bounds(gap, {**ranges, name: (low, high)})
    if found is None:
        return False
    least, most = found
    return (least == most == 0 or not least <= 0 <= most) if op == "eq" else most < 0 or least >= 0


def settled(store: Store, ranges: Ranges, mapping: Mapping[str, Dim]) -> Store:
    """The store under a substitution, without what the ranges decide, small reductions written out."""

    def change(e: Expr) -> Expr:
        if not isinstance(e, ClampedLoad):
            return e
        address, left = e.address, []
        for index, extent, stride in e.clamped:
            inside = bounds(index, ranges), bounds(extent - 1 - index, ranges)
            if all(side is not None and side[0] >= 0 for side in inside):
                address = address + index * stride
            else:
                left.append((index, extent, stride))
        return ClampedLoad(e.buffer, address, tuple(left), e.dtype) if left else Load(e.buffer, address, e.dtype)

    value = rewrite(decided(substitute(store.value, mapping), ranges), change)
    return Store(store.buffer, dims.substitute(store.address, mapping), unroll_small(value))


def ranges_of(stores: tuple[Store, ...], loops: tuple[tuple[str, Dim], ...]) -> dict[str, tuple[int, int]]:
    """The values of all loop variables whose extents are numbers."""
    found = [*loops, *(v for s in stores for e in walk(s.value) if isinstance(e, Reduce) for v in e.variables)]
    return {name: (0, extent - 1) for name, extent in found if isinstance(extent, int)}
