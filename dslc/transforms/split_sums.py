"""Sums and means over the batch are taken in f64; long ones are cut in two, first each example by itself, then over the examples.

    sum[axis = (0, 2, 3)](x) = cast[f32](sum[axis = 0](sum[axis = (2, 3)](cast[f64](x))))

The first part has as many results as there are examples, so threads share it, and it fuses with what makes x row by row. In f64
because statistics of a batch and the gradients of biases and scales depend on these sums: a chain of f32 sums would lose a bit or
two that other frameworks keep. It costs little: such a loop waits for its additions or for memory, not for conversions. The cut
depends on the types alone: the bits are the same on any machine.

What does not vary over the axes comes out of the sum, as in the gradient by a mean, whose sum the gradient of the bias has too:

    sum[axis = (0, 2, 3)](x * y) = sum[axis = (0, 2, 3)](x) * y       y: f32[1, C, 1, 1]
"""

from __future__ import annotations

from collections.abc import Mapping

from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.types import DType
from dslc.transforms.dead_code import dead_code
from dslc.transforms.regions import in_regions
from dslc.transforms.wide_totals import wide_totals

LONG = 64  # elements of one example; shorter sums stay whole


def split_sums(graph: Graph) -> Graph:
    """Sums and means over axis 0 in f64; where an example has at least `LONG` elements, after a sum of each example.

    The second part of a sum stands where its result is first read, so that first parts that follow each other share a loop.
    """
    graph = dead_code(graph)  # what nobody reads is no reader
    builder = Builder(graph.inputs, graph.ops)
    builder.ops = []
    same: dict[Value, Value] = {}
    producers: dict[Value, Op] = {}
    waiting: dict[Value, list[Op]] = {}
    for old in graph.ops:
        op = in_regions(old.with_inputs(tuple(same.get(v, v) for v in old.inputs)), split_sums)
        for value in op.inputs:
            builder.ops += waiting.pop(value, [])
        cut = _cut(builder, op, producers) if op.kind in ("sum", "mean") else None
        if cut is None:
            totals = wide_totals(builder, op)
            same |= totals
            builder.ops += [] if totals else [op]
            producers |= dict.fromkeys(op.outputs, op)
        else:
            same[op.output], first = cut
            waiting[same[op.output]] = builder.ops[first:]
            del builder.ops[first:]
    for rest in waiting.values():
        builder.ops += rest
    return Graph(graph.inputs, tuple(builder.ops), tuple(same.get(v, v) for v in graph.outputs))


def _cut(builder: Builder, op: Op, producers: Mapping[Value, Op]) -> tuple[Value, int] | None:
    """The sum in parts, and how many operators there are before the second one; None where it stays as it is."""
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
    x, factor = _common_factor(x, axes, producers) if size >= LONG else (x, None)
    total = builder.cast(x, dtype=DType.F64)
    second = len(builder.ops)
    if size >= LONG:
        total = builder.sum(total, axis=inner, keep=keep)
        second = len(builder.ops)
        total = builder.sum(total, axis=(0,), keep=keep)
    else:
        total = builder.sum(total, axis=axis, keep=keep)
    if op.kind == "mean":
        total = builder.div(total, builder.extent(size=x.type.shape[0] * size, dtype=DType.F64))
    result: Value = builder.cast(total, dtype=x.type.dtype)
    if factor is None:
        return result, second
    if not keep:
        shape = (1,) * (rank - factor.type.rank) + factor.type.shape
        factor = builder.reshape(factor, shape=tuple(extent for a, extent in enumerate(shape) if a not in axes))
    product: Value = builder.mul(result, factor)
    return product, second


def _common_factor(x: Value, axes: tuple[int, ...], producers: Mapping[Value, Op]) -> tuple[Value, Value | None]:
    """x as y times what is the same along the axes, or x itself."""
    op = producers.get(x)
    if op is None or op.kind != "mul":
        return x, None
    for y, factor in (op.inputs, op.inputs[::-1]):
        missing = x.type.rank - factor.type.rank
        if y.type == x.type and factor.type.rank and all(a < missing or factor.type.shape[a - missing] == 1 for a in axes):
            return y, factor
    return x, None
