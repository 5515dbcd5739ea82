"""The gradient of a scan: a scan in the other direction.

    h = h0;  for t: h, y[t] = f(h, x[t], w)            forward, which also yields what the reverse body reads
    g = dh;  for t, from the last: g, dx[t], dw += the vector-Jacobian product of f at (h[t - 1], x[t], w) by (g, dy[t])

The reverse body walks over the same sequences, over the cotangents of yields and over stored values of the forward body. Values that
cost no memory (elements, captures, the index) and what follows from these element by element are computed again; of the rest, the
cheapest set in bytes is stored. With `recompute` the forward scan stores its carries alone. Cotangents of captures are sums
over iterations, carried. Everything is an ordinary scan, so gradients nest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Op, Value, sorted_attrs
from dslc.ir.operator import OPERATORS
from dslc.ir.scan import ScanParts, build_scan, is_scan, parts, stack_axis, with_axis
from dslc.ir.types import DType, TensorType
from dslc.transforms.cut import cheapest_cut

TYPICAL = 64  # what a symbolic size counts as when bytes are compared


@dataclass(frozen=True, slots=True)
class Calculus:
    """What autodiff does with the operations of any graph: here, of a body."""

    varying: Callable[[Sequence[Op], Iterable[Value]], set[Value]]  # the values that depend on some
    expand: Callable[[Builder, Iterable[Value], Iterable[Value]], None]  # composites between values and results
    sweep: Callable[[Builder, dict[Value, Value], set[Value]], None]  # cotangents of results to cotangents of all


def varying_results(op: Op, varying: set[Value], calculus: Calculus) -> set[Value]:
    """The results of a scan that depend on the operands that vary."""
    scan = parts(op)
    inside = _inside(scan, varying, calculus)
    found = {f for f, after in zip(scan.final, scan.after, strict=True) if after in inside}
    found |= {f for f, first in zip(scan.final, scan.initial, strict=True) if first in varying}
    found |= {s for s, y in zip(scan.stacked, scan.yields, strict=True) if y in inside}
    return {v for v in found if v.type.dtype.floating}


def _inside(scan: ScanParts, varying: set[Value], calculus: Calculus) -> set[Value]:
    """The values of the body that vary, where some operands do: carries pass it on."""
    outer = (*scan.sequences, *scan.initial, *scan.captures)
    inner = (*scan.slices, *scan.carries, *scan.captured)
    seeds = [i for o, i in zip(outer, inner, strict=True) if o in varying]
    while True:
        found = calculus.varying(scan.body.ops, seeds) | set(seeds)
        more = [c for c, after in zip(scan.carries, scan.after, strict=True) if after in found and c not in found and c.type.dtype.floating]
        if not more:
            return found
        seeds += more


def scan_vjp(
    builder: Builder, op: Op, cotangents: Sequence[Value | None], varying: set[Value], calculus: Calculus
) -> tuple[Value | None, ...]:
    """The cotangents of a scan's operands that vary; the forward scan in `builder` is replaced by one that stores what they need."""
    scan = parts(op)
    inside = _inside(scan, varying, calculus)
    count = len(scan.carries)
    body = Builder(scan.body.inputs, scan.body.ops)
    wanted = [y for y, d in zip(scan.yields, cotangents[count:], strict=True) if d is not None and y in inside]
    active = _active(scan, cotangents[:count], wanted, inside, calculus)
    results = [*(scan.after[i] for i in active), *wanted]
    calculus.expand(body, results, inside & set(scan.body.inputs))
    inside = _inside(replace(scan, body=Graph(scan.body.inputs, tuple(body.ops), scan.body.outputs)), varying, calculus)
    forward = len(body.ops)

    given_carries = [body.value(scan.after[i].type) for i in active]
    stacked = [
        (d, axis, y) for y, d, axis in zip(scan.yields, cotangents[count:], scan.stacks, strict=True) if d is not None and y in inside
    ]
    given_yields = [body.value(y.type) for _, _, y in stacked]
    found: dict[Value, Value] = {}
    for value, cotangent in zip(
        (*(scan.after[i] for i in active), *(y for _, _, y in stacked)), (*given_carries, *given_yields), strict=True
    ):
        if value in inside:
            found[value] = body.add(found[value], cotangent) if value in found else cotangent
    calculus.sweep(body, found, inside)

    carried = [found.get(scan.carries[i]) or body.like(0.0, scan.carries[i].type) for i in active]
    walked = [i for i, (o, v) in enumerate(zip(scan.sequences, scan.slices, strict=True)) if o in varying and v in found]
    summed = [i for i, (o, v) in enumerate(zip(scan.captures, scan.captured, strict=True)) if o in varying and v in found]
    totals = [body.value(_summed(scan.captured[i].type)) for i in summed]
    sums = [body.add(total, _as(body, found[scan.captured[i]], total.type)) for total, i in zip(totals, summed, strict=True)]
    outputs = (*carried, *sums, *(found[scan.slices[i]] for i in walked))

    before, after = body.ops[:forward], _needed(body.ops[forward:], outputs)
    own = {v for o in after for v in o.outputs} | {*given_carries, *given_yields, *totals}
    reads = dict.fromkeys(v for o in after for v in o.inputs if v not in own) | dict.fromkeys(v for v in outputs if v not in own)
    stored = _stored(scan, before, list(reads))
    again = _needed(before, reads, stop=stored)
    kept = _store(builder, op, scan, before, stored)

    used = {v for o in (*again, *after) for v in o.inputs} | set(outputs)
    slices = [(s, a, v) for s, a, v in zip(scan.sequences, scan.elements, scan.slices, strict=True) if v in used]
    captures = [(c, v) for c, v in zip(scan.captures, scan.captured, strict=True) if v in used]
    sequences = [*slices, *((*kept[v], v) for v in stored), *((d, axis, v) for (d, axis, _), v in zip(stacked, given_yields, strict=True))]
    inputs = (scan.index, *(v for _, _, v in sequences), *given_carries, *totals, *(v for _, v in captures))
    starts = [cotangents[i] or builder.like(0.0, scan.final[i].type) for i in active]
    starts += [builder.like(0.0, total.type) for total in totals]
    reverse = build_scan(
        builder,
        Graph(inputs, (*again, *after), outputs),
        length=scan.length,
        sequences=[s for s, _, _ in sequences],
        elements=[a for _, a, _ in sequences],
        initial=starts,
        captures=[c for c, _ in captures],
        yields=[scan.elements[i] for i in walked],
        reverse=not scan.reverse,
        recompute=scan.recompute,
    )
    gradients: list[Value | None] = [None] * len(op.inputs)
    first, behind = len(scan.sequences), len(scan.sequences) + len(scan.initial)
    places = [*(first + i for i in active), *(behind + i for i in summed), *walked]
    for place, value in zip(places, reverse.outputs, strict=True):
        gradients[place] = _as(builder, value, op.inputs[place].type)
    return tuple(gradients)


