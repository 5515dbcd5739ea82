"""Dead code: operations that no output needs are dropped. Graphs are pure, so nothing else keeps one alive."""

from __future__ import annotations

from dslc.ir.graph import Graph, Op, Value
from dslc.transforms.regions import in_regions


def dead_code(graph: Graph) -> Graph:
    """`graph` without operations whose results are unused, regions included. Inputs stay: they are the signature."""
    needed: set[Value] = set(graph.outputs)
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if not needed.isdisjoint(op.outputs):
            kept.append(in_regions(op, dead_code))
            needed.update(op.inputs)
    return Graph(graph.inputs, tuple(reversed(kept)), graph.outputs)
