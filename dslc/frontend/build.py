"""The syntax tree: one method for each rule or alias of `grammars/dl.lark`."""

from __future__ import annotations

from lark import Token

from dslc.diagnostics import Span
from dslc.frontend import syntax as s

_SIZES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Rules:
    """Each method gets the span and the children of its rule: tokens, nodes, tuples of nodes, None for what is left out."""

    def __init__(self, file: str) -> None:
        self.file = file

    def at(self, token: Token) -> Span:
        assert token.line and token.column and token.end_line and token.end_column
        return Span(self.file, token.line, token.column, token.end_line, token.end_column)

    def named_by(self, token: Token) -> s.Name:
        return s.Name(str(token), span=self.at(token))

    def text(self, token: Token) -> s.Str:
        return s.Str(str(token)[1:-1], span=self.at(token))

    # Items

    def import_(self, span: Span, path: Token, name: Token | None) -> s.Import:
        return s.Import(self.text(path), self.named_by(name) if name else None, span=span)

    def dims(self, span: Span, *dims: s.Dim) -> s.Dims:
        return s.Dims(dims, span=span)

    def dim(self, span: Span, name: Token, relation: Token | None, value: s.Expr | None) -> s.Dim:
        bound = value if relation == "<=" else None
        return s.Dim(self.named_by(name), bound, value if relation == "=" else None, span=span)

    def const(self, span: Span, name: Token, type: s.Type | None, value: s.Expr) -> s.Const:
        return s.Const(self.named_by(name), type, value, span=span)

    def precision(self, span: Span, dtype: Token, *families: s.Named) -> s.Precision:
        return s.Precision(self.named_by(dtype), families, span=span)

    def block(self, span: Span, signature: s.Signature, body: tuple[s.Statement, ...]) -> s.Block:
        return s.Block(signature, body, span=span)

    def model(self, span: Span, signature: s.Signature, body: tuple[s.Statement, ...]) -> s.Model:
        return s.Model(signature, body, span=span)

    def instance(self, span: Span, name: Token, block: s.Expr) -> s.Instance:
        return s.Instance(self.named_by(name), block, span=span)

    def optimizer(self, span: Span, signature: s.Signature, body: tuple[s.Statement, ...]) -> s.Optimizer:
        return s.Optimizer(signature, body, span=span)

    def train(self, span: Span, name: Token, *clauses: s.Clause) -> s.Train:
        return s.Train(self.named_by(name), clauses, span=span)

    def export(self, span: Span, model: s.Path, target: Token, options: tuple[s.Named, ...] | None) -> s.Export:
        return s.Export(model, self.text(target), options or (), span=span)

    # Signatures and types

    def signature(
        self,
        span: Span,
        name: Token,
        static: tuple[s.StaticParam, ...] | None,
        inputs: tuple[s.Input, ...] | None,
        result: s.Type | s.TupleType | s.NamedResults,
        given: tuple[s.Expr, ...] | None,
    ) -> s.Signature:
        return s.Signature(self.named_by(name), static or (), inputs or (), result, given or (), span=span)

    def static_params(self, span: Span, *params: s.StaticParam) -> tuple[s.StaticParam, ...]:
        return params

    def static_param(self, span: Span, name: Token, kind: Token | None, default: s.Expr | None) -> s.StaticParam:
        return s.StaticParam(self.named_by(name), self.named_by(kind) if kind else None, default, span=span)

    def inputs(self, span: Span, *inputs: s.Input) -> tuple[s.Input, ...]:
        return inputs

    def input(self, span: Span, name: Token, type: s.Type) -> s.Input:
        return s.Input(self.named_by(name), type, span=span)

    def tuple_type(self, span: Span, *types: s.Type) -> s.TupleType:
        return s.TupleType(types, span=span)

    def named_results(self, span: Span, results: tuple[s.Input, ...]) -> s.NamedResults:
        return s.NamedResults(results, span=span)

    def type(self, span: Span, dtype: Token, dims: tuple[s.Expr | s.RowDims, ...] | None) -> s.Type:
        return s.Type(self.named_by(dtype), dims or (), span=span)

    def type_dims(self, span: Span, *dims: s.Expr | s.RowDims) -> tuple[s.Expr | s.RowDims, ...]:
        return dims

    def row_dims(self, span: Span, name: Token) -> s.RowDims:
        return s.RowDims(self.named_by(name), span=span)

    # Statements

    def body(self, span: Span, *statements: s.Statement) -> tuple[s.Statement, ...]:
        return statements

    def param(self, span: Span, name: Token, type: s.Type, initial: s.Drawn | s.Filled) -> s.Param:
        return s.Param(self.named_by(name), type, initial, span=span)

    def shared_block(self, span: Span, name: Token, block: s.Expr) -> s.SharedBlock:
        return s.SharedBlock(self.named_by(name), block, span=span)

    def state(self, span: Span, name: Token, type: s.Type, initial: s.Drawn | s.Filled) -> s.State:
        return s.State(self.named_by(name), type, initial, span=span)

    def drawn(self, span: Span, initialiser: s.Expr) -> s.Drawn:
        return s.Drawn(initialiser, span=span)

    def filled(self, span: Span, value: s.Expr) -> s.Filled:
        return s.Filled(value, span=span)

    def update(self, span: Span, name: Token, value: s.Expr) -> s.Update:
        return s.Update(self.named_by(name), value, span=span)

    def assign(self, span: Span, targets: tuple[s.Name, ...], values: tuple[s.Expr, ...]) -> s.Assign:
        return s.Assign(targets, values, span=span)

    def return_(self, span: Span, values: tuple[s.Expr, ...]) -> s.Return:
        return s.Return(values, span=span)

    def yield_(self, span: Span, values: tuple[s.Expr, ...]) -> s.Yield:
        return s.Yield(values, span=span)

    def for_(self, span: Span, targets: tuple[s.Name, ...], source: s.Expr, body: tuple[s.Statement, ...]) -> s.For:
        return s.For(targets, source, body, span=span)

    def if_statement(
        self, span: Span, condition: s.Expr, body: tuple[s.Statement, ...], otherwise: s.If | tuple[s.Statement, ...] | None
    ) -> s.If:
        chained = (otherwise,) if isinstance(otherwise, s.If) else otherwise
        return s.If(condition, body, chained or (), span=span)

    def assert_(self, span: Span, condition: s.Expr, message: Token | None) -> s.Assert:
        return s.Assert(condition, self.text(message) if message else None, span=span)

    # Clauses

    def data(self, span: Span, inputs: tuple[s.Input, ...], source: s.Expr, options: tuple[s.Named, ...] | None) -> s.Data:
        return s.Data(inputs, source, options or (), span=span)

    def phase(self, span: Span, name: Token, options: tuple[s.Named, ...] | None, *body: s.Assign | s.Minimize | s.Metric) -> s.Phase:
        return s.Phase(self.named_by(name), options or (), body, span=span)

    def minimize(self, span: Span, loss: s.Expr, *groups: s.Group) -> s.Minimize:
        return s.Minimize(loss, groups, span=span)

    def group(self, span: Span, *parts: s.Path | s.Str | s.Expr | s.Named) -> s.Group:
        options = tuple(p for p in parts if isinstance(p, s.Named))
        *targets, optimizer = parts[: len(parts) - len(options)]
        return s.Group(tuple(targets), optimizer, options, span=span)  # type: ignore[arg-type]

    def metric(self, span: Span, name: Token, value: s.Expr) -> s.Metric:
        return s.Metric(self.named_by(name), value, span=span)

    def setting(self, span: Span, name: Token, value: s.Int | s.Number | s.Size | s.Str | s.Bool) -> s.Setting:
        return s.Setting(self.named_by(name), value, span=span)

    def load(self, span: Span, model: s.Path, source: Token, options: tuple[s.Named, ...] | None) -> s.Load:
        return s.Load(model, self.text(source), options or (), span=span)

    def save(self, span: Span, model: s.Path | None, target: Token, options: tuple[s.Named, ...] | None) -> s.Save:
        return s.Save(model, self.text(target), options or (), span=span)

    def freeze(self, span: Span, *patterns: s.Str) -> s.Freeze:
        return s.Freeze(patterns, span=span)

    def path(self, span: Span, *parts: Token) -> s.Path:
        return s.Path(tuple(map(self.named_by, parts)), span=span)

    def names(self, span: Span, *names: Token) -> tuple[s.Name, ...]:
        return tuple(map(self.named_by, names))

    def exprs(self, span: Span, *values: s.Expr) -> tuple[s.Expr, ...]:
        return values

    def named_args(self, span: Span, *values: s.Named) -> tuple[s.Named, ...]:
        return values

    def named(self, span: Span, name: Token, value: s.Expr) -> s.Named:
        return s.Named(self.named_by(name), value, span=span)

    # Expressions

    def string(self, span: Span, token: Token) -> s.Str:
        return self.text(token)

    def name(self, span: Span, token: Token) -> s.Name:
        return self.named_by(token)

    def integer(self, span: Span, token: Token) -> s.Int:
        return s.Int(int(token), str(token), span=span)

    def number(self, span: Span, token: Token) -> s.Number:
        return s.Number(float(token), str(token), span=span)

    def size(self, span: Span, token: Token) -> s.Size:
        return s.Size(int(token[:-3]) * _SIZES[token[-3:]], str(token), span=span)

    def true(self, span: Span) -> s.Bool:
        return s.Bool(True, span=span)

    def false(self, span: Span) -> s.Bool:
        return s.Bool(False, span=span)

    def if_expr(self, span: Span, condition: s.Expr, value: s.Expr, otherwise: s.Expr) -> s.IfExpr:
        return s.IfExpr(condition, value, otherwise, span=span)

    def pipe(self, span: Span, value: s.Expr, *stages: s.Stage) -> s.Pipe:
        return s.Pipe(value, stages, span=span)

    def stage(self, span: Span, callee: s.Expr, name: Token | None) -> s.Stage:
        return s.Stage(callee, self.named_by(name) if name else None, span=span)

    def name_as(self, span: Span, value: s.Expr, name: Token) -> s.NameAs:
        return s.NameAs(value, self.named_by(name), span=span)

    def binary(self, span: Span, left: s.Expr, op: Token, right: s.Expr) -> s.Binary:
        return s.Binary(str(op), left, right, span=span, op_span=self.at(op))

    def compare(self, span: Span, left: s.Expr, op: Token, right: s.Expr) -> s.Compare:
        return s.Compare(str(op), left, right, span=span, op_span=self.at(op))

    def unary(self, span: Span, op: Token, operand: s.Expr) -> s.Unary:
        return s.Unary(str(op), operand, span=span)

    def range(self, span: Span, start: s.Expr, stop: s.Expr) -> s.Range:
        return s.Range(start, stop, span=span)

    def apply(self, span: Span, callee: s.Expr, args: tuple[s.Expr, ...] | None) -> s.Apply:
        return s.Apply(callee, args or (), span=span)

    def brackets(self, span: Span, target: s.Expr, subscripts: tuple[s.Subscript, ...] | None) -> s.Brackets:
        return s.Brackets(target, subscripts or (), span=span)

    def member(self, span: Span, target: s.Expr, name: Token) -> s.Member:
        return s.Member(target, self.named_by(name), span=span)

    def tuple_(self, span: Span, *items: s.Expr) -> s.TupleExpr:
        return s.TupleExpr(items, span=span)

    def list_(self, span: Span, items: tuple[s.Expr, ...] | None) -> s.ListExpr:
        return s.ListExpr(items or (), span=span)

    def scan(
        self,
        span: Span,
        options: tuple[s.Named, ...] | None,
        targets: tuple[s.Name, ...],
        source: s.Expr,
        extent: s.Expr | None,
        carries: tuple[s.Named, ...] | None,
        body: tuple[s.Statement, ...],
    ) -> s.Scan:
        return s.Scan(options or (), targets, source, extent, carries or (), body, span=span)

    def args(self, span: Span, *values: s.Expr) -> tuple[s.Expr, ...]:
        return values

    def subscripts(self, span: Span, *values: s.Subscript) -> tuple[s.Subscript, ...]:
        return values

    def slice(self, span: Span, start: s.Expr | None, stop: s.Expr | None, step: s.Expr | None) -> s.Slice:
        return s.Slice(start, stop, step, span=span)

    def ellipsis(self, span: Span) -> s.Ellipsis:
        return s.Ellipsis(span=span)
