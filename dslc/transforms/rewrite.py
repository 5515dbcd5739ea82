"""Rewriting by equations: rules are data, `mul(x, 1) = x`, and one engine matches, rebuilds and keeps types and places.

A term is a variable (`x`, any value), a number (a `full` of that number; `-0.0` and `0` are two) or an operator applied to
terms, with names for the values of its attributes: `transpose[axes = p](x)`. Every attribute is named, so that none is lost.
A variable that stands twice must be the same value. Operands of commutative operators match in both orders.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Op, Value, sorted_attrs
from dslc.ir.operator import OPERATORS
from dslc.ir.types import DType, TensorType
from dslc.transforms.regions import in_regions

COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum", "eq", "ne", "and", "or", "xor"})


@dataclass(frozen=True, slots=True)
class Variable:
    name: str


@dataclass(frozen=True, slots=True)
class Number:
    value: float | bool


@dataclass(frozen=True, slots=True)
class Apply:
    kind: str
    attrs: tuple[tuple[str, str], ...]  # attribute, and the name that its value is bound to
    operands: tuple[Term, ...]


Term = Variable | Number | Apply


@dataclass(frozen=True, slots=True)
class Match:
    """What the names of an equation's left side stand for; `result` is the type of the whole."""

    values: Mapping[str, Value]
    attrs: Mapping[str, Any]
    result: TensorType


@dataclass(frozen=True, slots=True)
class Rule:
    """An equation, read from left to right.

    `where` says whether it holds for a match: a bool, or the values of attributes that only the right side names. `samples`
    give types of variables (as text, `f32[5, 4]` unless told) and attributes for the test that checks the equation
    numerically; its sides may differ by `ulps` units in the last place, which is 0 for all but a few. With `once`, the operands
    of the outermost operator must have no other use: what the right side makes would otherwise be made beside them.
    """

    equation: str
    where: Callable[[Match], bool | Mapping[str, Any]] | None = None
    samples: tuple[Mapping[str, Any], ...] = ({},)
    ulps: int = 0
    once: bool = False
    left: Apply = field(init=False)
    right: Term = field(init=False)

    def __post_init__(self) -> None:
        left, right = (parse_term(side) for side in self.equation.split(" = "))
        assert isinstance(left, Apply), self.equation
        object.__setattr__(self, "left", left)
        object.__setattr__(self, "right", right)


# ---- terms --------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"\s*(?:(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[a-z_][a-z_0-9]*)|(?P<mark>[()\[\],:]))")


def parse_term(text: str) -> Term:
    """A term from its text; attributes are written `kind[attribute: name](...)`."""
    tokens = [found.group().strip() for found in _TOKEN.finditer(text)]
    assert "".join(tokens) == text.replace(" ", ""), text
    term, rest = _parse(tokens, 0)
    assert rest == len(tokens), text
    return term


def _parse(tokens: Sequence[str], at: int) -> tuple[Term, int]:
    first = tokens[at]
    if first in ("true", "false"):
        return Number(first == "true"), at + 1
    if first[0] == "-" or first[0].isdigit():
        return Number(float(first)), at + 1
    attrs: list[tuple[str, str]] = []
    following = tokens[at + 1] if at + 1 < len(tokens) else ""
    if following not in ("(", "["):
        return Variable(first), at + 1
    at += 1
    if following == "[":
        while tokens[at] != "]":
            assert tokens[at + 2] == ":", tokens
            attrs.append((tokens[at + 1], tokens[at + 3]))
            at += 4
        at += 1
    operands: list[Term] = []
    assert tokens[at] == "(", tokens
    at += 1
    while tokens[at] != ")":
        operand, at = _parse(tokens, at)
        operands.append(operand)
        at += tokens[at] == ","
    return Apply(first, tuple(attrs), tuple(operands)), at + 1


# ---- matching -----------------------------------------------------------------------------------------------------


def match_rule(rule: Rule, op: Op, producers: Mapping[Value, Op]) -> Match | None:
    """How the rule's left side fits the operation, if it does."""
    if len(op.outputs) != 1 or op.regions:
        return None
    for values, attrs in _match_op(rule.left, op, producers, {}, {}):
        match = Match(values, attrs, op.output.type)
        holds = True if rule.where is None else rule.where(match)
        if holds is False:
            continue
        return match if holds is True else replace(match, attrs={**attrs, **holds})
    return None


Bindings = tuple[dict[str, Value], dict[str, Any]]


def _match_op(
    term: Apply, op: Op | None, producers: Mapping[Value, Op], values: dict[str, Value], attrs: dict[str, Any]
) -> Iterator[Bindings]:
    if op is None or op.kind != term.kind or len(op.inputs) != len(term.operands) or len(op.outputs) != 1:
        return
    given = dict(op.attrs)
    if given.keys() != {name for name, _ in term.attrs}:
        return
    attrs = dict(attrs)
    for name, bound in term.attrs:
        if attrs.setdefault(bound, given[name]) != given[name]:
            return
    orders = [op.inputs]
    if op.kind in COMMUTATIVE and op.inputs[0] != op.inputs[1]:
        orders.append(op.inputs[::-1])
    for order in orders:
        yield from _match_all(term.operands, order, producers, values, attrs)


