"""Common subexpressions: an operation that repeats an earlier one is replaced by it, in one walk of linear time.

Random draws are equal only where stream, seed and counter are: two draws of a program have two streams and never merge.
"""

from __future__ import annotations

from typing import Any

from dslc.ir.graph import Graph, Op, Value
from dslc.transforms.regions import in_regions


def cse(graph: Graph) -> Graph:
    """`graph` in which no two operations have the same kind, inputs, attributes and regions."""
    same: dict[Value, Value] = {}
    first: dict[tuple[Any, ...], Op] = {}
    kept: list[Op] = []
    for old in graph.ops:
        op = in_regions(old.with_inputs(tuple(same.get(v, v) for v in old.inputs)), cse)
        types = tuple(v.type for v in op.outputs)
        twin = first.setdefault((op.kind, tuple(v.id for v in op.inputs), exact(op.attrs), types, op.regions), op)
        if twin is op:
            kept.append(op)
        else:
            same.update(zip(op.outputs, twin.outputs, strict=True))
    return Graph(graph.inputs, tuple(kept), tuple(same.get(v, v) for v in graph.outputs))


def exact(value: Any) -> Any:
    """A key that tells apart what `==` does not (0.0 from -0.0, 1 from 1.0 from true) and finds NaN equal to itself."""
    if isinstance(value, tuple):
        return tuple(exact(v) for v in value)
    if isinstance(value, (bool, float)):
        return type(value).__name__, repr(value)
    return value
