"""Rows of matrices that products sum over, and pixels that windows walk over: such a large power of two apart fall into few sets of a
cache, and are padded by a line. Measured on a first-level cache of eight ways: 512 channels of 7 x 7 pixels from 75 to 95% of the limit."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod

from dslc.ir.graph import Op, Value
from dslc.ir.module import PortKind, Program
from dslc.ir.operator import OPERATORS
from dslc.ir.scan import is_scan
from dslc.ir.types import DType, TensorType
from dslc.lowering.layout import Layout, row_major

CROWDED = 2048  # bytes: rows at multiples of this distance share few sets of a first-level cache
LINE = 64  # bytes
NARROW = 8  # windows in a row of an image. Measured: 7 gain a fifth, 14 lose a twentieth
LARGEST_PARAMETER = 4 << 20  # bytes; what is larger comes from memory in any case, and best in whole pages. Measured

Uses = Mapping[Value, Sequence[Op]]


def padded_rows(uses: Uses, value: Value) -> Layout | None:
    """Row-major with padded rows, where products sum over the rows of the value and nothing else needs them dense; else None. `uses` are the
    graph's."""
    if not _crowded(value.type) or not _summed(uses, value) or not _walked(uses, value):
        return None
    return _padded(row_major(value.type.shape), value.type.dtype)


def padded_parameters(programs: Iterable[Program], parameters: Container[str]) -> dict[str, Layout]:
    """The layouts of those parameters, by path, whose rows are padded for all programs: where a program that trains one sums over its rows,
    none needs them dense, and caches hold them. What is only read is packed once instead."""
    found: dict[str, Layout] = {}
    refused: set[str] = set()
    for program in programs:
        graph, uses = program.graph, program.graph.uses()
        producers = graph.producers()
        new = {port.name: v for v, port in zip(graph.outputs, program.outputs, strict=True) if port.kind == PortKind.BUFFER}
        for value, port in zip(graph.inputs, program.inputs, strict=True):
            if port.kind != PortKind.BUFFER or port.name not in parameters or not _crowded(value.type):
                continue
            after = new.get(port.name)
            updated = after is None or (after in producers and OPERATORS[producers[after].kind].elementwise and _walked(uses, after))
            if not updated or value in graph.outputs or not _walked(uses, value):
                refused.add(port.name)
            elif after is not None and _summed(uses, value) and _bytes(value.type) <= LARGEST_PARAMETER:
                found[port.name] = _padded(row_major(value.type.shape), value.type.dtype)
    return {name: layout for name, layout in found.items() if name not in refused}


def padded_pixels(layout: Layout, dtype: DType, step: int) -> Layout:
    """The layout of an image with its pixels padded, where those of neighbouring windows, `step` pixels apart, share few sets, and a row has
    so few windows that a tile takes all of them. In wider images tiles of a few rows and columns leave room in the sets."""
    if len(layout.order) < 2 or layout.pitch > 1:
        return layout
    *_, across, channel = layout.order
    row, width = layout.padded[channel], layout.extents[across]
    if not isinstance(row, int) or not isinstance(width, int) or width > NARROW * step or not _crowds(row * step, dtype):
        return layout
    return _padded(layout, dtype)


def _crowded(t: TensorType) -> bool:
    row = t.shape[-1] if t.rank > 1 else 0
    return isinstance(row, int) and _crowds(row, t.dtype)


def _crowds(row: int, dtype: DType) -> bool:
    return row > 0 and row * dtype.size % CROWDED == 0


def _bytes(t: TensorType) -> int:
    return prod(extent for extent in t.shape if isinstance(extent, int)) * t.dtype.size


def _padded(layout: Layout, dtype: DType) -> Layout:
    row = layout.padded[layout.order[-1]]
    assert isinstance(row, int)
    return replace(layout, pitch=row + LINE // dtype.size)


def _summed(uses: Uses, value: Value) -> bool:
    """Whether a product sums over axes of the value other than its last, as that with weights does, and the weights' gradient."""
    last = value.type.rank - 1
    products = [user for user in uses.get(value, ()) if user.kind == "dot_general"]
    pairs = [pair for user in products for pair in zip(user.inputs, user.attr("contract"), strict=True)]
    return any(v == value and axes and last not in axes for v, axes in pairs)


def _walked(uses: Uses, value: Value) -> bool:
    """Whether all that reads the value walks padded rows: products, sums, loops, and what goes element by element with all that reads it."""
    seen, waiting = {value}, [value]
    while waiting:
        for user in uses.get(waiting.pop(), ()):
            if user.kind in ("dot_general", "sum") or is_scan(user):
                continue
            if not OPERATORS[user.kind].elementwise:
                return False
            more = [v for v in user.outputs if v not in seen]
            seen.update(more)
            waiting += more
    return True
