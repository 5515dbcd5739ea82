"""A program's graph -> steps: kernels as loop programs, their arguments, and where every buffer lies."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from dslc.diagnostics import Span
from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.loops import Acc, ClampedLoad, Expr, For, Gathered, Load, LoadAt, LoopProgram, Read, Reader, Reduce, Stmt, Store, var
from dslc.ir.module import PortKind, Program
from dslc.ir.types import DType
from dslc.lowering.contraction import Contraction
from dslc.lowering.fuse import Nest, body_of, fuse, index_of, is_contraction, unroll_small, value_at
from dslc.lowering.indices import map_indices, rewrite, walk, within
from dslc.lowering.layout import Layout, row_major, with_halo
from dslc.lowering.operands import (
    Operand,
    border,
    copy_nest,
    default_layout,
    describe,
    needs_scratch,
    operand_read,
    overhang,
    with_operands,
)
from dslc.lowering.schedule import BATCH, SMALL_WORK, Loops, largest, nest_of, schedule
from dslc.lowering.tiling import Schedule
from dslc.lowering.tiling import plan as plan_tiles

PACK_CYCLES = 1.5  # an element of a copy that reorders axes
LARGEST_KERNEL = 120  # expressions; more would be slow to compile


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lives. `region` as in `ir/plan.py`; `name` of a persistent buffer, constant or port."""

    region: str
    name: str
    layout: Layout


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call before memory is planned: arguments are values."""

    program: LoopProgram | Contraction
    args: tuple[Value, ...]
    reads: frozenset[Value]
    writes: frozenset[Value]
    serial: bool
    label: str
    span: Span | None


@dataclass(frozen=True, slots=True)
class Lowered:
    """A program as steps over placed values."""

    source: Program
    steps: tuple[Step, ...]
    places: Mapping[Value, Place]
    constants: Mapping[str, Op]
    outputs: tuple[Value, ...]
    bound: int


@dataclass
class Lowering:
    """The state of lowering one program; `lower` is its only user."""

    program: Program
    graph: Graph
    bound: int
    places: dict[Value, Place] = field(default_factory=dict)
    constants: dict[str, Op] = field(default_factory=dict)
    next_id: int = 0

    def new_value(self, like: Value) -> Value:
        self.next_id += 1
        return Value(self.next_id, like.type)


def lower(program: Program) -> Lowered:
    """Steps of a bound program (every size an integer or a multiple of the batch)."""
    state = Lowering(program, program.graph, program.bound or 1)
    state.next_id = program.graph.next_id()
    nests = list(fuse(program.graph))
    nests, outputs = _bind_outputs(state, nests)
    nests = _ordered(state, nests)
    for nest in nests:
        if nest.value not in state.places:
            state.places[nest.value] = Place("arena", "", default_layout(nest.value.type))
    nests = prepare(state, nests)
    steps: list[Step] = []
    group: list[list[Nest]] = []
    for nest in nests:
        layout = state.places[nest.value].layout
        if 0 in nest.value.type.shape:
            continue  # nothing to compute
        if layout.halo:
            steps += _kernels(state, group)
            group = []
            label = f"{nest.label} border"
            steps.append(Step(border(layout, nest.value.type.dtype, program.batch), (nest.value,), frozenset(), frozenset({nest.value}), False, label, nest.span))
        if nest.contraction is not None:
            contraction = _contraction(state, nest)
            if contraction is not None:
                steps += _kernels(state, group)
                group = []
                steps.append(contraction)
                continue
            nest, first = _without_epilogue(state, nest)
            if first is not None:
                steps += [*_kernels(state, group), first]
                group = []
        if not _join(group, nest):
            steps += _kernels(state, group)
            group = [[nest]]
    steps += _kernels(state, group)
    return Lowered(program, tuple(steps), state.places, state.constants, outputs, state.bound)


# ---- where values live -------------------------------------------------------------------------------------------


def _bind_outputs(state: Lowering, nests: list[Nest]) -> tuple[list[Nest], tuple[Value, ...]]:
    """Places of inputs, constants and outputs; an update in place where that is safe, else through a copy at the end."""
    graph, program = state.graph, state.program
    for value, port in zip(graph.inputs, program.inputs, strict=True):
        region = {PortKind.INPUT: "input", PortKind.BUFFER: "persistent"}.get(port.kind, "setting")
        state.places[value] = Place(region, port.name, row_major(value.type.shape))
    for op in graph.ops:
        if op.kind == "constant":
            name = f"{program.name}.constant{len(state.constants)}"
            state.constants[name] = op
            state.places[op.output] = Place("constant", name, row_major(op.output.type.shape))
    made = {nest.value for nest in nests}
    outputs: list[Value] = []
    copies: list[Nest] = []
    for value, port in zip(graph.outputs, program.outputs, strict=True):
        place = Place("persistent" if port.kind == PortKind.BUFFER else "output", port.name, row_major(value.type.shape))
        if value in state.places and state.places[value] == place:
            outputs.append(value)  # a state that is stored as it was
            continue
        if value in made and value not in state.places and not _blocks_update(state, nests, value, place):
            state.places[value] = place
            outputs.append(value)
            continue
        copy = state.new_value(value)
        state.places[copy] = place
        names = tuple(f"i{n}" for n in range(value.type.rank))
        copies.append(Nest(copy, names, Read(value.id, index_of(names, value.type.shape), value.type.dtype), None, "copy"))
        outputs.append(copy)
    return nests + copies, tuple(outputs)


def _old_value(state: Lowering, place: Place) -> Value | None:
    if place.region != "persistent":
        return None
    return next((v for v, p in state.places.items() if p.region == "persistent" and p.name == place.name), None)


def _blocks_update(state: Lowering, nests: list[Nest], value: Value, place: Place) -> bool:
    """Whether a nest cannot write over the buffer: it reads the old content elsewhere than at its own index."""
    old = _old_value(state, place)
    if old is None:
        return False
    nest = next(n for n in nests if n.value == value)
    index = index_of(nest.index, nest.value.type.shape)
    if nest.contraction is not None:
        return old in reads_of(state.graph, nest)
    for node in walk(nest.expr):
        if isinstance(node, Read) and node.source == old.id and node.index != index:
            return True
        if isinstance(node, Gathered) and node.source == old.id:
            return True
        if isinstance(node, Reduce) and any(isinstance(m, Read) and m.source == old.id for m in walk(node.body)):
            return True
    return False


def reads_of(graph: Graph, nest: Nest) -> set[Value]:
    """Materialised values that a nest reads; a contraction's operands through their views."""
    by_id = {v.id: v for v in graph.values()}
    found = {by_id[n.source] for n in walk(nest.expr) if isinstance(n, Read | Gathered) and n.source in by_id}
    if nest.contraction is not None:
        producer = graph.producers()
        for operand in (nest.contraction.a, nest.contraction.b):
            base = operand
            while base in producer and producer[base].kind != "constant" and not is_contraction(producer[base]):
                e = body_of(producer[base], tuple(map(var, (f"p{n}" for n in range(base.type.rank)))), _probes(producer[base]))
                if not isinstance(e, Read):
                    break
                found.add(base)
                base = producer[base].inputs[0]
            found.add(base)
    return found


