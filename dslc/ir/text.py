"""The text form of a Graph (`grammars/ir.lark`): `parse_graph(print_graph(g)) == g`."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from dslc.diagnostics import Span
from dslc.ir.dims import DimError, DimExpr, parse_dim
from dslc.ir.graph import ConstantData, Graph, Op, Value
from dslc.ir.types import DType, TensorType
from dslc.options import resource

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

    Node = Tree[Token]


class TextError(ValueError):
    """Text that is not a graph; the message says where."""


# ---- printing -----------------------------------------------------------------------------------------------------


def print_graph(graph: Graph, *, spans: bool = True) -> str:
    """The graph as text that `parse_graph` reads back; without `spans` the places in the source are left out."""
    return "\n".join(_graph_lines(graph, spans)) + "\n"


def print_op(op: Op) -> str:
    """One operation on one line, without its regions and place."""
    results = ", ".join(_typed(v) for v in op.outputs)
    attrs = ", ".join(f"{name} = {print_attr(value)}" for name, value in op.attrs)
    operands = ", ".join(map(str, op.inputs))
    return f"{results + ' = ' if results else ''}{op.kind}{f'[{attrs}]' if attrs else ''}({operands})"


def print_attr(value: Any) -> str:
    """An attribute's value as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, DType):  # before str, of which it is a subclass
        return value.value
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, float):
        return _print_float(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, DimExpr):
        return f"<{value}>"
    if isinstance(value, TensorType):
        return str(value)
    if isinstance(value, ConstantData):
        return f"data {value.type} #{base64.b64encode(value.data).decode('ascii')}"
    if isinstance(value, tuple):
        return f"({', '.join(map(print_attr, value))}{',' if len(value) == 1 else ''})"
    raise TypeError(f"an attribute cannot be {value!r}")


def _print_float(value: float) -> str:
    if math.isfinite(value):
        text = repr(value)
        return text if "." in text or "e" in text else f"{text}.0"
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def _typed(value: Value) -> str:
    return f"{value}: {value.type}"


def _graph_lines(graph: Graph, spans: bool) -> Iterable[str]:
    yield f"graph({', '.join(map(_typed, graph.inputs))}) {{"
    for op in graph.ops:
        place = f"  {_print_span(op.span)}" if spans and op.span else ""
        if not op.regions:
            yield f"  {print_op(op)}{place}"
            continue
        yield f"  {print_op(op)}"
        for number, region in enumerate(op.regions, 1):
            *lines, last = _graph_lines(region, spans)
            for line in lines:
                yield f"    {line}"
            yield f"    {last}{place if number == len(op.regions) else ''}"
    yield f"  return {', '.join(map(str, graph.outputs))}".rstrip()
    yield "}"


def _print_span(span: Span) -> str:
    return f"@{json.dumps(span.file)}:{span.line}:{span.column}-{span.end_line}:{span.end_column}"


# ---- reading ------------------------------------------------------------------------------------------------------


def parse_graph(text: str) -> Graph:
    """The graph that the text describes. TextError where it is not one; types are those written, `verify` checks them."""
    from lark.exceptions import UnexpectedInput

    try:
        tree: Node = _parser().parse(text)
    except UnexpectedInput as error:
        raise TextError(f"line {error.line}, column {error.column}: not the text of a graph") from None
    return _graph(tree)


@cache
def _parser() -> Lark:
    from lark import Lark

    grammar = resource("grammars/ir.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", start="graph", maybe_placeholders=False)


def _graph(tree: Node) -> Graph:
    known: dict[str, Value] = {}
    inputs: list[Value] = []
    ops: list[Op] = []
    outputs: tuple[Value, ...] = ()
    for part in tree.children:
        assert not isinstance(part, str)
        if part.data == "typed":
            inputs.append(_define(part, known))
        elif part.data == "op":
            ops.append(_op(part, known))
        else:
            outputs = _operands(part, known)
    return Graph(tuple(inputs), tuple(ops), outputs)


def _define(tree: Node, known: dict[str, Value]) -> Value:
    identifier, written = (str(child) for child in tree.children)
    if identifier in known:
        raise TextError(f"{identifier} is defined twice")
    known[identifier] = value = Value(int(identifier[1:]), _type(written))
    return value


def _operands(tree: Node, known: dict[str, Value]) -> tuple[Value, ...]:
    for child in tree.children:
        if str(child) not in known:
            raise TextError(f"{child} is used before it is defined")
    return tuple(known[str(child)] for child in tree.children)


def _op(tree: Node, known: dict[str, Value]) -> Op:
    results: list[Node] = []
    attrs: list[tuple[str, Any]] = []
    regions: list[Graph] = []
    inputs: tuple[Value, ...] = ()
    kind, span = "", None
    for part in tree.children:
        if isinstance(part, str):  # a token
            if part.type == "NAME":
                kind = str(part)
            else:
                span = _span(str(part))
        elif part.data == "typed":
            results.append(part)
        elif part.data == "attr":
            name, value = part.children
            assert not isinstance(value, str)
            attrs.append((str(name), _value(value)))
        elif part.data == "graph":
            regions.append(_graph(part))
        else:
            inputs = _operands(part, known)
    return Op(kind, inputs, tuple(attrs), tuple(_define(result, known) for result in results), tuple(regions), span)


_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None, "inf": math.inf, "nan": math.nan} | {d.value: d for d in DType}


def _value(tree: Node) -> Any:
    if tree.data in ("tuple", "empty"):
        return tuple(_value(child) for child in tree.children if not isinstance(child, str))
    first = str(tree.children[0])
    match tree.data:
        case "number":
            return float(first) if "." in first or "e" in first else int(first)
        case "string":
            return _string(first)
        case "dim":
            return _dim(first[1:-1])
        case "type":
            return _type(first)
        case "negative" if first == "inf":
            return -math.inf
        case "data":
            return _data(first, str(tree.children[1]))
        case "word" if first in _WORDS:
            return _WORDS[first]
    raise TextError(f"{first} is no value of an attribute")


def _data(written: str, encoded: str) -> ConstantData:
    try:
        return ConstantData(_type(written), base64.b64decode(encoded[1:], validate=True))
    except ValueError as error:
        raise TextError(f"the bytes of a constant {written}: {error}") from None


def _string(quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError as error:
        raise TextError(f"{quoted}: {error}") from None


def _dim(text: str) -> int | DimExpr:
    try:
        return parse_dim(text)
    except DimError as error:
        raise TextError(str(error)) from None


def _type(text: str) -> TensorType:
    dtype, _, rest = text.rstrip("]").partition("[")
    return TensorType(DType(dtype), tuple(_dim(part) for part in rest.split(",")) if rest.strip() else ())


_SPAN = re.compile(r"@(?P<file>\".*\"):(?P<line>\d+):(?P<column>\d+)-(?P<end_line>\d+):(?P<end_column>\d+)")


def _span(text: str) -> Span:
    found = _SPAN.fullmatch(text)
    assert found is not None, text  # the grammar's SPAN
    numbers = (int(found[name]) for name in ("line", "column", "end_line", "end_column"))
    return Span(_string(found["file"]), *numbers)
