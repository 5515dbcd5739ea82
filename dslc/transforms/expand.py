"""Composite operators written out with the operators that they are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.operator import OPERATORS
from dslc.transforms.regions import in_regions


def expand_op(builder: Builder, op: Op) -> tuple[Op, ...]:
    """Operations that define the results of `op` itself by what its `expand` says.

    `builder` gives fresh ids; nothing is appended to it.
    """
    operations, span = builder.ops, builder.span
    builder.ops, builder.span = [], op.span
    made = OPERATORS[op.kind].expand(builder, *op.inputs, **dict(op.attrs))
    results = made if isinstance(made, tuple) else (made,)
    names: dict[Value, Value] = {}
    local = {value for new in builder.ops for value in new.outputs}
    for result, output in zip(results, op.outputs, strict=True):
        assert result.type == output.type, f"{op.kind} expands to {result.type}, but infers {output.type}"
        if result in names or result not in local:
            result = builder.identity(result)
        names[result] = output
    expanded = tuple(_renamed(new, names) for new in builder.ops)
    builder.ops, builder.span = operations, span
    return expanded


def _renamed(op: Op, names: dict[Value, Value]) -> Op:
    return replace(
        op,
        inputs=tuple(names.get(value, value) for value in op.inputs),
        outputs=tuple(names.get(value, value) for value in op.outputs),
    )


def expand_composites(
    graph: Graph, keep: frozenset[str] = frozenset(), when: Callable[[Op], bool] | None = None, routines: bool = False
) -> Graph:
    """The graph without composite operators but for the kinds in `keep`, which a back end implements whole.

    An operator that has a body or a routine too is not composite; `routines` are expanded all the same where they can be. `when` limits
    the expansion to operations for which it holds. Ids of inputs, outputs and everything that is not expanded stay.
    """
    builder = Builder(graph.inputs, graph.ops)
    done: list[Op] = []
    pending = list(reversed(graph.ops))
    while pending:
        op = in_regions(pending.pop(), lambda region: expand_composites(region, keep, when, routines))
        if op.kind not in keep and _can_expand(op.kind, routines) and (when is None or when(op)):
            pending.extend(reversed(expand_op(builder, op)))
        else:
            done.append(op)
    return Graph(graph.inputs, tuple(done), graph.outputs)


def _can_expand(kind: str, routines: bool) -> bool:
    return is_composite(kind) or (routines and OPERATORS[kind].has("routine") and OPERATORS[kind].has("expand"))


def is_composite(kind: str) -> bool:
    """Whether an operator is defined by `expand` alone."""
    return OPERATORS[kind].has("expand") and not (OPERATORS[kind].has("body") or OPERATORS[kind].has("routine"))