def _probes(op: Op):  # type: ignore[no-untyped-def]
    from dslc.lowering.fuse import _probe

    return tuple(_probe(v) for v in op.inputs)


def _ordered(state: Lowering, nests: list[Nest]) -> list[Nest]:
    """Definition order, but a nest that overwrites a buffer comes after every reader of the old content.

    Where that is impossible (two buffers that swap) the update goes through a copy.
    """
    old: dict[Value, Value] = {}  # new value -> the value it overwrites
    for nest in nests:
        place = state.places.get(nest.value)
        before = _old_value(state, place) if place is not None else None
        if before is not None and before != nest.value:
            old[nest.value] = before
    reads = {nest.value: reads_of(state.graph, nest) for nest in nests}
    by_value = {nest.value: nest for nest in nests}
    needs: dict[Value, set[Value]] = {v: {r for r in reads[v] if r in by_value and r != v} for v in by_value}
    for new, before in old.items():
        needs[new] |= {v for v in by_value if v != new and before in reads[v]}
    order: list[Nest] = []
    done: set[Value] = set()
    waiting = list(by_value)
    while waiting:
        ready = [v for v in waiting if needs[v] <= done]
        if not ready:
            victim = next(v for v in waiting if v in old)
            return _ordered(state, _through_copy(state, nests, victim))
        # plain values first: updates are pushed back as far as they can, so that they do not hold up readers
        done.add(ready[0])
        order.append(by_value[ready[0]])
        waiting.remove(ready[0])
    return order


