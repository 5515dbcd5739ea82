"""Nests become kernels: those that share data share loops, or at least rows, and each kernel is a loop program."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import (
    ClampedLoad,
    Expr,
    For,
    Gathered,
    IndexValue,
    Load,
    LoadAt,
    LoopProgram,
    Read,
    Reduce,
    Scan,
    Stmt,
    Store,
    binary,
    cast,
    const,
    var,
)
from dslc.ir.types import DType
from dslc.lowering.fuse import Nest, index_of, unroll_small
from dslc.lowering.indices import map_indices, rewrite, walk, within
from dslc.lowering.schedule import BATCH, SMALL_WORK, Loops, largest, nest_of, schedule
from dslc.lowering.steps import Lowering, Step

LARGEST_KERNEL = 120  # expressions; more would be slow to compile


def join(group: list[list[Nest]], nest: Nest, over: Value | None = None, eager: bool = False) -> bool:
    """Add a nest to the kernel in the making, where it fits: same loops, or the same rows. `over`: the value that it is written over.

    With `eager`, nests of one shape share loops that have nothing else in common: inside of loops a call counts.
    """
    if not group:
        return False
    members = {n.value.id: n for bundle in group for n in bundle}
    if sum(_size(n) for n in members.values()) + _size(nest) > LARGEST_KERNEL:
        return False
    inside = [e for e in walk(nest.expr) if isinstance(e, Read | Gathered) and e.source in members]
    if any(isinstance(e, Gathered) for e in inside):
        return False
    last = group[-1]
    old = [(n, e) for n in members.values() for e in walk(n.expr) if over is not None and isinstance(e, Read | Gathered) and e.source == over.id]
    old_rows = all(isinstance(e, Read) and _by_rows(n, [e]) for n, e in old)
    old_elements = all(isinstance(e, Read) and e.index == index_of(n.index, n.value.type.shape) for n, e in old if n in last)
    if old_elements and (old_rows or len(group) == 1) and _same_loops(last, nest, inside, eager):
        last.append(nest)
        return True
    rows = nest.value.type.shape[:1]
    if old_rows and inside and rows and rows[0] != 1 and all(n.value.type.shape[:1] == rows for n in members.values()) and _by_rows(nest, inside):
        group.append([nest])
        return True
    return False


def _same_loops(bundle: list[Nest], nest: Nest, inside: list[Read | Gathered], eager: bool) -> bool:
    """Whether a nest can share the innermost loop of a bundle: same shape, no sums, something read by both (unless `eager`)."""
    if any(n.value.type.shape != nest.value.type.shape for n in bundle) or any(_reduces(n.expr) for n in [*bundle, nest]):
        return False
    index = index_of(nest.index, nest.value.type.shape)
    made = {n.value.id for n in bundle}
    if any(e.index != index if e.source in made else not _by_rows(nest, [e]) for e in inside):
        return False
    sources = {e.source for n in bundle for e in walk(n.expr) if isinstance(e, Read)}
    return eager or bool(inside) or any(isinstance(e, Read) and e.source in sources for e in walk(nest.expr))


def _by_rows(nest: Nest, inside: Iterable[Read | Gathered]) -> bool:
    return nest.value.type.rank > 0 and all(bool(e.index) and e.index[0] == var(nest.index[0]) for e in inside)


def _reduces(e: Expr) -> bool:
    return any(isinstance(n, Reduce) for n in walk(unroll_small(e)))


def _size(nest: Nest) -> int:
    return sum(1 for _ in walk(nest.expr))


def kernels_of(state: Lowering, group: list[list[Nest]]) -> list[Step]:
    """The kernel of a group; where its bundles cannot share rows after all, one kernel each."""
    if not group:
        return []
    args: list[Value] = []
    scheduled = [_schedule(state, bundle, args, keep_rows=len(group) > 1) for bundle in group]
    if len(group) > 1 and (any(s.rows != scheduled[0].rows or s.rows is None for s in scheduled) or not _same_rows(scheduled)):
        return [step for bundle in group for step in kernels_of(state, [bundle])]
    serial = sum(s.work for s in scheduled) < SMALL_WORK or not scheduled[0].loops
    if len(group) > 1:
        name, extent = scheduled[0].loops[0]
        inner = tuple(stmt for s in scheduled for stmt in nest_of(replace(s, loops=s.loops[1:]), parallel=False))
        body: tuple[Stmt, ...] = (For(name, extent, "serial" if serial else "parallel", inner),)
    else:
        body = nest_of(scheduled[0], parallel=not serial)
    nests = [n for bundle in group for n in bundle]
    written = frozenset(n.value for n in nests)
    program = canonical(LoopProgram(tuple(v.type.dtype for v in args), body, serial))
    labels = list(dict.fromkeys(n.label for n in nests))
    return [Step(program, tuple(args), frozenset(args) - written, written, serial, "+".join(labels), nests[0].span)]


def _same_rows(scheduled: list[Loops]) -> bool:
    return all(s.loops[0] == scheduled[0].loops[0] for s in scheduled)


def _schedule(state: Lowering, bundle: list[Nest], args: list[Value], keep_rows: bool) -> Loops:
    stores = []
    for nest in bundle:
        written = unroll_small(nest.expr)
        resolved, named = resolver(state, nest, (written,), args)
        expr = resolved(written)
        address = named(state.places[nest.value].layout.address(index_of(nest.index, nest.value.type.shape)))
        stores.append(Store(argument(args, nest.value), address, expr))
    first = bundle[0]
    axes = tuple((n, named(e)) for n, e in zip(first.index, first.value.type.shape, strict=True))
    return schedule(tuple(stores), axes, state.bound, keep_rows)


def argument(args: list[Value], value: Value) -> int:
    """The number of a kernel's buffer argument, which is added where it is new."""
    if value not in args:
        args.append(value)
    return args.index(value)


