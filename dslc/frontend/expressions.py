"""Expressions: each node's value; an error is reported once and becomes poison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dslc.diagnostics import Note, Span
from dslc.frontend import static, syntax
from dslc.frontend.calls import Call, call, configure
from dslc.frontend.indexing import index
from dslc.frontend.lists import item_at
from dslc.frontend.loops import evaluate_scan
from dslc.frontend.report import NeedsSize, Refused, did_you_mean
from dslc.frontend.scope import Context, Frame, fork, member_of, resolve, spend
from dslc.frontend.signatures import evaluate_type
from dslc.frontend.tensors import binary, coerce, emit
from dslc.frontend.values import (
    POISON,
    Imported,
    ListValue,
    Poison,
    RangeValue,
    Results,
    Tensor,
    Undecided,
    Value,
    describe,
    is_number,
    is_size,
)
from dslc.ir import dims
from dslc.ir.dims import DimExpr
from dslc.ir.prove import Relation


def evaluate(context: Context, node: syntax.Node, frame: Frame) -> Value:
    """The value of an expression, or POISON after its error has been reported."""
    spend(context, 1, node.span)
    try:
        return _EVALUATE[type(node)](context, node, frame)
    except Refused:
        return POISON


def _name(context: Context, node: syntax.Name, frame: Frame) -> Value:
    return resolve(context, node, frame)


def _int(context: Context, node: syntax.Int, frame: Frame) -> Value:
    return static.bounded(context, node.value, node.span)


def _literal(context: Context, node: syntax.Number | syntax.Str | syntax.Bool, frame: Frame) -> Value:
    return node.value


def _size(context: Context, node: syntax.Size, frame: Frame) -> Value:
    raise context.reporter.error("DL0305", "a memory size stands in settings only", node.span)


def _unary(context: Context, node: syntax.Unary, frame: Frame) -> Value:
    value = context.evaluate(node.operand, frame)
    if isinstance(value, Poison):
        return POISON
    if node.op == "not":
        if isinstance(value, bool):
            return not value
        if isinstance(value, Undecided):
            relation = value.relation
            return static.decide_relation(context, Relation(relation.left, static.NEGATED[relation.operator], relation.right))
        if isinstance(value, Tensor):
            return emit(context, "not", (value,), {}, node.span)
        raise context.reporter.error("DL0302", f"`not` does not go with {describe(value)}", node.span)
    if isinstance(value, Tensor):
        return emit(context, "neg", (value,), {}, node.span)
    if is_number(value):
        assert isinstance(value, int | float | DimExpr)
        return -value
    raise context.reporter.error("DL0302", f"`-` does not go with {describe(value)}", node.span)


def _binary(context: Context, node: syntax.Binary, frame: Frame) -> Value:
    """Walks the left spine in a loop: a long sum is not a deep recursion."""
    spine: list[syntax.Binary] = []
    leftmost: syntax.Expr = node
    while isinstance(leftmost, syntax.Binary):
        spine.append(leftmost)
        leftmost = leftmost.left
    value = context.evaluate(leftmost, frame)
    for part in reversed(spine):
        if part.op in ("and", "or") and isinstance(value, bool) and value == (part.op == "or"):
            continue
        right = context.evaluate(part.right, frame)
        if isinstance(value, Poison) or isinstance(right, Poison):
            value = POISON
            continue
        try:
            value = _apply_binary(context, part, value, right)
        except Refused:
            value = POISON
    return value


def _apply_binary(context: Context, node: syntax.Binary, left: Value, right: Value) -> Value:
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        return binary(context, node.op, left, right, (node.left.span, node.right.span), node.span)
    if node.op in ("and", "or"):
        a = static.holds(context, left, node.left.span, f"`{node.op}`")
        b = static.holds(context, right, node.right.span, f"`{node.op}`")
        if isinstance(a, bool):
            return b
        if isinstance(b, bool):
            return a if b == (node.op == "and") else b
        return a
    if node.op == "@":
        raise context.reporter.error("DL0302", f"`@` needs tensors, not {describe(left)} and {describe(right)}", node.span)
    if _is_mixed(left, right) or _is_mixed(right, left):
        return binary(context, node.op, left, right, (node.left.span, node.right.span), node.span)
    return static.arithmetic(context, node.op, left, right, node.span)


def _is_mixed(left: Value, right: Value) -> bool:
    """A float and a symbolic size: their result is only known at run time, so it is a scalar tensor."""
    return isinstance(left, float) and isinstance(right, DimExpr)


def _compare(context: Context, node: syntax.Compare, frame: Frame) -> Value:
    left, right = context.evaluate(node.left, frame), context.evaluate(node.right, frame)
    if isinstance(left, Poison) or isinstance(right, Poison):
        return POISON
    if isinstance(left, Tensor) or isinstance(right, Tensor):
        return binary(context, node.op, left, right, (node.left.span, node.right.span), node.span)
    return static.compare(context, node.op, left, right, node.span)


def _range(context: Context, node: syntax.Range, frame: Frame) -> Value:
    start, stop = context.evaluate(node.start, frame), context.evaluate(node.stop, frame)
    if isinstance(start, Poison) or isinstance(stop, Poison):
        return POISON
    for value, place in ((start, node.start.span), (stop, node.stop.span)):
        if not is_size(value):
            raise context.reporter.error("DL0310", f"a range goes over whole numbers, not {describe(value)}", place)
    assert isinstance(start, int | DimExpr) and isinstance(stop, int | DimExpr)
    return RangeValue(start, stop)


def _apply(context: Context, node: syntax.Apply, frame: Frame) -> Value:
    return evaluate_call(context, node, frame, None)


def evaluate_call(context: Context, node: syntax.Apply, frame: Frame, name: syntax.Name | None) -> Value:
    arguments = tuple(context.evaluate(a, frame) for a in node.args)
    function = context.evaluate(node.callee, frame)  # after them: `grad[Net.head.w](loss)` names what computing the loss made
    return call(context, function, Call(arguments, tuple(a.span for a in node.args), node.span, name), frame)


def _brackets(context: Context, node: syntax.Brackets, frame: Frame) -> Value:
    target = context.evaluate(node.target, frame)
    if isinstance(target, Poison):
        return POISON
    if isinstance(target, Tensor):
        return index(context, target, node, frame)
    if isinstance(target, ListValue | Results):
        return _list_index(context, target, node, frame)
    return configure(context, target, node, frame)


def _list_index(context: Context, target: ListValue | Results, node: syntax.Brackets, frame: Frame) -> Value:
    if len(node.subscripts) != 1:
        raise context.reporter.error("DL0310", "a list has one index", node.span)
    subscript = node.subscripts[0]
    if isinstance(subscript, syntax.Slice):
        bounds = [None if p is None else context.evaluate(p, frame) for p in (subscript.start, subscript.stop, subscript.step)]
        if not all(b is None or (isinstance(b, int) and not isinstance(b, bool)) for b in bounds) or bounds[2] == 0:
            raise context.reporter.error("DL0310", "the slice of a list has whole numbers, and its step is not 0", subscript.span)
        start, stop, step = (b if isinstance(b, int) else None for b in bounds)
        spend(context, len(target.items) // static.ITEMS_A_STEP, node.span)
        return ListValue(target.items[start:stop:step])
    if isinstance(subscript, syntax.Named | syntax.Ellipsis):
        raise context.reporter.error("DL0310", "a list has one index, a whole number", subscript.span)
    value = context.evaluate(subscript, frame)
    return POISON if isinstance(value, Poison) else item_at(context, target, value, subscript.span)


def _member(context: Context, node: syntax.Member, frame: Frame) -> Value:
    target = context.evaluate(node.target, frame)
    match target:
        case Poison():
            return POISON
        case Imported():
            return member_of(context, target, node.name)
        case Results() if node.name.text in target.names:
            return target.items[target.names.index(node.name.text)]
        case Results() if target.names:
            hint = did_you_mean(node.name.text, target.names) or f"the results are {', '.join(target.names)}"
            raise context.reporter.error("DL0108", f"there is no result `{node.name.text}`", node.name.span, hint=hint)
        case _:
            raise context.reporter.error("DL0108", f"{describe(target)} has no `{node.name.text}`", node.name.span)


def _name_as(context: Context, node: syntax.NameAs, frame: Frame) -> Value:
    if isinstance(node.value, syntax.Apply):
        return evaluate_call(context, node.value, frame, node.name)
    context.evaluate(node.value, frame)
    raise context.reporter.error(
        "DL0317", f"`as {node.name.text}` stands behind the call of a block", node.span, hint=f"write Dense[10](x) as {node.name.text}"
    )


def _pipe(context: Context, node: syntax.Pipe, frame: Frame) -> Value:
    value = context.evaluate(node.value, frame)
    span = node.value.span
    for stage in node.stages:
        try:
            value = _stage(context, stage, value, span, frame)
        except Refused:
            value = POISON
        span = stage.callee.span
    return value


def _stage(context: Context, stage: syntax.Stage, value: Value, span: Span, frame: Frame) -> Value:
    if isinstance(stage.callee, syntax.Apply):
        function = context.evaluate(stage.callee.callee, frame)
        arguments = tuple(context.evaluate(a, frame) for a in stage.callee.args)
        spans = tuple(a.span for a in stage.callee.args)
    else:
        function, arguments, spans = context.evaluate(stage.callee, frame), (), ()
    if isinstance(value, Results) and len(value.items) > 1:
        raise context.reporter.error(
            "DL0309", f"{len(value.items)} results go into a pipe that takes one tensor", span, hint="unpack them first: a, b = ..."
        )
    return call(context, function, Call((value, *arguments), (span, *spans), stage.callee.span, stage.name), frame)


def _if(context: Context, node: syntax.IfExpr, frame: Frame) -> Value:
    condition = context.evaluate(node.condition, frame)
    if isinstance(condition, Poison):
        return POISON
    decided = static.holds(context, condition, node.condition.span, "`if`")
    if isinstance(decided, Undecided):
        if not context.checking:
            raise NeedsSize(dims.names(decided.relation.left) | dims.names(decided.relation.right))
        context.evaluate(node.otherwise, fork(frame))
        decided = True
    return context.evaluate(node.value if decided else node.otherwise, frame)


def _list(context: Context, node: syntax.ListExpr, frame: Frame) -> Value:
    items = tuple(context.evaluate(i, frame) for i in node.items)
    if any(isinstance(i, Poison) for i in items):
        return POISON
    result = ListValue(items)
    static.check_length(context, result.total, node.span)
    return result


def _tuple(context: Context, node: syntax.TupleExpr, frame: Frame) -> Value:
    items = tuple(context.evaluate(i, frame) for i in node.items)
    if any(isinstance(i, Poison) for i in items):
        return POISON
    result = Results(items)
    static.check_length(context, result.total, node.span)
    return result


def _constant(context: Context, node: syntax.Const, frame: Frame) -> Value:
    value = context.evaluate(node.value, frame)
    if isinstance(value, Poison) or node.type is None:
        return value
    what = f"the constant {node.name.text}"
    declared = evaluate_type(context, node.type, frame, what)
    tensor = coerce(context, value, declared, what, node.value.span)
    if tensor.type != declared:
        raise context.reporter.error(
            "DL0213",
            f"{what} is declared {declared}, and this is {tensor.type}",
            node.value.span,
            notes=[Note("declared here", node.type.span)],
        )
    return tensor


_EVALUATE: dict[type[syntax.Node], Callable[[Context, Any, Frame], Value]] = {
    syntax.Name: _name,
    syntax.Int: _int,
    syntax.Number: _literal,
    syntax.Str: _literal,
    syntax.Bool: _literal,
    syntax.Size: _size,
    syntax.Unary: _unary,
    syntax.Binary: _binary,
    syntax.Compare: _compare,
    syntax.Range: _range,
    syntax.Apply: _apply,
    syntax.Brackets: _brackets,
    syntax.Member: _member,
    syntax.NameAs: _name_as,
    syntax.Pipe: _pipe,
    syntax.IfExpr: _if,
    syntax.ListExpr: _list,
    syntax.TupleExpr: _tuple,
    syntax.Scan: evaluate_scan,
    syntax.Const: _constant,
}