def _through_copy(state: Lowering, nests: list[Nest], value: Value) -> list[Nest]:
    place = state.places.pop(value)
    copy = state.new_value(value)
    state.places[copy] = place
    names = tuple(f"i{n}" for n in range(value.type.rank))
    return [*nests, Nest(copy, names, Read(value.id, index_of(names, value.type.shape), value.type.dtype), None, "copy")]


# ---- kernels from nests --------------------------------------------------------------------------------------------


def prepare(state: Lowering, nests: list[Nest]) -> list[Nest]:
    """Operands of contractions get memory they can be walked in: views where strides reach, halos, copies, packed weights."""
    done: list[Nest] = []
    halos: dict[Value, Layout] = {}
    copies: dict[tuple[Value, Layout], Value] = {}
    made = {nest.value for nest in nests}
    for nest in nests:
        if nest.contraction is None:
            done.append(nest)
            continue
        it = nest.contraction
        operands = []
        for value, index in ((it.a, it.map.a), (it.b, it.map.b)):
            operand = operand_read(value, index, set(state.places), state.graph.producers())
            axes = dict(it.map.axes)
            base = operand.value if operand is not None else value
            layout = halos.get(base) or (state.places[base].layout if base in state.places else default_layout(value.type))
            if operand is not None:
                before, after = overhang(operand, axes, state.bound, state.program.batch)
                if not any(before) and not any(after):
                    operands.append(value)
                    continue
                if operand.value == value and value in made and state.places[value].region == "arena":
                    halos[value] = with_halo(layout, before, after)
                    operands.append(value)
                    continue
            # a view cannot have a halo, and what is computed on the way has no memory yet
            before, after = overhang(Operand(value, index), axes, state.bound, state.program.batch)
            layout = with_halo(default_layout(value.type), before, after)
            key = (value, layout)
            if key not in copies:
                copies[key] = state.new_value(value)
                done.append(copy_nest(value, copies[key], set(state.places), state.graph.producers()))
                state.places[copies[key]] = Place("arena", "", layout)
            operands.append(copies[key])
        done.append(with_operands(nest, *operands))
    for value, layout in halos.items():
        state.places[value] = replace(state.places[value], layout=layout)
    return _packed(state, done)


def _packed(state: Lowering, nests: list[Nest]) -> list[Nest]:
    """Parameters are copied to the order in which a contraction reads them fastest, where the copy costs less than it gains."""
    done: list[Nest] = []
    copies: dict[tuple[Value, Layout], Value] = {}
    for nest in nests:
        it = nest.contraction
        if it is not None:
            operands = [it.a, it.b]
            for position, value in enumerate(operands):
                layout = _best_order(state, nest, position)
                if layout is None:
                    continue
                if (value, layout) not in copies:
                    copy = state.new_value(value)
                    copies[value, layout] = copy
                    done.append(copy_nest(value, copy, set(state.places), state.graph.producers()))
                    state.places[copy] = Place("arena", "", layout)
                nest = with_operands(nest, *(copies[value, layout] if n == position else v for n, v in enumerate(_operands_of(nest))))
        done.append(nest)
    return done


def _operands_of(nest: Nest) -> tuple[Value, Value]:
    assert nest.contraction is not None
    return nest.contraction.a, nest.contraction.b


def _best_order(state: Lowering, nest: Nest, position: int) -> Layout | None:
    """A better axis order for a persistent operand, or None. The choice is made for 16 lanes, so that every width makes the same."""
    value = _operands_of(nest)[position]
    place = state.places.get(value)
    if place is None or place.region != "persistent" or value.type.rank < 2:
        return None
    described = _describe(state, nest)
    if described is None:
        return None
    now = cycles(described[0])
    best: tuple[float, Layout] | None = None
    for innermost in range(value.type.rank):
        order = (*(n for n in range(value.type.rank) if n != innermost), innermost)
        if value.type.rank == 4:  # a window's axes outermost, then the other channel axis
            order = (2, 3, *(n for n in (0, 1) if n != innermost), innermost) if innermost < 2 else order
        layout = replace(place.layout, order=order)
        trial = state.new_value(value)
        state.places[trial] = Place("arena", "", layout)
        operands = tuple(trial if n == position else v for n, v in enumerate(_operands_of(nest)))
        other = _describe(state, with_operands(nest, *operands))
        del state.places[trial]
        if other is None:
            continue
        size = layout.size
        assert isinstance(size, int)
        cost = cycles(other[0]) + PACK_CYCLES * size
        if best is None or cost < best[0]:
            best = cost, layout
    return best[1] if best is not None and best[0] < now else None


