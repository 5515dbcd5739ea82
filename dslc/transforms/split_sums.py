"""Sums and means over the batch: long ones are cut in two, first each example by itself, then over the examples, in f64.

    sum[axis = (0, 2, 3)](x) = cast[f32](sum[axis = 0](cast[f64](sum[axis = (2, 3)](x))))

The first part has as many results as there are examples, so threads share it, it fuses with what makes x row by row, and its
partial sums keep the rounding error small. The second has few terms, so that f64 costs little there, and it is what statistics of
a batch and gradients of biases depend on: a chain of f32 sums would lose a bit or two that other frameworks keep. The cut depends on
the types alone: the bits are the same on any machine.
"""

from __future__ import annotations

from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.types import DType

LONG = 64  # elements of one example; shorter sums stay whole


def split_sums(graph: Graph) -> Graph:
    """Sums and means over axis 0 in f64; where an example has at least `LONG` elements, after a sum of each example."""
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
    if 0 not in axes or x.type.shape[0] == 1 or not x.type.dtype.floating:
        return None
    inner = tuple(a for a in axes if a != 0)
    size = 1
    for a in inner:
        extent = x.type.shape[a]
        if not isinstance(extent, int):
            return None
        size *= extent
    if size < LONG and x.type.dtype == DType.F64:
        return None
    builder.span = op.span
    if size >= LONG:
        partial = builder.sum(x, axis=inner, keep=keep)
        total = builder.sum(builder.cast(partial, dtype=DType.F64), axis=(0,), keep=keep)
    else:
        total = builder.sum(builder.cast(x, dtype=DType.F64), axis=axis, keep=keep)
    if op.kind == "mean":
        total = builder.div(total, builder.extent(size=x.type.shape[0] * size, dtype=DType.F64))
    result: Value = builder.cast(total, dtype=x.type.dtype)
    return result
