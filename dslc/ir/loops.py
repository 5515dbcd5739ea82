"""Scalar expressions and loop programs: what a cluster of operators computes, element by element.

An operator's `body` builds an `Expr` for one output element from `Reader`s of its inputs. Indices are `Dim`s over the names
of loop variables (and the batch), so that affine algebra, `//` and `%` are those of shapes. Lowering turns Reads into
Loads at addresses; the emitters print the same loop program for every target.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dslc.ir.dims import Dim, DimExpr, name
from dslc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from dslc.ir.graph import Op, Value

UNARY = frozenset(
    [
        *("neg", "abs", "sqrt", "rsqrt", "floor", "ceil", "trunc", "round", "not", "isnan", "exp", "exp2", "expm1", "log", "log2", "log10"),
        *("log1p", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid", "erf", "sin", "cos", "tan", "asin", "acos", "atan"),
    ]
)
ARITHMETIC = frozenset(["add", "sub", "mul", "div", "floordiv", "mod", "max", "min", "pow", "atan2", "fmod", "and", "or"])
SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|"}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
"""How operations between operands are written in kernels, which are Python."""
COMPARE = frozenset(COMPARISONS)
REDUCTIONS = frozenset(["add", "mul", "max", "min", "argmax", "argmin"])


class Expr:
    """A scalar expression; every subclass has a `dtype`."""

    __slots__ = ()
    dtype: DType


@dataclass(frozen=True, slots=True)
class Const(Expr):
    value: float | int | bool
    dtype: DType


@dataclass(frozen=True, slots=True)
class Read(Expr):
    """An element of a graph value, by logical index. `source` is the value's id."""

    source: int
    index: tuple[Dim, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class IndexValue(Expr):
    """An index expression as a number."""

    index: Dim
    dtype: DType = DType.I64


@dataclass(frozen=True, slots=True)
class Unary(Expr):
    op: str
    x: Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Binary(Expr):
    """Arithmetic (`dtype` of the operands) or a comparison (`bool`).

    `max` and `min` are NaN where an operand is. `floordiv` and `mod` are for integers: rounded to minus infinity, 0 where y is 0.
    """

    op: str
    x: Expr
    y: Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Select(Expr):
    """Only the side that is chosen is read: an index of the other side may lie outside its tensor."""

    condition: Expr
    x: Expr
    y: Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Cast(Expr):
    """NumPy's conversion; float to integer truncates and saturates, NaN gives 0."""

    x: Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Gathered(Expr):
    """An element of a graph value where one index is itself data: `index[axis]` is replaced by `at`, clamped to the axis."""

    source: int
    index: tuple[Dim, ...]
    axis: int
    at: Expr
    extent: Dim
    dtype: DType


@dataclass(frozen=True, slots=True)
class Random(Expr):
    """A uniform number in [0, 1) of the draw `stream`: Philox keyed by seed, counter and the element's linear index."""

    seed: Expr
    counter: Expr
    stream: int
    index: Dim
    dtype: DType


@dataclass(frozen=True, slots=True)
class Reduce(Expr):
    """`op` over variables; `argmax` and `argmin` give the first linear index over `variables` as i64 (NaN wins).

    After scheduling, `vector` says that the last variable runs over the 16 canonical lanes.
    """

    op: str
    variables: tuple[tuple[str, Dim], ...]
    body: Expr
    dtype: DType
    vector: bool = False


@dataclass(frozen=True, slots=True)
class Acc(Expr):
    """The finished sum of a contraction, inside its epilogue."""

    dtype: DType


@dataclass(frozen=True, slots=True)
class Carry(Expr):
    """What the recurrence around it carries under this name, as the step before left it."""

    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Load(Expr):
    """After layout: element `address` of buffer argument `buffer`."""

    buffer: int
    address: Dim
    dtype: DType


@dataclass(frozen=True, slots=True)
class ClampedLoad(Expr):
    """After layout: element `address + sum of clamp(index, 0, extent - 1) * stride` of a buffer.

    Stands for a read whose index may leave its axis where a Select discards it: the load itself must stay inside the buffer.
    """

    buffer: int
    address: Dim
    clamped: tuple[tuple[Dim, Dim, Dim], ...]  # (index, extent, stride)
    dtype: DType


@dataclass(frozen=True, slots=True)
class LoadAt(Expr):
    """After layout: element `address + at * stride` of buffer argument `buffer`, where `at` is data."""

    buffer: int
    address: Dim
    at: Expr
    stride: Dim
    dtype: DType


class Reader:
    """What a body sees of an input: `x[i, j]` is the element, `x.type` its type, `x.at` reads with one index from data."""

    def __init__(self, type: TensorType, read: Callable[[tuple[Dim, ...]], Expr], source: int = -1):
        self.type, self._read, self.source = type, read, source

    def __getitem__(self, index: tuple[Dim, ...] | Dim) -> Expr:
        return self._read(index if isinstance(index, tuple) else (index,))

    def at(self, index: tuple[Dim, ...], axis: int, at: Expr) -> Expr:
        """The element whose index along `axis` is the value of `at` (clamped to the axis)."""
        return Gathered(self.source, index, axis, at, self.type.shape[axis], self.type.dtype)


def readers_of(op: Op, read: Callable[[Value, tuple[Dim, ...]], Expr]) -> tuple[Reader, ...]:
    """What the body of an operator sees of its inputs; `read` gives their elements."""
    return tuple(Reader(v.type, partial(read, v), v.id) for v in op.inputs)


def element(value: Value, index: tuple[Dim, ...]) -> Read:
    """An element of a value as it is."""
    return Read(value.id, index, value.type.dtype)


_counter = 0


def variable(prefix: str = "r") -> str:
    """A fresh loop variable's name; names are renumbered when a kernel is printed."""
    global _counter
    _counter += 1
    return f"{prefix}_{_counter}"


def var(text: str) -> DimExpr:
    return name(text)


def const(value: float | int | bool, dtype: DType) -> Const:
    return Const(value, dtype)


def unary(op: str, x: Expr) -> Expr:
    assert op in UNARY, op
    return Unary(op, x, DType.BOOL if op in ("not", "isnan") else x.dtype)


def binary(op: str, x: Expr, y: Expr) -> Expr:
    assert x.dtype == y.dtype, (op, x.dtype, y.dtype)
    assert op in ARITHMETIC or op in COMPARE, op
    return Binary(op, x, y, DType.BOOL if op in COMPARE else x.dtype)


def select(condition: Expr, x: Expr, y: Expr) -> Expr:
    assert condition.dtype == DType.BOOL and x.dtype == y.dtype
    return Select(condition, x, y, x.dtype)


def cast(x: Expr, dtype: DType) -> Expr:
    return x if x.dtype == dtype else Cast(x, dtype)


def reduce(op: str, extents: tuple[Dim, ...], body: Callable[..., Expr]) -> Expr:
    """`reduce("add", (K,), lambda k: x[i, k])`; the callback gets one index variable an extent."""
    assert op in REDUCTIONS, op
    names = tuple(variable() for _ in extents)
    inner = body(*(var(n) for n in names))
    return Reduce(op, tuple(zip(names, extents, strict=True)), inner, DType.I64 if op.startswith("arg") else inner.dtype)


@dataclass(frozen=True, slots=True)
class ContractionMap:
    """A sum of products `out[...] = sum a[...] * b[...]` as index maps over named axes.

    Every index is affine in the axes' names. An operand's index may leave its extent (a convolution's padding): there it
    reads 0, which lowering provides by a halo around the buffer.
    """

    axes: tuple[tuple[str, Dim], ...]
    out: tuple[Dim, ...]
    a: tuple[Dim, ...]
    b: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Carried:
    """A number that a recurrence hands from step to step: what it starts as, and what a step makes of it."""

    name: str
    initial: Expr
    next: Expr

    @property
    def before(self) -> Carry:
        """It, as a step finds it."""
        return Carry(self.name, self.initial.dtype)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """An element by what was carried along `axis`: the steps go through its indices in order, from the last one where `reverse`.

    `value` is the element at a step, before the step moves what is carried. `initial` does not depend on the index along the axis.
    """

    axis: int
    reverse: bool
    carries: tuple[Carried, ...]
    value: Expr

    @property
    def expressions(self) -> tuple[Expr, ...]:
        return (self.value, *(e for c in self.carries for e in (c.initial, c.next)))


# ---- loop programs ------------------------------------------------------------------------------------------------


class Stmt:
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Store(Stmt):
    buffer: int
    address: Dim
    value: Expr


@dataclass(frozen=True, slots=True)
class For(Stmt):
    """A loop. Kinds: `parallel` (split over the threads), `serial`, `vector` (W lanes at a time, the tail partial) and
    `parallel vector` (split over the threads at multiples of 16, then W lanes at a time)."""

    variable: str
    extent: Dim
    kind: str
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Scan(Stmt):
    """A loop whose steps depend on each other through what they carry; one after the other, in every lane of a vector loop around it.

    A step finds the values of `next` before it stores anything, so that a store may write over what the step reads.
    """

    variable: str
    extent: Dim
    carries: tuple[Carried, ...]
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class LoopProgram:
    """One kernel: loop nests over buffer arguments of the given element types, run in order.

    A program whose nests depend on each other across iterations of the parallel loop is `serial`: one thread runs it.
    """

    buffers: tuple[DType, ...]
    body: tuple[Stmt, ...]
    serial: bool