def cycles(c: Contraction) -> float:
    """Estimated cycles of a contraction at a nominal batch, for 16 lanes."""
    return tiled(c, 16).cycles


@lru_cache(maxsize=1024)
def tiled(c: Contraction, width: int) -> Schedule:
    """The tiles of a contraction; kept, because choosing them takes longer than anything else in lowering."""
    return plan_tiles(c, width)


def _describe(state: Lowering, nest: Nest) -> tuple[Contraction, tuple[Value, ...]] | None:
    it = nest.contraction
    assert it is not None
    keep, producer = set(state.places), state.graph.producers()
    a, b = (operand_read(v, index, keep, producer) for v, index in ((it.a, it.map.a), (it.b, it.map.b)))
    if a is None or b is None:
        return None
    by_id = {v.id: v for v in state.places}
    return describe(nest, a, b, lambda v: state.places[v].layout, by_id.__getitem__, state.program.batch, state.bound)


def _contraction(state: Lowering, nest: Nest) -> Step | None:
    """The step of a contraction with its epilogue, where strides reach everything."""
    described = _describe(state, nest)
    if described is None:
        return None
    contraction, args = described
    if needs_scratch(contraction):
        mine = state.places[nest.value]
        if any((p := state.places[v]).region == mine.region and p.name == mine.name and mine.name for v in args if v != nest.value):
            return None
    assert nest.contraction is not None
    return Step(contraction, args, frozenset(args) - {nest.value}, frozenset({nest.value}), False, nest.contraction.kind, nest.span)


def _without_epilogue(state: Lowering, nest: Nest) -> tuple[Nest, Step | None]:
    """The contraction alone into memory of its own, and what was its epilogue as an ordinary nest.

    Where even that cannot be walked by strides, the sum is computed by its definition.
    """
    it = nest.contraction
    assert it is not None
    target = Value(it.value.id, it.value.type)
    if target == nest.value:
        target = state.new_value(it.value)
    state.places[target] = Place("arena", "", default_layout(target.type))
    names = tuple(f"i{n}" for n in range(target.type.rank))
    alone = Nest(target, names, Acc(target.type.dtype), nest.span, nest.label, it)
    read = Read(target.id, index_of(nest.index, nest.value.type.shape), target.type.dtype)
    rest = replace(nest, expr=rewrite(nest.expr, lambda e: read if isinstance(e, Acc) else e), contraction=None)
    step = None if it.value == nest.value and not isinstance(nest.expr, Acc) else _contraction(state, alone)
    if step is not None:
        return rest, step
    op = state.graph.producers()[it.value]
    readers = tuple(Reader(v.type, lambda i, v=v: _operand(state, v, i), v.id) for v in op.inputs)  # type: ignore[misc]
    total = body_of(op, index_of(nest.index, nest.value.type.shape), readers)
    return replace(nest, expr=rewrite(nest.expr, lambda e: total if isinstance(e, Acc) else e), contraction=None), None


def _operand(state: Lowering, value: Value, index: tuple[Dim, ...]) -> Expr:
    return value_at(value, index, set(state.places), state.graph.producers())


def _join(group: list[list[Nest]], nest: Nest) -> bool:
    """Add a nest to the kernel in the making, where it fits: same loops, or the same rows."""
    if not group:
        return False
    members = {n.value.id: n for bundle in group for n in bundle}
    if sum(_size(n) for n in members.values()) + _size(nest) > LARGEST_KERNEL:
        return False
    inside = [e for e in walk(nest.expr) if isinstance(e, Read | Gathered) and e.source in members]
    if any(isinstance(e, Gathered) for e in inside):
        return False
    last = group[-1]
    if _same_loops(last, nest, inside):
        last.append(nest)
        return True
    rows = nest.value.type.shape[:1]
    if inside and rows and rows[0] != 1 and all(n.value.type.shape[:1] == rows for n in members.values()) and _by_rows(nest, inside):
        group.append([nest])
        return True
    return False


