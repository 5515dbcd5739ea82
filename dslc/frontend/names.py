"""Names without values: unknown names and unused ones, in every body, whether something calls it or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dslc.frontend import syntax
from dslc.frontend.files import Unit
from dslc.frontend.report import did_you_mean
from dslc.frontend.scope import BUILTINS, INITIALISERS, Context, Frame, is_dtype_name, unknown_name
from dslc.ir.operator import OPERATORS

Scoped = syntax.Block | syntax.Model | syntax.Optimizer | syntax.Train


@dataclass(slots=True)
class Uses:
    """The names that an item binds and mentions."""

    bound: dict[str, syntax.Name] = field(default_factory=dict)
    mentioned: list[syntax.Name] = field(default_factory=list)
    initialisers: list[syntax.Name] = field(default_factory=list)


def uses_of(item: Scoped) -> Uses:
    """Bindings and mentions of an item's body and signature; the names of arguments, members and options are neither."""
    uses = Uses()
    if isinstance(item, syntax.Train):
        for clause in item.clauses:
            _clause(clause, uses)
        return uses
    signature = item.signature
    for parameter in signature.static:
        uses.bound[parameter.name.text] = parameter.name
        if parameter.default is not None:
            _expression(parameter.default, uses)
    for declared in signature.inputs:
        uses.bound[declared.name.text] = declared.name
        _type(declared.type, uses, binds=True)
    result = signature.result
    results = (result,) if isinstance(result, syntax.Type) else result.types if isinstance(result, syntax.TupleType) else ()
    if isinstance(result, syntax.NamedResults):
        results = tuple(r.type for r in result.results)
    for declared_type in results:
        _type(declared_type, uses)
    for fact in signature.given:
        _expression(fact, uses)
    for statement in item.body:
        _statement(statement, uses)
    return uses


def mentions(clauses: Iterable[syntax.Clause]) -> set[str]:
    """The names that clauses of a recipe mention."""
    uses = Uses()
    for clause in clauses:
        _clause(clause, uses)
    return {name.text for name in uses.mentioned}


def _clause(clause: syntax.Clause, uses: Uses) -> None:
    match clause:
        case syntax.Data():
            for declared in clause.inputs:
                uses.bound[declared.name.text] = declared.name
                _type(declared.type, uses, binds=True)
            _expression(clause.source, uses)
            for option in clause.options:
                _expression(option.value, uses)
        case syntax.Assign():
            _statement(clause, uses)
        case syntax.Metric():
            _expression(clause.value, uses)
        case syntax.Minimize():
            _expression(clause.loss, uses)
            for group in clause.groups:
                _expression(group.optimizer, uses)
                for option in group.options:
                    _expression(option.value, uses)
        case syntax.Phase():
            for option in clause.options:
                _expression(option.value, uses)
            for inner in clause.body:
                _clause(inner, uses)
        case _:
            pass


def _type(declared: syntax.Type, uses: Uses, binds: bool = False) -> None:
    for entry in declared.dims:
        if isinstance(entry, syntax.RowDims):
            if binds:
                uses.bound.setdefault(entry.name.text, entry.name)
            uses.mentioned.append(entry.name)
            continue
        if binds:
            for node in syntax.walk(entry):
                if isinstance(node, syntax.Name):
                    uses.bound.setdefault(node.text, node)
        _expression(entry, uses)


