"""Rows of matrices that products sum over: such a large power of two apart fall into few sets of a cache, and are padded by a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dslc.ir.graph import Graph, Op, Value
from dslc.ir.operator import OPERATORS
from dslc.ir.scan import is_scan
from dslc.lowering.layout import Layout, row_major

CROWDED = 2048  # bytes: rows at multiples of this distance share few sets of a first-level cache
LINE = 64  # bytes


def padded_rows(graph: Graph, uses: Mapping[Value, Sequence[Op]], value: Value) -> Layout | None:
    """Row-major with padded rows, where products sum over the rows of the value and nothing else needs them dense; else None. `uses` are the
    graph's.

    What walks padded rows: products, sums, loops and what goes element by element, with all that reads it.
    """
    t = value.type
    row = t.shape[-1] if t.rank > 1 else 0
    if not isinstance(row, int) or row == 0 or row * t.dtype.size % CROWDED:
        return None
    if not any(user.kind == "dot_general" and _sums_rows(user, value) for user in uses.get(value, ())):
        return None
    seen, waiting = {value}, [value]
    while waiting:
        read = waiting.pop()
        if read in graph.outputs:
            return None
        for user in uses.get(read, ()):
            if user.kind in ("dot_general", "sum") or is_scan(user):
                continue
            if not OPERATORS[user.kind].elementwise:
                return None
            more = [v for v in user.outputs if v not in seen]
            seen.update(more)
            waiting += more
    return replace(row_major(t.shape), pitch=row + LINE // t.dtype.size)


def _sums_rows(product: Op, value: Value) -> bool:
    """Whether the product sums over axes of the value other than its last: the gradient of weights."""
    last = value.type.rank - 1
    return any(v == value and axes and last not in axes for v, axes in zip(product.inputs, product.attr("contract"), strict=True))
