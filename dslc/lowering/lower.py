"""A program's graph -> steps: kernels as loop programs, their arguments, and where every buffer lies."""
from __future__ import annotations

from dataclasses import replace

from dslc.ir.module import Program
from dslc.lowering.batch import check_batch
from dslc.lowering.fuse import Nest, fuse
from dslc.lowering.kernels import join, kernels_of
from dslc.lowering.layout import Layout, row_major
from dslc.lowering.operands import VECTOR_CHANNELS, border, default_layout
from dslc.lowering.prepare import contraction_steps, prepare, without_epilogue
from dslc.lowering.recurrences import recurrence_step
from dslc.lowering.routines import routine_layout, routine_steps
from dslc.lowering.steps import Lowered, Lowering, Place, Step
from dslc.lowering.updates import bind_outputs, ordered


def lower(program: Program) -> Lowered:
    """Steps of a bound program (every size an integer or a multiple of the batch)."""
    state = Lowering(program, program.graph, program.bound or 1)
    state.next_id = program.graph.next_id()
    nests = list(fuse(program.graph))
    nests, outputs = bind_outputs(state, nests)
    nests = ordered(state, nests)
    for nest in nests:
        if nest.value not in state.places:
            state.places[nest.value] = Place("arena", "", _layout(nest))
    nests = prepare(state, nests)
    steps: list[Step] = []
    group: list[list[Nest]] = []
    for nest in nests:
        layout = state.places[nest.value].layout
        if 0 in nest.value.type.shape:
            continue  # nothing to compute
        if layout.halo:
            steps += kernels_of(state, group)
            group = []
            label = f"{nest.label} border"
            steps.append(Step(border(layout, nest.value.type.dtype, program.batch), (nest.value,), frozenset(), frozenset({nest.value}), False, label, nest.span))
        if nest.recurrence is not None:
            steps += [*kernels_of(state, group), recurrence_step(state, nest)]
            group = []
            continue
        if nest.routine is not None:
            steps += [*kernels_of(state, group), *routine_steps(state, nest)]
            group = []
            continue
        if nest.contraction is not None:
            contraction = contraction_steps(state, nest)
            if contraction is not None:
                steps += [*kernels_of(state, group), *contraction]
                group = []
                continue
            nest, first = without_epilogue(state, nest)
            if first:
                steps += [*kernels_of(state, group), *first]
                group = []
        if not join(group, nest):
            steps += kernels_of(state, group)
            group = [[nest]]
    steps += kernels_of(state, group)
    lowered = Lowered(program, tuple(steps), state.places, state.constants, outputs, state.bound)
    check_batch(lowered)
    return lowered


def _layout(nest: Nest) -> Layout:
    """A nest's own layout. The gradient of a convolution's weights [O, I, k, k] is made in vectors over O, so O stands innermost."""
    t = nest.value.type
    if nest.routine is not None:
        return routine_layout(t)
    wide = t.rank in (4, 5) and isinstance(t.shape[0], int) and t.shape[0] >= VECTOR_CHANNELS
    if wide and nest.contraction is not None and nest.contraction.kind.endswith("_weight_grad"):
        return replace(row_major(t.shape), order=(*range(1, t.rank), 0))
    return default_layout(t)
