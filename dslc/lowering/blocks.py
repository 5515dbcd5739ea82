"""Loops in blocks: where a nest walks one operand along memory and another across it (a transposed copy, the update of weights whose
gradient lies in another order), lines that are read across serve several rows before they leave the cache."""

from __future__ import annotations

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.loops import Load, Reduce, Store
from dslc.lowering.indices import coefficient, substitute, walk

ROWS = 16  # rows that share the lines: as many as a line of 64 bytes has elements of 4
COLUMNS = range(256, 31, -16)  # of a block, whole vectors
LEAST = 64 << 10  # elements; less stays in the caches anyway
LINE = 16  # elements: a step this long takes a new line each time

Axes = tuple[tuple[str, Dim], ...]


def blocked(stores: tuple[Store, ...], axes: Axes, vector: str | None) -> tuple[tuple[Store, ...], Axes]:
    """The loops (the vector variable last) in blocks of rows and columns where that makes lines serve twice; else as they were.

    `x` becomes `xo` around and `xt` inside. Sizes must divide: a block is never cut.
    """
    extents = dict(axes)
    columns = extents.get(vector) if vector is not None else None
    if not isinstance(columns, int) or any(not isinstance(e, int) for e in extents.values()):
        return stores, axes
    if any(isinstance(n, Reduce) for s in stores for n in walk(s.value)):
        return stores, axes
    assert vector is not None
    size = 1
    for extent in extents.values():
        size *= extent if isinstance(extent, int) else 1
    loads = [n.address for s in stores for n in walk(s.value) if isinstance(n, Load)]
    across = [d for d in loads if _step(d, vector) >= LINE]
    width = next((c for c in COLUMNS if columns % c == 0 and columns > c), None)
    rows = next((n for n, e in axes if n != vector and isinstance(e, int) and e % ROWS == 0 and across and all(_step(d, n) == 1 for d in across)), None)
    if size < LEAST or width is None or rows is None:
        return stores, axes
    mapping: dict[str, Dim] = {n: dims.name(f"{n}o") * f + dims.name(f"{n}t") for n, f in ((rows, ROWS), (vector, width))}
    many = extents[rows]
    assert isinstance(many, int)
    others = tuple(a for a in axes if a[0] not in mapping)
    outer: Axes = ((f"{rows}o", many // ROWS), *others, (f"{vector}o", columns // width))
    inner: Axes = ((f"{rows}t", ROWS), (f"{vector}t", width))
    changed = tuple(Store(s.buffer, dims.substitute(s.address, mapping), substitute(s.value, mapping)) for s in stores)
    return changed, (*outer, *inner)


def _step(address: Dim, name: str) -> int:
    scale = coefficient(address, name)
    return abs(scale) if isinstance(scale, int) else 0
