"""Contractions get operands that strides can walk, and become steps of their own."""
from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Acc, Expr, Read, Reader
from dslc.ir.module import PortKind
from dslc.ir.types import TensorType
from dslc.lowering.contraction import Contraction
from dslc.lowering.fuse import Nest, body_of, index_of, value_at
from dslc.lowering.indices import rewrite
from dslc.lowering.layout import Layout, row_major, with_halo
from dslc.lowering.operands import Operand, copy_nest, default_layout, describe, needs_scratch, operand_read, overhang, with_operands
from dslc.lowering.packing import packed
from dslc.lowering.schedules import Schedule
from dslc.lowering.steps import Lowering, Place, Step
from dslc.lowering.tiling import plan as plan_tiles

COPY_CYCLES, TRANSPOSE_CYCLES = 0.2, 1.5  # an element of a copy, with and without contiguous rows in the source


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
    return done


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


def contraction_steps(state: Lowering, nest: Nest) -> list[Step] | None:
    """The step of a contraction with its epilogue, behind the copies that pack its weights; None where strides do not reach."""
    described = _describe(state, nest)
    if described is None:
        return None
    contraction, args = described
    if needs_scratch(contraction):
        mine = state.places[nest.value]
        if any((p := state.places[v]).region == mine.region and p.name == mine.name and mine.name for v in args if v != nest.value):
            return None
    assert nest.contraction is not None
    steps: list[Step] = []
    for position, operand in enumerate("ab"):
        contraction, packed_value, copy = _pack(state, contraction, args[position], operand)
        args = (*args[:position], packed_value, *args[position + 1 :])
        steps += [copy] if copy is not None else []
    reads = frozenset(args) - {nest.value}
    return [*steps, Step(contraction, args, reads, frozenset({nest.value}), False, nest.contraction.kind, nest.span)]


def _pack(state: Lowering, contraction: Contraction, value: Value, operand: str) -> tuple[Contraction, Value, Step | None]:
    """Weights in the order in which the contraction reads them fastest, where that gains more than the copy costs.

    A copy of what the program does not change costs nothing: it is made once. All costs are those of 16 lanes, so that
    every width decides alike.
    """
    place = state.places[value]
    better = packed(contraction, operand) if place.region == "persistent" else None
    if better is None:
        return contraction, value, None
    changed = place.name in {p.name for p in state.program.outputs if p.kind == PortKind.BUFFER}
    _, source_stride, _ = better.pack.axes[-1]
    cost = better.pack.size * (COPY_CYCLES if source_stride == 1 else TRANSPOSE_CYCLES) if changed else 0.0
    if better.unpacked_cycles - better.cycles <= cost:
        return contraction, value, None
    key = (value, better.pack)
    if key in state.packs:
        return better.contraction, state.packs[key], None
    target = state.new_value(Value(0, TensorType(contraction.dtype, (better.pack.size,))))
    state.places[target] = Place("arena", "", row_major(target.type.shape))
    state.packs[key] = target
    program = better.pack.program()
    step = Step(program, (value, target), frozenset({value}), frozenset({target}), program.serial, "pack", None)
    return better.contraction, target, step


def without_epilogue(state: Lowering, nest: Nest) -> tuple[Nest, list[Step]]:
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
    steps = None if it.value == nest.value and not isinstance(nest.expr, Acc) else contraction_steps(state, alone)
    if steps is not None:
        return rest, steps
    op = state.graph.producers()[it.value]
    readers = tuple(Reader(v.type, lambda i, v=v: _operand(state, v, i), v.id) for v in op.inputs)  # type: ignore[misc]
    total = body_of(op, index_of(nest.index, nest.value.type.shape), readers)
    return replace(nest, expr=rewrite(nest.expr, lambda e: total if isinstance(e, Acc) else e), contraction=None), []


def _operand(state: Lowering, value: Value, index: tuple[Dim, ...]) -> Expr:
    return value_at(value, index, set(state.places), state.graph.producers())
