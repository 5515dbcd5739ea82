"""Contractions get operands that strides can walk, and become steps of their own."""
from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Acc, Expr, Read, Reader
from dslc.lowering.contraction import Contraction
from dslc.lowering.fuse import Nest, body_of, index_of, value_at
from dslc.lowering.indices import rewrite
from dslc.lowering.layout import Layout, with_halo
from dslc.lowering.operands import Operand, copy_nest, default_layout, describe, needs_scratch, operand_read, overhang, with_operands
from dslc.lowering.steps import Lowering, Place, Step
from dslc.lowering.tiling import Schedule
from dslc.lowering.tiling import plan as plan_tiles

PACK_CYCLES = 1.5  # an element of a copy that reorders axes


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


def contraction_step(state: Lowering, nest: Nest) -> Step | None:
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


def without_epilogue(state: Lowering, nest: Nest) -> tuple[Nest, Step | None]:
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
    step = None if it.value == nest.value and not isinstance(nest.expr, Acc) else contraction_step(state, alone)
    if step is not None:
        return rest, step
    op = state.graph.producers()[it.value]
    readers = tuple(Reader(v.type, lambda i, v=v: _operand(state, v, i), v.id) for v in op.inputs)  # type: ignore[misc]
    total = body_of(op, index_of(nest.index, nest.value.type.shape), readers)
    return replace(nest, expr=rewrite(nest.expr, lambda e: total if isinstance(e, Acc) else e), contraction=None), None


def _operand(state: Lowering, value: Value, index: tuple[Dim, ...]) -> Expr:
    return value_at(value, index, set(state.places), state.graph.producers())