def _summed(type: TensorType) -> TensorType:
    """Many terms are added up in no less than f32."""
    return type.with_dtype(DType.F32) if type.dtype.half else type


def _as(builder: Builder, value: Value, type: TensorType) -> Value:
    converted: Value = value if value.type == type else builder.cast(value, dtype=type.dtype)
    return converted


def _active(scan: ScanParts, finals: Sequence[Value | None], wanted: Sequence[Value], inside: set[Value], calculus: Calculus) -> list[int]:
    """The carries that vary and that a result with a cotangent depends on."""
    needed = {i for i, d in enumerate(finals) if d is not None}
    while True:
        reached = _reached(scan.body.ops, (*wanted, *(scan.after[i] for i in needed)), inside)
        more = {i for i, c in enumerate(scan.carries) if c in reached} - needed
        if not more:
            break
        needed |= more
    return [i for i in sorted(needed) if scan.carries[i] in inside or scan.after[i] in inside]


def _reached(ops: Sequence[Op], results: Iterable[Value], inside: set[Value]) -> set[Value]:
    """The varying values that results depend on."""
    found = {v for v in results if v in inside}
    for op in reversed(ops):
        if any(v in found for v in op.outputs):
            found.update(v for v in op.inputs if v in inside)
    return found


def _needed(ops: Sequence[Op], results: Iterable[Value], stop: Iterable[Value] = ()) -> list[Op]:
    """The operations that results need, where `stop` are at hand."""
    at_hand = set(stop)
    needed = {v for v in results if v not in at_hand}
    kept = []
    for op in reversed(ops):
        if any(v in needed for v in op.outputs):
            kept.append(op)
            needed.update(v for v in op.inputs if v not in at_hand)
    return kept[::-1]


# ---- what is stored -------------------------------------------------------------------------------------------------------


def _stored(scan: ScanParts, ops: Sequence[Op], reads: Sequence[Value]) -> list[Value]:
    """The values of the forward body that are kept for the reverse one, in order of definition."""
    fixed = {scan.index, *scan.slices, *scan.captured}
    order = [*scan.carries, *(v for op in ops for v in op.outputs)]
    edges, sources = [], list(scan.carries)
    for op in ops:
        if scan.recompute or _cheap(op):
            edges += [(a, b) for a in op.inputs if a not in fixed for b in op.outputs]
        else:
            sources += op.outputs
    cut = cheapest_cut({v: _bytes(v.type) for v in order}, edges, sources, [v for v in reads if v not in fixed])
    return [v for v in order if v in cut]


def _cheap(op: Op) -> bool:
    """Whether computing again costs about what reading would: element by element, moved, or drawn."""
    operator = OPERATORS[op.kind]
    if is_scan(op) or operator.has("routine") or operator.has("recurrence"):
        return False
    return operator.elementwise or operator.moves or operator.draw or not op.inputs


def _bytes(type: TensorType) -> int:
    return type.dtype.size * prod(dims.evaluate(size, dict.fromkeys(dims.names(size), TYPICAL)) for size in type.shape)


def _store(builder: Builder, op: Op, scan: ScanParts, ops: Sequence[Op], stored: Sequence[Value]) -> dict[Value, tuple[Value, int]]:
    """Makes the forward scan yield what is stored; each such value with its stack and the axis of that."""
    at = next(i for i, other in enumerate(builder.ops) if other.outputs == op.outputs)
    kept = {y: (s, axis) for y, s, axis in zip(scan.yields, scan.stacked, scan.stacks, strict=True) if y in stored}
    more = [v for v in stored if v not in kept]
    axes = [stack_axis(v.type) for v in more]
    made = [builder.value(with_axis(v.type, axis, scan.length)) for v, axis in zip(more, axes, strict=True)]
    attrs = {**dict(op.attrs), "yields": (*scan.stacks, *axes)}
    body = Graph(scan.body.inputs, tuple(ops), (*scan.body.outputs, *more))
    builder.ops[at] = replace(op, attrs=sorted_attrs(attrs), outputs=(*op.outputs, *made), regions=(body,))
    return kept | {v: (s, axis) for v, s, axis in zip(more, made, axes, strict=True)}
