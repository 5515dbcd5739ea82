"""Statements: bindings, parameters, states, static `if` and `for`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from dslc.diagnostics import Span
from dslc.frontend import static, syntax
from dslc.frontend.lists import items_of, unpack
from dslc.frontend.parameters import make_parameter, make_shared, make_state, update_state
from dslc.frontend.report import NeedsSize, Refused, plural
from dslc.frontend.scope import MAX_OPERATIONS, MAX_STEPS, Context, Frame, fork, spend, too_many_operators
from dslc.frontend.source import expression_text
from dslc.frontend.tensors import emit, name_origin, note_of
from dslc.frontend.values import POISON, MaybeUnbound, Origin, Poison, Results, Tensor, Undecided, Value
from dslc.ir import dims

Returned: TypeAlias = tuple[tuple[Value, Span], ...]


def run(context: Context, statements: Sequence[syntax.Statement], frame: Frame) -> Returned | None:
    """Elaborates statements in order; the values and places of the `return` that was reached, if any."""
    for position, statement in enumerate(statements):
        try:
            returned = _statement(context, statement, frame)
        except Refused:
            for name in _bound_by(statement):
                frame.names[name.text] = POISON
            continue
        if returned is not None:
            if position + 1 < len(statements):
                context.reporter.error("DL0314", "nothing after `return` is reached", statements[position + 1].span)
            return returned
    return None


def _statement(context: Context, node: syntax.Statement, frame: Frame) -> Returned | None:
    match node:
        case syntax.Assign():
            _assign(context, node, frame)
        case syntax.Return():
            return tuple((context.evaluate(v, frame), v.span) for v in node.values)
        case syntax.If():
            return _if(context, node, frame)
        case syntax.For():
            _for(context, node, frame)
        case syntax.Param():
            make_parameter(context, node, frame)
        case syntax.SharedBlock():
            make_shared(context, node, frame)
        case syntax.State():
            make_state(context, node, frame)
        case syntax.Update():
            update_state(context, node, frame)
        case syntax.Assert():
            _assert(context, node, frame)
        case syntax.Yield():
            if frame.yields is None:
                hint = "a block gives its results with `return`"
                raise context.reporter.error("DL0330", "`yield` stands outside of a `scan`", node.span, hint=hint)
            frame.yields += [(context.evaluate(v, frame), v.span) for v in node.values]
    return None


def _assign(context: Context, node: syntax.Assign, frame: Frame) -> None:
    values = [context.evaluate(v, frame) for v in node.values]
    if len(values) == 1 and len(node.targets) > 1:
        values = list(parts_of(context, values[0], len(node.targets), node.values[0].span))
    if len(values) != len(node.targets):
        raise context.reporter.error("DL0309", f"{plural(len(values), 'value')} for {plural(len(node.targets), 'name')}", node.span)
    for target, value in zip(node.targets, values, strict=True):
        bind(context, frame, target, value)


def bind(context: Context, frame: Frame, target: syntax.Name, value: Value) -> None:
    """Binds a name; a state's name may be bound to something else, which is then no state any more."""
    frame.names[target.text] = value
    frame.states.pop(target.text, None)
    if isinstance(value, Tensor):
        origin = context.program.origins.get(value.value.id)
        if origin is not None and origin.what.startswith("the result of "):
            name_origin(context, value, Origin(f"`{target.text}`, {origin.what},", origin.span, origin.sizes))


def parts_of(context: Context, value: Value, count: int, span: Span) -> tuple[Value, ...]:
    """What `count` names are bound to: the value itself, its items, or a tensor's parts along axis 0."""
    if isinstance(value, Poison):
        raise Refused
    if count == 1:
        return (value,)
    parts = unpack(context, value, count, span)
    if parts is not None:
        return parts
    assert isinstance(value, Tensor)
    return _unstack(context, value, count, span)


def _unstack(context: Context, tensor: Tensor, count: int, span: Span) -> tuple[Value, ...]:
    """A tensor unpacked along axis 0."""
    if tensor.type.rank == 0 or tensor.type.shape[0] != count:
        raise context.reporter.error(
            "DL0309", f"cannot unpack {tensor.type} into {plural(count, 'name')} along axis 0", span, notes=[note_of(context, tensor)]
        )
    parts = emit(context, "split", (tensor,), {"parts": count, "axis": 0}, span)
    items = parts.items if isinstance(parts, Results) else (parts,)
    return tuple(emit(context, "squeeze", (p,), {"axis": (0,)}, span) for p in items if isinstance(p, Tensor))


