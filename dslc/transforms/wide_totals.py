"""Sums of the batch that a loop adds up are added up in f64, as each of them is taken, and rounded once behind the loop:

    carry t: f32 { t = t + cast[f32](s) }    becomes    carry t: f64 { t = t + s }    s: f64

The gradient of a bias in a cell would else be rounded as often as the loop is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.scan import is_scan, parts
from dslc.ir.types import DType


def wide_totals(builder: Builder, op: Op) -> dict[Value, Value]:
    """Appends the loop with its totals in f64, the conversions around it included; the narrow results by those of `op`.

    Empty, and nothing appended, where `op` has no such total.
    """
    if not is_scan(op):
        return {}
    it = parts(op)
    made, uses = it.body.producers(), it.body.uses()
    addends = {n: _addend(carry, it.after[n], made, uses, it.body.outputs) for n, carry in enumerate(it.carries)}
    wide = {n: addend for n, addend in addends.items() if addend is not None}
    if not wide:
        return {}
    builder.span = op.span
    inner = Builder(it.body.inputs, it.body.ops)
    initial, final = list(it.initial), list(it.final)
    fresh: dict[Value, Value] = {}
    sums: dict[Value, Op] = {}
    for n, addend in wide.items():
        carry, after = it.carries[n], it.after[n]
        type_ = replace(carry.type, dtype=DType.F64)
        fresh |= {carry: inner.value(type_), after: inner.value(type_)}
        sums[after] = replace(made[after], inputs=(fresh[carry], addend), outputs=(fresh[after],))
        initial[n], final[n] = builder.cast(initial[n], dtype=DType.F64), builder.value(type_)
    ops = tuple(sums.get(old.outputs[0], old) for old in it.body.ops)
    body = Graph(tuple(fresh.get(v, v) for v in it.body.inputs), ops, tuple(fresh.get(v, v) for v in it.body.outputs))
    builder.ops.append(replace(op, inputs=(*it.sequences, *initial, *it.captures), outputs=(*final, *it.stacked), regions=(body,)))
    return {it.final[n]: builder.cast(final[n], dtype=it.final[n].type.dtype) for n in wide}


def _addend(
    carry: Value, after: Value, made: Mapping[Value, Op], uses: Mapping[Value, list[Op]], results: tuple[Value, ...]
) -> Value | None:
    """The sum in f64 that is added, rounded, to a carry of f32 to which nothing else happens."""
    add = made.get(after)
    if add is None or add.kind != "add" or uses.get(carry) != [add] or after in uses or results.count(after) != 1:
        return None
    if carry.type.dtype != DType.F32 or carry in results or add.inputs.count(carry) != 1:
        return None
    (narrow,) = (v for v in add.inputs if v != carry)
    cast = made.get(narrow)
    if cast is None or cast.kind != "cast" or narrow.type != carry.type:
        return None
    (whole,) = cast.inputs
    source = made.get(whole)
    return whole if source is not None and source.kind == "sum" and whole.type.dtype == DType.F64 else None
