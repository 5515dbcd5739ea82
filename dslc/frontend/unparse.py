"""Syntax tree to text: `parse(unparse(tree)) == tree`. For programs that write `.dl`, such as a builder in Python."""

from __future__ import annotations

from collections.abc import Sequence

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.frontend import syntax as s
from dslc.frontend.format import format_source

# How tightly an expression binds, by the levels of the grammar.
_EXPR, _PIPE, _NAMED, _OR, _AND, _NOT, _COMPARE, _RANGE, _SUM, _PRODUCT, _PREFIX, _POWER, _POSTFIX, _ATOM = range(14)
_LEVELS = {
    "or": _OR,
    "and": _AND,
    "+": _SUM,
    "-": _SUM,
    "*": _PRODUCT,
    "/": _PRODUCT,
    "//": _PRODUCT,
    "%": _PRODUCT,
    "@": _PRODUCT,
    "**": _POWER,
}


def unparse(file: s.File) -> str:
    """The canonical text of a tree; raises DiagnosticError where a string or number in it cannot be written (DL0006, DL0008)."""
    return format_source("\n\n".join(map(_item, file.items)) + "\n")


def _item(item: s.Item) -> str:
    match item:
        case s.Import(path, name):
            return f"import {_string(path)}" + (f" as {name.text}" if name else "")
        case s.Dims(dims):
            return "dim " + ", ".join(map(_dim, dims))
        case s.Const(name, type_, value):
            return f"const {name.text}" + (f": {_type(type_)}" if type_ else "") + f" = {expression(value)}"
        case s.Precision(dtype, families):
            return ", ".join([f"precision {dtype.text}", *map(_named, families)])
        case s.Instance(name, block):
            return f"model {name.text} = {expression(block)}"
        case s.Block(signature, body) | s.Model(signature, body) | s.Optimizer(signature, body):
            return f"{type(item).__name__.lower()} {_signature(signature)} {_body(body)}"
        case s.Train(name, clauses):
            return f"train {name.text} {{\n" + "\n".join(map(_clause, clauses)) + "\n}"
        case s.Export(model, target, options):
            return f"export {model.text} as {_string(target)}" + _with(options)


def _dim(dim: s.Dim) -> str:
    if dim.bound is not None:
        return f"{dim.name.text} <= {expression(dim.bound)}"
    return dim.name.text + (f" = {expression(dim.size)}" if dim.size is not None else "")


def _signature(signature: s.Signature) -> str:
    static = f"[{', '.join(map(_static, signature.static))}]" if signature.static else ""
    given = f" given {_exprs(signature.given)}" if signature.given else ""
    return f"{signature.name.text}{static}({_inputs(signature.inputs)}) -> {_result(signature.result)}{given}"


def _static(param: s.StaticParam) -> str:
    kind = f": {param.kind.text}" if param.kind else ""
    return param.name.text + kind + (f" = {expression(param.default)}" if param.default is not None else "")


def _inputs(inputs: Sequence[s.Input]) -> str:
    return ", ".join(f"{i.name.text}: {_type(i.type)}" for i in inputs)


def _result(result: s.Type | s.TupleType | s.NamedResults) -> str:
    match result:
        case s.TupleType(types):
            return f"({', '.join(map(_type, types))})"
        case s.NamedResults(results):
            return f"({_inputs(results)})"
        case _:
            return _type(result)


def _type(type_: s.Type) -> str:
    dims = [f"*{d.name.text}" if isinstance(d, s.RowDims) else expression(d) for d in type_.dims]
    return f"{type_.dtype.text}[{', '.join(dims)}]" if dims else type_.dtype.text


def _body(statements: Sequence[s.Statement]) -> str:
    return "{\n" + "\n".join(map(_statement, statements)) + "\n}"


def _statement(statement: s.Statement) -> str:
    match statement:
        case s.Param(name, type_, initial):
            return f"param {name.text}: {_type(type_)} {_initial(initial)}"
        case s.SharedBlock(name, block):
            return f"param {name.text} = {expression(block)}"
        case s.State(name, type_, initial):
            return f"state {name.text}: {_type(type_)} {_initial(initial)}"
        case s.Update(name, value):
            return f"update {name.text} = {expression(value)}"
        case s.Assign(targets, values):
            return f"{_names(targets)} = {_exprs(values)}"
        case s.Return(values):
            return f"return {_exprs(values)}"
        case s.Yield(values):
            return f"yield {_exprs(values)}"
        case s.For(targets, source, body):
            return f"for {_names(targets)} in {expression(source)} {_body(body)}"
        case s.If(condition, body, otherwise):
            text = f"if {expression(condition)} {_body(body)}"
            if len(otherwise) == 1 and isinstance(otherwise[0], s.If):
                return f"{text} else {_statement(otherwise[0])}"
            return f"{text} else {_body(otherwise)}" if otherwise else text
        case s.Assert(condition, message):
            return f"assert {expression(condition)}" + (f", {_string(message)}" if message else "")


def _initial(initial: s.Drawn | s.Filled) -> str:
    if isinstance(initial, s.Drawn):
        return f"~ {expression(initial.initialiser)}"
    return f"= {expression(initial.value)}"