def _same_loops(bundle: list[Nest], nest: Nest, inside: list[Read | Gathered]) -> bool:
    """Whether a nest can share the innermost loop of a bundle: same shape, no sums, something read by both."""
    if any(n.value.type.shape != nest.value.type.shape for n in bundle) or any(_reduces(n.expr) for n in [*bundle, nest]):
        return False
    index = index_of(nest.index, nest.value.type.shape)
    made = {n.value.id for n in bundle}
    if any(e.index != index if e.source in made else not _by_rows(nest, [e]) for e in inside):
        return False
    sources = {e.source for n in bundle for e in walk(n.expr) if isinstance(e, Read)}
    return bool(inside) or any(isinstance(e, Read) and e.source in sources for e in walk(nest.expr))


def _by_rows(nest: Nest, inside: Iterable[Read | Gathered]) -> bool:
    return nest.value.type.rank > 0 and all(bool(e.index) and e.index[0] == var(nest.index[0]) for e in inside)


def _reduces(e: Expr) -> bool:
    return any(isinstance(n, Reduce) for n in walk(unroll_small(e)))


def _size(nest: Nest) -> int:
    return sum(1 for _ in walk(nest.expr))


def _kernels(state: Lowering, group: list[list[Nest]]) -> list[Step]:
    """The kernel of a group; where its bundles cannot share rows after all, one kernel each."""
    if not group:
        return []
    args: list[Value] = []
    scheduled = [_schedule(state, bundle, args, keep_rows=len(group) > 1) for bundle in group]
    if len(group) > 1 and (any(s.rows != scheduled[0].rows or s.rows is None for s in scheduled) or not _same_rows(scheduled)):
        return [step for bundle in group for step in _kernels(state, [bundle])]
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
    batch = state.program.batch
    extents: dict[str, Dim] = {}
    ranges: dict[str, tuple[int, int]] = {}
    by_id = {v.id: v for v in [*state.graph.values(), *state.places]}

    def argument(value: Value) -> int:
        if value not in args:
            args.append(value)
        return args.index(value)

    def named(d: Dim) -> Dim:
        return dims.substitute(d, {batch: dims.name(BATCH)}) if batch else d

    def resolve(e: Expr) -> Expr:
        if isinstance(e, Read):
            value = by_id[e.source]
            layout = state.places[value].layout
            outside = [n for n, i in enumerate(e.index) if not within(named(i), named(value.type.shape[n]), extents, ranges)]
            if not outside:
                return Load(argument(value), named(layout.address(e.index)), e.dtype)
            rest = tuple(0 if n in outside else i for n, i in enumerate(e.index))
            clamps = tuple((named(e.index[n]), named(value.type.shape[n]), named(layout.strides[n])) for n in outside)
            return ClampedLoad(argument(value), named(layout.address(rest)), clamps, e.dtype)
        if isinstance(e, Gathered):
            value = by_id[e.source]
            layout = state.places[value].layout
            index = tuple(0 if n == e.axis else i for n, i in enumerate(e.index))
            return LoadAt(argument(value), named(layout.address(index)), clamped(e.at, named(e.extent)), named(layout.strides[e.axis]), e.dtype)
        return e

    for nest in bundle:
        written = unroll_small(nest.expr)
        extents = {n: named(x) for n, x in zip(nest.index, nest.value.type.shape, strict=True)}
        extents |= {n: named(x) for e in walk(written) if isinstance(e, Reduce) for n, x in e.variables}
        ranges = {BATCH: (1, state.bound)} | {n: (0, largest(x, state.bound) - 1) for n, x in extents.items()}
        expr = map_indices(rewrite(written, resolve), named)
        address = named(state.places[nest.value].layout.address(index_of(nest.index, nest.value.type.shape)))
        stores.append(Store(argument(nest.value), address, expr))
    first = bundle[0]
    axes = tuple((n, named(e)) for n, e in zip(first.index, first.value.type.shape, strict=True))
    return schedule(tuple(stores), axes, state.bound, keep_rows)


def clamped(at: Expr, extent: Dim) -> Expr:
    """An index from data, kept inside its axis so that no input can read outside a buffer."""
    from dslc.ir.loops import IndexValue, binary, cast, const

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
        assert isinstance(s, Store)
        value = expr(s.value)
        return Store(s.buffer, change(s.address), value)

    return LoopProgram(program.buffers, tuple(stmt(s) for s in program.body), program.serial)
