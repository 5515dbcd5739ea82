"""Work that a loop would repeat, or do in small pieces, is taken out of it. For after the gradients are taken and composites expanded.

    x[t] @ w                                 (x @ w)[t]              what depends on elements alone, for all iterations at once
    concat(x[t], h) @ w                      x[t] @ w[:I] + h @ w[I:]
    f(w)                                     computed once           what depends on captures alone
    total = total + a[t]^T @ b[t]            a^T @ b over all t      sums over iterations: gradients of weights
    yield g[t] @ w                           (stacked g) @ w         results that no later iteration reads: gradients of elements

What nothing needs afterwards is dropped: carries, yields, sequences and captures. With `recompute` nothing is prepared for all
iterations at once: it would have to be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.operator import OPERATORS
from dslc.ir.scan import is_scan
from dslc.transforms.cse import cse
from dslc.transforms.lifting import Lifted, can_lift, moved
from dslc.transforms.loop_parts import Carried, Loop, Walked, Yielded, pruned
from dslc.transforms.loop_totals import Total, total
from dslc.transforms.loop_view import Depends, Joined, View, apply, first_free, fixed_side, free_axes
from dslc.transforms.regions import in_regions

WORTH = 16  # bytes stacked anew for each byte that an iteration need not add up or compute
Results = list[tuple[Value, Callable[[], Value]]]  # results of a loop, and how they are computed behind it


def out_of_loops(graph: Graph) -> Graph:
    """`graph` with the work of its loops moved out of them as far as it goes, inner loops first."""
    graph = cse(graph)  # what is read under two names would be stacked twice
    builder = Builder(graph.inputs, graph.ops)
    builder.ops = []
    renamed: dict[Value, Value] = {}
    for old in graph.ops:
        op = old.with_inputs(tuple(renamed.get(v, v) for v in old.inputs))
        if is_scan(op):
            renamed |= _move(Loop.of(in_regions(op, out_of_loops), builder))
        else:
            builder.ops.append(op)
    return pruned(Graph(graph.inputs, tuple(builder.ops), tuple(renamed.get(v, v) for v in graph.outputs)))


def _move(loop: Loop) -> dict[Value, Value]:
    """Appends what becomes of a loop to the graph around it; its results that have another name now."""
    around = loop.outside.span
    loop.outside.span = loop.span
    _split(View(loop))
    view = View(loop)
    _hoist(view)
    if not loop.recompute:
        _lift(view)
    behind = [] if loop.recompute else _maps(view)
    while more := [*_late_yields(view), *_sums(view)]:
        behind += more
    if loop.carried or loop.yielded:
        loop.outside.ops.append(loop.op())
    renamed = {result: build() for result, build in behind}
    loop.outside.span = around
    return renamed


# ---- products of joined operands, and parts of products -----------------------------------------------------------------


def _split(view: View) -> None:
    """Products of which a part depends on elements alone, or is yielded, become several."""
    loop, inside, ops = view.loop, view.loop.inside, list(view.loop.ops)
    loop.ops.clear()
    apart: set[Value] = set()
    for op in ops:
        inside.span = op.span
        if op.kind == "dot_general":
            joined = None if loop.recompute else _early_part(view, op)
            if joined is not None:
                _split_sum(view, op, joined)
                continue
            if _is_cut(view, op, ops):
                apart.add(op.output)
        if op.kind == "slice" and op.inputs[0] in apart:
            _cut_product(view, op, view.made[op.inputs[0]])
            continue
        loop.ops.append(op)


def _early_part(view: View, op: Op) -> Joined | None:
    """The joined operand of a product by something fixed, where a part of it depends on elements alone and another does not."""
    side = fixed_side(view, op)
    joined = None if side is None else view.joined(op.inputs[1 - side])
    if side is None or joined is None or joined.axis not in op.attr("contract")[1 - side]:
        return None
    return joined if len({view.depends[p] == Depends.CARRIES for p in joined.parts}) == 2 else None


def _split_sum(view: View, op: Op, joined: Joined) -> None:
    """concat(x, h) @ w = x @ w[:I] + h @ w[I:]"""
    inside, side = view.loop.inside, fixed_side(view, op)
    assert side is not None
    contract = op.attr("contract")
    across = contract[side][contract[1 - side].index(joined.axis)]
    terms: list[Value] = []
    start: Dim = 0
    for group in _runs(joined.parts, lambda p: view.depends[p] == Depends.CARRIES):
        part = group[0] if len(group) == 1 else apply(inside, "concat", *group, axis=joined.axis)
        part = part if part.type.dtype == joined.dtype else apply(inside, "cast", part, dtype=joined.dtype)
        stop = start + part.type.shape[joined.axis]
        weights = _cut(inside, op.inputs[side], across, start, stop)
        terms.append(apply(inside, "dot_general", *((weights, part) if side == 0 else (part, weights)), **dict(op.attrs)))
        start = stop
    whole = terms[0]
    for term in terms[1:]:
        whole = apply(inside, "add", whole, term)
    inside.ops[-1] = replace(inside.ops[-1], outputs=op.outputs)


def _is_cut(view: View, op: Op, ops: Sequence[Op]) -> bool:
    """Whether slices of a product by something fixed, along axes of that, are all that is used of it: some yielded and some not."""
    side = fixed_side(view, op)
    users = [other for other in ops if op.output in other.inputs]
    if side is None or len(users) < 2 or len(users) != view.uses[op.output] or any(u.kind != "slice" for u in users):
        return False
    first, shape = first_free(op, side), op.output.type.shape
    own = range(first, first + len(free_axes(op, side)))
    for user in users:
        bounds = zip(user.attr("starts"), user.attr("stops"), user.attr("steps"), shape, strict=True)
        whole = [low in (0, None) and high in (None, size) and step == 1 for low, high, step, size in bounds]
        if any(not whole[axis] and axis not in own for axis in range(len(shape))):
            return False
    yielded = {y.inner for y in view.loop.yielded}
    return len({u.output in yielded for u in users}) == 2


def _cut_product(view: View, op: Op, product: Op) -> None:
    """(g @ w)[:, a:b] = g @ w[:, a:b]"""
    side, inside = fixed_side(view, product), view.loop.inside
    assert side is not None
    first, free, weights = first_free(product, side), free_axes(product, side), product.inputs[side]
    bounds = {}
    for name, whole in (("starts", 0), ("stops", None), ("steps", 1)):
        given = op.attr(name)
        bounds[name] = tuple(given[first + free.index(a)] if a in free else whole for a in range(weights.type.rank))
    part = apply(inside, "slice", weights, **bounds)
    operands = (part, product.inputs[1]) if side == 0 else (product.inputs[0], part)
    inside.ops.append(replace(product, inputs=operands, outputs=op.outputs, span=op.span))


# ---- before the loop ----------------------------------------------------------------------------------------------------


def _hoist(view: View) -> None:
    """What depends on captures alone is computed once. Constants, broadcasts and arithmetic of scalars cost nothing where they stand."""
    kept = []
    for op in view.loop.ops:
        scalar = OPERATORS[op.kind].elementwise and all(v.type.rank == 0 for v in op.outputs)
        if not op.inputs or op.kind == "expand" or scalar or any(view.varying(op)):
            kept.append(op)
        else:
            view.loop.captured |= {v: view.outer(v) for v in op.outputs}
    view.loop.ops[:] = kept


def _lift(view: View) -> None:
    """Products of elements and what is fixed, for all iterations at once, with a bias; the body gets them as elements."""
    kept, products = [], set[Value]()
    for op in view.loop.ops:
        alone = op.kind == "add" and any(v in products and view.uses[v] == 1 and v.type == op.output.type for v in op.inputs)
        if (op.kind == "dot_general" or alone) and view.depends[op.output] == Depends.ELEMENTS and view.liftable(op.output):
            found = view.lifted(op.output)
            assert found.axis is not None
            view.loop.walked.append(Walked(found.value, found.axis, op.output))
            products.add(op.output)
        else:
            kept.append(op)
    view.loop.ops[:] = kept


# ---- behind the loop ----------------------------------------------------------------------------------------------------


def _sums(view: View) -> Results:
    """Carries that only add up become sums over the axis of the iterations."""
    behind: Results = []
    for carry in list(view.loop.carried):
        added = _sum_of(view, carry)
        if added is None:
            continue
        op, terms = added
        for value in terms.stacks:
            view.loop.stacked(value)
        view.loop.carried.remove(carry)
        view.loop.ops.remove(op)
        behind.append((carry.final, _with_start(view, carry.initial, terms)))
    return behind


def _sum_of(view: View, carry: Carried) -> tuple[Op, Total] | None:
    """The addition that is all that happens to a carry, and the total of what it adds."""
    op = view.made.get(carry.after)
    if op is None or op.kind != "add" or view.uses[carry.before] != 1 or view.uses[carry.after] != 1 or carry.before not in op.inputs:
        return None
    found = total(view, op.inputs[1 - op.inputs.index(carry.before)])
    return (op, found) if found is not None and view.affordable(found.stacks, carry.before, WORTH) else None


def _with_start(view: View, initial: Value, terms: Total) -> Callable[[], Value]:
    zero = any(op.kind == "full" and initial in op.outputs and op.attr("value") == 0 for op in view.outside.ops)
    return terms.build if zero else lambda: apply(view.outside, "add", initial, terms.build())


def _maps(view: View) -> Results:
    """A loop without carries whose yields can all be computed for all iterations at once is no loop."""
    loop = view.loop
    if loop.carried or not all(view.liftable(y.inner) and not view.fixed(y.inner) for y in loop.yielded):
        return []
    found, loop.yielded = loop.yielded, []
    return [(y.outer, _place(view, y, partial(view.lifted, y.inner))) for y in found]


def _late_yields(view: View) -> Results:
    """Yields that are products by something fixed: their other operand is stacked, and multiplied for all iterations at once."""
    behind: Results = []
    for y in list(view.loop.yielded):
        chain = _chain(view, y.inner)
        if chain is None or not view.affordable(chain[:1], y.inner, WORTH):
            continue
        view.loop.stacked(chain[0])
        view.loop.yielded.remove(y)
        behind.append((y.outer, _place(view, y, partial(view.along, *chain))))
    return behind


def _chain(view: View, value: Value) -> tuple[Value, Sequence[Op]] | None:
    """The varying operand of a product by something fixed, and the operations from there to a value, each used for nothing else."""
    ops: list[Op] = []
    while True:
        op = view.made.get(value)
        if op is None or view.uses[value] != 1 or view.depends[value] != Depends.CARRIES:
            return None
        varying = view.varying(op)
        if sum(varying) != 1 or not can_lift(op, varying):
            return None
        ops.insert(0, op)
        value = op.inputs[varying.index(True)]
        if op.kind == "dot_general":
            return value, ops


def _place(view: View, y: Yielded, build: Callable[[], Lifted]) -> Callable[[], Value]:
    def placed() -> Value:
        made = build()
        assert made.axis is not None
        return moved(view.outside, made.value, made.axis, y.axis)

    return placed


def _cut(b: Builder, x: Value, axis: int, start: Dim, stop: Dim) -> Value:
    """A part of a value along an axis."""
    starts = tuple(start if a == axis else 0 for a in range(x.type.rank))
    stops = tuple(stop if a == axis else size for a, size in enumerate(x.type.shape))
    return apply(b, "slice", x, starts=starts, stops=stops, steps=(1,) * x.type.rank)


def _runs(items: Sequence[Value], key: Callable[[Value], bool]) -> list[list[Value]]:
    """Neighbours for which a condition holds alike."""
    found: list[list[Value]] = []
    for item in items:
        if found and key(found[-1][0]) == key(item):
            found[-1].append(item)
        else:
            found.append([item])
    return found