def resolver(
    state: Lowering, nest: Nest, written: tuple[Expr, ...], args: list[Value]
) -> tuple[Callable[[Expr], Expr], Callable[[Dim], Dim]]:
    """How reads in the expressions of a nest become loads of the kernel's arguments, and sizes sizes in the batch."""
    batch = state.program.batch
    by_id = {v.id: v for v in [*state.graph.values(), *state.places]}

    def named(d: Dim) -> Dim:
        return dims.substitute(d, {batch: dims.name(BATCH)}) if batch else d

    extents = {n: named(x) for n, x in zip(nest.index, nest.value.type.shape, strict=True)}
    extents |= {n: named(x) for e in written for node in walk(e) if isinstance(node, Reduce) for n, x in node.variables}
    ranges = {BATCH: (1, state.bound)} | {n: (0, largest(x, state.bound) - 1) for n, x in extents.items()}

    def resolve(e: Expr) -> Expr:
        if isinstance(e, Read):
            value = by_id[e.source]
            layout = state.places[value].layout
            outside = [n for n, i in enumerate(e.index) if not within(named(i), named(value.type.shape[n]), extents, ranges)]
            if not outside:
                return Load(argument(args, value), named(layout.address(e.index)), e.dtype)
            rest = tuple(0 if n in outside else i for n, i in enumerate(e.index))
            clamps = tuple((named(e.index[n]), named(value.type.shape[n]), named(layout.strides[n])) for n in outside)
            return ClampedLoad(argument(args, value), named(layout.address(rest)), clamps, e.dtype)
        if isinstance(e, Gathered):
            value = by_id[e.source]
            layout = state.places[value].layout
            index = tuple(0 if n == e.axis else i for n, i in enumerate(e.index))
            at = clamped(e.at, named(e.extent))
            return LoadAt(argument(args, value), named(layout.address(index)), at, named(layout.strides[e.axis]), e.dtype)
        return e

    return lambda e: map_indices(rewrite(e, resolve), named), named


def clamped(at: Expr, extent: Dim) -> Expr:
    """An index from data, kept inside its axis so that no input can read outside a buffer."""
    wide = cast(at, DType.I64)
    return binary("max", binary("min", wide, IndexValue(extent - 1)), const(0, DType.I64))


def canonical(program: LoopProgram) -> LoopProgram:
    """Loop variables numbered by first appearance, so that equal kernels are equal data."""
    names: dict[str, str] = {}

    def rename(name: str) -> str:
        return names.setdefault(name, f"i{len(names)}")

    def change(d: Dim) -> Dim:
        return dims.substitute(d, {old: dims.name(new) for old, new in names.items()})

    def expr(e: Expr) -> Expr:
        for node in walk(e):
            if isinstance(node, Reduce):
                for v, _ in node.variables:
                    rename(v)
        e = map_indices(e, change)
        return rewrite(e, lambda n: replace(n, variables=tuple((names[v], x) for v, x in n.variables)) if isinstance(n, Reduce) else n)

    def stmt(s: Stmt) -> Stmt:
        if isinstance(s, For):
            name = rename(s.variable)
            return For(name, change(s.extent), s.kind, tuple(stmt(b) for b in s.body))
        if isinstance(s, Scan):
            name = rename(s.variable)
            carries = tuple(replace(c, initial=expr(c.initial), next=expr(c.next)) for c in s.carries)
            return Scan(name, change(s.extent), carries, tuple(stmt(b) for b in s.body))
        assert isinstance(s, Store)
        value = expr(s.value)
        return Store(s.buffer, change(s.address), value)

    return LoopProgram(program.buffers, tuple(stmt(s) for s in program.body), program.serial)
