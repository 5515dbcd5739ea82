"""A program's graph -> steps: kernels as loop programs, their arguments, and where every buffer lies."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from types import MappingProxyType

from dslc.ir.graph import Value
from dslc.ir.module import Program
from dslc.ir.scan import parts
from dslc.lowering.batch import check_batch
from dslc.lowering.fuse import Nest, fuse
from dslc.lowering.histories import share_stacks
from dslc.lowering.kernels import join, kernels_of
from dslc.lowering.layout import Layout, row_major
from dslc.lowering.loops import Body, ends, enter, settled, share_starts, starts
from dslc.lowering.operands import VECTOR_CHANNELS, border, default_layout
from dslc.lowering.pitch import Uses, padded_rows
from dslc.lowering.prepare import contraction_steps, prepare, without_epilogue
from dslc.lowering.recurrences import recurrence_step
from dslc.lowering.routines import result_layout, routine_steps
from dslc.lowering.steps import Loop, Lowered, Lowering, Place, Step
from dslc.lowering.updates import Stuck, Target, bind_constants, bind_inputs, bind_outputs, in_place, ordered, program_targets


@dataclass(frozen=True, slots=True)
class Arranged:
    """A graph whose nests have an order and places, and the bodies of its loops by their nests' values."""

    state: Lowering
    nests: tuple[Nest, ...]
    outputs: tuple[Value, ...]
    bodies: Mapping[Value, tuple[Body, Arranged]]


@dataclass(frozen=True, slots=True)
class LoopSteps:
    """A loop among steps."""

    body: Body
    steps: tuple[Step | LoopSteps, ...]


def lower(program: Program, layouts: Mapping[str, Layout] = MappingProxyType({})) -> Lowered:
    """Steps of a bound program (every size an integer or a multiple of the batch). `layouts` are those of buffers, by path, that are not
    row-major."""
    ids = count(program.graph.next_id())
    program = replace(program, graph=settled(program.graph, ids))
    state = Lowering(program, program.graph, program.bound or 1, ids=ids)
    bind_inputs(state, layouts)
    arranged = _arranged(state, lambda: (state, program_targets(state, layouts)))
    steps, loops = _flat(_emit(arranged))
    lowered = Lowered(program, steps, state.places, state.constants, arranged.outputs, state.bound, loops)
    check_batch(lowered)
    return lowered


def _arranged(state: Lowering, begin: Callable[[], tuple[Lowering, Sequence[Target]]]) -> Arranged:
    """A graph between the places that `begin` makes for its results; tried again without an update in place that turns out impossible."""
    excluded: frozenset[Value] = frozenset()
    while True:
        places, over, constants = dict(state.places), dict(state.over), dict(state.constants)
        try:
            return _arrange(*begin(), excluded)
        except Stuck as stuck:
            excluded |= {stuck.value}
            state.places.clear()
            state.places.update(places)
            state.over.clear()
            state.over.update(over)
            state.constants.clear()
            state.constants.update(constants)


def _arrange(state: Lowering, targets: Sequence[Target], excluded: frozenset[Value]) -> Arranged:
    bind_constants(state)
    graph, updates = in_place(state.graph, targets, excluded)
    state = replace(state, graph=graph)
    for value in graph.values():
        state.depth.setdefault(value, len(state.around))
    for value, (over, place) in updates.items():
        state.places[value], state.over[value] = place, over
    nests, outputs = bind_outputs(state, list(fuse(graph)), targets)
    nests = ordered(state, nests, targets)
    uses = graph.uses()
    for nest in nests:
        for value in nest.values:
            if value not in state.places:
                state.places[value] = Place("arena", "", _layout(uses, nest, value))
        if nest.loop is not None:
            share_stacks(state, nest)
    nests = prepare(state, nests)
    bodies: dict[Value, tuple[Body, Arranged]] = {}
    for nest in nests:
        if nest.loop is not None:
            bodies[nest.value] = _arrange_body(state, nest)
    share_starts(state, [body for body, _ in bodies.values()])
    return Arranged(state, tuple(nests), outputs, bodies)


