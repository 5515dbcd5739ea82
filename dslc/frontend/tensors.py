"""Tensor operations: numbers become tensors, element types meet by the language's rules, and refusals get their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dslc.diagnostics import Note, Span
from dslc.frontend.report import Refused
from dslc.frontend.scope import MAX_OPERATIONS, Context
from dslc.frontend.values import Origin, Poison, Results, Tensor, Value, describe, is_number
from dslc.ir.dims import DimExpr
from dslc.ir.graph import Op
from dslc.ir.operator import OPERATORS, TypeFailure
from dslc.ir.types import DType, TensorType

ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "@": "matmul", "**": "pow"}
COMPARISON = {"==": "eq", "!=": "ne", "<=": "le", ">=": "ge", "<": "lt", ">": "gt"}
LOGIC = {"and": "and", "or": "or"}


def emit(context: Context, kind: str, inputs: Sequence[Tensor], attrs: Mapping[str, object], span: Span, what: str | None = None) -> Value:
    """Appends one operation; a type failure becomes a diagnostic at `span` that tells where each operand came from."""
    builder = context.program.builder
    if len(builder.ops) >= MAX_OPERATIONS:
        raise context.reporter.error(
            "DL0312", f"the program has more than {MAX_OPERATIONS:,} operators", span, hint="a `for` is unrolled: make its range smaller"
        )
    builder.span = context.reporter.place(span)
    try:
        op = builder.emit(kind, [t.value for t in inputs], dict(attrs))
    except TypeFailure as failure:
        raise type_failure(context, failure, inputs, span) from None
    return results_of(context, op, span, what or f"the result of {kind}")


def results_of(context: Context, op: Op, span: Span, what: str) -> Value:
    for output in op.outputs:
        context.program.origins[output.id] = Origin(what, span)
    if len(op.outputs) == 1:
        return Tensor(op.outputs[0])
    return Results(tuple(Tensor(output) for output in op.outputs))


def type_failure(context: Context, failure: TypeFailure, inputs: Sequence[Tensor], span: Span) -> Refused:
    positions = failure.inputs or tuple(range(len(inputs)))
    notes = [note_of(context, inputs[p]) for p in dict.fromkeys(positions) if p < len(inputs)]
    code = "DL0210" if failure.axes else "DL0202" if "element type" in failure.message else "DL0201"
    return context.reporter.error(code, failure.message, span, notes=notes, hint=failure.hint)


def note_of(context: Context, tensor: Tensor) -> Note:
    """Where a tensor and its sizes came from."""
    origin = context.program.origins.get(tensor.value.id)
    if origin is None:
        return Note(f"one side is {tensor.type}")
    sizes = f", where {'; '.join(origin.sizes)}" if origin.sizes else ""
    span = context.reporter.place(origin.span) if origin.span is not None else None
    return Note(f"{origin.what} is {tensor.type}{sizes}", span)


def name_origin(context: Context, tensor: Tensor, origin: Origin) -> None:
    context.program.origins[tensor.value.id] = origin


def number(context: Context, value: Value, dtype: DType, span: Span) -> Tensor:
    """A static number as a 0-d tensor of `dtype`."""
    if isinstance(value, bool):
        if dtype != DType.BOOL:
            raise context.reporter.error("DL0203", f"{describe(value)} is no {dtype.value} number", span, hint="write 1 or 0")
        return Tensor(context.program.builder.scalar(value, dtype))
    if not is_number(value):
        raise context.reporter.error("DL0305", f"a tensor is needed here, not {describe(value)}", span)
    if dtype == DType.BOOL:
        raise context.reporter.error("DL0203", f"{describe(value)} is no bool", span, hint="write true or false, or a comparison")
    if isinstance(value, DimExpr):
        result = emit(context, "extent", (), {"size": value, "dtype": dtype}, span, f"the size {value}")
        assert isinstance(result, Tensor)
        return result
    assert isinstance(value, int | float)
    if dtype.integer:
        if isinstance(value, float) and not value.is_integer():
            raise context.reporter.error(
                "DL0203", f"{value:g} is no {dtype.value} number", span, hint="convert the tensor with cast[f32](...)"
            )
        info = {DType.U8: (0, 255), DType.I32: (-(2**31), 2**31 - 1), DType.I64: (-(2**63), 2**63 - 1)}[dtype]
        if not info[0] <= value <= info[1]:
            raise context.reporter.error("DL0203", f"{value} does not fit {dtype.value}", span)
        value = int(value)
    else:
        value = float(value)
    context.program.builder.span = context.reporter.place(span)
    return Tensor(context.program.builder.scalar(value, dtype))


def cast(context: Context, tensor: Tensor, dtype: DType, span: Span) -> Tensor:
    """`tensor` converted where it has another element type; keeps its origin."""
    if tensor.type.dtype == dtype:
        return tensor
    origin = context.program.origins.get(tensor.value.id)
    result = emit(context, "cast", (tensor,), {"dtype": dtype}, span)
    assert isinstance(result, Tensor)
    if origin is not None:
        name_origin(context, result, origin)
    return result


def meet(context: Context, values: Sequence[Value], spans: Sequence[Span], span: Span, what: str, elementwise: bool) -> list[Tensor]:
    """Operands as tensors: numbers take the type of the tensors they meet, floats widen, a scalar integer meeting a float converts."""
    for value, place in zip(values, spans, strict=True):
        if not (isinstance(value, Tensor | bool) or is_number(value)):
            raise context.reporter.error("DL0305", f"{what} needs tensors, not {describe(value)}", place)
    tensors = [v for v in values if isinstance(v, Tensor)]
    floats = [t.type.dtype for t in tensors if t.type.dtype.floating]
    widest = (DType.F64 if DType.F64 in floats else DType.F32) if floats else None
    if widest is None:
        integers = [t.type.dtype for t in tensors if t.type.dtype.integer]
        if integers:
            literal = integers[0]
        elif any(isinstance(v, float) for v in values) or any(isinstance(v, DimExpr) for v in values):
            literal = context.floating
        else:
            literal = DType.I64
    else:
        literal = widest
    result = []
    for value, place in zip(values, spans, strict=True):
        if isinstance(value, Tensor):
            dtype = value.type.dtype
            scalar_integer = elementwise and dtype.integer and value.type.rank == 0
            result.append(cast(context, value, widest, place) if widest is not None and (dtype.floating or scalar_integer) else value)
        else:
            result.append(number(context, value, DType.BOOL if isinstance(value, bool) else literal, place))
    return result


def binary(context: Context, op: str, left: Value, right: Value, spans: tuple[Span, Span], span: Span) -> Value:
    """`left op right` where at least one side is a tensor."""
    if isinstance(left, Poison) or isinstance(right, Poison):
        return left if isinstance(left, Poison) else right
    kind = ARITHMETIC.get(op) or COMPARISON.get(op) or LOGIC[op]
    a, b = meet(context, (left, right), spans, span, f"`{op}`", op != "@")
    if op == "**" and right == 2:
        kind, b = "mul", a
    x, y = a.type.dtype, b.type.dtype
    if x != y:
        hint = f"convert one side with cast[{(x if x.floating else y).value}](...)"
        raise context.reporter.error(
            "DL0202",
            f"`{op}` of {a.type} and {b.type}: their element types differ",
            span,
            notes=[note_of(context, a), note_of(context, b)],
            hint=hint,
        )
    return emit(context, kind, (a, b), {}, span, f"the result of `{op}`")


def coerce(context: Context, value: Value, declared: TensorType, what: str, span: Span) -> Tensor:
    """An argument, result or state as its declared type has it: floats convert; shapes are compared by the caller."""
    if not isinstance(value, Tensor):
        if isinstance(value, bool) or is_number(value):
            return number(context, value, declared.dtype, span)
        raise context.reporter.error("DL0305", f"{what} is a tensor {declared}, not {describe(value)}", span)
    actual = value.type.dtype
    if actual == declared.dtype:
        return value
    if (actual.floating or (actual.integer and value.type.rank == 0)) and declared.dtype.floating:
        return cast(context, value, declared.dtype, span)
    raise context.reporter.error(
        "DL0202",
        f"{what} is declared {declared.dtype.value}, and this is {value.type}",
        span,
        notes=[note_of(context, value)],
        hint=f"convert it with cast[{declared.dtype.value}](...)",
    )


def known_operators() -> list[str]:
    return [name for name, operator in OPERATORS.items() if not operator.internal]
