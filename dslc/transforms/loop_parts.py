"""A scan taken apart, so that a pass can move operations, carries and yields, and put together again; and what nothing needs, dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dslc.diagnostics import Span
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Graph, Op, Value, sorted_attrs
from dslc.ir.scan import KIND, is_scan, parts, stack_axis, with_axis


@dataclass(frozen=True, slots=True)
class Walked:
    """A sequence around the loop, the axis along which it is walked, and its element in the body."""

    outer: Value
    axis: int
    inner: Value


@dataclass(frozen=True, slots=True)
class Carried:
    """A value before the loop, before and after an iteration, and after the loop."""

    initial: Value
    before: Value
    after: Value
    final: Value


@dataclass(frozen=True, slots=True)
class Yielded:
    """A value of the body, the axis along which it is stacked, and the stack."""

    inner: Value
    axis: int
    outer: Value


@dataclass(slots=True)
class Loop:
    """The parts of one scan. What a pass adds is found by the operations around it under new values of `outside`."""

    outside: Builder
    length: Dim
    reverse: bool
    recompute: bool
    span: Span | None
    index: Value
    walked: list[Walked]
    carried: list[Carried]
    captured: dict[Value, Value]  # by the value in the body, the one around it
    yielded: list[Yielded]
    ops: list[Op]
    inside: Builder = field(init=False)  # makes values and operations of the body

    def __post_init__(self) -> None:
        given = (self.index, *(w.inner for w in self.walked), *(c.before for c in self.carried), *self.captured)
        self.inside = Builder(given, self.ops)
        self.inside.ops = self.ops

    @staticmethod
    def of(op: Op, outside: Builder) -> Loop:
        scan = parts(op)
        walked = [Walked(*w) for w in zip(scan.sequences, scan.elements, scan.slices, strict=True)]
        carried = [Carried(*c) for c in zip(scan.initial, scan.carries, scan.after, scan.final, strict=True)]
        yielded = [Yielded(*y) for y in zip(scan.yields, scan.stacks, scan.stacked, strict=True)]
        captured = dict(zip(scan.captured, scan.captures, strict=True))
        return Loop(
            outside, scan.length, scan.reverse, scan.recompute, op.span, scan.index, walked, carried, captured, yielded, list(scan.body.ops)
        )

    def op(self) -> Op:
        """The scan that these are the parts of."""
        attrs = {
            "length": self.length,
            "reverse": self.reverse,
            "recompute": self.recompute,
            "elements": tuple(w.axis for w in self.walked),
            "yields": tuple(y.axis for y in self.yielded),
            "carries": len(self.carried),
        }
        given = (self.index, *(w.inner for w in self.walked), *(c.before for c in self.carried), *self.captured)
        body = Graph(given, tuple(self.ops), (*(c.after for c in self.carried), *(y.inner for y in self.yielded)))
        inputs = (*(w.outer for w in self.walked), *(c.initial for c in self.carried), *self.captured.values())
        outputs = (*(c.final for c in self.carried), *(y.outer for y in self.yielded))
        return Op(KIND, inputs, sorted_attrs(attrs), outputs, (body,), self.span)

    def producers(self) -> dict[Value, Op]:
        return {v: op for op in self.ops for v in op.outputs}

    def stacked(self, value: Value) -> tuple[Value, int]:
        """All that a value of the body has been, as a tensor around the loop, with the axis of the iterations."""
        found = self.at_hand(value)
        if found is None:
            axis = stack_axis(value.type)
            outer = self.outside.value(with_axis(value.type, axis, self.length))
            self.yielded.append(Yielded(value, axis, outer))
            found = outer, axis
        return found

    def at_hand(self, value: Value) -> tuple[Value, int] | None:
        """The same where it takes no more memory."""
        for w in self.walked:
            if w.inner == value:
                return w.outer, w.axis
        for y in self.yielded:
            if y.inner == value:
                return y.outer, y.axis
        return None

    def replace_inside(self, same: Mapping[Value, Value]) -> None:
        """Uses of some values of the body become uses of others."""
        self.ops[:] = [op.with_inputs(tuple(same.get(v, v) for v in op.inputs)) for op in self.ops]
        self.carried = [replace(c, after=same.get(c.after, c.after)) for c in self.carried]
        self.yielded = [replace(y, inner=same.get(y.inner, y.inner)) for y in self.yielded]


def pruned(graph: Graph) -> Graph:
    """`graph` without operations that no output needs, and its loops without the carries, yields, sequences and captures that nothing needs."""
    outside = Builder(graph.inputs, graph.ops)
    used, same, kept = set(graph.outputs), dict[Value, Value](), list[Op]()
    for op in reversed(graph.ops):
        if used.isdisjoint(op.outputs):
            continue
        left = _pruned_scan(op, used, same, outside) if is_scan(op) else op
        if left is not None:
            kept.append(left)
            used.update(left.inputs)

    def final(value: Value) -> Value:
        while value in same:
            value = same[value]
        return value

    outside.ops = [op.with_inputs(tuple(map(final, op.inputs))) for op in reversed(kept)]
    outputs = list(map(final, graph.outputs))
    for place, (before, after) in enumerate(zip(graph.outputs, outputs, strict=True)):
        if after != before and after in graph.inputs:  # nothing would make this output: a copy does
            outputs[place] = outside.apply("identity", after)
    return Graph(graph.inputs, tuple(outside.ops), tuple(outputs))


def _pruned_scan(op: Op, used: set[Value], same: dict[Value, Value], outside: Builder) -> Op | None:
    """A scan without what nothing needs, where `used` are the values that operations behind it use; None where nothing is left.

    A carry that stays as it is becomes a capture; what comes twice comes once. `same` gets the results that are other values, too.
    """
    loop = Loop.of(op, outside)
    _merge(loop, used, same)
    loop.yielded = [y for y in loop.yielded if y.outer in used]
    kept = [c for c in loop.carried if c.final in used]
    while True:
        alive = _reached(loop.ops, (*(c.after for c in kept), *(y.inner for y in loop.yielded)))
        more = [c for c in loop.carried if c.before in alive and c not in kept]
        if not more:
            break
        kept += more
    loop.carried = [c for c in loop.carried if c in kept]
    body = pruned(loop.op().regions[0])
    loop.ops[:] = body.ops
    count = len(loop.carried)
    loop.carried = [replace(c, after=after) for c, after in zip(loop.carried, body.outputs, strict=False)]
    loop.yielded = [replace(y, inner=inner) for y, inner in zip(loop.yielded, body.outputs[count:], strict=True)]
    alive = _reached(loop.ops, body.outputs)
    loop.walked = [w for w in loop.walked if w.inner in alive]
    loop.captured = {inner: outer for inner, outer in loop.captured.items() if inner in alive}
    return loop.op() if loop.carried or loop.yielded else None


def _reached(ops: Sequence[Op], results: Iterable[Value]) -> set[Value]:
    """What results depend on, themselves included."""
    found = set(results)
    for op in reversed(ops):
        if not found.isdisjoint(op.outputs):
            found.update(op.inputs)
    return found


def _merge(loop: Loop, used: set[Value], same: dict[Value, Value]) -> None:
    """Finds what comes twice, in the body and around it."""
    inside: dict[Value, Value] = {}
    first: dict[object, Value] = {}

    def is_same(result: Value, other: Value) -> None:
        if result in used:
            same[result] = other
            used.add(other)

    for w in loop.walked:
        inside[w.inner] = first.setdefault((w.outer, w.axis), w.inner)
    for c in loop.carried:
        if c.after == c.before:  # it stays as it is
            loop.captured[c.before] = c.initial
            is_same(c.final, c.initial)
    loop.carried = [c for c in loop.carried if c.after != c.before]
    for inner, outer in loop.captured.items():
        inside[inner] = first.setdefault(outer, inner)
    loop.replace_inside({a: b for a, b in inside.items() if a != b})
    stacks = {(w.inner, w.axis): w.outer for w in loop.walked}
    kept = []
    for y in loop.yielded:
        outer = stacks.setdefault((y.inner, y.axis), y.outer)
        if outer == y.outer:
            kept.append(y)
        else:
            is_same(y.outer, outer)
    loop.yielded = kept