def _if(context: Context, node: syntax.If, frame: Frame) -> Returned | None:
    condition = context.evaluate(node.condition, frame)
    if isinstance(condition, Poison):
        raise Refused
    decided = static.holds(context, condition, node.condition.span, "`if`")
    if isinstance(decided, Undecided):
        if not context.checking:
            raise NeedsSize(dims.names(decided.relation.left) | dims.names(decided.relation.right))
        run(context, node.otherwise, fork(frame))
        decided = True
    taken, other = (node.body, node.otherwise) if decided else (node.otherwise, node.body)
    before = set(frame.names)
    returned = run(context, taken, frame)
    everywhere = {n.text for n in _bindings(other)} | before
    for name in _bindings(taken):
        if name.text not in everywhere and name.text in frame.names:
            where = f"only where `{expression_text(node.condition)}` is {str(decided).lower()}"
            frame.names[name.text] = _unless_poison(frame.names[name.text], MaybeUnbound(name.span, where))
    for name in _bindings(other):
        if name.text not in frame.names:
            where = f"only where `{expression_text(node.condition)}` is {str(not decided).lower()}"
            frame.names[name.text] = MaybeUnbound(name.span, where)
    return returned


def _unless_poison(value: Value, replacement: Value) -> Value:
    return value if isinstance(value, Poison) else replacement


def _for(context: Context, node: syntax.For, frame: Frame) -> None:
    source = context.evaluate(node.source, frame)
    if isinstance(source, Poison):
        raise Refused
    items = items_of(context, source, node.source.span, "what a `for` walks over")
    before = set(frame.names)
    frame.loops += 1
    pace = _Pace(context, len(items), node.span)
    try:
        for item in items:
            pace.check()
            parts = parts_of(context, item, len(node.targets), node.source.span)
            for target, part in zip(node.targets, parts, strict=True):
                bind(context, frame, target, part)
            if run(context, node.body, frame) is not None:
                raise context.reporter.error(
                    "DL0314", "`return` stands in a `for`", node.span, hint="bind the result in the loop and return it after"
                )
    finally:
        frame.loops -= 1
    for name in (*node.targets, *_bindings(node.body)):
        if name.text not in before and name.text in frame.names:
            frame.names[name.text] = _unless_poison(frame.names[name.text], MaybeUnbound(name.span, "in a `for`, which may run no times"))


@dataclass(slots=True)
class _Pace:
    """Refuses a long loop early: after some iterations, by what the last of them added."""

    context: Context
    count: int
    span: Span
    done: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)

    def check(self) -> None:
        self.done += 1
        spend(self.context, 3, self.span)
        if self.count <= 64 or self.done not in (16, 32):
            return
        operators, steps = len(self.context.program.builder.ops), self.context.steps[0]
        self.marks.append((operators, steps))
        if len(self.marks) == 2:
            left = (self.count - self.done) // 16
            if operators + left * (operators - self.marks[0][0]) > MAX_OPERATIONS:
                raise too_many_operators(self.context, self.span)
            if steps + left * (steps - self.marks[0][1]) > MAX_STEPS:
                spend(self.context, MAX_STEPS, self.span)


def _assert(context: Context, node: syntax.Assert, frame: Frame) -> None:
    value = context.evaluate(node.condition, frame)
    if isinstance(value, Poison):
        return
    why = f": {node.message.value}" if node.message is not None else ""
    static.require_fact(context, value, node.condition.span, f"`{expression_text(node.condition)}`", "DL0218", why=why)


def _bindings(statements: Sequence[syntax.Statement]) -> Iterator[syntax.Name]:
    """The names that statements bind on every path, as far as the syntax tells."""
    for statement in statements:
        if isinstance(statement, syntax.If):
            both = {n.text for n in _bindings(statement.otherwise)}
            yield from (n for n in _bindings(statement.body) if n.text in both)
        elif not isinstance(statement, syntax.For):
            yield from _bound_by(statement)


def _bound_by(statement: syntax.Statement) -> Iterator[syntax.Name]:
    match statement:
        case syntax.Assign():
            yield from statement.targets
        case syntax.Param() | syntax.SharedBlock() | syntax.State():
            yield statement.name
        case syntax.If():
            for inner in (*statement.body, *statement.otherwise):
                yield from _bound_by(inner)
        case syntax.For():
            for inner in statement.body:
                yield from _bound_by(inner)
        case _:
            pass
