"""Where results of a graph lie, and the order of nests: memory is updated in place where that is safe.

A graph is a program, whose results are buffers and ports, or the body of a loop, whose results are what it carries and yields.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dslc.ir.graph import Graph, Op, Value
from dslc.ir.loops import Expr, Gathered, Read, Reduce
from dslc.ir.module import Port, PortKind
from dslc.ir.scan import parts
from dslc.lowering.fuse import IN_PLACE, Nest, axes_of, base_chain, index_of
from dslc.lowering.indices import walk
from dslc.lowering.layout import Layout, row_major
from dslc.lowering.steps import Lowering, Place

UPDATE = "dynamic_update_slice"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a result must lie. `over`: what lies there before. `turns`, where there is one, finds it another place, in the second of two
    buffers that take turns, and moves `over` to the first."""

    value: Value
    place: Place
    over: Value | None = None
    turns: Callable[[], Place] | None = None


class Stuck(Exception):
    """A part of a value cannot be replaced where that lies, since it is read afterwards."""

    def __init__(self, value: Value):
        super().__init__(str(value))
        self.value = value


def bind_inputs(state: Lowering, layouts: Mapping[str, Layout]) -> None:
    """Places of a program's inputs; `layouts` of the buffers that are not row-major."""
    for value, port in zip(state.graph.inputs, state.program.inputs, strict=True):
        region = {PortKind.INPUT: "input", PortKind.BUFFER: "persistent"}.get(port.kind, "setting")
        state.places[value] = _place(region, port, value, layouts)


def bind_constants(state: Lowering) -> None:
    """Places of a graph's constants."""
    for op in state.graph.ops:
        if op.kind == "constant":
            name = f"{state.program.name}.constant{len(state.constants)}"
            state.constants[name] = op
            state.places[op.output] = Place("constant", name, row_major(op.output.type.shape))


def program_targets(state: Lowering, layouts: Mapping[str, Layout]) -> list[Target]:
    """Where a program's results go; `layouts` as for its inputs."""
    program, found = state.program, []
    buffers = {port.name: value for value, port in zip(state.graph.inputs, program.inputs, strict=True) if port.kind == PortKind.BUFFER}
    for value, port in zip(state.graph.outputs, program.outputs, strict=True):
        kept = port.kind == PortKind.BUFFER
        place = _place("persistent" if kept else "output", port, value, layouts)
        found.append(Target(value, place, buffers.get(port.name) if kept else None))
    return found


def _place(region: str, port: Port, value: Value, layouts: Mapping[str, Layout]) -> Place:
    layout = layouts.get(port.name) if port.kind == PortKind.BUFFER else None
    return Place(region, port.name, layout or row_major(value.type.shape))


def in_place(graph: Graph, targets: Sequence[Target], excluded: frozenset[Value]) -> tuple[Graph, dict[Value, tuple[Value, Place]]]:
    """The graph with those operators marked that replace a part of what lies where their result must; for each what it is written over,
    and where."""
    producer = graph.producers()
    marked: dict[Value, tuple[Value, Place]] = {}
    for target in targets:
        chain: list[Value] = []
        value = target.value
        while value != target.over and value in producer and producer[value].kind == UPDATE and value not in excluded | marked.keys():
            chain.append(value)
            value = producer[value].inputs[0]
        apart = all({target.over, *chain}.isdisjoint(base_chain(producer[v].inputs[1], producer)) for v in chain)
        if target.over is not None and value == target.over and apart and target.place.layout == row_major(value.type.shape):
            marked |= {v: (producer[v].inputs[0], target.place) for v in chain}
    if not marked:
        return graph, marked

    def mark(op: Op) -> Op:
        return replace(op, attrs=(*op.attrs, (IN_PLACE, True))) if op.outputs and op.outputs[0] in marked else op

    return replace(graph, ops=tuple(map(mark, graph.ops))), marked


def bind_outputs(state: Lowering, nests: list[Nest], targets: Sequence[Target]) -> tuple[list[Nest], tuple[Value, ...]]:
    """Results are written where they must lie: in place where that is safe, else into another buffer or through a copy at the end."""
    makers = {value: nest for nest in nests for value in (nest.values if nest.loop is not None else (nest.value,))}
    outputs: list[Value] = []
    copies: list[Nest] = []
    for target in targets:
        value, place = target.value, target.place
        if value in state.places and state.places[value] == place:
            outputs.append(value)  # a state that is stored as it was
            continue
        free = value in makers and value not in state.places
        blocked = free and target.over is not None and _blocks_update(state, makers[value], value, target.over)
        if free and (not blocked or target.turns is not None):
            if blocked and target.turns is not None:
                place = target.turns()
            elif target.over is not None:
                state.over[value] = target.over
            state.places[value] = place
            outputs.append(value)
            continue
        copies.append(_copy(state, value, place, target.over))
        outputs.append(copies[-1].value)
    return nests + copies, tuple(outputs)


