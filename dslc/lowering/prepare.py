"""Contractions get operands that strides can walk, and become steps of their own."""
from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Acc, Const, ContractionMap, Expr, Read, readers_of
from dslc.ir.module import PortKind
from dslc.ir.types import TensorType
from dslc.lowering.contraction import Contraction, coefficient
from dslc.lowering.fuse import NOMINAL_BATCH, Nest, body_of, index_of, value_at
from dslc.lowering.indices import rewrite
from dslc.lowering.kernels import kernels_of
from dslc.lowering.layout import Layout, row_major, with_halo
from dslc.lowering.operands import Operand, copy_nest, default_layout, describe, needs_scratch, operand_read, overhang, with_operands
from dslc.lowering.packing import packed
from dslc.lowering.pitch import padded_pixels
from dslc.lowering.schedule import SMALL_WORK
from dslc.lowering.schedules import BATCH_HINT, Schedule
from dslc.lowering.steps import Lowering, Place, Step, may_overlap
from dslc.lowering.tiling import plan as plan_tiles

Axes = tuple[tuple[str, Dim], ...]
COPY_CYCLES, TRANSPOSE_CYCLES = 0.2, 1.5  # an element of a copy, with and without contiguous rows in the source
MEMORY_COPY_CYCLES = 2.5  # the same of a copy that the caches do not hold: what memory takes
CACHED = 2 << 20  # bytes


def prepare(state: Lowering, nests: list[Nest]) -> list[Nest]:
    """Operands of contractions get memory they can be walked in: views where strides reach, halos, copies, packed weights."""
    done: list[Nest] = []
    halos: dict[Value, Layout] = {}
    copies: dict[tuple[Value, Layout], Value] = {}
    made = {nest.value for nest in nests if nest.loop is None}
    for nest in nests:
        if nest.contraction is None or not nest.contraction.maps:
            done.append(nest)
            continue
        it = nest.contraction
        operands = []
        for value, maps in ((it.a, [(m.a, m.axes) for m in it.maps]), (it.b, [(m.b, m.axes) for m in it.maps])):
            operand = operand_read(value, maps[0][0], set(state.places), state.graph.producers())
            base = operand.value if operand is not None else value
            layout = halos.get(base) or (state.places[base].layout if base in state.places else default_layout(value.type))
            if operand is not None:
                reads = [(operand_read(value, index, set(state.places), state.graph.producers()), axes) for index, axes in maps]
                before, after = _overhang([(read.index, axes) for read, axes in reads if read is not None], operand.value, state)
                if not any(before) and not any(after):
                    operands.append(value)
                    continue
                if operand.value == value and value in made and state.places[value].region == "arena" and state.places[value].part is None:
                    halos[value] = _bordered(value, layout, before, after, maps)
                    operands.append(value)
                    continue
            # a view cannot have a halo, and what is computed on the way has no memory yet
            before, after = _overhang(maps, value, state)
            layout = _bordered(value, default_layout(value.type), before, after, maps)
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


def _overhang(maps: list[tuple[tuple[Dim, ...], Axes]], value: Value, state: Lowering) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How far the indices of all parts of a contraction leave the value, before and after each axis."""
    found = [overhang(Operand(value, index), dict(axes), state.bound, state.program.batch) for index, axes in maps]
    before, after = ([side for side, _ in found], [side for _, side in found])
    return tuple(map(max, zip(*before, strict=True))), tuple(map(max, zip(*after, strict=True)))


def _bordered(value: Value, layout: Layout, before: tuple[int, ...], after: tuple[int, ...], maps: list[tuple[tuple[Dim, ...], Axes]]) -> Layout:
    """The value's layout with room for a halo, and for the windows of a contraction as far apart as its stride along the last axis of pixels."""
    across = layout.order[-2] if len(layout.order) > 1 else 0
    step = max((abs(coefficient(index[across], name)) for index, axes in maps for name, _ in axes), default=1)
    return padded_pixels(with_halo(layout, before, after), value.type.dtype, step)


@lru_cache(maxsize=1024)
def tiled(c: Contraction, width: int) -> Schedule:
    """The tiles of a contraction; kept, because choosing them takes longer than anything else in lowering."""
    return plan_tiles(c, width)


def _describe(state: Lowering, nest: Nest, part: ContractionMap) -> tuple[Contraction, tuple[Value, ...]] | None:
    it = nest.contraction
    assert it is not None
    keep, producer = set(state.places), state.graph.producers()
    a, b = (operand_read(v, index, keep, producer) for v, index in ((it.a, part.a), (it.b, part.b)))
    if a is None or b is None:
        return None
    by_id = {v.id: v for v in state.places}
    return describe(nest, part, a, b, lambda v: state.places[v].layout, by_id.__getitem__, state.program.batch, state.bound)


