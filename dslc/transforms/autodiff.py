"""Reverse-mode differentiation: one sweep over the graph through each operator's `vjp`, which names no operator but `grad`.

A gradient is a part of the graph like any other, made of the same operators, so gradients nest. Nothing depends on hashing
order: cotangents of a value are added in the order in which the sweep meets its uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.operator import OPERATORS
from dslc.ir.scan import is_scan
from dslc.transforms.expand import expand_op
from dslc.transforms.regions import in_regions
from dslc.transforms.scan_gradient import Calculus, scan_vjp, varying_results


def differentiate(graph: Graph) -> Graph:
    """The graph with every `grad` operation replaced by the operations that compute its gradients, innermost first.

    Composite operators without a gradient of their own that lie between a loss and what it is differentiated by are expanded.
    """
    builder = Builder(graph.inputs, graph.ops)
    builder.ops = []
    renamed: dict[Value, Value] = {}
    known = set(graph.inputs)
    for op in graph.ops:
        known.update(op.outputs)
        if op.kind != "grad":
            op = in_regions(op.with_inputs(tuple(renamed.get(value, value) for value in op.inputs)), differentiate)
            builder.ops.append(op)
        elif op.outputs[0] not in renamed:
            # One sweep for all gradients of a loss: its loops are run backwards once.
            same = [o for o in graph.ops if o.kind == "grad" and o.inputs[0] == op.inputs[0] and o.outputs[0] not in renamed]
            same = [o for o in same if known.issuperset(o.inputs)]
            loss, *wrt = (renamed.get(value, value) for value in (op.inputs[0], *(v for o in same for v in o.inputs[1:])))
            builder.span = op.span
            renamed.update(zip((v for o in same for v in o.outputs), gradients(builder, loss, wrt), strict=True))
    return Graph(graph.inputs, tuple(builder.ops), tuple(renamed.get(value, value) for value in graph.outputs))


def gradients(builder: Builder, loss: Value, wrt: Sequence[Value]) -> tuple[Value, ...]:
    """d loss / d x for each x of `wrt`, which may be inputs or intermediate values; their operations are appended to `builder`.

    A value that the loss does not depend on has the gradient zero (the front end refuses to ask for it).
    Operations get the span of the operation that they differentiate.
    """
    expand_between(builder, (loss,), wrt)
    varying = varying_values(builder.ops, wrt)
    cotangents: dict[Value, Value] = {}
    if loss in varying:
        cotangents[loss] = builder.like(1.0, loss.type)
    sweep(builder, cotangents, varying)
    return tuple(cotangents[x] if x in cotangents else builder.like(0.0, x.type) for x in wrt)


def sweep(builder: Builder, cotangents: dict[Value, Value], varying: set[Value]) -> None:
    """From cotangents of results to those of every value of `varying` that they depend on, added to `cotangents`."""
    span = builder.span
    for op in reversed(tuple(builder.ops)):
        if not any(value in cotangents for value in op.outputs) or not any(value in varying for value in op.outputs):
            continue
        builder.span = op.span
        for value, part in zip(op.inputs, _vjp(builder, op, cotangents, varying), strict=True):
            if part is None or value not in varying:
                continue
            assert part.type == value.type, f"the gradient of {op.kind} by {value.type} has the type {part.type}"
            cotangents[value] = builder.add(cotangents[value], part) if value in cotangents else part
    builder.span = span


def _vjp(builder: Builder, op: Op, cotangents: dict[Value, Value], varying: set[Value]) -> tuple[Value | None, ...]:
    """The operator's vector-Jacobian product, without the operations that serve inputs which do not vary."""
    start = len(builder.ops)
    dy = tuple(cotangents.get(value) for value in op.outputs)
    several = len(op.outputs) > 1
    if is_scan(op):
        parts = scan_vjp(builder, op, dy, varying, CALCULUS)
    else:
        parts = OPERATORS[op.kind].vjp(
            builder, dy if several else dy[0], op.outputs if several else op.outputs[0], *op.inputs, **dict(op.attrs)
        )
    needed = {part for value, part in zip(op.inputs, parts, strict=True) if part is not None and value in varying}
    kept: list[Op] = []
    for new in reversed(builder.ops[start:]):
        if any(value in needed for value in new.outputs):
            kept.append(new)
            needed.update(new.inputs)
    builder.ops[start:] = reversed(kept)
    return parts


def varying_values(operations: Sequence[Op], wrt: Iterable[Value]) -> set[Value]:
    """The values that depend on `wrt` through differentiable operators."""
    varying = set(wrt)
    for op in operations:
        if is_scan(op):
            varying |= varying_results(op, varying, CALCULUS)
        elif OPERATORS[op.kind].differentiable and any(value in varying for value in op.inputs):
            varying.update(value for value in op.outputs if value.type.dtype.floating)
    return varying


def expand_between(builder: Builder, results: Iterable[Value], wrt: Iterable[Value]) -> None:
    """Expand, in place, what has an expansion and no `vjp` on the way from `wrt` to the results."""

    def opaque(op: Op) -> bool:
        return OPERATORS[op.kind].has("expand") and not OPERATORS[op.kind].has("vjp") and OPERATORS[op.kind].differentiable

    if not any(opaque(op) for op in builder.ops):
        return
    varying = varying_values(builder.ops, wrt)
    reached = set(results)
    between: set[Value] = set()
    for op in reversed(builder.ops):
        if any(value in reached and value in varying for value in op.outputs):
            between.update(op.outputs)
            reached.update(op.inputs)
    done: list[Op] = []
    pending = [(op, op.outputs[0] in between if op.outputs else False) for op in reversed(builder.ops)]
    while pending:
        op, on_the_way = pending.pop()
        if on_the_way and opaque(op):
            pending.extend((new, True) for new in reversed(expand_op(builder, op)))
        else:
            done.append(op)
    builder.ops[:] = done


CALCULUS = Calculus(varying_values, expand_between, sweep)
