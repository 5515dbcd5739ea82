"""Lints: names that nothing uses. (Parameters that no loss reaches and patterns that match nothing show up in `optimizers`.)"""

from __future__ import annotations

from dslc.diagnostics import Span
from dslc.frontend import syntax
from dslc.frontend.files import Unit
from dslc.frontend.names import Scoped, scoped_items
from dslc.frontend.scope import Context

UNUSED = "DL0523"


def lint(context: Context, unit: Unit) -> None:
    """Warnings about a file that is otherwise right."""
    for item, uses in scoped_items(unit):
        mentioned = {name.text for name in uses.mentioned}
        exempt = _exempt(item)
        for text, name in uses.bound.items():
            if text in mentioned or text in exempt or text.startswith("_"):
                continue
            context.reporter.warning(UNUSED, f"{_kind(item, name)} `{text}` is never used", name.span, hint=_advice(item, name))
        _constant_carries(context, item)
    for statement in unit.tree.items:
        if isinstance(statement, syntax.Import):
            alias = "" if statement.name is None else statement.name.text
            if alias and alias not in unit.used:
                _unused(context, f"the import `{alias}`", statement.span)
        elif isinstance(statement, syntax.Dims):
            for dim in statement.dims:
                if dim.name.text not in unit.used:
                    _unused(context, f"the dimension `{dim.name.text}`", dim.name.span)


def _constant_carries(context: Context, item: Scoped) -> None:
    """Carries that no statement of their loop binds again."""
    for node in syntax.walk(item):
        if not isinstance(node, syntax.Scan):
            continue
        bound = {name.text for statement in node.body for part in syntax.walk(statement) for name in _targets(part)}
        for carry in node.carries:
            if carry.name.text not in bound:
                context.reporter.warning(
                    "DL0335",
                    f"the carry `{carry.name.text}` stays as it is",
                    carry.span,
                    hint=f"bind it again in the loop, or write `{carry.name.text} = ...` before it: a body sees the names around it",
                )


def _targets(node: syntax.Node) -> tuple[syntax.Name, ...]:
    return node.targets if isinstance(node, syntax.Assign | syntax.For) else ()


def _unused(context: Context, what: str, span: Span) -> None:
    context.reporter.warning(UNUSED, f"{what} is never used", span, hint="delete it")


def _exempt(item: Scoped) -> set[str]:
    """Names that belong to a fixed form: what an optimizer or a schedule is called with."""
    if isinstance(item, syntax.Train):
        return set()
    inputs = item.signature.inputs
    if isinstance(item, syntax.Optimizer) or [i.name.text for i in inputs] == ["step", "total"]:
        return {i.name.text for i in inputs}
    return set()


def _kind(item: Scoped, name: syntax.Name) -> str:
    if isinstance(item, syntax.Train):
        return "the data" if any(isinstance(c, syntax.Data) and any(i.name is name for i in c.inputs) for c in item.clauses) else "the name"
    if any(p.name is name for p in item.signature.static):
        return "the static parameter"
    return "the argument" if any(i.name is name for i in item.signature.inputs) else "the name"


def _advice(item: Scoped, name: syntax.Name) -> str:
    if _kind(item, name) == "the data":
        return "a column that nothing reads is loaded for nothing"
    return f"delete it, or write `_{name.text}`"
