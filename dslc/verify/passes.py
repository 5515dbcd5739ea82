"""Passes against the interpreter: after each the rules of its stage hold, and no result has changed.

The graphs run with f32 as f64 throughout, so that what remains of rounding is far below any wrong rewrite. Every result of the
program is compared; where one differs, the first value on the way to it that did not exist before leads to the line. What
differentiation makes is new; it is compared with central differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dslc.diagnostics import Diagnostic, DiagnosticError, Note, Span
from dslc.interpret import InterpreterError, evaluate
from dslc.ir.graph import ConstantData, Graph, Op, Value
from dslc.ir.module import Buffer, PortKind, Program
from dslc.ir.text import print_op
from dslc.ir.verify import Stage, VerificationError, verify
from dslc.verify.inputs import SEEDS, Array, arrays_of, distance, largest, sizes_of

Pass = Callable[[Graph], Graph]
Values = Mapping[Value, Array]

EXACT = 1e-6
"""Of a tensor's largest element. Sums in another order differ by 1e-15; a constant that was folded in f32 by 6e-8."""
SLOPE = 1e-3  # gradients and central differences
STEP = 1e-6
HINT = "this is an error of dslc, not of your file: please report it with the file"


def check_pass(program: Program, buffers: Mapping[str, Buffer], done: Sequence[str], before: Graph, after: Graph, change: Pass) -> None:
    """DL0910 where the last pass of `done`, which made `after` of `before`, breaks a rule or changes a result of the program."""
    name = done[-1]
    names = frozenset([program.batch] if program.batch else [])
    try:
        verify(after, Stage(names, differentiated="autodiff" in done, expanded="expand" in done))
    except VerificationError as error:
        raise _refused(program, name, f"breaks a rule of the graph: {error}", None) from None
    if after == before:
        return
    wrong = _difference(program, buffers, name, before, after, change, SEEDS[0])
    if wrong is not None and _difference(program, buffers, name, before, after, change, SEEDS[1]) is not None:
        raise wrong


def _refused(program: Program, name: str, what: str, span: Span | None, notes: Sequence[Note] = ()) -> DiagnosticError:
    return DiagnosticError(Diagnostic("DL0910", f"the pass `{name}` on program `{program.name}` {what}", span, tuple(notes), HINT))


def _difference(
    program: Program, buffers: Mapping[str, Buffer], name: str, before: Graph, after: Graph, change: Pass, seed: int
) -> DiagnosticError | None:
    arrays = arrays_of(replace(program, graph=before), buffers, seed)
    sizes = sizes_of(program)
    if _asks_gradients(before) and not _asks_gradients(after):
        wrong = _wrong_slope(program, name, before, change, arrays, sizes)
        if wrong is not None:
            return wrong
    try:
        old = evaluate(_without_gradients(before), arrays, sizes, wide=True)
        new = evaluate(_without_gradients(after), arrays, sizes, wide=True)
    except InterpreterError as error:
        return _refused(program, name, f"makes a graph that cannot run: {error}", None)
    for port, was, result in zip(program.outputs, before.outputs, after.outputs, strict=True):
        if was not in old or result not in new or (apart := _apart(new[result], old[was])) is None:
            continue
        op = _first_new(after, result, old, new)
        what = f"changes the result `{port.name}`, {result.type}, by {apart:.3g}, of {largest(old[was]):.3g}"
        notes = [Note(f"the first value that was not there before: {line(op)}")] if op else []
        return _refused(program, name, what, op.span if op else None, notes)
    return None


def _apart(found: Array, expected: Array) -> float | None:
    """How far two arrays differ, where it is more than rounding."""
    apart = distance(found, expected)
    exact = expected.dtype.kind != "f"
    return None if apart <= (0.0 if exact else EXACT * largest(expected) + 1e-30) else apart


