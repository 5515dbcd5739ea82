"""Feeds tokens to the table of the parser that Lark has made, and builds the syntax tree as its rules are recognised.

No parse tree stands between: a file at the limit of its length would take most of its time for making one. Most rules that are
recognised in an expression change nothing: an atom is a power, is a product, is a sum, on through a dozen levels of precedence. How
such a chain ends depends on two states and the next token alone, so it is looked up once and remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from lark import Token
from lark.grammar import Rule, Terminal
from lark.parsers.lalr_analysis import Shift

from dslc.diagnostics import DiagnosticError, Span
from dslc.frontend import syntax as s
from dslc.frontend.build import Rules
from dslc.frontend.lex import MAX_NESTING, grammar, too_deep


@dataclass(frozen=True, slots=True)
class _Reduction:
    """What to do where a rule is recognised.

    `kept` says of each child that has a part whether its items are spliced in, and how many left-out ones stand before it; `method` is that
    of `Rules`, None for a rule that only collects; `single` gives a single child as it is.
    """

    size: int
    origin: str
    method: str | None
    kept: tuple[tuple[int, bool, int], ...]
    left_out: int
    single: bool


class Unexpected(Exception):
    """No item goes on with this token."""


class Feeder:
    """Parses one item, a token at a time."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._interactive = grammar().parse_interactive(start="item")
        state = self._interactive.parser_state
        self._conf = state.parse_conf
        self.stack: list[Any] = state.state_stack
        self._values: list[Any] = state.value_stack
        self._begins: list[Token] = []  # the first and the last token of each value, and how deep it nests
        self._ends: list[Token] = []
        self._depths: list[int] = []
        self._rules = Rules(file)
        self._methods: dict[str, Callable[..., Any]] = {}
        self._reductions, self._chains = _tables()

    def feed(self, token: Token) -> Any:
        """Takes one token. The item behind the token `$END`; raises Unexpected, or DiagnosticError where it nests too deep (DL0003)."""
        states, end = self._conf.states, self._conf.end_state
        stack, kind = self.stack, token.type
        while True:
            top = stack[-1]
            if len(stack) > 1:
                key = stack[-2], top, kind
                known = self._chains.get(key)
                if known is None:
                    known = self._chains[key] = self._end_of_chain(stack[-2], top, kind)
                stack[-1] = top = known
                if top == end:
                    return self._values[-1]
            entry = states[top].get(kind)
            if entry is None:
                raise Unexpected
            action, target = entry
            if action is Shift:
                stack.append(target)
                self._values.append(token)
                self._begins.append(token)
                self._ends.append(token)
                self._depths.append(0)
                return None
            self._reduce(target)
            if stack[-1] == end:
                return self._values[-1]

    def _reduce(self, rule: Rule) -> None:
        known = self._reductions.get(rule)
        if known is None:
            known = self._reductions[rule] = _reduction(rule)
        at = len(self._values) - known.size
        values, depth = self._values[at:], max(self._depths[at:])
        first, last = self._begins[at], self._ends[-1]
        if len(known.kept) == 1 and known.kept[0][1] and not known.left_out:
            children = values[known.kept[0][0]]  # a list that grows by one: no copy
        else:
            children = []
            for i, splice, left_out in known.kept:
                if left_out:
                    children += [None] * left_out
                if splice and not children:
                    children = values[i]
                elif splice:
                    children += values[i]
                else:
                    children.append(values[i])
            children += [None] * known.left_out
        if known.method is None:
            value = children
        elif known.single and len(children) == 1:
            value = children[0]
        else:
            value = self._node(known.method, first, last, children)
            depth += isinstance(value, s.Node)
            if depth > MAX_NESTING:
                start = Span(self._file, first.line or 1, first.column or 1, first.line or 1, (first.column or 1) + 1)
                raise DiagnosticError(too_deep(start, start))
        del self.stack[len(self.stack) - known.size :], self._values[at:], self._begins[at:], self._ends[at:], self._depths[at:]
        self.stack.append(self._conf.states[self.stack[-1]][known.origin][1])
        self._values.append(value)
        self._begins.append(first)
        self._ends.append(last)
        self._depths.append(depth)

    def _node(self, method: str, first: Token, last: Token, children: list[Any]) -> Any:
        make = self._methods.get(method)
        if make is None:
            make = self._methods[method] = getattr(self._rules, method)
        span = Span(self._file, first.line or 1, first.column or 1, last.end_line or 1, last.end_column or 1)
        return make(span, *children)

    def _end_of_chain(self, below: Any, top: Any, kind: str) -> Any:
        """The state on top of `below` when every reduction that changes nothing is done."""
        states = self._conf.states
        while top != self._conf.end_state:
            action, rule = states[top].get(kind, (Shift, None))
            if action is Shift or not _changes_nothing(rule):
                break
            top = states[below][rule.origin.name][1]
        return top

    def accepts(self) -> frozenset[str]:
        """The kinds of tokens that could stand here."""
        return frozenset(self._interactive.accepts())  # type: ignore[no-untyped-call]  # Lark leaves it untyped


@cache
def _tables() -> tuple[dict[Rule, _Reduction], dict[tuple[Any, Any, str], Any]]:
    """What was looked up so far: at most as many as the grammar has rules, and pairs of states with a kind of token."""
    return {}, {}


def _changes_nothing(rule: Rule) -> bool:
    """A rule such as `?sum: product`: its one child takes its place."""
    known = _reduction(rule)
    return known.size == 1 and known.single and len(known.kept) == 1 and not known.kept[0][1]


def _reduction(rule: Rule) -> _Reduction:
    """As Lark shapes its parse trees: marks without a name are left out, `_` rules are spliced in, an option left out is None."""
    assert rule.expansion, "no rule of the grammar is empty"
    missing = "".join("1" if empty else "0" for empty in rule.options.empty_indices) or "0" * len(rule.expansion)
    before = [len(run) for run in missing.split("0")]
    kept, left_out = [], 0
    for i, symbol in enumerate(rule.expansion):
        left_out += before[i]
        if not (isinstance(symbol, Terminal) and symbol.filter_out):
            kept.append((i, not isinstance(symbol, Terminal) and symbol.name.startswith("_"), left_out))
            left_out = 0
    collects = rule.origin.name.startswith("_")
    method = None if collects else rule.alias or rule.origin.name
    single = rule.options.expand1 and rule.alias is None
    return _Reduction(len(rule.expansion), rule.origin.name, method, tuple(kept), left_out + before[-1], single)