def _statement(node: syntax.Statement, uses: Uses) -> None:
    match node:
        case syntax.Assign():
            for value in node.values:
                _expression(value, uses)
            for target in node.targets:
                uses.bound.setdefault(target.text, target)
        case syntax.Return() | syntax.Yield():
            for value in node.values:
                _expression(value, uses)
        case syntax.Param() | syntax.State():
            _type(node.type, uses)
            uses.bound.setdefault(node.name.text, node.name)
            if isinstance(node.initial, syntax.Filled):
                _expression(node.initial.value, uses)
            else:
                _initialiser(node.initial.initialiser, uses)
        case syntax.SharedBlock():
            _expression(node.block, uses)
            uses.bound.setdefault(node.name.text, node.name)
        case syntax.Update():
            uses.mentioned.append(node.name)
            _expression(node.value, uses)
        case syntax.If():
            _expression(node.condition, uses)
            for inner in (*node.body, *node.otherwise):
                _statement(inner, uses)
        case syntax.For():
            _expression(node.source, uses)
            for target in node.targets:
                uses.bound.setdefault(target.text, target)
            for inner in node.body:
                _statement(inner, uses)
        case syntax.Assert():
            _expression(node.condition, uses)


def _initialiser(node: syntax.Expr, uses: Uses) -> None:
    head = node.target if isinstance(node, syntax.Brackets) else node
    if isinstance(head, syntax.Name):
        uses.initialisers.append(head)
    else:
        _expression(head, uses)
    if isinstance(node, syntax.Brackets):
        for subscript in node.subscripts:
            _expression(subscript.value if isinstance(subscript, syntax.Named) else subscript, uses)


def _expression(node: syntax.Node, uses: Uses) -> None:
    """Mentions in an expression; a loop over a stack, so that a long pipe or sum is no deep recursion."""
    waiting: list[syntax.Node] = [node]
    while waiting:
        top = waiting.pop()
        match top:
            case syntax.Name():
                uses.mentioned.append(top)
            case syntax.Named():
                waiting.append(top.value)
            case syntax.Member():
                waiting.append(top.target)
            case syntax.NameAs():
                waiting.append(top.value)
            case syntax.Stage():
                waiting.append(top.callee)
            case syntax.Scan():
                _scan(top, uses)
            case _:
                waiting.extend(reversed(list(syntax.children(top))))


def _scan(node: syntax.Scan, uses: Uses) -> None:
    for option in (*node.options, *node.carries):
        _expression(option.value, uses)
    for carried in node.carries:
        uses.bound.setdefault(carried.name.text, carried.name)
    for target in node.targets:
        uses.bound.setdefault(target.text, target)
    _expression(node.source, uses)
    if isinstance(node.extent, syntax.Name):
        uses.bound.setdefault(node.extent.text, node.extent)
        uses.mentioned.append(node.extent)
    elif node.extent is not None:
        _expression(node.extent, uses)
    for statement in node.body:
        _statement(statement, uses)


# --- what is wrong with them -------------------------------------------------------------------------------------------------


def scoped_items(unit: Unit) -> Iterator[tuple[Scoped, Uses]]:
    for item in unit.tree.items:
        if isinstance(item, Scoped):
            yield item, uses_of(item)


def check_names(context: Context, unit: Unit) -> None:
    """Reports every name that means nothing; finds those in branches that are not taken and blocks that are not called."""
    for _, uses in scoped_items(unit):
        frame = Frame(unit, "", names=dict.fromkeys(uses.bound))
        for name in uses.mentioned:
            if name.text not in uses.bound and not _known(context, unit, name.text):
                unknown_name(context, name, frame)
        for name in uses.initialisers:
            if name.text not in INITIALISERS and name.text not in uses.bound:
                context.reporter.error("DL0410", f"`{name.text}` is no initialiser", name.span, hint=_initialiser_hint(name.text))


def _initialiser_hint(text: str) -> str:
    return did_you_mean(text, INITIALISERS) or f"the initialisers are {', '.join(INITIALISERS)}"


def _known(context: Context, unit: Unit, text: str) -> bool:
    if text in unit.items or text in unit.dims or text in unit.imports or text in unit.tree.broken:
        unit.used.add(text)
        return True
    return (
        text in context.files.library
        or text in BUILTINS
        or (text in OPERATORS and not OPERATORS[text].internal)
        or is_dtype_name(text)
        or text in ("training", "none")
    )