def _first_new(graph: Graph, result: Value, old: Values, new: Values) -> Op | None:
    """The first operation on the way to a wrong result whose value is none of the old ones while its operands are.

    Values are told by their content: a pass may number them anew.
    """
    same: dict[tuple[object, ...], list[Array]] = {}
    for array in old.values():
        same.setdefault((array.dtype, array.shape), []).append(array)

    def known(value: Value) -> bool:
        array = new[value]
        return any(_apart(array, other) is None for other in same.get((array.dtype, array.shape), ()))

    makers = graph.producers()
    waiting, seen, found = [result], {result}, []
    while waiting:
        op = makers.get(waiting.pop())
        if op is None:
            continue
        strange = [value for value in op.inputs if value in makers and not known(value)]
        if not strange:
            found.append(op)
        waiting += [value for value in strange if value not in seen]
        seen.update(strange)
    return min(found, key=graph.ops.index, default=None)


def line(op: Op) -> str:
    """An operation as text; constants by their type."""
    return print_op(replace(op, attrs=tuple((n, a.type if isinstance(a, ConstantData) else a) for n, a in op.attrs)))


def _asks_gradients(graph: Graph) -> bool:
    return any(op.kind == "grad" for op in graph.ops)


def _without_gradients(graph: Graph) -> Graph:
    """The part that does not depend on a `grad`, which the interpreter has no reference for."""
    unknown: set[Value] = set()
    kept = []
    for op in graph.ops:
        if op.kind == "grad" or any(value in unknown for value in op.inputs):
            unknown.update(op.outputs)
        else:
            kept.append(op)
    return Graph(graph.inputs, tuple(kept), tuple(value for value in graph.outputs if value not in unknown))


# ---- gradients ----------------------------------------------------------------------------------------------------


def _wrong_slope(
    program: Program, name: str, before: Graph, change: Pass, arrays: list[Array], sizes: Mapping[str, int]
) -> DiagnosticError | None:
    """The first gradient that is not the slope of its loss, along a random direction."""
    gradients = [op for op in before.ops if op.kind == "grad"]
    asked = tuple(value for op in gradients for value in op.outputs)
    graph = change(replace(before, outputs=(*before.outputs, *asked)))
    made = dict(zip(asked, graph.outputs[len(before.outputs) :], strict=True))
    values = evaluate(graph, arrays, sizes, wide=True)
    names = {
        value: port.name
        for value, port in zip(program.graph.inputs, program.inputs, strict=True)
        if port.kind in (PortKind.BUFFER, PortKind.INPUT)
    }
    draw = np.random.default_rng(5)
    for op in gradients:
        loss, *wrt = (made.get(value, value) for value in op.inputs)
        for x, output in zip(wrt, op.outputs, strict=True):
            gradient = values[made[output]]
            direction = np.asarray(draw.uniform(-1, 1, gradient.shape))
            expected = _slope(graph, values, x, loss, direction, sizes)
            found = float((gradient * direction).sum())
            noise = 1e-15 / STEP * max(1.0, abs(float(values[loss])))
            if not np.isfinite(expected):
                continue  # the inputs leave the loss's domain: a logarithm of what need not be positive
            if not abs(found - expected) <= SLOPE * max(abs(expected), abs(found)) + 100 * noise:
                what = f"makes a wrong gradient by `{names.get(x, str(x))}`: along a random direction {found:.6g}, by differences {expected:.6g}"
                return _refused(program, name, what, op.span)
    return None


def _slope(graph: Graph, values: Values, x: Value, loss: Value, direction: Array, sizes: Mapping[str, int]) -> float:
    """The central difference of `loss` where `x` moves, and with it all that is computed from it but what `stop_gradient` holds."""
    moving = {x}
    needed: list[Op] = []
    for op in graph.ops:
        if op.kind != "stop_gradient" and x not in op.outputs and any(value in moving for value in op.inputs):
            moving.update(op.outputs)
            needed.append(op)
    wanted = {loss}
    chosen = []
    for op in reversed(needed):
        if any(value in wanted for value in op.outputs):
            chosen.append(op)
            wanted.update(op.inputs)
    chosen.reverse()
    made = {value for op in chosen for value in op.outputs}
    given = [v for v in dict.fromkeys(v for op in chosen for v in op.inputs) if v not in made]
    part = Graph(tuple(given), tuple(chosen), (loss,))
    ends = []
    for step in (STEP, -STEP):
        moved = [values[v] + step * direction if v == x else values[v] for v in given]
        ends.append(float(evaluate(part, moved, sizes, wide=True)[loss]) if loss in made else float(values[loss]))
    return (ends[0] - ends[1]) / (2 * STEP)