def _arrange_body(state: Lowering, nest: Nest) -> tuple[Body, Arranged]:
    entered: list[Body] = []

    def begin() -> tuple[Lowering, Sequence[Target]]:
        entered.append(enter(state, nest))
        return entered[-1].state, entered[-1].targets

    arranged = _arranged(state, begin)
    return entered[-1], arranged


def _emit(arranged: Arranged, eager: bool = False) -> list[Step | LoopSteps]:
    """The steps of a graph, in order. With `eager`, kernels are joined where that is possible at all."""
    state = arranged.state
    steps: list[Step | LoopSteps] = []
    group: list[list[Nest]] = []

    def flush() -> None:
        steps.extend(kernels_of(state, group))
        group.clear()

    for nest in arranged.nests:
        if nest.loop is not None:
            flush()
            steps += _emit_loop(state, *arranged.bodies[nest.value])
            continue
        layout = state.places[nest.value].layout
        if 0 in nest.value.type.shape:
            continue  # nothing to compute
        if layout.halo:
            label = f"{nest.label} border"
            program = border(layout, nest.value.type.dtype, state.program.batch)
            step = Step(program, (nest.value,), frozenset(), frozenset({nest.value}), False, label, nest.span)
            if state.around:  # zeros stay zeros
                state.hoisted.setdefault(0, []).append(step)
            else:
                flush()
                steps.append(step)
        if nest.recurrence is not None:
            flush()
            steps.append(recurrence_step(state, nest))
            continue
        if nest.routine is not None:
            flush()
            steps += routine_steps(state, nest)
            continue
        if nest.contraction is not None:
            contraction = contraction_steps(state, nest)
            if contraction is not None:
                flush()
                steps += contraction
                continue
            nest, first = without_epilogue(state, nest)
            if first:
                flush()
                steps += first
        if not join(group, nest, state.over.get(nest.value), eager):
            flush()
            group.append([nest])
    flush()
    return steps


def _emit_loop(state: Lowering, body: Body, inside: Arranged) -> list[Step | LoopSteps]:
    """A loop between what its carries start as and what is copied behind it; before it also what it needs once, packed weights say."""
    depth = len(state.around)
    before = [*body.before, *starts(state, body)]
    steps = _emit(Arranged(state, tuple(before), (), {}), eager=True)
    if parts(body.op).length != 0:
        loop = LoopSteps(body, tuple(_emit(inside, eager=True)))
        steps += [*state.hoisted.pop(depth, []), *([loop] if loop.steps else [])]
    return [*steps, *_emit(Arranged(state, tuple(ends(state, body)), (), {}), eager=True)]


def _flat(items: Sequence[Step | LoopSteps]) -> tuple[tuple[Step, ...], tuple[Loop, ...]]:
    """Steps in order, and the loops around them."""
    steps: list[Step] = []
    loops: list[Loop] = []

    def walk(items: Sequence[Step | LoopSteps]) -> None:
        for item in items:
            if isinstance(item, Step):
                steps.append(item)
                continue
            at, begin, it = len(loops), len(steps), parts(item.body.op)
            loops.append(Loop(item.body.number, begin, begin, 1, it.reverse, it.index, item.body.op))
            walk(item.steps)
            assert isinstance(it.length, int)
            loops[at] = replace(loops[at], end=len(steps), length=it.length)

    walk(items)
    return tuple(steps), tuple(loops)


def _layout(uses: Uses, nest: Nest, value: Value) -> Layout:
    """The layout of what a nest makes. The gradient of a convolution's weights [O, I, k, k] is made in vectors over O, so O stands
    innermost."""
    t = value.type
    if nest.loop is not None:
        stacked = value in parts(nest.loop.op).stacked
        return (padded_rows(uses, value) if stacked else None) or row_major(t.shape)
    if value != nest.value:
        return row_major(t.shape)
    if nest.routine is not None:
        return result_layout(nest.routine.routine, t)
    wide = t.rank in (4, 5) and isinstance(t.shape[0], int) and t.shape[0] >= VECTOR_CHANNELS
    if wide and nest.contraction is not None and nest.contraction.kind.endswith("_weight_grad"):
        return replace(row_major(t.shape), order=(*range(1, t.rank), 0))
    plain = nest.recurrence is None and t.rank < 4
    return (padded_rows(uses, value) if plain else None) or default_layout(t)