def contraction_steps(state: Lowering, nest: Nest) -> list[Step] | None:
    """The steps of a contraction with its epilogue, one for each of its parts; None where strides do not reach."""
    it = nest.contraction
    assert it is not None
    steps: list[Step] = []
    parts = [_describe(state, nest, part) for part in it.maps]
    if any(part is None or not _writable(state, nest, *part) for part in parts):
        return None
    for part in parts:
        assert part is not None
        steps += _part_steps(state, nest, *part)
    if sum(_elements_of(part) for part in it.maps) - nest.value.type.size != 0:  # what no part gives is zero, first everywhere
        zero = rewrite(nest.expr, lambda e: Const(0.0, e.dtype) if isinstance(e, Acc) else e)
        return [*kernels_of(state, [[replace(nest, expr=zero, contraction=None)]]), *steps]
    return steps


def _elements_of(part: ContractionMap) -> Dim:
    """How many elements of the result a part gives."""
    names = {name for index in part.out for name in dims.names(index)}
    total: Dim = 1
    for name, extent in part.axes:
        total = total * extent if name in names else total
    return total


def _writable(state: Lowering, nest: Nest, contraction: Contraction, args: tuple[Value, ...]) -> bool:
    """Whether the result's memory may hold partial sums where the contraction needs that."""
    shared = any(may_overlap(state.places, v, nest.value) for v in args if v != nest.value)
    return not (shared and needs_scratch(contraction))


def _part_steps(state: Lowering, nest: Nest, contraction: Contraction, args: tuple[Value, ...]) -> list[Step]:
    """The step of a contraction with its epilogue, behind the copies that pack its weights."""
    assert nest.contraction is not None
    steps: list[Step] = []
    for position, operand in enumerate("ab"):
        contraction, packed_value, copy = _pack(state, contraction, args[position], operand)
        args = (*args[:position], packed_value, *args[position + 1 :])
        steps += [copy] if copy is not None else []
    contraction = replace(contraction, again=bool(state.around))
    reads = frozenset(args) - {nest.value}
    # outside of loops a barrier for little work is one of few
    serial = bool(state.around) and contraction.flops(NOMINAL_BATCH) < 2 * SMALL_WORK
    return [*steps, Step(contraction, args, reads, frozenset({nest.value}), serial, nest.contraction.kind, nest.span)]


def _pack(state: Lowering, contraction: Contraction, value: Value, operand: str) -> tuple[Contraction, Value, Step | None]:
    """Weights in the order in which the contraction reads them fastest, where that gains more than the copy costs.

    A copy of what the program does not change costs nothing: it is made once. Inside a loop, what does not depend on the iteration is
    copied once before it. All costs are those of 16 lanes, so that every width decides alike.
    """
    place, depth = state.places[value], len(state.around)
    made_at = state.depth.get(value, depth) if place.part is None else depth
    weights = place.region == "persistent" and place.part is None
    better = packed(contraction, operand) if weights or made_at < depth else None
    if better is None:
        return contraction, value, None
    changed = not weights or place.name in {p.name for p in state.program.outputs if p.kind == PortKind.BUFFER}
    _, source_stride, _ = better.pack.axes[-1]
    each = COPY_CYCLES if source_stride == 1 else TRANSPOSE_CYCLES
    if better.pack.size * contraction.dtype.size > CACHED:
        each = max(each, MEMORY_COPY_CYCLES)
    batch = min(state.bound, BATCH_HINT) / BATCH_HINT if any(a.extent is None for a in contraction.axes) else 1.0
    if (better.unpacked_cycles - better.cycles) * batch * state.runs <= (better.pack.size * each if changed else 0.0):
        return contraction, value, None
    key = (value, better.pack)
    if key in state.packs:
        return better.contraction, state.packs[key], None
    target = state.new_value(Value(0, TensorType(contraction.dtype, (better.pack.size,))))
    state.places[target] = Place("arena", "", row_major(target.type.shape))
    state.packs[key] = target
    program = better.pack.program()
    step = Step(program, (value, target), frozenset({value}), frozenset({target}), program.serial, "pack", None)
    if made_at < depth:
        state.hoisted.setdefault(made_at, []).append(step)
        return better.contraction, target, None
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
    readers = readers_of(op, lambda v, i: _operand(state, v, i))
    total = body_of(op, index_of(nest.index, nest.value.type.shape), readers)
    return replace(nest, expr=rewrite(nest.expr, lambda e: total if isinstance(e, Acc) else e), contraction=None), []


def _operand(state: Lowering, value: Value, index: tuple[Dim, ...]) -> Expr:
    return value_at(value, index, set(state.places), state.graph.producers())
