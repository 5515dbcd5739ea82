"""Expressions back to text, for messages: short, on one line."""

from __future__ import annotations

from dslc.frontend import syntax

_BINDING = {"or": 1, "and": 2, "compare": 4, "..": 5, "+": 6, "-": 6, "*": 7, "/": 7, "//": 7, "%": 7, "@": 7, "**": 9}


def expression_text(node: syntax.Node, limit: int = 80) -> str:
    """The expression as a user would write it, cut after `limit` characters."""
    text = _text(node, 0, 12)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _text(node: syntax.Node, around: int, depth: int) -> str:
    if depth == 0:
        return "..."
    match node:
        case syntax.Name():
            return node.text
        case syntax.Int() | syntax.Number() | syntax.Size():
            return node.text or str(node.value)
        case syntax.Str():
            return f'"{node.value}"'
        case syntax.Bool():
            return str(node.value).lower()
        case syntax.Unary():
            return _bracketed(
                f"{node.op}{' ' if node.op == 'not' else ''}{_text(node.operand, 8, depth - 1)}", 3 if node.op == "not" else 8, around
            )
        case syntax.Binary():
            return _infix(node.op, node.left, node.right, _BINDING[node.op], around, depth)
        case syntax.Compare():
            return _infix(node.op, node.left, node.right, _BINDING["compare"], around, depth)
        case syntax.Range():
            return f"{_text(node.start, 6, depth - 1)}..{_text(node.stop, 6, depth - 1)}"
        case syntax.Apply():
            return f"{_text(node.callee, 10, depth - 1)}({_listed(node.args, depth)})"
        case syntax.Brackets():
            return f"{_text(node.target, 10, depth - 1)}[{_listed(node.subscripts, depth)}]"
        case syntax.Named():
            return f"{node.name.text} = {_text(node.value, 0, depth - 1)}"
        case syntax.Member():
            return f"{_text(node.target, 10, depth - 1)}.{node.name.text}"
        case syntax.ListExpr():
            return f"[{_listed(node.items, depth)}]"
        case syntax.TupleExpr():
            return f"({_listed(node.items, depth)})"
        case syntax.Slice():
            parts = [_text(p, 0, depth - 1) if p else "" for p in (node.start, node.stop)]
            return ":".join(parts) + (f":{_text(node.step, 0, depth - 1)}" if node.step else "")
        case syntax.Pipe():
            return _bracketed(" |> ".join(_text(n, 1, depth - 1) for n in (node.value, *(s.callee for s in node.stages))), 0, around)
        case _:
            return "..."


def _listed(nodes: tuple[syntax.Node, ...], depth: int) -> str:
    return ", ".join(_text(n, 0, depth - 1) for n in nodes)


def _infix(op: str, left: syntax.Node, right: syntax.Node, binding: int, around: int, depth: int) -> str:
    return _bracketed(f"{_text(left, binding, depth - 1)} {op} {_text(right, binding + 1, depth - 1)}", binding, around)


def _bracketed(text: str, binding: int, around: int) -> str:
    return f"({text})" if binding < around else text
