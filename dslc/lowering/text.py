"""Loop programs and contractions as text, for `dslc show --stage loops`: read by people, not read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from dslc.ir.dims import DimExpr
from dslc.ir.loops import (
    COMPARISONS,
    SIGNS,
    Acc,
    Binary,
    Carry,
    Cast,
    Const,
    Expr,
    For,
    IndexValue,
    Load,
    LoadAt,
    LoopProgram,
    Reduce,
    Scan,
    Select,
    Stmt,
    Store,
    Unary,
)
from dslc.ir.routines import Routine
from dslc.lowering.contraction import Axis, Contraction

_SIGNS = SIGNS | COMPARISONS | {"floordiv": "//", "mod": "%", "and": "and", "or": "or"}


def loops_text(program: LoopProgram | Contraction | Routine) -> str:
    """One kernel's definition: loops with their kinds, the axes of a contraction with the operands' strides, or a routine's name and sizes."""
    if isinstance(program, Routine):
        return "\n".join(_routine(program)) + "\n"
    return "\n".join(_contraction(program) if isinstance(program, Contraction) else _loops(program)) + "\n"


def _loops(program: LoopProgram) -> Iterator[str]:
    buffers = ", ".join(f"b{n}: {dtype.value}" for n, dtype in enumerate(program.buffers))
    yield f"loops({buffers}){' serial' if program.serial else ''} {{"
    for statement in program.body:
        yield from _statement(statement, "  ")
    yield "}"


def _routine(r: Routine) -> Iterator[str]:
    buffers = ", ".join(f"b{n}: {dtype.value}" for n, dtype in enumerate(r.buffers))
    yield f"routine {r.name}({buffers}){' serial' if r.serial else ''} {{"
    for name, value in (*r.sizes, *r.settings):
        yield f"  {name} = {value}"
    yield "}"


def _statement(statement: Stmt, indent: str) -> Iterator[str]:
    if isinstance(statement, For):
        yield f"{indent}for {statement.variable} in 0..{statement.extent} {statement.kind} {{"
        for inner in statement.body:
            yield from _statement(inner, indent + "  ")
        yield f"{indent}}}"
    elif isinstance(statement, Store):
        yield f"{indent}b{statement.buffer}[{statement.address}] = {expression(statement.value)}"
    elif isinstance(statement, Scan):
        for c in statement.carries:
            yield f"{indent}{c.name} = {expression(c.initial)}"
        yield f"{indent}for {statement.variable} in 0..{statement.extent} in order {{"
        for inner in statement.body:
            yield from _statement(inner, indent + "  ")
        for c in statement.carries:
            yield f"{indent}  {c.name} = {expression(c.next)}"
        yield f"{indent}}}"
    else:
        yield f"{indent}{type(statement).__name__.lower()}"


def _contraction(c: Contraction) -> Iterator[str]:
    buffers = ", ".join(f"{_buffer(n)}: {dtype.value}" for n, dtype in c.buffers)
    yield f"contraction({buffers}) {{"
    for axis in c.axes:
        size = (
            f"{axis.per_batch if axis.per_batch != 1 else ''}{' * ' if axis.per_batch != 1 else ''}batch"
            if axis.extent is None
            else axis.extent
        )
        where = ", ".join(_strides(axis))
        yield f"  {'sum over' if axis.reduction else 'for'} {axis.name} in 0..{size}   # strides {where}"
    starts = [f"{name} starts at {start}" for name, start in (("a", c.a0), ("b", c.b0), ("c", c.c0)) if start]
    if starts:
        yield f"  # {', '.join(starts)}"
    yield f"  acc {'starts from c; ' if c.accumulate else ''}+= a * b"
    yield f"  c = {expression(c.epilogue)}"
    yield "}"


def _strides(axis: Axis) -> Iterator[str]:
    for name, stride in (("a", axis.a), ("b", axis.b), ("c", axis.c)):
        if stride:
            yield f"{name} {stride}"


def _buffer(number: int) -> str:
    return "abc"[number] if number < 3 else f"b{number}"


def expression(e: Expr) -> str:
    """An expression on one line."""
    match e:
        case Const():
            return repr(e.value)
        case Acc():
            return "acc"
        case Carry():
            return e.name
        case Load():
            return f"b{e.buffer}[{e.address}]"
        case LoadAt():
            return f"b{e.buffer}[{e.address} + {expression(e.at)} * {e.stride}]"
        case IndexValue():
            return f"index({e.index})"
        case Unary():
            return f"{e.op}({expression(e.x)})"
        case Binary() if e.op in _SIGNS:
            return f"({expression(e.x)} {_SIGNS[e.op]} {expression(e.y)})"
        case Binary():
            return f"{e.op}({expression(e.x)}, {expression(e.y)})"
        case Select():
            return f"({expression(e.x)} if {expression(e.condition)} else {expression(e.y)})"
        case Cast():
            return f"{e.dtype.value}({expression(e.x)})"
        case Reduce():
            ranges = ", ".join(f"{name} in 0..{extent}" for name, extent in e.variables)
            return f"{e.op}[{ranges}{'; vector' if e.vector else ''}]({expression(e.body)})"
        case _:
            return f"{type(e).__name__.lower()}({', '.join(_parts(e))})"


def _parts(e: Expr) -> Iterator[str]:
    assert is_dataclass(e)
    for field in fields(e):
        value = getattr(e, field.name)
        if isinstance(value, Expr):
            yield expression(value)
        elif isinstance(value, int | DimExpr) and not isinstance(value, bool):
            yield f"{field.name} = {value}"
