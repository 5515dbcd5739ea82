"""Reductions in the order of memory: the loops of a sum go from the largest steps to the smallest, and are one where memory has no gap.

    sum over (c, h, w) of x[c, h, w]     x has its channels innermost: the loops are h, then (w, c) as one, whose steps are 1

The largest reads decide. Where they disagree (one value has its channels innermost, the other its columns) both of the axes along
which memory is walked come last, so that lines are still in the cache when they are needed again. Layouts are decided before widths
and threads are known, so the order is the same for all of them. What counts its elements (argmax) keeps its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.loops import ClampedLoad, Expr, Load, Reduce
from dslc.lowering.indices import coefficient, decided, indices, map_indices, quotients, rewrite, simplify, substitute, walk

LONGEST = 1 << 14  # elements of the merged innermost loop: a lane adds up 1024, and such sums are added up in turn
UNKNOWN = 32  # for weighing only: the extent of a loop whose extent is not known yet

Ranges = Mapping[str, tuple[int, int]]


def in_memory_order(e: Expr, ranges: Ranges) -> Expr:
    """The expression with the loops of its reductions ordered by what they read."""
    return rewrite(e, lambda n: _ordered(_split(n, ranges)) if isinstance(n, Reduce) and not n.op.startswith("arg") else n)


def merged(e: Expr) -> Expr:
    """The expression with the inner loops of its reductions as one, where every index walks on and the loop does not become too long."""
    return rewrite(e, lambda n: _merged(n) if isinstance(n, Reduce) and not n.op.startswith("arg") else n)


def _split(e: Reduce, ranges: Ranges) -> Reduce:
    """`k // 5` where 5 divides k's extent: k = 5 * outer + inner, and both are loops of their own, as those of a flattened image."""
    for _ in range(8):
        extents = dict(e.variables)
        wanted = min(
            (
                (q.denominator // scale, name)
                for d in indices(e.body)
                for q in quotients(d)
                if isinstance(q.denominator, int)
                for name in sorted(dims.names(q.numerator) & extents.keys())
                if isinstance(scale := coefficient(q.numerator, name), int) and scale > 0 and q.denominator % scale == 0
                if 1 < q.denominator // scale != extents[name] and dims.is_known_multiple(extents[name], q.denominator // scale)
            ),
            default=None,
        )
        if wanted is None:
            break
        factor, name = wanted
        outer, inner = f"{name}o", f"{name}t"
        variables: list[tuple[str, Dim]] = []
        for v, extent in e.variables:
            variables += [(outer, dims.floor_divide(extent, factor)), (inner, factor)] if v == name else [(v, extent)]
        ranges = {**ranges, outer: (0, ranges[name][1] // factor), inner: (0, factor - 1)}
        body = substitute(e.body, {name: dims.name(outer) * factor + dims.name(inner)})
        e = replace(e, variables=tuple(variables), body=_simplified(body, ranges))
    return e


def _simplified(e: Expr, ranges: Ranges) -> Expr:
    return decided(map_indices(e, lambda d: simplify(d, ranges)), ranges)


def _ordered(e: Reduce) -> Reduce:
    steps = _deciding_steps(e)
    if len(e.variables) < 2 or any(not any(of.values()) for of in steps.values()):
        return e

    def nearest(v: tuple[str, Dim]) -> tuple[int, int]:
        walked = [abs(step) for step in steps[v[0]].values() if step]
        return -min(walked), -max(walked)

    return replace(e, variables=tuple(sorted(e.variables, key=nearest)))


def _deciding_steps(e: Reduce) -> dict[str, dict[int, int]]:
    """For each variable its step in each of the largest reads; none at all where an index is not walked in equal steps."""
    reads: list[tuple[int, dict[str, int]]] = []
    for node in walk(e.body):
        if not isinstance(node, Load | ClampedLoad):
            continue
        address: Dim = node.address
        if isinstance(node, ClampedLoad):
            for index, _, stride in node.clamped:
                address = address + index * stride
        own: dict[str, int] = {}
        for name, _ in e.variables:
            step = coefficient(address, name)
            if not isinstance(step, int):
                return {name: {} for name, _ in e.variables}
            own[name] = step
        reads.append((prod(size_of(extent) for name, extent in e.variables if own[name]), own))
    most = max((size for size, _ in reads), default=0)
    largest = [own for size, own in reads if size == most]
    return {name: {n: own[name] for n, own in enumerate(largest)} for name, _ in e.variables}


def _merged(e: Reduce) -> Reduce:
    inside = {name for n in walk(e.body) if isinstance(n, Reduce) for _, extent in n.variables for name in dims.names(extent)}
    while len(e.variables) > 1:
        *others, (outer, many), (inner, few) = e.variables
        if not isinstance(many, int) or not isinstance(few, int) or {outer, inner} & inside:
            break
        steps = [(coefficient(d, outer), coefficient(d, inner)) for d in indices(e.body)]
        taken = next((n for n in range(min(many, LONGEST // few), 1, -1) if many % n == 0), 1)
        if taken == 1 or not all(a is not None and b is not None and a == b * few for a, b in steps):
            break
        body = substitute(e.body, {outer: dims.name(outer) * taken if taken < many else 0})
        rest = ((outer, many // taken),) if taken < many else ()
        e = replace(e, variables=(*others, *rest, (inner, taken * few)), body=body)
        if rest:
            break
    return e


def size_of(extent: Dim) -> int:
    """How many iterations to weigh a loop with."""
    return extent if isinstance(extent, int) else UNKNOWN
