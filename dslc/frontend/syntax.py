"""The syntax tree of a `.dl` file: one small frozen class for each item, statement, clause and expression of `dl.lark`.

Nothing here is resolved or checked. Every node carries its `span`; equality and hashing ignore spans (and how a number was
spelled), so two trees are equal when they say the same. A table keyed by *place* must therefore key by span or identity.
Names are `Name` nodes wherever the source has one, so that a message can point at it. The file is long because the grammar
has sixty kinds of node; it holds nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import TypeAlias

from dslc.diagnostics import Span


@dataclass(frozen=True, slots=True)
class Node:
    """The base of all nodes."""

    span: Span = field(kw_only=True, compare=False, repr=False)


# Expressions


@dataclass(frozen=True, slots=True)
class Name(Node):
    """An identifier, as a reference or where it is declared."""

    text: str


@dataclass(frozen=True, slots=True)
class Int(Node):
    """`20_000`."""

    value: int
    text: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Number(Node):
    """`1e-5`, `0.5`: a literal with a fraction or an exponent; takes its type from context."""

    value: float
    text: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Size(Node):
    """`2GiB`; `value` is in bytes. Only settings have it."""

    value: int
    text: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Str(Node):
    """A string; there are no escapes."""

    value: str


@dataclass(frozen=True, slots=True)
class Bool(Node):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`op` is `-` or `not`."""

    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`op` is one of `+ - * / // % @ ** and or`."""

    op: str
    left: Expr
    right: Expr
    op_span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """`op` is one of `== != <= >= < >`; comparisons do not chain."""

    op: str
    left: Expr
    right: Expr
    op_span: Span = field(kw_only=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Range(Node):
    """`start..stop`, the stop excluded."""

    start: Expr
    stop: Expr


@dataclass(frozen=True, slots=True)
class Apply(Node):
    """`callee(args)`: tensors, or the arguments of a list function."""

    callee: Expr
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Named(Node):
    """`name = value` in brackets and option lists."""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Slice(Node):
    """`start:stop:step`, each part optional."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@dataclass(frozen=True, slots=True)
class Ellipsis(Node):
    """`...` in an index."""


@dataclass(frozen=True, slots=True)
class Brackets(Node):
    """`target[subscripts]`: static arguments, an index or a type's dimensions, by the kind of `target`."""

    target: Expr
    subscripts: tuple[Subscript, ...]


@dataclass(frozen=True, slots=True)
class Member(Node):
    """`target.name`."""

    target: Expr
    name: Name


@dataclass(frozen=True, slots=True)
class NameAs(Node):
    """`value as name`: names the parameters that `value` makes."""

    value: Expr
    name: Name


@dataclass(frozen=True, slots=True)
class Stage(Node):
    """One `|> callee as name` of a pipe. The value goes in as the first tensor: `x |> f[a](b)` is `f[a](x, b)`."""

    callee: Expr
    name: Name | None


@dataclass(frozen=True, slots=True)
class Pipe(Node):
    """`value |> stage |> stage`, flat: a long pipe is not a deep tree."""

    value: Expr
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class IfExpr(Node):
    """`if condition then value else otherwise`; the condition is static."""

    condition: Expr
    value: Expr
    otherwise: Expr


@dataclass(frozen=True, slots=True)
class ListExpr(Node):
    """`[a, b]`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class TupleExpr(Node):
    """`(a, b)`, at least two items."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Scan(Node):
    """`scan[options] targets in source over extent carry name = init { body }`."""

    options: tuple[Named, ...]
    targets: tuple[Name, ...]
    source: Expr
    extent: Expr | None
    carries: tuple[Named, ...]
    body: tuple[Statement, ...]


# Types and signatures


@dataclass(frozen=True, slots=True)
class RowDims(Node):
    """`*L` in a type: any number of dimensions."""

    name: Name


@dataclass(frozen=True, slots=True)
class Type(Node):
    """`f32[N, 3, H / 2]`, `i64[]`, `i64`; without brackets `dims` is empty: a scalar."""

    dtype: Name
    dims: tuple[Expr | RowDims, ...]


@dataclass(frozen=True, slots=True)
class TupleType(Node):
    """`(f32[N], f32[N])` as a result."""

    types: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Input(Node):
    """`name: type`, a tensor argument, a named result or a column of a data set."""

    name: Name
    type: Type


@dataclass(frozen=True, slots=True)
class NamedResults(Node):
    """`(out: f32[N], h: f32[N])` as a result."""

    results: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class StaticParam(Node):
    """`name: kind = default` in the brackets of a signature."""

    name: Name
    kind: Name | None
    default: Expr | None


@dataclass(frozen=True, slots=True)
class Signature(Node):
    """`Name[static](inputs) -> result given facts`."""

    name: Name
    static: tuple[StaticParam, ...]
    inputs: tuple[Input, ...]
    result: Type | TupleType | NamedResults
    given: tuple[Expr, ...]


# Statements


@dataclass(frozen=True, slots=True)
class Drawn(Node):
    """`~ initialiser`."""

    initialiser: Expr


@dataclass(frozen=True, slots=True)
class Filled(Node):
    """`= value`."""

    value: Expr


@dataclass(frozen=True, slots=True)
class Param(Node):
    """`param name: type ~ init` or `= value`."""

    name: Name
    type: Type
    initial: Drawn | Filled