def _clause(clause: s.Clause) -> str:
    match clause:
        case s.Data(inputs, source, options):
            return f"data {_inputs(inputs)} from {expression(source)}" + _with(options)
        case s.Phase(name, options, body):
            head = f"phase {name.text}" + (f"[{', '.join(map(_named, options))}]" if options else "")
            return head + " {\n" + "\n".join(map(_clause, body)) + "\n}"
        case s.Minimize(loss, groups):
            return f"minimize {expression(loss)} " + " ".join(map(_group, groups))
        case s.Metric(name, value):
            return f"metric {name.text} = {expression(value)}"
        case s.Setting(name, value):
            return f"{name.text} {expression(value)}"
        case s.Load(model, source, options):
            return f"load {model.text} from {_string(source)}" + _with(options)
        case s.Save(model, target, options):
            return "save " + (f"{model.text} as " if model else "") + _string(target) + _with(options)
        case s.Freeze(patterns):
            return "freeze " + ", ".join(map(_string, patterns))
        case s.Assign():
            return _statement(clause)


def _group(group: s.Group) -> str:
    targets = ", ".join(t.text if isinstance(t, s.Path) else _string(t) for t in group.targets)
    return ", ".join([f"over {targets} with {expression(group.optimizer)}", *map(_named, group.options)])


def _with(options: Sequence[s.Named]) -> str:
    return " with " + ", ".join(map(_named, options)) if options else ""


def _named(named: s.Named) -> str:
    return f"{named.name.text} = {expression(named.value)}"


def _names(names: Sequence[s.Name]) -> str:
    return ", ".join(name.text for name in names)


def _exprs(values: Sequence[s.Expr]) -> str:
    return ", ".join(map(expression, values))


def _string(string: s.Str) -> str:
    if '"' in string.value or "\n" in string.value:
        message = f"the string {string.value[:40]!r} cannot be written in a file"
        raise DiagnosticError(Diagnostic("DL0006", message, hint="a string holds no double quotes and no line ends"))
    return f'"{string.value}"'


def expression(node: s.Expr, level: int = _EXPR) -> str:
    """The text of an expression, in parentheses where it binds more loosely than `level`."""
    own = _level(node)
    match node:
        case s.Name(text):
            pass
        case s.Int(value, text):
            text = text or str(value)
        case s.Number(value, text) | s.Size(value, text):
            text = text or _number(node)
        case s.Str():
            text = _string(node)
        case s.Bool(value):
            text = "true" if value else "false"
        case s.Unary(op, operand):
            text = f"{op}{' ' * (op == 'not')}{expression(operand, own)}"
        case s.Binary("**", left, right):
            text = f"{expression(left, _POSTFIX)} ** {expression(right, _PREFIX)}"
        case s.Binary(op, left, right):
            text = f"{expression(left, own)} {op} {expression(right, own + 1)}"
        case s.Compare(op, left, right):
            text = f"{expression(left, _RANGE)} {op} {expression(right, _RANGE)}"
        case s.Range(start, stop):
            text = f"{expression(start, _SUM)}..{expression(stop, _SUM)}"
        case s.Apply(callee, args):
            text = f"{expression(callee, _POSTFIX)}({', '.join(map(expression, args))})"
        case s.Brackets(target, subscripts):
            text = f"{expression(target, _POSTFIX)}[{', '.join(map(_subscript, subscripts))}]"
        case s.Member(target, name):
            text = f"{expression(target, _POSTFIX)}.{name.text}"
        case s.NameAs(value, name):
            text = f"{expression(value, _OR)} as {name.text}"
        case s.Pipe(value, stages):
            text = " ".join([expression(value, _NAMED), *map(_stage, stages)])
        case s.IfExpr(condition, value, otherwise):
            text = f"if {expression(condition, _PIPE)} then {expression(value, _PIPE)} else {expression(otherwise)}"
        case s.ListExpr(items):
            text = f"[{', '.join(map(expression, items))}]"
        case s.TupleExpr(items):
            text = f"({', '.join(map(expression, items))})"
        case s.Scan():
            text = _scan(node)
    return text if own >= level else f"({text})"


def _level(node: s.Expr) -> int:
    """How tightly an expression binds."""
    match node:
        case s.Unary(op):
            return _NOT if op == "not" else _PREFIX
        case s.Binary(op):
            return _LEVELS[op]
        case s.Compare():
            return _COMPARE
        case s.Range():
            return _RANGE
        case s.Apply() | s.Brackets() | s.Member():
            return _POSTFIX
        case s.NameAs():
            return _NAMED
        case s.Pipe():
            return _PIPE
        case s.IfExpr():
            return _EXPR
        case _:
            return _ATOM


def _stage(stage: s.Stage) -> str:
    return f"|> {expression(stage.callee, _POSTFIX)}" + (f" as {stage.name.text}" if stage.name else "")


def _subscript(subscript: s.Subscript) -> str:
    match subscript:
        case s.Named():
            return _named(subscript)
        case s.Ellipsis():
            return "..."
        case s.Slice(start, stop, step):
            text = f"{expression(start) if start else ''}:{expression(stop) if stop else ''}"
            return f"{text}:{expression(step)}" if step else text
        case _:
            return expression(subscript)


def _scan(scan: s.Scan) -> str:
    options = f"[{', '.join(map(_named, scan.options))}]" if scan.options else ""
    extent = f" over {expression(scan.extent, _SUM)}" if scan.extent else ""
    carries = f" carry {', '.join(map(_named, scan.carries))}" if scan.carries else ""
    return f"scan{options} {_names(scan.targets)} in {expression(scan.source)}{extent}{carries} {_body(scan.body)}"


def _number(node: s.Number | s.Size) -> str:
    if isinstance(node, s.Size):
        for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if node.value % scale == 0:
                return f"{node.value // scale}{unit}"
    text = repr(node.value)
    if node.value < 0 or not text[0].isdigit():
        raise DiagnosticError(Diagnostic("DL0008", f"the number {text} cannot be written as a literal"))
    return text
