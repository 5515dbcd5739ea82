"""`grad[x](loss)`: what it is taken by, and the typed operation that autodiff replaces."""

from __future__ import annotations

from collections.abc import Sequence

from dslc.diagnostics import Span
from dslc.frontend import syntax
from dslc.frontend.program import reaches
from dslc.frontend.report import Refused, did_you_mean
from dslc.frontend.scope import Context, Frame
from dslc.frontend.source import expression_text
from dslc.frontend.tensors import emit, note_of
from dslc.frontend.values import POISON, GradFunction, ModelFunction, Poison, Tensor, Value, describe


def grad_targets(context: Context, node: syntax.Brackets, frame: Frame) -> Value:
    targets: list[Tensor] = []
    texts: list[str] = []
    for subscript in node.subscripts:
        if isinstance(subscript, syntax.Named | syntax.Slice | syntax.Ellipsis):
            raise context.reporter.error("DL0403", "`grad` takes tensors in its brackets", subscript.span, hint="write grad[x](loss)")
        value = _parameter_target(context, subscript, frame)
        if value is None:
            value = context.evaluate(subscript, frame)
        if isinstance(value, Poison):
            raise Refused
        if not isinstance(value, Tensor):
            raise context.reporter.error("DL0403", f"the gradient is taken by a tensor, not by {describe(value)}", subscript.span)
        if not value.type.dtype.floating:
            raise context.reporter.error(
                "DL0403",
                f"the gradient by {value.type} is not defined: only a floating-point tensor can vary",
                subscript.span,
                notes=[note_of(context, value)],
            )
        targets.append(value)
        texts.append(expression_text(subscript))
    if not targets:
        raise context.reporter.error("DL0403", "`grad` needs a tensor in its brackets", node.span, hint="write grad[x](loss)")
    return GradFunction(tuple(targets), tuple(texts))


def _parameter_target(context: Context, node: syntax.Expr, frame: Frame) -> Value:
    """`LeNet.head.w` as the parameter of that path; None where the expression is no path that starts with a model."""
    root: syntax.Node = node
    while isinstance(root, syntax.Member | syntax.Brackets):
        root = root.target
    if root is node or not isinstance(root, syntax.Name) or root.text in frame.names:
        return None
    text = expression_text(node, 400).replace(" ", "")
    for path in context.program.loaded:
        if path == text:
            return context.program.loaded[path]
    value = context.evaluate(root, frame)
    if isinstance(value, ModelFunction):
        hint = did_you_mean(text, context.program.loaded) or f"call {value.name} before its gradient is taken"
        raise context.reporter.error("DL0404", f"there is no parameter `{text}` here", node.span, hint=hint)
    return None


def call_grad(context: Context, function: GradFunction, arguments: Sequence[Value], spans: Sequence[Span], span: Span) -> Value:
    if len(arguments) != 1:
        raise context.reporter.error("DL0301", f"a gradient takes one loss, and here are {len(arguments)}", span)
    loss = arguments[0]
    if isinstance(loss, Poison):
        return POISON
    if not isinstance(loss, Tensor):
        raise context.reporter.error("DL0402", f"the gradient is taken of a tensor, not of {describe(loss)}", spans[0])
    if loss.type.rank or not loss.type.dtype.floating:
        raise context.reporter.error(
            "DL0402",
            f"the gradient is taken of a floating-point scalar, and this is {loss.type}",
            spans[0],
            notes=[note_of(context, loss)],
            hint="reduce it with sum(...) or mean(...)",
        )
    reached = reaches(context.program.builder, loss.value)
    for target, text in zip(function.targets, function.texts, strict=True):
        hint = f"compute the loss from `{text}` as it is bound here: a name that was bound again is another tensor"
        if len(context.program.scopes) > 1:
            hint = f"compute all of the loss, from `{text}` on, inside of the scan, or take the gradient outside of it"
        if target.value.id not in reached and context.reporter.failed:
            return POISON  # a call that was refused stands between them
        if target.value.id not in reached:
            raise context.reporter.error(
                "DL0401",
                f"the loss does not depend on `{text}`, so it has no gradient",
                span,
                notes=[note_of(context, target)],
                hint=hint,
            )
    return emit(context, "grad", (loss, *function.targets), {}, span, f"the gradient by {', '.join(function.texts)}")