@dataclass(frozen=True, slots=True)
class SharedBlock(Node):
    """`param cell = GRUCell[H]`: a block made once."""

    name: Name
    block: Expr


@dataclass(frozen=True, slots=True)
class State(Node):
    """`state name: type = value` or `~ init`."""

    name: Name
    type: Type
    initial: Drawn | Filled


@dataclass(frozen=True, slots=True)
class Update(Node):
    """`update state = value`."""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """`a, b = e` or `a, b = e, f`."""

    targets: tuple[Name, ...]
    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Return(Node):
    """`return a, b`."""

    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Yield(Node):
    """`yield a, b`, in a scan."""

    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class For(Node):
    """`for targets in source { }`, unrolled."""

    targets: tuple[Name, ...]
    source: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class If(Node):
    """`if condition { } else { }`, static; `else if` is an `If` as the only statement of `otherwise`."""

    condition: Expr
    body: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Assert(Node):
    """`assert fact, "why"`."""

    condition: Expr
    message: Str | None


# Clauses of a recipe


@dataclass(frozen=True, slots=True)
class Path(Node):
    """`vision.ResNet18`, a dotted name."""

    parts: tuple[Name, ...]

    @property
    def text(self) -> str:
        """The parts joined with dots."""
        return ".".join(part.text for part in self.parts)


@dataclass(frozen=True, slots=True)
class Data(Node):
    """`data image: f32[N, 784], label: i64[N] from "digits" with augment = [...]`."""

    inputs: tuple[Input, ...]
    source: Expr
    options: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Group(Node):
    """`over targets with optimizer, options`; a target is a model's path or a pattern of parameter paths."""

    targets: tuple[Path | Str, ...]
    optimizer: Expr
    options: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Minimize(Node):
    """`minimize loss over ... with ...`."""

    loss: Expr
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Metric(Node):
    """`metric name = value`."""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Phase(Node):
    """`phase name[repeat = 5] { }`."""

    name: Name
    options: tuple[Named, ...]
    body: tuple[Assign | Minimize | Metric, ...]


@dataclass(frozen=True, slots=True)
class Setting(Node):
    """`epochs 5`, `budget 2GiB`."""

    name: Name
    value: Int | Number | Size | Str | Bool


@dataclass(frozen=True, slots=True)
class Load(Node):
    """`load Model from "file" with options`."""

    model: Path
    source: Str
    options: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Save(Node):
    """`save "file" with options`, `save Model as "file"`."""

    model: Path | None
    target: Str
    options: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Freeze(Node):
    """`freeze "pattern", "pattern"`."""

    patterns: tuple[Str, ...]


# Items


@dataclass(frozen=True, slots=True)
class Import(Node):
    """`import "std/vision.dl" as vision`."""

    path: Str
    name: Name | None


@dataclass(frozen=True, slots=True)
class Dim(Node):
    """One name of a `dim` item: `N <= bound`, `T = size`, or neither."""

    name: Name
    bound: Expr | None
    size: Expr | None


@dataclass(frozen=True, slots=True)
class Dims(Node):
    """`dim N <= 256, T = 128`."""

    dims: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Const(Node):
    """`const K = 1000`, `const abar: f32[1000] = cumprod(...)`."""

    name: Name
    type: Type | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Precision(Node):
    """`precision bf16, norm = f32`."""

    dtype: Name
    families: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Block(Node):
    """`block Name[static](inputs) -> result given facts { body }`."""

    signature: Signature
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Model(Node):
    """`model Name(inputs) -> result { body }`; the elaborator refuses static parameters here."""

    signature: Signature
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Instance(Node):
    """`model Name = Block[static]`."""

    name: Name
    block: Expr


@dataclass(frozen=True, slots=True)
class Optimizer(Node):
    """`optimizer Name[static](p, g, step) -> type { body }`."""

    signature: Signature
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Train(Node):
    """`train name { clauses }`, in the order of the source."""

    name: Name
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Export(Node):
    """`export Model as "file.dlc" with N = 1`."""

    model: Path
    target: Str
    options: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class File(Node):
    """A whole file. Items that have a syntax error are left out; their names stand in `broken`, so that uses of them are not errors too."""

    items: tuple[Item, ...]
    broken: frozenset[str] = frozenset()


Expr: TypeAlias = (
    Name
    | Int
    | Number
    | Size
    | Str
    | Bool
    | Unary
    | Binary
    | Compare
    | Range
    | Apply
    | Brackets
    | Member
    | NameAs
    | Pipe
    | IfExpr
    | ListExpr
    | TupleExpr
    | Scan
)
Subscript: TypeAlias = Expr | Named | Slice | Ellipsis
Statement: TypeAlias = Param | SharedBlock | State | Update | Assign | Return | Yield | For | If | Assert
Clause: TypeAlias = Data | Assign | Phase | Minimize | Metric | Setting | Load | Save | Freeze
Item: TypeAlias = Import | Dims | Const | Precision | Block | Model | Instance | Optimizer | Train | Export


def children(node: Node) -> Iterator[Node]:
    """The direct subnodes, in source order."""
    for f in fields(node):
        value = getattr(node, f.name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from (v for v in value if isinstance(v, Node))


def walk(node: Node) -> Iterator[Node]:
    """`node` and everything below it, parents first, in source order; does not recurse."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(list(children(top))))
