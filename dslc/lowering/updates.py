"""Where inputs, constants and outputs live, and the order of nests: buffers are updated in place where that is safe."""
from __future__ import annotations

from dslc.ir.graph import Graph, Value
from dslc.ir.loops import Gathered, Read, Reduce
from dslc.ir.module import PortKind
from dslc.lowering.fuse import Nest, base_chain, index_of
from dslc.lowering.indices import walk
from dslc.lowering.layout import row_major
from dslc.lowering.steps import Lowering, Place


def bind_outputs(state: Lowering, nests: list[Nest]) -> tuple[list[Nest], tuple[Value, ...]]:
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
    if nest.contraction is not None or nest.routine is not None:
        return old in reads_of(state.graph, nest)
    for node in (n for e in nest.expressions for n in walk(e)):
        if isinstance(node, Read) and node.source == old.id and node.index != index:
            return True
        if isinstance(node, Gathered) and node.source == old.id:
            return True
        if isinstance(node, Reduce) and any(isinstance(m, Read) and m.source == old.id for m in walk(node.body)):
            return True
    return False


def reads_of(graph: Graph, nest: Nest) -> set[Value]:
    """Materialised values that a nest reads; the operands of a contraction or routine through their views."""
    by_id = {v.id: v for v in graph.values()}
    nodes = (n for e in nest.expressions for n in walk(e))
    found = {by_id[n.source] for n in nodes if isinstance(n, Read | Gathered) and n.source in by_id}
    it, called = nest.contraction, nest.routine
    producer = graph.producers()
    for operand in (it.a, it.b) if it is not None else called.inputs if called is not None else ():
        found.update(base_chain(operand, producer))
    return found


def ordered(state: Lowering, nests: list[Nest]) -> list[Nest]:
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
            return ordered(state, _through_copy(state, nests, victim))
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
