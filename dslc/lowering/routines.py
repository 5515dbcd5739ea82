"""Routines become steps: operands row-major in memory, the results and scratch beside them, one call of the algorithm."""

from __future__ import annotations

from dataclasses import replace

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Read
from dslc.ir.routines import Routine
from dslc.ir.types import TensorType
from dslc.lowering.contraction import linear
from dslc.lowering.fuse import Nest, index_of, value_at
from dslc.lowering.indices import simplify
from dslc.lowering.kernels import kernels_of
from dslc.lowering.layout import Layout, row_major
from dslc.lowering.operands import copy_nest
from dslc.lowering.schedule import BATCH, largest
from dslc.lowering.steps import Lowering, Place, Step


def routine_layout(t: TensorType) -> Layout:
    """Operands and results of routines lie in the order of their axes."""
    return row_major(t.shape)


def result_layout(routine: Routine, t: TensorType) -> Layout:
    """The layout of a result: of one that is strided with the heads [.., H, T, E] of a place side by side, as their merging reads them."""
    layout = routine_layout(t)
    return replace(layout, order=(*range(t.rank - 3), t.rank - 2, t.rank - 3, t.rank - 1)) if routine.strided and t.rank > 3 else layout


def routine_steps(state: Lowering, nest: Nest) -> list[Step]:
    """The call of a routine, behind copies of operands that lie otherwise, and before a copy of its result where that must."""
    called = nest.routine
    assert called is not None
    steps: list[Step] = []
    operands: list[Value] = []
    strides: list[tuple[int, ...]] = []
    for value in called.inputs:
        found = _strided(state, value) if called.routine.strided else None
        place = _in_order(state, value) if found is None else found[0]
        if place is None:
            place = state.new_value(value)
            state.places[place] = Place("arena", "", routine_layout(value.type))
            steps += kernels_of(state, [[copy_nest(value, place, set(state.places) - {place}, state.graph.producers())]])
        operands.append(place)
        if called.routine.strided:
            strides.append(_strides(state, value.type, routine_layout(value.type)) if found is None else found[1])
    results = list(called.results)
    results[0] = nest.value
    for value in results[1:]:
        state.places[value] = Place("arena", "", result_layout(called.routine, value.type))
    target = nest.value
    if state.places[target].layout not in (routine_layout(target.type), result_layout(called.routine, target.type)):
        results[0] = target = state.new_value(nest.value)
        state.places[target] = Place("arena", "", routine_layout(target.type))
    if called.routine.strided:
        strides += [_strides(state, value.type, state.places[value].layout) for value in results]
    scratch = [state.new_value(Value(0, t)) for t in called.routine.scratch]
    for value in scratch:
        state.places[value] = Place("arena", "", routine_layout(value.type))
    args = (*operands, *results, *scratch)
    program = replace(
        called.routine,
        sizes=tuple((name, _named(state, size)) for name, size in called.routine.sizes),
        scratch=(),
        buffers=tuple(v.type.dtype for v in args),
        strides=tuple(strides),
    )
    steps.append(Step(program, args, frozenset(operands), frozenset({*results, *scratch}), program.serial, nest.label, nest.span))
    if target != nest.value:
        read = Read(target.id, index_of(nest.index, nest.value.type.shape), target.type.dtype)
        steps += kernels_of(state, [[replace(nest, expr=read, routine=None, label="copy")]])
    return steps


def _read(state: Lowering, value: Value) -> tuple[Value, Read, dict[str, tuple[int, int]]] | None:
    """The buffer that a value is a view of, its element there, and the ranges of its indices; None for what is no view."""
    names = tuple(f"i{n}" for n in range(value.type.rank))
    e = value_at(value, index_of(names, value.type.shape), set(state.places), state.graph.producers())
    if not isinstance(e, Read):
        return None
    base = next(v for v in state.places if v.id == e.source)
    ranges = {BATCH: (1, state.bound)}
    ranges |= {n: (0, largest(_named(state, x), state.bound) - 1) for n, x in zip(names, value.type.shape, strict=True)}
    return base, e, ranges


def _in_order(state: Lowering, value: Value) -> Value | None:
    """The value in memory that has exactly these elements in this order; None where there is none."""
    read = _read(state, value)
    if read is None:
        return None
    base, e, ranges = read
    layout = state.places[base].layout
    if layout.size != routine_layout(value.type).size or layout.halo:
        return None
    index = index_of(tuple(f"i{n}" for n in range(value.type.rank)), value.type.shape)
    found, wanted = (simplify(_named(state, d), ranges) for d in (layout.address(e.index), routine_layout(value.type).address(index)))
    return base if found == wanted else None


def _strided(state: Lowering, value: Value) -> tuple[Value, tuple[int, ...]] | None:
    """The value in memory that constant strides walk in the order of these elements, with its offset and strides."""
    read = _read(state, value)
    if read is None:
        return None
    base, e, ranges = read
    address = simplify(_named(state, state.places[base].layout.address(e.index)), ranges)
    if not _affine(address):
        return None
    offset, factors = linear(address)
    strides = tuple(factors.get(f"i{n}", 0) for n in range(value.type.rank))
    dense = not strides or strides[-1] == 1 or value.type.shape[-1] == 1
    return (base, (offset, *strides)) if dense else None


def _affine(d: Dim) -> bool:
    """Whether an address is a sum of constant multiples of loop variables: the run-time batch is in no stride."""
    if isinstance(d, int):
        return True
    return all(len(m) <= 1 and all(isinstance(atom, str) and atom != BATCH and power == 1 for atom, power in m) for m, _ in d.terms)


def _strides(state: Lowering, t: TensorType, layout: Layout) -> tuple[int, ...]:
    """The offset and the stride of each axis of a layout."""
    found = linear(_named(state, layout.address(index_of(tuple(f"i{n}" for n in range(t.rank)), t.shape))))
    return (found[0], *(found[1].get(f"i{n}", 0) for n in range(t.rank)))


def _named(state: Lowering, d: Dim) -> Dim:
    batch = state.program.batch
    return dims.substitute(d, {batch: dims.name(BATCH)}) if batch else d
