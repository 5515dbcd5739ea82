"""Long sums and means over the batch are cut in two: first each example by itself, then over the examples.

    sum[axis = (0, 2, 3)](x) = sum[axis = 0](sum[axis = (2, 3)](x))

The first part has as many results as there are examples, so threads share it, it fuses with what makes x row by row, and its
partial sums keep the rounding error small. The second is in f64: it has few terms, and large ones, and statistics of a batch
and gradients by a channel are what networks are most sensitive to. The cut depends on the types alone: the bits are the same on
any machine.
"""
from __future__ import annotations

from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.types import DType

LONG = 64  # elements of one example; shorter sums stay whole


def split_sums(graph: Graph) -> Graph:
    """Cut every sum and mean over axis 0 and further axes of at least `LONG` elements an example."""
    builder = Builder(graph.inputs, graph.ops)
    builder.ops = []
    same: dict[Value, Value] = {}
    for old in graph.ops:
        op = old.with_inputs(tuple(same.get(v, v) for v in old.inputs))
        result = _cut(builder, op) if op.kind in ("sum", "mean") else None
        if result is None:
            builder.ops.append(op)
        else:
            same[op.output] = result
    return Graph(graph.inputs, tuple(builder.ops), tuple(same.get(v, v) for v in graph.outputs))


def _cut(builder: Builder, op: Op) -> Value | None:
    x = op.inputs[0]
    axis, keep = op.attr("axis"), op.attr("keep")
    rank = x.type.rank
    axes = tuple(range(rank)) if axis is None else tuple(a % rank for a in (axis if isinstance(axis, tuple) else (axis,)))
    inner = tuple(a for a in axes if a != 0)
    if 0 not in axes or not inner or not x.type.dtype.floating:
        return None
    size = 1
    for a in inner:
        extent = x.type.shape[a]
        if not isinstance(extent, int):
            return None
        size *= extent
    if size < LONG:
        return None
    builder.span = op.span
    partial: Value = builder.sum(x, axis=inner, keep=keep)
    total = builder.sum(builder.cast(partial, dtype=DType.F64), axis=(0,), keep=keep)
    if op.kind == "mean":
        total = builder.div(total, builder.extent(size=x.type.shape[0] * size, dtype=DType.F64))
    result: Value = builder.cast(total, dtype=x.type.dtype)
    return result
