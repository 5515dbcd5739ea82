"""A nest becomes loops: axes are split where indices divide, merged where memory is contiguous, and one of them is vectorised.

Every choice depends on the nest and its layouts alone, never on the number of lanes or threads, so that results do not either.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.loops import Carried, ClampedLoad, Expr, For, IndexValue, Load, LoadAt, Random, Reduce, Scan, Stmt, Store
from dslc.lowering.blocks import blocked
from dslc.lowering.borders import ranges_of, segments, settled
from dslc.lowering.indices import coefficient, decided, indices, map_indices, quotients, rewrite, simplify, substitute, walk
from dslc.lowering.reduction_order import in_memory_order, merged, size_of

BATCH = "batch"
UNROLLED_STORES = 4
UNROLLED_NODES = 240
SMALL_WORK = 40_000  # scalar operations; less is not worth meeting at a barrier for


@dataclass(frozen=True, slots=True)
class Loops:
    """One nest, scheduled: loop variables with extents from the outermost, the vector variable (if any) last."""

    loops: tuple[tuple[str, Dim], ...]
    vector: str | None
    stores: tuple[Stmt, ...]
    rows: str | None  # the loop variable that walks axis 0 of the value, where nothing was merged into it
    work: float  # scalar operations, at a nominal batch


def schedule(stores: tuple[Store, ...], axes: tuple[tuple[str, Dim], ...], bound: int, keep_rows: bool) -> Loops:
    """Loops over `axes` around stores at their addresses. `keep_rows` keeps axis 0 apart, so that kernels can share it."""
    ranges = {name: (0, largest(extent, bound) - 1) for name, extent in axes} | {BATCH: (1, bound)}
    for store in stores:
        for node in walk(store.value):
            if isinstance(node, Reduce):
                ranges |= {name: (0, largest(extent, bound) - 1) for name, extent in node.variables}
    stores = tuple(_simplified(s, ranges) for s in stores)
    stores, axes, ranges = _split(stores, axes, ranges)
    axes = tuple(a for a in axes if ranges[a[0]] != (0, 0))
    stores = tuple(_without_single_steps(_substituted(s, {n: 0 for n, e in ranges.items() if e == (0, 0)})) for s in stores)
    stores, axes = _merge(stores, axes, keep_rows)
    stores, axes = _unroll(stores, axes)
    stores = tuple(replace(s, value=in_memory_order(s.value, ranges)) for s in stores)
    as_one = tuple(replace(s, value=merged(s.value)) for s in stores)
    vector, reduced = _choose_vector(as_one, axes[1:] if keep_rows else axes)
    if vector is not None:
        axes = (*(a for a in axes if a[0] != vector), next(a for a in axes if a[0] == vector))
    elif reduced is not None:
        stores = tuple(_vectorised(s, reduced) for s in as_one)
    rows = axes[0][0] if axes and axes[0][0] != vector else None
    if not keep_rows:
        stores, in_blocks = blocked(stores, axes, vector)
        if in_blocks != axes:
            axes, vector, rows = in_blocks, in_blocks[-1][0], None
    return Loops(axes, vector, stores, rows, _work(stores, axes))


def schedule_recurrence(
    store: Store, carries: tuple[Carried, ...], along: tuple[str, Dim], axes: tuple[tuple[str, Dim], ...], bound: int
) -> Loops:
    """Loops over `axes` around the steps along one more: steps are in order in every lane, so lanes run over another axis."""
    scan, extent = along
    ranges = {name: (0, largest(size, bound) - 1) for name, size in (*axes, along)} | {BATCH: (1, bound)}
    parts = (store, *(Store(store.buffer, 0, e) for c in carries for e in (c.initial, c.next)))
    parts = tuple(_simplified(s, ranges) for s in parts)
    axes = tuple(a for a in axes if ranges[a[0]] != (0, 0))
    parts = tuple(_without_single_steps(_substituted(s, {n: 0 for n, e in ranges.items() if e == (0, 0)})) for s in parts)
    parts, axes = _merge(parts, axes, False)
    vector, _ = _choose_vector(parts, axes)
    if vector is not None:
        axes = (*(a for a in axes if a[0] != vector), next(a for a in axes if a[0] == vector))
    made = tuple(
        Carried(c.name, start.value, after.value) for c, start, after in zip(carries, parts[1::2], parts[2::2], strict=True)
    )
    return Loops(axes, vector, (Scan(scan, extent, made, parts[:1]),), None, _work(parts, (*axes, along)))


def largest(extent: Dim, bound: int) -> int:
    """The extent at the largest batch, at least 1."""
    return max(1, extent if isinstance(extent, int) else dims.evaluate(extent, {BATCH: bound}))


def _simplified(store: Store, ranges: Mapping[str, tuple[int, int]]) -> Store:
    value = decided(map_indices(store.value, lambda d: simplify(d, ranges)), ranges)
    return Store(store.buffer, simplify(store.address, ranges), value)


def _substituted(store: Store, mapping: Mapping[str, Dim]) -> Store:
    if not mapping:
        return store
    return Store(store.buffer, dims.substitute(store.address, mapping), substitute(store.value, mapping))


def _without_single_steps(store: Store) -> Store:
    def change(e: Expr) -> Expr:
        if not isinstance(e, Reduce) or e.op.startswith("arg"):
            return e
        kept = tuple(v for v in e.variables if v[1] != 1)
        return e if len(kept) == len(e.variables) else replace(e, variables=kept) if kept else e.body

    return Store(store.buffer, store.address, rewrite(store.value, change))


def _all_indices(stores: tuple[Store, ...]) -> list[Dim]:
    return [d for s in stores for d in (s.address, *indices(s.value))]


def _split(
    stores: tuple[Store, ...], axes: tuple[tuple[str, Dim], ...], ranges: Mapping[str, tuple[int, int]]
) -> tuple[tuple[Store, ...], tuple[tuple[str, Dim], ...], dict[str, tuple[int, int]]]:
    """`i // k` where k divides i's extent: i = k * outer + inner, and both are loops of their own."""
    ranges = dict(ranges)
    for _ in range(8):
        wanted = _splittable(stores, axes)
        if wanted is None:
            break
        name, factor = wanted
        outer, inner = f"{name}o", f"{name}t"
        extent = dict(axes)[name]
        new_axes: list[tuple[str, Dim]] = []
        for axis in axes:
            new_axes += [(outer, dims.floor_divide(extent, factor)), (inner, factor)] if axis[0] == name else [axis]
        axes = tuple(new_axes)
        high = ranges[name][1]
        ranges |= {outer: (0, high // factor), inner: (0, factor - 1)}
        mapping = {name: dims.name(outer) * factor + dims.name(inner)}
        stores = tuple(_simplified(_substituted(s, mapping), ranges) for s in stores)
    return stores, axes, ranges


def _splittable(stores: tuple[Store, ...], axes: tuple[tuple[str, Dim], ...]) -> tuple[str, int] | None:
    extents = dict(axes)
    found: set[tuple[str, int]] = set()
    for d in _all_indices(stores):
        for q in quotients(d):
            if not isinstance(q.denominator, int):
                continue
            for name in dims.names(q.numerator) & extents.keys():
                scale = coefficient(q.numerator, name)
                if not isinstance(scale, int) or scale == 0 or q.denominator % scale:
                    continue
                factor = q.denominator // scale
                if factor > 1 and dims.is_known_multiple(extents[name], factor) and extents[name] != factor:
                    found.add((name, factor))
    return min(found, key=lambda f: (f[1], f[0])) if found else None


def _unroll(stores: tuple[Store, ...], axes: tuple[tuple[str, Dim], ...]) -> tuple[tuple[Store, ...], tuple[tuple[str, Dim], ...]]:
    """The small inner parts of split axes become straight code, so that a window's elements share what they compute."""
    for name, extent in axes:
        size = sum(1 for s in stores for _ in walk(s.value))
        if name.endswith("t") and isinstance(extent, int) and len(stores) * extent <= UNROLLED_STORES and size * extent <= UNROLLED_NODES:
            stores = tuple(_substituted(s, {name: n}) for n in range(extent) for s in stores)
            axes = tuple(a for a in axes if a[0] != name)
    return stores, axes


def _merge(
    stores: tuple[Store, ...], axes: tuple[tuple[str, Dim], ...], keep_rows: bool
) -> tuple[tuple[Store, ...], tuple[tuple[str, Dim], ...]]:
    """Neighbouring loops that walk every operand as one become one longer loop."""
    merged = True
    while merged:
        merged = False
        first = 1 if keep_rows else 0
        for at in range(first, len(axes) - 1):
            (outer, many), (inner, few) = axes[at], axes[at + 1]
            if not isinstance(few, int):
                continue
            every = _all_indices(stores)
            fits = all(
                (a := coefficient(d, outer)) is not None and (b := coefficient(d, inner)) is not None and a == b * few for d in every
            )
            if fits and not any(outer in dims.names(x) or inner in dims.names(x) for _, x in _reduce_extents(stores)):
                stores = tuple(_substituted(s, {outer: 0}) for s in stores)
                axes = (*axes[:at], (inner, many * few), *axes[at + 2 :])
                merged = True
                break
    return stores, axes


def _reduce_extents(stores: tuple[Store, ...]) -> list[tuple[str, Dim]]:
    return [v for s in stores for n in walk(s.value) if isinstance(n, Reduce) for v in n.variables]


def _access_cost(d: Dim, name: str) -> float:
    scale = coefficient(d, name)
    if scale is None or not isinstance(scale, int):
        return 10.0
    return {0: 0.3, 1: 1.0}.get(scale, 3.0 if scale == 2 else 7.0)


def _clamped_cost(e: ClampedLoad, name: str) -> float:
    """Lanes that leave their axis are masked where they walk memory in equal steps, else each has an address of its own."""
    outside = [index for index, _, _ in e.clamped if name in dims.names(index)]
    if not outside:
        return _access_cost(e.address, name)
    index, _, stride = next(c for c in e.clamped if c[0] in outside)
    step, apart = coefficient(index, name), coefficient(e.address + index * stride, name)
    if len(outside) != 1 or not isinstance(step, int) or not isinstance(apart, int) or min(step, apart) < 1:
        return 9.0
    return {1: 2.0, 2: 4.0}.get(apart, 8.0)


def _choose_vector(stores: tuple[Store, ...], axes: tuple[tuple[str, Dim], ...]) -> tuple[str | None, str | None]:
    """The loop variable to vectorise, or else the reduction variable that runs over the canonical lanes."""
    reduces = dict(_reduce_extents(stores))
    vector_reduce = all(not n.op.startswith("arg") for s in stores for n in walk(s.value) if isinstance(n, Reduce))
    best: tuple[float, int, str, bool] | None = None
    candidates = [(name, extent, False) for name, extent in axes]
    if vector_reduce and reduces and len({n for s in stores for n in walk(s.value) if isinstance(n, Reduce)}) >= 1:
        last = {n.variables[-1][0] for s in stores for n in walk(s.value) if isinstance(n, Reduce)}
        candidates += [(name, extent, True) for name, extent in reduces.items() if name in last]
    for position, (name, extent, is_reduce) in enumerate(candidates):
        size = extent if isinstance(extent, int) else 32
        size = max(size, 1)
        full = -(-size // 16) * 16 / size
        cost = 0.0
        for s in stores:
            if not is_reduce:
                cost += 2 * max(_access_cost(s.address, name), 1.0)
            for node in walk(s.value):
                if isinstance(node, Load):
                    weight = 1.0 if not is_reduce or any(v in dims.names(node.address) for v in reduces) else 0.1
                    cost += weight * _access_cost(node.address, name)
                elif isinstance(node, ClampedLoad):
                    cost += _clamped_cost(node, name)
                elif isinstance(node, LoadAt) or (isinstance(node, IndexValue | Random) and coefficient(node.index, name) is None):
                    cost += 8.0
        cost = max(cost, 0.5) * full
        if is_reduce:  # the tree behind all of the sum's loops
            cost += 20.0 / _elements(stores, name) * 16
        key = (cost, -position, name, is_reduce)
        if best is None or key < best:
            best = key
    if best is None:
        return None, None
    return (None, best[2]) if best[3] else (best[2], None)


def _elements(stores: tuple[Store, ...], last: str) -> float:
    """How many elements the reductions have whose innermost loop is this one; the fewest of them."""
    sizes = []
    for s in stores:
        for node in walk(s.value):
            if isinstance(node, Reduce) and node.variables[-1][0] == last:
                sizes.append(prod(max(size_of(x), 1) for _, x in node.variables))
    return min(sizes)


def _vectorised(store: Store, name: str) -> Store:
    def change(e: Expr) -> Expr:
        if isinstance(e, Reduce) and not e.op.startswith("arg"):
            order = tuple(v for v in e.variables if v[0] != name)
            mine = tuple(v for v in e.variables if v[0] == name)
            return replace(e, variables=order + mine, vector=bool(mine)) if mine else e
        return e

    return Store(store.buffer, store.address, rewrite(store.value, change))


def _work(stores: tuple[Store, ...], axes: tuple[tuple[str, Dim], ...]) -> float:
    total = 1.0
    for _, extent in axes:
        total *= extent if isinstance(extent, int) else dims.evaluate(extent, {BATCH: 32})
    inner = 0.0
    for s in stores:
        for node in walk(s.value):
            inner += 1.0
            if isinstance(node, Reduce):
                size = 1.0
                for _, extent in node.variables:
                    size *= extent if isinstance(extent, int) else dims.evaluate(extent, {BATCH: 32})
                inner += size * sum(1 for _ in walk(node.body))
    return total * inner


def nest_of(loops: Loops, parallel: bool) -> tuple[Stmt, ...]:
    """The loop statements of one scheduled nest; with `parallel` its outermost loop is split over the threads.

    A loop that meets a border is cut, but for the outermost: what threads share is one loop.
    """

    def level(depth: int, body: tuple[Stmt, ...], ranges: Mapping[str, tuple[int, int]]) -> tuple[Stmt, ...]:
        if depth == len(loops.loops):
            return body
        name, extent = loops.loops[depth]
        vector, first = name == loops.vector, parallel and depth == 0
        kind = ("parallel vector" if first else "vector") if vector else ("parallel" if first else "serial")
        stores = tuple(s for s in body if isinstance(s, Store))
        if vector or first or not isinstance(extent, int) or len(stores) != len(body):
            return (For(name, extent, kind, level(depth + 1, body, ranges)),)
        parts: list[Stmt] = []
        for start, count in segments(stores, name, extent, ranges):
            inside = {**ranges, name: (0, count - 1)}
            part = tuple(settled(s, inside, {name: dims.name(name) + start} if start else {}) for s in stores)
            parts.append(For(name, count, kind, level(depth + 1, part, inside)))
        return tuple(parts)

    known = ranges_of(tuple(s for s in loops.stores if isinstance(s, Store)), loops.loops)
    return level(0, loops.stores, known)
