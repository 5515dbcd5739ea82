"""Bind: dimension names are replaced by sizes. The batch can stay symbolic: it is not in the mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.dims import Dim, DimError, DimExpr, substitute
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.operator import OPERATORS, TypeFailure, infer_types
from dslc.ir.types import TensorType


def bind(graph: Graph, sizes: Mapping[str, Dim]) -> Graph:
    """`graph` with names in types and attributes substituted, and every type inferred again.

    A size that an operator refuses (a window that no longer fits, a negative extent) raises DiagnosticError at its line.
    """
    values: dict[Value, Value] = {}

    def bound(value: Value) -> Value:
        return values.setdefault(value, Value(value.id, bind_type(value.type, sizes)))

    inputs = tuple(bound(v) for v in graph.inputs)
    ops = []
    for op in graph.ops:
        try:
            ops.append(_bind_op(op, bound, sizes))
        except (TypeFailure, DimError) as failure:
            hint = failure.hint if isinstance(failure, TypeFailure) else None
            given = ", ".join(f"{name} = {size}" for name, size in sorted(sizes.items()))
            raise DiagnosticError(Diagnostic("DL0210", f"with {given}: {failure}", op.span, hint=hint)) from None
    return Graph(inputs, tuple(ops), tuple(bound(v) for v in graph.outputs))


def _bind_op(op: Op, bound: Any, sizes: Mapping[str, Dim]) -> Op:
    attrs = tuple((name, bind_attr(value, sizes)) for name, value in op.attrs)
    inputs, outputs = tuple(bound(v) for v in op.inputs), tuple(bound(v) for v in op.outputs)
    regions = tuple(bind(region, sizes) for region in op.regions)
    if op.kind in OPERATORS:
        types = infer_types(op.kind, (v.type for v in inputs), dict(attrs), regions)
        assert types == tuple(v.type for v in outputs), f"{op.kind}: {types} is not the substituted type"
    return replace(op, inputs=inputs, attrs=attrs, outputs=outputs, regions=regions)


def bind_type(type: TensorType, sizes: Mapping[str, Dim]) -> TensorType:
    """A type with names substituted."""
    shape = tuple(substitute(extent, sizes) for extent in type.shape)
    for extent in shape:
        if isinstance(extent, int) and extent < 0:
            raise DiagnosticError(Diagnostic("DL0210", f"{type} has an axis of {extent} elements with these sizes"))
    return type.with_shape(shape)


def bind_attr(value: Any, sizes: Mapping[str, Dim]) -> Any:
    """An attribute with names substituted, in nested tuples too."""
    if isinstance(value, DimExpr):
        return substitute(value, sizes)
    if isinstance(value, tuple):
        return tuple(bind_attr(v, sizes) for v in value)
    return bind_type(value, sizes) if isinstance(value, TensorType) else value
