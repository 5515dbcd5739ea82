"""Where NaN and infinity begin: one call of a program, operation by operation, by the reference executor.

The graph is the one that the kernels were made of, so what overflows there overflows here; a value is followed from the loss or the
buffer that it spoils back to the operation that made it of finite numbers. A loop that makes such a value is walked iteration by iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dslc.diagnostics import Note
from dslc.interpret import InterpreterError, walk
from dslc.ir import dims
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.module import Port, PortKind, Program
from dslc.ir.scan import is_scan, parts
from dslc.runtime.convert import Array
from dslc.training.finite import Trouble, described, finite

Settings = Mapping[str, float | int]


@dataclass(frozen=True, slots=True)
class _Event:
    """An operation that made something not finite, and what its operands and its result were.

    `number`: when it ran: its number in the graph, or that of a loop, of the iteration, and its own in the body, and so on. `loops`: the
    loops around it with the index of the iteration.
    """

    number: tuple[int, ...]
    op: Op
    what: str
    operands: tuple[str, ...] = ()
    loops: tuple[tuple[Op, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Taint:
    """Why a value is not finite: where that began, where it became NaN, or what was given so."""

    begun: _Event | None = None
    nan: _Event | None = None
    given: str | None = None

    @property
    def order(self) -> tuple[int, ...]:
        return (-1,) if self.given is not None else self.begun.number if self.begun is not None else (1 << 60,)


@dataclass(frozen=True, slots=True)
class _Around:
    """What is around a graph that is walked: the sizes, when it runs, and the loops that it is the body of."""

    sizes: Mapping[str, int]
    number: tuple[int, ...] = ()
    loops: tuple[tuple[Op, int], ...] = ()


def trace(
    program: Program,
    graph: Graph,
    buffers: Callable[[str], Array],
    batch: Mapping[str, Array],
    settings: Settings,
    sources: Mapping[str, str],
) -> Trouble | None:
    """What goes wrong first when `program`, whose graph became `graph`, runs on these buffers and data; None where nothing does."""
    arrays = [_given(port, value, buffers, batch, settings) for port, value in zip(program.inputs, graph.inputs, strict=True)]
    taints: dict[Value, _Taint] = {}
    for port, value, array in zip(program.inputs, graph.inputs, arrays, strict=True):
        if not finite(array):
            taints[value] = _Taint(given=_what_was_given(port, array))
    sizes = {program.batch: len(next(iter(batch.values())))} if program.batch is not None and batch else {}
    try:
        for number, (op, operands, results) in enumerate(walk(graph, arrays, sizes)):
            _judge(_Around(sizes, (number,)), op, operands, results, taints)
    except InterpreterError:
        return None
    bad = [(port, taints[value]) for port, value in zip(program.outputs, graph.outputs, strict=True) if value in taints]
    bad = [(port, taint) for port, taint in bad if port.kind == PortKind.BUFFER or port.name.split(".")[-1] == "loss"]
    if not bad:
        return None
    losses = [taint for port, taint in bad if port.kind == PortKind.METRIC]
    worst = min(losses or [taint for _, taint in bad], key=lambda taint: taint.order)
    return _told(worst, _side(program, graph, worst), sources)


def _given(port: Port, value: Value, buffers: Callable[[str], Array], batch: Mapping[str, Array], settings: Settings) -> Array:
    match port.kind:
        case PortKind.BUFFER:
            found: Any = buffers(port.name)
        case PortKind.INPUT:
            found = batch[port.name]
        case PortKind.COUNTER:
            found = settings.get("step", 0)
        case _:
            found = settings.get(port.name, port.default if port.default is not None else 0)
    return np.array(found, value.type.dtype.numpy)


def _what_was_given(port: Port, array: Array) -> str:
    if port.kind == PortKind.INPUT:
        rows = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        return f"the data `{port.name}` hold {described(array)}, first in example {int(rows.argmax())} of the batch"
    what = "the setting" if port.kind == PortKind.SETTING else "the buffer"
    return f"{what} `{port.name}` holds {described(array)} before the step"


def _judge(around: _Around, op: Op, operands: Sequence[Array], results: Sequence[Array], taints: dict[Value, _Taint]) -> None:
    """Notes what an operation did to numbers."""
    if all(finite(array) for array in results):
        return
    if is_scan(op):
        _judge_iterations(around, op, operands, taints)
        return
    causes = [taints[value] for value in op.inputs if value in taints]
    for value, array in zip(op.outputs, results, strict=True):
        if finite(array):
            continue
        ranges = tuple(_range(v, a) for v, a in zip(op.inputs, operands, strict=True))
        event = _Event(around.number, op, described(array), ranges, around.loops)
        was_nan = any(np.isnan(a).any() for a in operands if a.dtype.kind == "f")
        nan = event if np.isnan(array).any() and not was_nan else None
        if causes:
            cause = min(causes, key=lambda taint: taint.order)
            taints[value] = _Taint(cause.begun, cause.nan or nan, cause.given)
        else:
            taints[value] = _Taint(event if operands else None, nan)  # without operands it is a constant, such as that of a mask


def _judge_iterations(around: _Around, op: Op, operands: Sequence[Array], taints: dict[Value, _Taint]) -> None:
    """Notes what the iterations of a loop did: a result gets the first taint of what it is made of."""
    it = parts(op)
    of = dict(zip(op.inputs, operands, strict=True))
    carries = [(of[v], taints.get(v)) for v in it.initial]
    found: dict[Value, list[_Taint]] = {v: [] for v in it.stacked}
    count = dims.evaluate(it.length, around.sizes)
    for done in range(count):
        index = count - 1 - done if it.reverse else done
        slices = [(np.take(of[v], index, axis), taints.get(v)) for v, axis in zip(it.sequences, it.elements, strict=True)]
        given = [(np.asarray(index), None), *slices, *carries, *((of[v], taints.get(v)) for v in it.captures)]
        inner = {v: taint for v, (array, taint) in zip(it.body.inputs, given, strict=True) if taint is not None and not finite(array)}
        made = {v: array for v, (array, _) in zip(it.body.inputs, given, strict=True)}
        for number, (each, used, results) in enumerate(walk(it.body, [array for array, _ in given], around.sizes)):
            inside = _Around(around.sizes, (*around.number, done, number), (*around.loops, (op, index)))
            _judge(inside, each, used, results, inner)
            made |= zip(each.outputs, results, strict=True)
        carries = [(made[v], inner.get(v)) for v in it.after]
        for value, yielded in zip(it.stacked, it.yields, strict=True):
            found[value] += [inner[yielded]] if yielded in inner else []
    taints |= {v: taint for v, (_, taint) in zip(it.final, carries, strict=True) if taint is not None}
    taints |= {v: min(several, key=lambda taint: taint.order) for v, several in found.items() if several}


def _range(value: Value, array: Array) -> str:
    if not array.size:
        return f"{value.type}"
    if array.dtype.kind == "b":
        return f"{value.type}"
    ends = f"{array.min():.4g} to {array.max():.4g}" if array.size > 1 else f"{array.ravel()[0]:.4g}"
    return f"{value.type} from {ends}" if array.size > 1 else f"{value.type} of {ends}"


def _side(program: Program, graph: Graph, taint: _Taint) -> str:
    """Whether the operation is on the way to the loss, or behind it."""
    event = taint.begun or taint.nan
    losses = [
        v for p, v in zip(program.outputs, graph.outputs, strict=True) if p.kind == PortKind.METRIC and p.name.split(".")[-1] == "loss"
    ]
    if event is None or not losses:
        return "in the update"
    producers, cause = graph.producers(), graph.ops[event.number[0]]
    waiting, seen = list(losses), set(losses)
    while waiting:
        op = producers.get(waiting.pop())
        if op is None:
            continue
        if op == cause:
            return "in the forward pass"
        waiting += [v for v in op.inputs if v not in seen]
        seen.update(op.inputs)
    return "in the backward pass"


def _told(taint: _Taint, side: str, sources: Mapping[str, str]) -> Trouble:
    event = taint.begun or taint.nan
    if taint.given is not None:
        return Trouble(taint.given, None, _becomes(taint.nan), sources)
    if event is None:
        return Trouble("a constant of the program is not finite", None, (), sources)
    operands = " and ".join(event.operands)
    message = f"`{event.op.kind}` {side} makes {event.what} of {operands}"
    notes = tuple(Note(f"in the iteration of index {index} of this loop", loop.span) for loop, index in reversed(event.loops))
    return Trouble(message, event.op.span, notes + (_becomes(taint.nan) if taint.nan is not event else ()), sources)


def _becomes(event: _Event | None) -> tuple[Note, ...]:
    return (Note(f"it becomes NaN in `{event.op.kind}`", event.op.span),) if event is not None else ()
