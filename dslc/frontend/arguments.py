"""Static arguments: what stands in the brackets of an operator or a block, checked and completed by defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dslc.diagnostics import Note, Span
from dslc.frontend import static, syntax
from dslc.frontend.report import Refused, did_you_mean, listed, plural
from dslc.frontend.scope import Context, Frame
from dslc.frontend.values import BlockFunction, ListValue, Poison, Results, Tensor, Value, describe, is_number
from dslc.ir.dims import DimExpr
from dslc.ir.operator import OPERATORS, REQUIRED
from dslc.ir.types import DType


@dataclass(frozen=True, slots=True)
class Given:
    """A static argument as written: its value, name if it has one, and place."""

    value: Value
    name: syntax.Name | None
    span: Span


def evaluate_given(context: Context, subscripts: Sequence[syntax.Subscript], frame: Frame) -> list[Given]:
    found: list[Given] = []
    for subscript in subscripts:
        if isinstance(subscript, syntax.Named):
            found.append(Given(context.evaluate(subscript.value, frame), subscript.name, subscript.value.span))
        elif isinstance(subscript, syntax.Slice | syntax.Ellipsis):
            raise context.reporter.error("DL0305", "a slice stands in the index of a tensor, not among static arguments", subscript.span)
        else:
            found.append(Given(context.evaluate(subscript, frame), None, subscript.span))
    if any(isinstance(g.value, Poison) for g in found):
        raise Refused
    return found


def operator_attributes(context: Context, name: str, given: Sequence[Given], span: Span) -> dict[str, object]:
    """An operator's attributes from its brackets; several sizes or axes in a row are one list."""
    declared = OPERATORS[name].attrs
    settable = {k: a for k, a in declared.items() if k != "stream"}
    order = list(settable)
    found: dict[str, object] = {}
    positional = [g for g in given if g.name is None]
    index = 0
    while positional and index < len(order):
        key = order[index]
        kind = settable[key].kind
        first = positional[0].value
        if kind in static.LIST_KINDS and not isinstance(first, ListValue | Results) and first is not None:
            taken = len(positional) if index == len(order) - 1 or len(positional) > len(order) - index or kind in ("shape", "dims") else 1
            taken = _leading_sizes(positional[:taken])
            if taken > 1 or kind in ("shape", "dims"):
                value: Value = ListValue(tuple(g.value for g in positional[:taken]))
                place = positional[0].span.to(positional[taken - 1].span) if taken else span
                found[key] = static.attribute(context, kind, value, f"`{key}` of {name}", place, settable[key].default is None)
                positional = positional[taken:]
                index += 1
                continue
        g = positional.pop(0)
        found[key] = static.attribute(context, kind, g.value, f"`{key}` of {name}", g.span, settable[key].default is None)
        index += 1
    if positional:
        raise context.reporter.error(
            "DL0307",
            f"{name} takes {plural(len(order), 'static argument')} ({listed(order)}), and here are {sum(g.name is None for g in given)}",
            positional[0].span,
        )
    extra: list[tuple[str, object]] = []
    for g in given:
        if g.name is None:
            continue
        key = g.name.text
        if key not in settable:
            if settable.get("sizes") is not None and isinstance(g.value, int | DimExpr):
                extra.append((key, g.value))
                continue
            hint = did_you_mean(key, order) or (f"{name} has {listed(order)}" if order else f"{name} has no static arguments")
            raise context.reporter.error("DL0103", f"{name} has no static argument `{key}`", g.name.span, hint=hint)
        if key in found:
            raise context.reporter.error("DL0307", f"`{key}` of {name} is given twice", g.name.span)
        found[key] = static.attribute(context, settable[key].kind, g.value, f"`{key}` of {name}", g.span, settable[key].default is None)
    if extra:
        found["sizes"] = tuple(sorted(extra))
    for key, attr in settable.items():
        if attr.default is REQUIRED and key not in found:
            raise context.reporter.error(
                "DL0306", f"{name} needs its static argument `{key}`: {attr.doc}", span, hint=f"write {name}[{key} = ...]"
            )
        if attr.kind == "dtype" and attr.default == DType.F32 and key not in found:
            found[key] = context.floating
    return found


def _leading_sizes(given: Sequence[Given]) -> int:
    count = 0
    for g in given:
        if not is_number(g.value):
            break
        count += 1
    return max(count, 1)


def block_arguments(context: Context, function: BlockFunction, given: Sequence[Given], span: Span) -> dict[str, Value]:
    """A block's static arguments, defaults filled in; defaults see the parameters before them."""
    signature = function.item.signature
    order = [p.name.text for p in signature.static]
    positional = [g for g in given if g.name is None]
    if len(positional) > len(order):
        what = f"takes {plural(len(order), 'static argument')} ({listed(order)})" if order else "has no static arguments"
        raise context.reporter.error("DL0307", f"{function.name} {what}, and here are {len(positional)}", positional[len(order)].span)
    chosen = dict(zip(order, positional, strict=False))
    for g in given:
        if g.name is None:
            continue
        if g.name.text not in order:
            hint = did_you_mean(g.name.text, order) or (f"{function.name} has {listed(order)}" if order else None)
            raise context.reporter.error("DL0103", f"{function.name} has no static argument `{g.name.text}`", g.name.span, hint=hint)
        if g.name.text in chosen:
            raise context.reporter.error("DL0307", f"`{g.name.text}` of {function.name} is given twice", g.name.span)
        chosen[g.name.text] = g
    scope = Frame(function.unit, function.name, no_parameters="defaults make no parameters")
    for parameter in signature.static:
        text = parameter.name.text
        if text in chosen:
            scope.names[text] = _checked_kind(context, function, parameter, chosen[text].value, chosen[text].span)
        elif parameter.default is not None:
            value = context.evaluate(parameter.default, scope)
            if isinstance(value, Poison):
                raise Refused
            scope.names[text] = _checked_kind(context, function, parameter, value, parameter.default.span)
        else:
            others = "" if len(order) == 1 else ", ..." if order[0] == text else ""
            raise context.reporter.error(
                "DL0306",
                f"{function.name} needs its static argument `{text}`",
                span,
                notes=[Note("declared here", parameter.span)],
                hint=f"write {function.name}[{text} = ...{others}](...): static arguments stand in brackets",
            )
    return scope.names


def _checked_kind(context: Context, function: BlockFunction, parameter: syntax.StaticParam, value: Value, span: Span) -> Value:
    what = f"`{parameter.name.text}` of {function.name}"
    if isinstance(value, Tensor):
        raise context.reporter.error(
            "DL0305", f"{what} is a static argument, not {describe(value)}", span, hint="tensors stand in parentheses"
        )
    if parameter.kind is None:
        return value
    kind = parameter.kind.text
    if kind not in static.KINDS:
        hint = did_you_mean(kind, static.KINDS)
        raise context.reporter.error("DL0111", f"`{kind}` is no kind of static argument", parameter.kind.span, hint=hint)
    if value is not None:
        if kind == "int" and isinstance(value, DimExpr):
            return value
        converted = static.attribute(context, kind, value, what, span, optional=True)
        return value if isinstance(converted, tuple) else converted  # type: ignore[return-value]
    return value