def _match_all(
    terms: Sequence[Term], inputs: Sequence[Value], producers: Mapping[Value, Op], values: dict[str, Value], attrs: dict[str, Any]
) -> Iterator[Bindings]:
    if not terms:
        yield values, attrs
        return
    for found_values, found_attrs in _match_value(terms[0], inputs[0], producers, values, attrs):
        yield from _match_all(terms[1:], inputs[1:], producers, found_values, found_attrs)


def _match_value(
    term: Term, value: Value, producers: Mapping[Value, Op], values: dict[str, Value], attrs: dict[str, Any]
) -> Iterator[Bindings]:
    if isinstance(term, Variable):
        if values.get(term.name, value) == value:
            yield {**values, term.name: value}, attrs
    elif isinstance(term, Number):
        op = producers.get(value)
        if op is not None and op.kind == "full" and _is_number(op.attr("value"), term.value, value.type.dtype):
            yield values, attrs
    else:
        yield from _match_op(term, producers.get(value), producers, values, attrs)


def _is_number(value: float, wanted: float | bool, dtype: DType) -> bool:
    if isinstance(wanted, bool) or dtype == DType.BOOL:
        return isinstance(wanted, bool) and dtype == DType.BOOL and bool(value) == wanted
    return value == wanted and (not dtype.floating or math.copysign(1, value) == math.copysign(1, wanted))


# ---- rewriting ----------------------------------------------------------------------------------------------------


def rewrite(graph: Graph, rules: Iterable[Rule]) -> Graph:
    """`graph` after the rules, in one forward walk; what a rule makes is tried again. Regions too. Ids are new."""
    table: dict[str, list[Rule]] = {}
    for rule in rules:
        table.setdefault(rule.left.kind, []).append(rule)
    return _rewrite(graph, table)


def _rewrite(graph: Graph, table: Mapping[str, list[Rule]]) -> Graph:
    walk = _Walk(graph, table)
    uses = Counter(v for op in graph.ops for v in op.inputs) + Counter(graph.outputs)
    renamed: dict[Value, Value] = {value: value for value in graph.inputs}
    for op in graph.ops:
        op = in_regions(op.with_inputs(tuple(renamed[v] for v in op.inputs)), lambda region: _rewrite(region, table))
        for old, new in zip(op.outputs, walk.emit(op), strict=True):
            renamed[old] = new
            walk.uses[new] = walk.uses.get(new, 0) + uses.get(old, 0)
    outputs = tuple(renamed[v] for v in graph.outputs)
    return Graph(graph.inputs, tuple(walk.builder.ops), outputs)


class _Walk:
    """The state of one walk: the growing graph and who makes each value."""

    def __init__(self, graph: Graph, table: Mapping[str, list[Rule]]):
        self.builder = Builder(graph.inputs)
        self.table = table
        self.producers: dict[Value, Op] = {}
        self.uses: dict[Value, int] = {}  # in the old graph, by everything that became this value
        # An output that is an input would need no kernel to make it: the operation stays, to make a copy.
        self.results, self.inputs = frozenset(graph.outputs), frozenset(graph.inputs)

    def emit(self, op: Op) -> tuple[Value, ...]:
        """The values of an operation whose operands are already in the new graph."""
        self.builder.span = op.span
        for rule in self.table.get(op.kind, ()):
            match = match_rule(rule, op, self.producers)
            if match is None:
                continue
            if rule.once and any(self.uses.get(value) != 1 for value in op.inputs):
                continue
            if op.outputs[0] in self.results and self._is_input(rule.right, match):
                continue
            return (self._fitted(self._build(rule.right, match), op.output.type),)
        new = replace(op, outputs=tuple(self.builder.value(v.type) for v in op.outputs))
        self.builder.ops.append(new)
        self.producers.update(dict.fromkeys(new.outputs, new))
        return new.outputs

    def _is_input(self, right: Term, match: Match) -> bool:
        value = match.values[right.name] if isinstance(right, Variable) else None
        return value is not None and value in self.inputs and value.type == match.result

    def apply(self, kind: str, inputs: tuple[Value, ...], attrs: Mapping[str, Any]) -> Value:
        """An operation that a rule makes, itself rewritten. Its type is inferred, its place is that of what it replaces."""
        types = OPERATORS[kind].infer(*(v.type for v in inputs), **attrs)
        assert isinstance(types, TensorType), kind
        (value,) = self.emit(Op(kind, inputs, sorted_attrs(attrs), (Value(-1, types),), (), self.builder.span))
        return value

    def _build(self, term: Term, match: Match) -> Value:
        if isinstance(term, Variable):
            return match.values[term.name]
        if isinstance(term, Number):
            value = float(term.value) if match.result.dtype.floating else int(term.value)
            return self.apply("full", (), {"value": value, "shape": (), "dtype": match.result.dtype})
        inputs = tuple(self._build(operand, match) for operand in term.operands)
        return self.apply(term.kind, inputs, {name: match.attrs[bound] for name, bound in term.attrs})

    def _fitted(self, value: Value, type: TensorType) -> Value:
        """The value in the type of what it replaces: `x * 1` has the shape of the 1 where that is larger."""
        assert value.type.dtype == type.dtype, f"a rule gave {value.type} for {type}"
        return value if value.type == type else self.apply("expand", (value,), {"shape": type.shape})
