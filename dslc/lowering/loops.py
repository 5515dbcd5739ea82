"""Scans become loops in the table of steps: a body is lowered like any graph, between places that move with the iteration.

An element of a sequence is a part of the sequence's memory, a yield is written into its slot of the stacked result, and what is carried
stays in the memory of its final value: iterations update it in place where every reader of the old content comes first, else they read
and write the halves of a buffer in turns. Nothing is copied but what a carry starts as, once.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from dslc.ir import dims
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.loops import Expr, Read
from dslc.ir.plan import INDEX, NEW, OLD
from dslc.ir.scan import ScanParts, is_scan, parts
from dslc.ir.types import TensorType
from dslc.lowering.fuse import Nest, axes_of, index_of, is_whole, shape_of, value_at
from dslc.lowering.histories import shared_stacks
from dslc.lowering.indices import coefficient, quotients, simplify, within
from dslc.lowering.layout import row_major, strided
from dslc.lowering.operands import copy_nest
from dslc.lowering.steps import Lowering, Move, Part, Place, located, same_spot
from dslc.lowering.updates import Target

CHEAP = frozenset(["full", "iota"])


# ---- graphs whose bodies can be lowered -----------------------------------------------------------------------------


def settled(graph: Graph, ids: Iterator[int]) -> Graph:
    """The graph with fresh values in the bodies of its loops, whose captures are the values outside themselves.

    Views and numbers that a body captures move into it: there they are written inline, and a contraction reads what lies behind them.
    """
    return _settled(graph, {}, ids)


def _settled(graph: Graph, outside: Mapping[Value, Op], ids: Iterator[int]) -> Graph:
    producer = dict(outside)
    ops: list[Op] = []
    for op in graph.ops:
        op = _settled_scan(op, producer, ids) if is_scan(op) else op
        ops.append(op)
        producer.update(dict.fromkeys(op.outputs, op))
    return replace(graph, ops=tuple(ops))


def _settled_scan(op: Op, producer: Mapping[Value, Op], ids: Iterator[int]) -> Op:
    it = parts(op)
    body: list[Op] = []
    captures: dict[Value, None] = {}
    inside: dict[Value, Value] = {}

    def sunk(value: Value) -> Value:
        maker = producer.get(value)
        if maker is None or not _sinks(maker):
            captures[value] = None
            return value
        if value not in inside:
            inputs = tuple(map(sunk, maker.inputs))
            inside[value] = Value(next(ids), value.type)
            body.append(replace(maker, inputs=inputs, outputs=(inside[value],)))
        return inside[value]

    known = {own: Value(next(ids), own.type) for own in (it.index, *it.slices, *it.carries)}
    known |= {own: sunk(value) for own, value in zip(it.captured, it.captures, strict=True)}
    for inner in it.body.ops:
        known |= {v: Value(next(ids), v.type) for v in inner.outputs}
        body.append(replace(inner, inputs=tuple(known[v] for v in inner.inputs), outputs=tuple(known[v] for v in inner.outputs)))
    first = tuple(known[v] for v in (it.index, *it.slices, *it.carries))
    region = Graph((*first, *captures), tuple(body), tuple(known[v] for v in it.body.outputs))
    region = _settled(region, producer, ids)
    return replace(op, inputs=(*it.sequences, *it.initial, *captures), regions=(region,))


def _sinks(op: Op) -> bool:
    return len(op.outputs) == 1 and not is_whole(op) and (op.kind in CHEAP or shape_of(op).view)


# ---- the places of one loop -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Body:
    """A loop that is ready to be lowered: the state and the targets of its body, and copies before and after it."""

    number: int
    op: Op
    state: Lowering
    targets: tuple[Target, ...]
    carries: tuple[Carried, ...]
    before: tuple[Nest, ...]


@dataclass
class Carried:
    """The memory of one carry, between iterations: that of the final value, or (`pair`) two halves in turns."""

    old: Value  # in the body
    final: Value
    initial: Expr
    pair: Value | None = None
    first: Place | None = None  # in a stack that holds all that it is before and after iterations, where what it starts as lies


def enter(state: Lowering, nest: Nest) -> Body:
    """Places of what the body of a loop takes and gives."""
    assert nest.loop is not None
    op, it = nest.loop.op, parts(nest.loop.op)
    number = next(state.loop_numbers)
    inner = replace(state, graph=it.body, around=(*state.around, number), runs=state.runs * max(1, _length(it)))
    places = state.places
    before: list[Nest] = []
    places[it.index] = Place("arena", "", row_major(()))
    slices: dict[Value, Value] = {}
    for sequence, axis, own in zip(it.sequences, it.elements, it.slices, strict=True):
        place = _element(state, sequence, axis, number)
        if place is None:
            copied = state.new_value(sequence)
            before.append(copy_nest(sequence, copied, set(places), state.graph.producers()))
            places[copied] = Place("arena", "", row_major(sequence.type.shape))
            place = _element(state, copied, axis, number)
            assert place is not None, "a copy is walked in equal steps"
        places[own] = place
        slices.setdefault(sequence, own)
    targets: list[Target] = []
    carries: list[Carried] = []
    histories = shared_stacks(state, it)
    written = {stacked for stacked, _ in histories.values()}  # by the iteration before
    for own, after, final, initial in zip(it.carries, it.after, it.final, nest.loop.initial, strict=True):
        carried = Carried(own, final, initial, first=histories[own][1] if own in histories else None)
        places[own] = _all_of(state, final, own.type)
        carries.append(carried)
        targets.append(Target(after, places[own], own, partial(_turns, state, carried, number)))
    for made, axis, stacked in zip(it.yields, it.stacks, it.stacked, strict=True):
        if stacked in written:
            continue
        slot = _element(state, stacked, axis, number)
        assert slot is not None, "a stacked result is walked in equal steps"
        over = slices.get(state.over[stacked]) if stacked in state.over else None
        targets.append(Target(made, slot, over))
    return Body(number, op, inner, tuple(targets), tuple(carries), tuple(before))


def _length(it: ScanParts) -> int:
    assert isinstance(it.length, int), f"a loop of {it.length} iterations"
    return it.length


def _all_of(state: Lowering, value: Value, type: TensorType) -> Place:
    """The beginning of a value's memory, as a value of the type."""
    place = state.places[value]
    return Place(place.region, place.name, row_major(type.shape), Part(value))