def _copy(state: Lowering, value: Value, place: Place, over: Value | None) -> Nest:
    copy = state.new_value(value)
    state.places[copy] = place
    if over is not None:
        state.over[copy] = over
    names = axes_of(value.type)
    return Nest(copy, names, Read(value.id, index_of(names, value.type.shape), value.type.dtype), None, "copy")


def _blocks_update(state: Lowering, nest: Nest, value: Value, over: Value) -> bool:
    """Whether a nest cannot write `value` over `over`: it reads the old content elsewhere than at its own index."""
    if nest.loop is not None:
        return _blocks_loop(state, nest, value, over)
    if nest.contraction is not None or nest.routine is not None:
        return over in reads_of(state.graph, nest)
    return _reads_elsewhere(nest.expressions, over, nest.index)


def _reads_elsewhere(expressions: Iterable[Expr], over: Value, names: tuple[str, ...]) -> bool:
    index = index_of(names, over.type.shape)
    for node in (n for e in expressions for n in walk(e)):
        if isinstance(node, Read) and node.source == over.id and node.index != index:
            return True
        if isinstance(node, Gathered) and node.source == over.id:
            return True
        if isinstance(node, Reduce) and any(isinstance(m, Read) and m.source == over.id for m in walk(node.body)):
            return True
    return False


def _blocks_loop(state: Lowering, nest: Nest, value: Value, over: Value) -> bool:
    """A loop may update what it carries, from what that was, or sequences that it walks as it stacks the new elements."""
    assert nest.loop is not None
    op, it = nest.loop.op, parts(nest.loop.op)
    at = op.outputs.index(value)
    carried = len(it.final)
    for n, e in enumerate(nest.loop.initial):
        own = n == at
        if over in _sources(state.graph, (e,)) and (not own or _reads_elsewhere((e,), over, axes_of(over.type))):
            return True
    producer = state.graph.producers()
    for sequence, axis in zip(it.sequences, it.elements, strict=True):
        walked = at >= carried and sequence == over and it.stacks[at - carried] == axis
        if over in base_chain(sequence, producer) and not walked:
            return True
    return over in it.captures


def _sources(graph: Graph, expressions: Iterable[Expr]) -> set[Value]:
    by_id = {v.id: v for v in graph.values()}
    nodes = (n for e in expressions for n in walk(e))
    return {by_id[n.source] for n in nodes if isinstance(n, Read | Gathered) and n.source in by_id}


def reads_of(graph: Graph, nest: Nest) -> set[Value]:
    """Materialised values that a nest reads; the operands of a contraction, routine or loop through their views."""
    found = _sources(graph, nest.expressions)
    it, called = nest.contraction, nest.routine
    producer = graph.producers()
    operands: tuple[Value, ...] = (it.a, it.b) if it is not None else called.inputs if called is not None else ()
    if nest.loop is not None:
        loop = parts(nest.loop.op)
        operands = (*loop.sequences, *loop.captures)
    for operand in operands:
        found.update(base_chain(operand, producer))
    return found


def ordered(state: Lowering, nests: list[Nest], targets: Sequence[Target] = ()) -> list[Nest]:
    """Definition order, but a nest that overwrites memory comes after every reader of the old content.

    Where that is impossible (two buffers that swap) the update goes into the second of two buffers, or through a copy.
    """
    makers = {v: nest.value for nest in nests for v in nest.values}
    old = {nest.value: [state.over[v] for v in nest.values if v in state.over] for nest in nests}
    raw = {nest.value: reads_of(state.graph, nest) for nest in nests}
    by_value = {nest.value: nest for nest in nests}
    needs = {v: {makers[r] for r in (*raw[v], *old[v]) if r in makers} - {v} for v in by_value}
    for new, before in old.items():
        needs[new] |= {v for v in by_value if v != new and not raw[v].isdisjoint(before)}
    order: list[Nest] = []
    done: set[Value] = set()
    waiting = list(by_value)
    while waiting:
        ready = [v for v in waiting if needs[v] <= done]
        if not ready:
            victim = next(v for v in waiting if old[v])
            return ordered(state, _freed(state, nests, by_value[victim], targets), targets)
        # plain values first: updates are pushed back as far as they can, so that they do not hold up readers
        done.add(ready[0])
        order.append(by_value[ready[0]])
        waiting.remove(ready[0])
    return order


def _freed(state: Lowering, nests: list[Nest], nest: Nest, targets: Sequence[Target]) -> list[Nest]:
    """The nests where one writes over nothing any more."""
    value = next(v for v in nest.values if v in state.over)
    place, over = state.places[value], state.over.pop(value)
    if nest.routine is not None and nest.routine.routine.name == "update_slice":
        raise Stuck(value)
    target = next((t for t in targets if t.over == over), None)
    if target is not None and target.turns is not None:
        state.places[value] = target.turns()
        return nests
    del state.places[value]
    return [*nests, _copy(state, value, place, over)]
