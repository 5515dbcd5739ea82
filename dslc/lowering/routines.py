"""Routines become steps: operands row-major in memory, the result and scratch beside them, one call of the algorithm."""

from __future__ import annotations

from dataclasses import replace

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Read
from dslc.ir.types import TensorType
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


def routine_steps(state: Lowering, nest: Nest) -> list[Step]:
    """The call of a routine, behind copies of operands that lie otherwise, and before a copy of its result where that must."""
    called = nest.routine
    assert called is not None
    steps: list[Step] = []
    operands: list[Value] = []
    for value in called.inputs:
        place = _in_order(state, value)
        if place is None:
            place = state.new_value(value)
            state.places[place] = Place("arena", "", routine_layout(value.type))
            steps += kernels_of(state, [[copy_nest(value, place, set(state.places) - {place}, state.graph.producers())]])
        operands.append(place)
    target = nest.value
    if state.places[target].layout != routine_layout(target.type):
        target = state.new_value(nest.value)
        state.places[target] = Place("arena", "", routine_layout(target.type))
    scratch = [state.new_value(Value(0, t)) for t in called.routine.scratch]
    for value in scratch:
        state.places[value] = Place("arena", "", routine_layout(value.type))
    args = (*operands, target, *scratch)
    program = replace(
        called.routine,
        sizes=tuple((name, _named(state, size)) for name, size in called.routine.sizes),
        scratch=(),
        buffers=tuple(v.type.dtype for v in args),
    )
    steps.append(Step(program, args, frozenset(operands), frozenset({target, *scratch}), program.serial, nest.label, nest.span))
    if target != nest.value:
        read = Read(target.id, index_of(nest.index, nest.value.type.shape), target.type.dtype)
        steps += kernels_of(state, [[replace(nest, expr=read, routine=None, label="copy")]])
    return steps


def _in_order(state: Lowering, value: Value) -> Value | None:
    """The value in memory that has exactly these elements in this order; None where there is none."""
    names = tuple(f"i{n}" for n in range(value.type.rank))
    index = index_of(names, value.type.shape)
    e = value_at(value, index, set(state.places), state.graph.producers())
    if not isinstance(e, Read):
        return None
    base = next(v for v in state.places if v.id == e.source)
    ranges = {BATCH: (1, state.bound)}
    ranges |= {n: (0, largest(_named(state, x), state.bound) - 1) for n, x in zip(names, value.type.shape, strict=True)}
    layout = state.places[base].layout
    if layout.size != routine_layout(value.type).size or layout.halo:
        return None
    found, wanted = (simplify(_named(state, d), ranges) for d in (layout.address(e.index), routine_layout(value.type).address(index)))
    return base if found == wanted else None


def _named(state: Lowering, d: Dim) -> Dim:
    batch = state.program.batch
    return dims.substitute(d, {batch: dims.name(BATCH)}) if batch else d