def _turns(state: Lowering, carried: Carried, number: int) -> Place:
    """Gives a carry two halves of memory; the place of what an iteration makes, while the one before it is found in the other half."""
    t = carried.old.type
    carried.pair = state.new_value(Value(0, TensorType(t.dtype, (2, *t.shape))))
    state.places[carried.pair] = Place("arena", "", row_major(carried.pair.type.shape))
    size, layout = t.size, row_major(t.shape)
    for_old, for_new = (Place("arena", "", layout, Part(carried.pair, 0, (Move(number, half, size),))) for half in (OLD, NEW))
    state.places[carried.old] = for_old
    if state.places[carried.final].region == "arena" and state.places[carried.final].part is None:
        state.places[carried.final] = Place("arena", "", layout, Part(carried.pair))  # the last iteration writes half 0
    return for_new


def _start(state: Lowering, body: Body, carried: Carried) -> Place:
    """Where the first iteration finds a carry."""
    if carried.pair is None or _length(parts(body.op)) % 2 == 0:
        return _all_of(state, carried.final if carried.pair is None else carried.pair, carried.old.type)
    size = carried.old.type.size
    if isinstance(size, int):
        return Place("arena", "", row_major(carried.old.type.shape), Part(carried.pair, size))
    return Place("arena", "", replace(row_major(carried.old.type.shape), origin=size), Part(carried.pair))


def starts(state: Lowering, body: Body) -> list[Nest]:
    """What carries start as, written where the first iteration finds it; nothing where it lies there already."""
    nests = []
    for c in body.carries:
        names = axes_of(c.old.type)
        index = index_of(names, c.old.type.shape)
        for place in (_start(state, body, c), *([c.first] if c.first is not None else [])):
            start = state.new_value(c.old)
            state.places[start] = place
            if isinstance(c.initial, Read) and c.initial.index == index and _lies_at(state, c.initial.source, start):
                continue
            nests.append(Nest(start, names, c.initial, body.op.span, "start"))
    return nests


def _lies_at(state: Lowering, source: int, start: Value) -> bool:
    """Whether a value has the same memory already."""
    value = next(v for v in state.places if v.id == source)
    return state.places[value].layout == state.places[start].layout and same_spot(state.places, value, start)


def ends(state: Lowering, body: Body) -> list[Nest]:
    """Copies of final values that must lie elsewhere than where the last iteration left them, which is half 0."""
    nests = []
    for c in body.carries:
        if c.pair is None or located(state.places, c.final).value == c.pair:
            continue
        last = state.new_value(c.old)
        state.places[last] = _all_of(state, c.pair, c.old.type)
        names = axes_of(c.old.type)
        nests.append(Nest(c.final, names, Read(last.id, index_of(names, c.old.type.shape), c.old.type.dtype), body.op.span, "copy"))
    return nests


def _element(state: Lowering, value: Value, axis: int, number: int) -> Place | None:
    """Where the element of a sequence lies: a part of the memory behind it, moving along the axis. None where no strides walk it."""
    names = axes_of(value.type)
    e = value_at(value, index_of(names, value.type.shape), set(state.places), state.graph.producers())
    if not isinstance(e, Read):
        return None
    base = next(v for v in state.places if v.id == e.source)
    place = state.places[base]
    batch = state.program.batch
    shape = value.type.shape
    extents = dict(zip(names, shape, strict=True))
    at_most = {batch: state.bound} if batch else {}
    ranges = {n: (0, max(1, dims.evaluate(x, at_most)) - 1) for n, x in extents.items()} | ({batch: (1, state.bound)} if batch else {})
    if not all(within(i, x, extents, ranges) for i, x in zip(e.index, base.type.shape, strict=True)):
        return None
    address = simplify(place.layout.address(e.index), ranges)
    strides = [coefficient(address, n) for n in names]
    offset = dims.substitute(address, dict.fromkeys(names, 0))
    if not isinstance(offset, int) or any(True for _ in quotients(address)) or any(s is None or dims.names(s) - {batch} for s in strides):
        return None
    steps = [s for s in strides if s is not None]
    along = steps.pop(axis)
    layout = strided((*shape[:axis], *shape[axis + 1 :]), tuple(steps))
    return Place(place.region, place.name, layout, Part(base, offset, (Move(number, INDEX, along),) if along != 0 else ()))


def share_starts(state: Lowering, bodies: Iterable[Body]) -> None:
    """What a carry starts as is computed in the carry's own memory, where nothing else reads it."""
    uses = state.graph.uses()
    made = {v for op in state.graph.ops for v in op.outputs if op.kind != "constant"}
    for body in bodies:
        for initial, c in zip(parts(body.op).initial, body.carries, strict=True):
            mine = state.places.get(initial)
            alone = uses.get(initial) == [body.op] and sum(v == initial for v in body.op.inputs) == 1 and initial not in state.graph.outputs
            if mine is None or initial not in made or not alone or mine.region != "arena" or mine.part is not None:
                continue
            start = _start(state, body, c)
            if mine.layout == start.layout and start.region in ("arena", "output"):
                state.places[initial] = start
